// What the board tells operating systems without ACPI of its processor and interrupt controllers: Intel
// MultiProcessor Specification 1.4 (242016). Where firmware runs, it makes its own.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace penumbra {

// A function's interrupt pin, and the I/O APIC's input that it reaches.
struct MpPciInterrupt {
  uint8_t device = 0, pin = 0;  // 0: INTA#
  uint8_t input = 0;
};

// The floating pointer and, behind it, the configuration table; `address` is theirs, a multiple of 16.
std::vector<uint8_t> make_mp_tables(uint32_t address, std::span<const MpPciInterrupt> pci);

}  // namespace penumbra
