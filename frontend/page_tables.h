// All that the guest's page tables map, for a person to read.
#pragma once

#include <string>

#include "core/vcpu.h"

namespace penumbra {

// One line a page (of any size): linear address, physical address, flags. QEMU's "info tlb".
std::string mapping_list(const Vcpu& vcpu, PhysicalMap& map);
// One line a range with the same rights. QEMU's "info mem".
std::string mapped_ranges(const Vcpu& vcpu, PhysicalMap& map);

}  // namespace penumbra
