#include "frontend/linuxboot_rom.h"

#include <algorithm>
#include <numeric>
#include <vector>

// LINUXBOOT_ROM is the path of the assembled file.
asm(R"(
    .section .rodata
    .balign 16
    penumbra_linuxboot_rom: .incbin ")" LINUXBOOT_ROM R"("
    penumbra_linuxboot_rom_end:
    .previous
)");

extern "C" {
extern const uint8_t penumbra_linuxboot_rom[], penumbra_linuxboot_rom_end[];
}

namespace penumbra {

std::span<const uint8_t> linuxboot_rom() {
  static const std::vector<uint8_t> rom = [] {
    std::vector<uint8_t> bytes(penumbra_linuxboot_rom, penumbra_linuxboot_rom_end);
    bytes.back() = static_cast<uint8_t>(bytes.back() - std::accumulate(bytes.begin(), bytes.end(), 0u));
    return bytes;
  }();
  return rom;
}

}  // namespace penumbra
