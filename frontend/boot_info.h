// What multiboot and PVH have in common: modules behind the kernel, and structures that describe the machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "frontend/boot_format.h"
#include "frontend/boot_memory.h"

namespace penumbra {

struct PlacedModule {
  uint64_t start, size;
};

// Reads a module and places it, page-aligned, below 4 GiB and behind what was placed so far if it fits there.
PlacedModule place_module(BootMemory& memory, const std::string& path, const PhysicalMap& map);

// Places bytes below 1 MiB if there is room (many kernels map only that at first), else anywhere below 4 GiB.
uint32_t place_info(BootMemory& memory, const KernelFiles& files, std::vector<std::byte> bytes);

}  // namespace penumbra
