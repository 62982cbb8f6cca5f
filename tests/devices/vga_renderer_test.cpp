// What a VGA's registers and memory look like. Expected pixels are worked out from IBM's PS/2 Hardware
// Interface Technical Reference, "Video Subsystem", by hand.
#include "devices/vga_renderer.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace penumbra {
namespace {

using R = VgaRegisters;

class VgaRendererTest : public testing::Test {
 protected:
  VgaRegisters r_;
  std::vector<std::byte> memory_ = std::vector<std::byte>(256 * 1024);
  VgaImage image_;

  VgaRendererTest() {
    r_.palette_address_source = true;
    r_.attribute[R::kPlaneEnable] = 0x0f;
    for (uint8_t i = 0; i < 16; ++i) r_.attribute[i] = i;
    // Colour n of the DAC is 4n of red, and its number in blue.
    for (unsigned i = 0; i < 64; ++i) r_.dac[i * 3] = static_cast<uint8_t>(i), r_.dac[i * 3 + 2] = 0x3f;
    r_.crtc[R::kCrtcMode] = 0xe3;
    r_.crtc[R::kLineCompare] = 0xff;
    r_.crtc[R::kOverflow] = 0x10;
    r_.crtc[R::kMaximumScan] = 0x40;
    r_.crtc[R::kCursorStart] = 0x20;
  }
  void lines(unsigned count) {
    const unsigned last = count - 1;
    r_.crtc[R::kVerticalEnd] = static_cast<uint8_t>(last);
    r_.crtc[R::kOverflow] =
        static_cast<uint8_t>(r_.crtc[R::kOverflow] | (last >> 8 & 1) << 1 | (last >> 9 & 1) << 6);
  }
  void text(unsigned columns, unsigned rows, unsigned scans) {
    r_.attribute[R::kPanning] = 8;  // none, with nine dots
    r_.crtc[R::kHorizontalEnd] = static_cast<uint8_t>(columns - 1);
    r_.crtc[R::kOffset] = static_cast<uint8_t>(columns / 2);
    r_.crtc[R::kMaximumScan] = static_cast<uint8_t>(r_.crtc[R::kMaximumScan] | (scans - 1));
    lines(rows * scans);
  }
  void graphics(unsigned cells, unsigned count) {
    r_.graphics[R::kMiscellaneous] = R::kGraphicsNotText;
    r_.sequencer[R::kClockingMode] |= R::kEightDots;
    r_.crtc[R::kHorizontalEnd] = static_cast<uint8_t>(cells - 1);
    r_.crtc[R::kOffset] = static_cast<uint8_t>(cells / 2);
    lines(count);
  }
  void plane(unsigned number, unsigned offset, unsigned value) {
    memory_[offset * 4 + number] = std::byte(value);
  }
  void character(unsigned at, unsigned code, unsigned attribute) {
    plane(0, at, code), plane(1, at, attribute);
  }
  uint32_t pixel(unsigned x, unsigned y) const { return image_.pixels.at(size_t{y} * image_.width + x); }
  // The attribute's number, 0 to 63.
  unsigned color(unsigned x, unsigned y) const { return pixel(x, y) >> 18; }
  void render(VgaBlink blink = {}) { render_vga(r_, memory_, blink, image_); }
};

TEST_F(VgaRendererTest, NothingProgrammedIsABlackScreen) {
  r_ = {};
  render();
  EXPECT_EQ(image_.width, 640u);
  EXPECT_EQ(image_.height, 480u);
  EXPECT_EQ(std::ranges::count(image_.pixels, 0u), 640 * 480);
}

TEST_F(VgaRendererTest, SixBitsBecomeEight) {
  text(80, 25, 16);
  r_.dac[0] = 0x3f, r_.dac[1] = 0x2a, r_.dac[2] = 0x01;
  render();
  EXPECT_EQ(pixel(0, 0), 0xff'aa'04u);
  r_.dispi[R::kEnable] = R::kDispiDac8;
  r_.dac[1] = 0xa5;
  render();
  EXPECT_EQ(pixel(0, 0), 0x3f'a5'01u);
}

TEST_F(VgaRendererTest, CharactersComeFromPlane2AndHaveNineDots) {
  text(80, 25, 16);
  character(81, 'A', 0x1e);
  plane(2, 'A' * 32 + 3, 0x81);
  render();
  EXPECT_EQ(image_.width, 720u);
  EXPECT_EQ(image_.height, 400u);
  for (unsigned x = 0; x < 9; ++x) EXPECT_EQ(color(9 + x, 16 + 3), x == 0 || x == 7 ? 14u : 1u);
  EXPECT_EQ(color(9, 16 + 4), 1u);
  r_.sequencer[R::kClockingMode] = R::kEightDots;
  render();
  EXPECT_EQ(image_.width, 640u);
  EXPECT_EQ(color(8, 16 + 3), 14u);
}

TEST_F(VgaRendererTest, LineGraphicsReachIntoTheNinthDot) {
  text(80, 25, 16);
  character(0, 0xc4, 0x07);
  character(1, 0xb3, 0x07);
  plane(2, 0xc4 * 32, 0xff);
  plane(2, 0xb3 * 32, 0xff);
  r_.attribute[R::kAttributeMode] = R::kLineGraphics;
  render();
  EXPECT_EQ(color(8, 0), 7u);
  EXPECT_EQ(color(17, 0), 0u) << "only codes C0 to DF";
  r_.attribute[R::kAttributeMode] = 0;
  render();
  EXPECT_EQ(color(8, 0), 0u);
}

TEST_F(VgaRendererTest, FortyColumnsAreTwiceAsWide) {
  text(40, 25, 16);
  r_.sequencer[R::kClockingMode] = R::kHalfDotClock;
  character(0, 1, 0x07);
  plane(2, 32, 0x40);
  render();
  EXPECT_EQ(image_.width, 720u);
  for (unsigned x = 0; x < 6; ++x) EXPECT_EQ(color(x, 0), x == 2 || x == 3 ? 7u : 0u);
}

TEST_F(VgaRendererTest, AttributeBit3ChoosesTheCharacterSet) {
  text(80, 25, 16);
  r_.sequencer[R::kCharacterMap] = 0x04 | 0x10;  // set A at 4000h, set B at 2000h
  character(0, 1, 0x07);
  character(1, 1, 0x0f);
  plane(2, 0x2000 + 32, 0x80);
  plane(2, 0x4000 + 32, 0x40);
  render();
  EXPECT_EQ(color(0, 0), 7u);
  EXPECT_EQ(color(1, 0), 0u);
  EXPECT_EQ(color(9, 0), 0u);
  EXPECT_EQ(color(10, 0), 15u);
}

TEST_F(VgaRendererTest, CursorCoversItsScanLinesWhileItIsShown) {
  text(80, 25, 16);
  r_.crtc[R::kCursorStart] = 13;
  r_.crtc[R::kCursorEnd] = 14;
  r_.crtc[R::kCursorLow] = 82;
  character(82, ' ', 0x07);
  render();
  EXPECT_EQ(color(18, 16 + 12), 0u);
  EXPECT_EQ(color(18, 16 + 13), 7u);
  EXPECT_EQ(color(26, 16 + 14), 7u);
  EXPECT_EQ(color(18, 16 + 15), 0u);
  render({.cursor = false});
  EXPECT_EQ(color(18, 16 + 13), 0u);
  r_.crtc[R::kCursorStart] |= 0x20;
  render();
  EXPECT_EQ(color(18, 16 + 13), 0u);
}

TEST_F(VgaRendererTest, Bit7OfAnAttributeBlinksOrBrightens) {
  text(80, 25, 16);
  character(0, 1, 0x97);
  plane(2, 32, 0x80);
  render({.text = false});
  EXPECT_EQ(color(0, 0), 7u);
  EXPECT_EQ(color(1, 0), 9u);
  r_.attribute[R::kAttributeMode] = R::kBlink;
  render();
  EXPECT_EQ(color(0, 0), 7u);
  EXPECT_EQ(color(1, 0), 1u);
  render({.text = false});
  EXPECT_EQ(color(0, 0), 1u);
}

TEST_F(VgaRendererTest, StartAddressAndSplitScreen) {
  text(80, 25, 16);
  r_.crtc[R::kStartLow] = 160;  // two rows on
  character(160, 1, 0x07);
  character(0, 1, 0x02);
  plane(2, 32, 0x80);
  r_.crtc[R::kOverflow] &= 0xef;
  r_.crtc[R::kMaximumScan] &= 0xbf;
  r_.crtc[R::kLineCompare] = 199;
  render();
  EXPECT_EQ(color(0, 0), 7u);
  EXPECT_EQ(color(0, 200), 2u) << "the lower part begins at address 0";
}

TEST_F(VgaRendererTest, SixteenColorsFromFourPlanes) {
  graphics(80, 480);
  for (unsigned number = 0; number < 4; ++number) plane(number, 80, 0x80u >> number);
  render();
  EXPECT_EQ(image_.width, 640u);
  EXPECT_EQ(image_.height, 480u);
  for (unsigned number = 0; number < 4; ++number) EXPECT_EQ(color(number, 1), 1u << number);
  r_.attribute[R::kPlaneEnable] = 0x01;
  render();
  EXPECT_EQ(color(1, 1), 0u);
}

TEST_F(VgaRendererTest, PanningMovesTheImageToTheLeft) {
  graphics(80, 480);
  plane(0, 0, 0x01);
  plane(0, 80, 0x80);  // beyond the right edge: the next row
  r_.attribute[R::kPanning] = 3;
  render();
  EXPECT_EQ(color(4, 0), 1u);
  EXPECT_EQ(color(637, 0), 1u);
}

TEST_F(VgaRendererTest, Mode13HasPixelsOfTwoByTwo) {
  graphics(80, 400);
  r_.graphics[R::kGraphicsMode] = R::kShift256;
  r_.crtc[R::kMaximumScan] |= 1;
  r_.crtc[R::kCrtcMode] = 0xa3;
  memory_[320 + 5] = std::byte{33};
  render();
  EXPECT_EQ(image_.width, 640u);
  EXPECT_EQ(image_.height, 400u);
  for (const unsigned x : {10, 11}) {
    for (const unsigned y : {2, 3}) EXPECT_EQ(color(x, y), 33u);
  }
  EXPECT_EQ(color(12, 2), 0u);
  EXPECT_EQ(color(10, 4), 0u);
}

TEST_F(VgaRendererTest, CgaPairsOfBitsAndInterleavedLines) {
  // Mode 4: 320 by 200, as odd/even puts it into planes 0 and 1.
  graphics(40, 400);
  r_.sequencer[R::kClockingMode] |= R::kHalfDotClock;
  r_.graphics[R::kGraphicsMode] = R::kShiftPairs;
  r_.crtc[R::kMaximumScan] |= 0x80 | 1;
  r_.crtc[R::kCrtcMode] = 0xa2;
  plane(0, 0, 0x1b);       // colours 0 1 2 3
  plane(1, 0x1000, 0xc0);  // line 1, pixel 4: offset 2000h of the CGA's memory
  lines(400);
  render();
  EXPECT_EQ(image_.width, 640u);
  for (unsigned x = 0; x < 4; ++x) EXPECT_EQ(color(2 * x, 0), x);
  EXPECT_EQ(color(8, 0), 0u);
  EXPECT_EQ(color(8, 2), 3u);
  EXPECT_EQ(color(8, 3), 3u);
}

TEST_F(VgaRendererTest, ScreenOffIsBlack) {
  text(80, 25, 16);
  r_.sequencer[R::kClockingMode] = R::kScreenOff;
  render();
  EXPECT_EQ(image_.width, 720u);
  EXPECT_EQ(std::ranges::count(image_.pixels, 0u), 720 * 400);
}

TEST_F(VgaRendererTest, LinearModes) {
  r_.dispi[R::kXResolution] = 64;
  r_.dispi[R::kYResolution] = 64;
  r_.dispi[R::kVirtualWidth] = 128;
  r_.dispi[R::kXOffset] = 8;
  r_.dispi[R::kYOffset] = 1;
  r_.dispi[R::kEnable] = R::kDispiEnabled;
  const auto show = [&](unsigned bits, std::initializer_list<unsigned> bytes) {
    std::ranges::fill(memory_, std::byte{0});
    r_.dispi[R::kBitsPerPixel] = static_cast<uint16_t>(bits);
    const size_t stored = r_.dispi_bits() / 8;
    size_t at = (128 + 8 + 1) * stored;
    for (const unsigned byte : bytes) memory_[at++] = std::byte(byte);
    render();
    EXPECT_EQ(image_.width, 64u);
    EXPECT_EQ(pixel(0, 0), bits == 8 ? 0x00'00'ffu : 0u);
    return pixel(1, 0);
  };
  EXPECT_EQ(show(32, {0x11, 0x22, 0x33, 0xff}), 0x33'22'11u);
  EXPECT_EQ(show(24, {0x11, 0x22, 0x33}), 0x33'22'11u);
  EXPECT_EQ(show(16, {0xe0, 0xff}), 0xff'ff'00u);
  EXPECT_EQ(show(15, {0x1f, 0x7c}), 0xff'00'ffu);
  EXPECT_EQ(show(8, {63}), 0xff'00'ffu);
}

TEST_F(VgaRendererTest, SixteenColorsOfTheDisplayInterface) {
  r_.dispi[R::kXResolution] = r_.dispi[R::kVirtualWidth] = 800;
  r_.dispi[R::kYResolution] = 600;
  r_.dispi[R::kBitsPerPixel] = 4;
  r_.dispi[R::kEnable] = R::kDispiEnabled;
  plane(3, 100, 0x40);
  render();
  EXPECT_EQ(color(1, 1), 8u);
}

TEST_F(VgaRendererTest, LinesBeyondTheEndOfMemoryStartAgain) {
  r_.dispi[R::kXResolution] = r_.dispi[R::kVirtualWidth] = 16000;
  r_.dispi[R::kYResolution] = 100;
  r_.dispi[R::kBitsPerPixel] = 32;
  r_.dispi[R::kEnable] = R::kDispiEnabled;
  render();
  EXPECT_EQ(image_.pixels.size(), 1'600'000u);
}

TEST_F(VgaRendererTest, TextIsReadRowByRow) {
  text(80, 25, 16);
  for (unsigned i = 0; i < 5; ++i) character(80 + i, static_cast<uint8_t>("Hello"[i]), 7);
  const auto rows = vga_text(r_, memory_);
  ASSERT_EQ(rows.size(), 25u);
  EXPECT_EQ(std::string(rows[1].begin(), rows[1].begin() + 5), "Hello");
  r_.graphics[R::kMiscellaneous] = R::kGraphicsNotText;
  EXPECT_TRUE(vga_text(r_, memory_).empty());
}

}  // namespace
}  // namespace penumbra
