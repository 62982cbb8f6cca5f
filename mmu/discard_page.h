// Memory that the guest gives back.
#pragma once

#include "mmu/physical_map.h"

namespace penumbra {

// Gives a page of RAM that may be written back to the host; it reads as zeros from then on. Nothing happens
// to pages that are something else.
void discard_page(PhysicalMap& map, PhysAddr address);

}  // namespace penumbra
