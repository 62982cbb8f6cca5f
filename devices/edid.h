// What the monitor at the display adapter says of itself: VESA E-EDID Standard, Release A2 (EDID 1.4), one block.
#pragma once

#include <array>
#include <cstdint>

namespace penumbra {

// 1024 by 768 at best; other sizes up to 1920 by 1080.
constexpr std::array<uint8_t, 128> monitor_edid() {
  std::array<uint8_t, 128> block = {
      0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00,              // 3.3
      0x40, 0xae, 0x01, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x22,  // 3.4: "PEN", product 1, serial number 1, of 2024
      0x01, 0x04,                                                  // 3.5: version
      0xa0, 0x23, 0x1a, 0x78, 0x06,                                // 3.6: digital, 35 by 26 cm, gamma 2.2, sRGB, first timing is best
      0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54,  // 3.7: sRGB's colours
      0x21, 0x08, 0x00,                                            // 3.8: 640 by 480, 800 by 600, 1024 by 768 at 60 Hz
      // 3.9: 1280 by 800, 1280 by 1024, 1600 by 1200, 1920 by 1080 at 60 Hz
      0x81, 0x00, 0x81, 0x80, 0xa9, 0x40, 0xd1, 0xc0, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01,
      // 3.10.2: 65 MHz, 1024 + 320 by 768 + 38, syncs of 136 after 24 and of 6 after 3, 350 by 260 mm, separate syncs
      0x64, 0x19, 0x00, 0x40, 0x41, 0x00, 0x26, 0x30, 0x18, 0x88, 0x36, 0x00, 0x5e, 0x04, 0x11, 0x00, 0x00, 0x18,
      // 3.10.3: name; limits of 50 to 125 Hz, 30 to 160 kHz, 2550 MHz; an unused descriptor
      0x00, 0x00, 0x00, 0xfc, 0x00, 'P', 'e', 'n', 'u', 'm', 'b', 'r', 'a', '\n', ' ', ' ', ' ', ' ',
      0x00, 0x00, 0x00, 0xfd, 0x00, 0x32, 0x7d, 0x1e, 0xa0, 0xff, 0x01, '\n', ' ', ' ', ' ', ' ', ' ', ' ',
      0x00, 0x00, 0x00, 0x10};
  uint8_t sum = 0;
  for (const uint8_t byte : block) sum = static_cast<uint8_t>(sum + byte);
  block.back() = static_cast<uint8_t>(-sum);
  return block;
}

}  // namespace penumbra
