// The registers of a VGA and of Bochs' display interface (DISPI), as the chip keeps them and the renderer
// reads them.
//
// IBM Personal System/2 Hardware Interface Technical Reference, "Video Subsystem"; Bochs VBE extensions, as
// QEMU's docs/specs/standard-vga has them. Memory is four planes, interleaved: byte n of plane p is byte 4 *
// n + p.
#pragma once

#include <array>
#include <cstdint>

namespace penumbra {

struct VgaRegisters {
  // --- Indices
  enum Sequencer : uint8_t { kClockingMode = 1, kMapMask, kCharacterMap, kMemoryMode, kSequencers };
  enum Graphics : uint8_t {
    kSetReset,
    kEnableSetReset,
    kColorCompare,
    kDataRotate,
    kReadMap,
    kGraphicsMode,
    kMiscellaneous,
    kColorDontCare,
    kBitMask,
    kGraphics,
  };
  enum Crtc : uint8_t {
    kHorizontalTotal = 0x00,
    kHorizontalEnd = 0x01,
    kVerticalTotal = 0x06,
    kOverflow = 0x07,
    kPresetRowScan = 0x08,
    kMaximumScan = 0x09,
    kCursorStart = 0x0a,
    kCursorEnd = 0x0b,
    kStartHigh = 0x0c,
    kStartLow = 0x0d,
    kCursorHigh = 0x0e,
    kCursorLow = 0x0f,
    kRetraceStart = 0x10,
    kRetraceEnd = 0x11,
    kVerticalEnd = 0x12,
    kOffset = 0x13,
    kUnderline = 0x14,
    kCrtcMode = 0x17,
    kLineCompare = 0x18,
    kCrtcs = 0x19,
  };
  enum Attribute : uint8_t {
    kAttributeMode = 0x10,
    kOverscan = 0x11,
    kPlaneEnable = 0x12,
    kPanning = 0x13,
    kColorSelect = 0x14,
    kAttributes = 0x15,
  };
  enum Dispi : uint8_t {
    kDispiId,
    kXResolution,
    kYResolution,
    kBitsPerPixel,
    kEnable,
    kBank,
    kVirtualWidth,
    kVirtualHeight,
    kXOffset,
    kYOffset,
    kMemory64k,
    kDispis,
  };

  // --- Bits
  static constexpr uint8_t kMiscColor = 0x01, kMiscRam = 0x02;
  static constexpr uint8_t kEightDots = 0x01, kHalfDotClock = 0x08, kScreenOff = 0x20;  // clocking mode
  static constexpr uint8_t kSequential = 0x04, kChain4 = 0x08;                          // memory mode
  static constexpr uint8_t kReadCompare = 0x08, kReadOddEven = 0x10, kShiftPairs = 0x20,
                           kShift256 = 0x40;  // mode
  static constexpr uint8_t kGraphicsNotText = 0x01;
  static constexpr uint8_t kDoubleScan = 0x80;
  static constexpr uint8_t kLineGraphics = 0x04, kBlink = 0x08, kPanUpperOnly = 0x20, kColorSelectLow = 0x80;
  static constexpr uint8_t kMonochrome = 0x02;
  static constexpr uint16_t kDispiEnabled = 0x01, kDispiCapabilities = 0x02, kDispiDac8 = 0x20,
                            kDispiLinear = 0x40, kDispiKeepMemory = 0x80;

  uint8_t miscellaneous = 0;
  uint8_t feature = 0;
  std::array<uint8_t, kSequencers> sequencer{};
  std::array<uint8_t, kGraphics> graphics{};
  std::array<uint8_t, kCrtcs> crtc{};
  std::array<uint8_t, kAttributes> attribute{};
  bool palette_address_source = false;  // bit 5 of the attribute index: the screen shows the memory
  std::array<uint8_t, 768> dac{};       // red, green, blue
  uint8_t pel_mask = 0xff;
  std::array<uint16_t, kDispis> dispi{};

  bool dispi_enabled() const { return dispi[kEnable] & kDispiEnabled; }
  // Bits of memory that a pixel takes: 15 has an unused one.
  unsigned dispi_bits() const { return dispi[kBitsPerPixel] == 15 ? 16 : dispi[kBitsPerPixel]; }
  uint64_t dispi_line_bytes() const { return uint64_t{dispi[kVirtualWidth]} * dispi_bits() / 8; }

  // Scan lines that are shown, before a line is doubled by a monitor.
  unsigned lines() const {
    const uint8_t overflow = crtc[kOverflow];
    return (crtc[kVerticalEnd] | (overflow & 0x02u) << 7 | (overflow & 0x40u) << 3) + 1;
  }
  unsigned line_compare() const {
    return crtc[kLineCompare] | (crtc[kOverflow] & 0x10u) << 4 | (crtc[kMaximumScan] & 0x40u) << 3;
  }
  unsigned start_address() const { return crtc[kStartHigh] << 8 | crtc[kStartLow]; }
};

}  // namespace penumbra
