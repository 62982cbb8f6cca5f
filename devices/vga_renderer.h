// What a monitor shows of a VGA's registers and memory, as an image. No state: the same registers and memory
// make the same image, and nothing happens to them.
//
// IBM Personal System/2 Hardware Interface Technical Reference, "Video Subsystem". The memory address counter
// counts cells of four bytes, one a plane, however CPU accesses are spread over them (chain 4, odd/even); so
// byte, word and doubleword addressing of the CRTC make no difference, but for which counter bit a row scan
// bit replaces. Not modelled: overscan, retrace and skew positions, blinking in graphics modes, the CRTC's
// doubled vertical counter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/vga_registers.h"

namespace penumbra {

struct VgaImage {
  unsigned width = 0, height = 0;
  std::vector<uint32_t> pixels;  // 00RRGGBB, lines from the top
  bool operator==(const VgaImage&) const = default;
};

// Which half of their periods the blinking things are in.
struct VgaBlink {
  bool cursor = true, text = true;  // shown
};

// `memory`: a multiple of 64 KiB, at least 256 KiB.
void render_vga(const VgaRegisters& registers, std::span<const std::byte> memory, VgaBlink blink,
                VgaImage& image);

// Whether the image depends on the time: a text cursor, blinking characters.
bool vga_blinks(const VgaRegisters& registers);

// The text mode screen as code page 437 bytes, a line each; empty in graphics modes.
std::vector<std::vector<uint8_t>> vga_text(const VgaRegisters& registers, std::span<const std::byte> memory);

}  // namespace penumbra
