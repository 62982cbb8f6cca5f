// roms/linuxboot.asm, assembled when the program is built.
#pragma once

#include <cstdint>
#include <span>

namespace penumbra {

// Its bytes add up to 0, as an option ROM's must.
std::span<const uint8_t> linuxboot_rom();

}  // namespace penumbra
