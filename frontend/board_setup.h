// What a kernel that is started without firmware finds done: PCI resources, interrupt routing, power
// management, ACPI and MP tables in memory.
#pragma once

#include <cstdint>

#include "devices/pc_board.h"
#include "mmu/physical_map.h"

namespace penumbra {

// Where the root pointer is, in the memory that every memory map calls the firmware's.
inline constexpr uint64_t kAcpiRootPointer = 0xf'0000;

// After a reset of the board.
void set_up_board(PcBoard& board, PhysicalMap& map);

}  // namespace penumbra
