// The display adapter. Expected values: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem";
// for DISPI and the memory window of registers, QEMU's docs/specs/standard-vga.
#include "devices/vga_std.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

constexpr uint64_t kFrameBuffer = 0xfd00'0000, kRegisters = 0xfebf'0000, kRom = 0xfeb0'0000;

class VgaStdTest : public testing::Test {
 protected:
  TestClock time_;
  PhysicalMap map_{uint64_t{4} << 20};
  std::vector<std::byte> rom_ = std::vector<std::byte>(39936, std::byte{0x5a});
  VgaStd vga_{time_.clock(), map_, rom_};

  void outb(uint16_t port, unsigned value) {
    out(vga_, static_cast<uint16_t>(port - VgaStd::kFirstPort), static_cast<uint8_t>(value));
  }
  uint8_t inb(uint16_t port) { return in(vga_, static_cast<uint16_t>(port - VgaStd::kFirstPort)); }
  void sequencer(unsigned index, unsigned value) { outb(0x3c4, index), outb(0x3c5, value); }
  void graphics(unsigned index, unsigned value) { outb(0x3ce, index), outb(0x3cf, value); }
  void dispi(unsigned index, unsigned value) {
    vga_.write(VgaStd::kDispiIndex, 2, index);
    vga_.write(VgaStd::kDispiData, 2, value);
  }
  unsigned dispi(unsigned index) {
    vga_.write(VgaStd::kDispiIndex, 2, index);
    return vga_.read(VgaStd::kDispiData, 2);
  }
  void poke(uint64_t address, uint64_t value, unsigned size = 1) {
    map_.write(PhysAddr{address}, size, value);
  }
  uint64_t peek(uint64_t address, unsigned size = 1) { return map_.read(PhysAddr{address}, size); }
  // Planar: memory enabled, at A0000h, all planes.
  void planar() {
    outb(0x3c2, 0x63);
    sequencer(2, 0x0f);
    sequencer(4, 0x06);
    graphics(5, 0);
    graphics(6, 0x05);
    graphics(8, 0xff);
  }
  uint8_t plane(unsigned number, uint64_t offset) {
    return static_cast<uint8_t>(vga_.memory()[offset * 4 + number]);
  }
};

TEST_F(VgaStdTest, IdentifiesItselfOnPci) {
  const PciConfig& config = vga_.config();
  EXPECT_EQ(config.dword(0), 0x1111'1234u);
  EXPECT_EQ(config.dword(8) >> 8, 0x03'0000u);
}

TEST_F(VgaStdTest, BaseAddressesShowFrameBufferRegistersAndRom) {
  PciConfig& config = vga_.config();
  config.write(0x10, 4, 0xffff'ffff);
  EXPECT_EQ(config.dword(0x10), 0xff00'0008u) << "16 MiB, prefetchable";
  config.write(0x30, 4, 0xffff'fffe);
  EXPECT_EQ(config.dword(0x30), 0xffff'0000u) << "64 KiB";
  config.write(0x10, 4, kFrameBuffer);
  config.write(0x18, 4, kRegisters);
  config.write(0x30, 4, kRom | 1);
  EXPECT_EQ(peek(kRom), 0xffu) << "memory space is off";
  config.write(PciConfig::kCommand, 2, PciConfig::kMemorySpace);
  EXPECT_EQ(peek(kRom + 39935), 0x5au);
  EXPECT_EQ(peek(kRom + 39936), 0xffu);
  poke(kFrameBuffer + 0x12'3456, 0xabcd, 2);
  EXPECT_EQ(static_cast<uint8_t>(vga_.memory()[0x12'3457]), 0xab);
  EXPECT_EQ(peek(kRegisters + 0x500, 2), 0xb0c5u);
  EXPECT_EQ(peek(kRegisters + 0x604, 4), 0x1e1e'1e1eu);
  poke(kRegisters + 0x400 + 4, 2);  // port 3C4h
  EXPECT_EQ(inb(0x3c4), 2);
  config.write(0x10, 4, kFrameBuffer - 0x100'0000);
  EXPECT_EQ(peek(kFrameBuffer - 0x100'0000 + 0x12'3456, 2), 0xabcdu) << "memory moves with its base address";
}

// VESA E-EDID, 3.3 and 3.11; QEMU, docs/specs/standard-vga: at the beginning of base address 2.
TEST_F(VgaStdTest, TheMonitorTellsOfItself) {
  vga_.config().write(0x18, 4, kRegisters);
  vga_.config().write(PciConfig::kCommand, 2, PciConfig::kMemorySpace);
  EXPECT_EQ(peek(kRegisters, 4), 0xffff'ff00u);
  EXPECT_EQ(peek(kRegisters + 4, 4), 0x00ff'ffffu);
  uint8_t sum = 0;
  for (uint64_t i = 0; i < 128; i++) sum = static_cast<uint8_t>(sum + peek(kRegisters + i));
  EXPECT_EQ(sum, 0);
  EXPECT_EQ(peek(kRegisters + 56) | (peek(kRegisters + 58) >> 4) << 8, 1024u)
      << "3.10.2: the preferred width";
  EXPECT_EQ(peek(kRegisters + 59) | (peek(kRegisters + 61) >> 4) << 8, 768u);
  EXPECT_EQ(peek(kRegisters + 128), 0u) << "no second block";
}

TEST_F(VgaStdTest, WritesToTheFrameBufferAreSeenOnceAfterWatch) {
  vga_.config().write(0x10, 4, kFrameBuffer);
  vga_.config().write(PciConfig::kCommand, 2, PciConfig::kMemorySpace);
  std::vector<uint64_t> stopped;
  map_.set_watch_listener([&](PageFrame first, uint64_t frames) { stopped = {first.number, frames}; });
  EXPECT_TRUE(vga_.changed());
  vga_.watch();
  EXPECT_FALSE(vga_.changed());
  EXPECT_EQ(stopped, (std::vector<uint64_t>{kFrameBuffer >> 12, 4096}));
  peek(kFrameBuffer, 4);
  inb(0x3da);
  EXPECT_FALSE(vga_.changed());
  poke(kFrameBuffer, 1);
  EXPECT_TRUE(vga_.changed());
  vga_.watch();
  outb(0x3c6, 0x0f);
  EXPECT_TRUE(vga_.changed());
}

TEST_F(VgaStdTest, PortsOfTheColorAndTheMonochromeModes) {
  outb(0x3c2, 0x01);
  outb(0x3d4, 0x0e);
  outb(0x3d5, 0x12);
  EXPECT_EQ(inb(0x3d5), 0x12);
  EXPECT_EQ(inb(0x3b5), 0xff);
  outb(0x3c2, 0x00);
  EXPECT_EQ(inb(0x3b5), 0x12);
  EXPECT_EQ(inb(0x3d5), 0xff);
  EXPECT_EQ(inb(0x3cc), 0x00);
}

TEST_F(VgaStdTest, ProtectedCrtcRegistersKeepAllButALineCompareBit) {
  outb(0x3c2, 1);
  outb(0x3d4, 0x07), outb(0x3d5, 0x00);
  outb(0x3d4, 0x11), outb(0x3d5, 0x80);
  outb(0x3d4, 0x00), outb(0x3d5, 0x5f);
  EXPECT_EQ(inb(0x3d5), 0x00);
  outb(0x3d4, 0x07), outb(0x3d5, 0xff);
  EXPECT_EQ(inb(0x3d5), 0x10);
  outb(0x3d4, 0x0c), outb(0x3d5, 0x34);
  EXPECT_EQ(inb(0x3d5), 0x34);
}

TEST_F(VgaStdTest, AttributePortAlternatesBetweenIndexAndData) {
  outb(0x3c2, 1);
  inb(0x3da);
  outb(0x3c0, 0x05);
  outb(0x3c0, 0x14);
  outb(0x3c0, 0x25);  // index again, screen on
  EXPECT_EQ(inb(0x3c1), 0x14);
  EXPECT_EQ(inb(0x3c0), 0x25);
  EXPECT_TRUE(vga_.registers().palette_address_source);
  inb(0x3da);
  outb(0x3c0, 0x03);
  EXPECT_EQ(inb(0x3c0), 0x03);
  EXPECT_FALSE(vga_.registers().palette_address_source);
}

TEST_F(VgaStdTest, DacTakesAndGivesThreeComponents) {
  outb(0x3c8, 0xfe);
  for (const unsigned value : {1, 2, 3, 4, 5, 6}) outb(0x3c9, value);
  EXPECT_EQ(inb(0x3c7), 0);
  outb(0x3c7, 0xfe);
  EXPECT_EQ(inb(0x3c7), 3);
  for (const unsigned value : {1, 2, 3, 4, 5, 6}) EXPECT_EQ(inb(0x3c9), value);
  outb(0x3c8, 0x10);
  outb(0x3c9, 63);
  outb(0x3c9, 63);
  outb(0x3c7, 0x10);
  EXPECT_EQ(inb(0x3c9), 0) << "an incomplete colour is none";
}

TEST_F(VgaStdTest, RetraceComesAndGoes) {
  outb(0x3c2, 0x63);
  sequencer(1, 0x01);
  // Mode 12h: 800 dots by 525 lines at 25.175 MHz.
  const std::pair<uint8_t, uint8_t> crtc[] = {{0x00, 0x5f}, {0x01, 0x4f}, {0x06, 0x0b}, {0x07, 0x3e},
                                              {0x10, 0xea}, {0x11, 0x0c}, {0x12, 0xdf}};
  for (const auto& [index, value] : crtc) outb(0x3d4, index), outb(0x3d5, value);
  unsigned retraces = 0, samples = 0, shown = 0;
  bool was = true;
  for (; time_.now() < 1'000'000'000; time_.advance(10'007)) {
    const uint8_t status = inb(0x3da);
    retraces += (status & 8) && !was;
    was = status & 8;
    shown += !(status & 1);
    ++samples;
  }
  EXPECT_NEAR(retraces, 60, 1);
  EXPECT_NEAR(1.0 * shown / samples, 640.0 / 800 * 480 / 525, 0.02);
}

TEST_F(VgaStdTest, WindowIsWhereTheGraphicsControllerSays) {
  planar();
  sequencer(4, 0x02);  // odd/even
  sequencer(2, 0x03);
  graphics(5, 0x10);
  graphics(6, 0x0e);  // B8000h
  poke(0xb'8000, 0x0741, 2);
  EXPECT_EQ(plane(0, 0), 0x41);
  EXPECT_EQ(plane(1, 0), 0x07);
  EXPECT_EQ(peek(0xb'8000, 2), 0x0741u);
  poke(0xa'0000, 0x55);
  EXPECT_EQ(peek(0xa'0000), 0xffu);
  EXPECT_EQ(peek(0xb'0000), 0xffu);
  graphics(6, 0x0a);  // B0000h
  EXPECT_EQ(peek(0xb'0000, 2), 0x0741u);
  EXPECT_EQ(peek(0xb'8000), 0xffu);
  outb(0x3c2, 0x61);  // memory off
  EXPECT_EQ(peek(0xb'0000), 0xffu);
}

TEST_F(VgaStdTest, MapMaskChoosesPlanesAndReadMapOneOfThem) {
  planar();
  sequencer(2, 0x05);
  poke(0xa'0010, 0x99);
  for (unsigned number = 0; number < 4; ++number) {
    EXPECT_EQ(plane(number, 0x10), number % 2 ? 0 : 0x99);
    graphics(4, number);
    EXPECT_EQ(peek(0xa'0010), number % 2 ? 0u : 0x99u);
  }
}

TEST_F(VgaStdTest, WriteMode0RotatesCombinesAndMasks) {
  planar();
  poke(0xa'0000, 0xf0);
  peek(0xa'0000);         // the latches
  graphics(3, 0x18 | 4);  // exclusive or, rotated by 4
  graphics(8, 0x3c);
  poke(0xa'0001, 0x0f);  // rotated: f0
  EXPECT_EQ(plane(2, 1), (0x00 & 0x3c) | (0xf0 & ~0x3c & 0xff));
  graphics(3, 0x08);  // and
  graphics(8, 0xff);
  poke(0xa'0002, 0x3c);
  EXPECT_EQ(plane(0, 2), 0x30);
  graphics(3, 0x10);  // or
  poke(0xa'0003, 0x0c);
  EXPECT_EQ(plane(3, 3), 0xfc);
}

TEST_F(VgaStdTest, SetResetReplacesTheDataOfEnabledPlanes) {
  planar();
  graphics(0, 0x06);
  graphics(1, 0x03);
  poke(0xa'0000, 0x5a);
  EXPECT_EQ(plane(0, 0), 0x00);
  EXPECT_EQ(plane(1, 0), 0xff);
  EXPECT_EQ(plane(2, 0), 0x5a);
}

TEST_F(VgaStdTest, WriteMode1CopiesTheLatches) {
  planar();
  for (unsigned number = 0; number < 4; ++number) {
    sequencer(2, 1u << number);
    poke(0xa'0000, 0x11 * (number + 1));
  }
  sequencer(2, 0x0f);
  peek(0xa'0000);
  graphics(5, 1);
  poke(0xa'0100, 0xee);
  for (unsigned number = 0; number < 4; ++number) EXPECT_EQ(plane(number, 0x100), 0x11 * (number + 1));
}

TEST_F(VgaStdTest, WriteMode2WritesAColorWhereTheMaskIsSet) {
  planar();
  poke(0xa'0000, 0xff);
  peek(0xa'0000);
  graphics(5, 2);
  graphics(8, 0x81);
  poke(0xa'0000, 0x05);
  EXPECT_EQ(plane(0, 0), 0xff);
  EXPECT_EQ(plane(1, 0), 0x7e);
  EXPECT_EQ(plane(2, 0), 0xff);
  EXPECT_EQ(plane(3, 0), 0x7e);
}

TEST_F(VgaStdTest, WriteMode3TakesTheColorFromSetReset) {
  planar();
  poke(0xa'0000, 0xff);
  peek(0xa'0000);
  graphics(0, 0x02);
  graphics(5, 3);
  graphics(8, 0x0f);
  poke(0xa'0000, 0x3c);  // and the mask: 0c
  EXPECT_EQ(plane(0, 0), 0xf3);
  EXPECT_EQ(plane(1, 0), 0xff);
}

TEST_F(VgaStdTest, ReadMode1FindsAColor) {
  planar();
  sequencer(2, 0x03);
  poke(0xa'0000, 0xf0);  // left half colour 3, right half 0
  graphics(5, 8);
  graphics(2, 0x03);
  graphics(7, 0x0f);
  EXPECT_EQ(peek(0xa'0000), 0xf0u);
  graphics(2, 0x01);
  EXPECT_EQ(peek(0xa'0000), 0x00u);
  graphics(7, 0x01);  // only plane 0 counts
  EXPECT_EQ(peek(0xa'0000), 0xf0u);
}

TEST_F(VgaStdTest, Chain4PutsNeighboursIntoPlanes) {
  planar();
  sequencer(4, 0x0e);
  poke(0xa'0000, 0x4433'2211, 4);
  for (unsigned number = 0; number < 4; ++number) EXPECT_EQ(plane(number, 0), 0x11 * (number + 1));
  EXPECT_EQ(peek(0xa'0002, 2), 0x4433u);
  sequencer(2, 0x02);
  poke(0xa'0000, 0xffff'ffff, 4);
  EXPECT_EQ(peek(0xa'0000, 4), 0x4433'ff11u);
}

TEST_F(VgaStdTest, DispiTellsWhatItCan) {
  EXPECT_EQ(dispi(0), 0xb0c5u);
  dispi(0, 0xb0c2);
  EXPECT_EQ(dispi(0), 0xb0c2u);
  dispi(0, 0x1234);
  EXPECT_EQ(dispi(0), 0xb0c2u);
  EXPECT_EQ(dispi(10), 256u) << "64 KiB units of memory";
  dispi(4, 2);
  EXPECT_GE(dispi(1), 1600u);
  EXPECT_EQ(dispi(3), 32u);
  dispi(4, 0);
  EXPECT_EQ(dispi(1), 0u);
}

TEST_F(VgaStdTest, DispiModeClearsWhatItShowsUnlessToldNot) {
  vga_.config().write(0x10, 4, kFrameBuffer);
  vga_.config().write(PciConfig::kCommand, 2, PciConfig::kMemorySpace);
  poke(kFrameBuffer, 0x55);
  dispi(1, 800), dispi(2, 600), dispi(3, 32);
  dispi(4, 0xc1);
  EXPECT_EQ(peek(kFrameBuffer), 0x55u);
  EXPECT_EQ(dispi(6), 800u);
  EXPECT_EQ(dispi(7), (16u << 20) / 3200);
  dispi(4, 0);
  dispi(4, 0x41);
  EXPECT_EQ(peek(kFrameBuffer), 0u);
}

TEST_F(VgaStdTest, DispiBanksOfTheWindow) {
  outb(0x3c2, 0x63);
  dispi(1, 640), dispi(2, 480), dispi(3, 8);
  dispi(4, 1);
  dispi(5, 3);
  poke(0xa'0005, 0x77);
  EXPECT_EQ(static_cast<uint8_t>(vga_.memory()[0x3'0005]), 0x77);
  EXPECT_EQ(peek(0xa'0005), 0x77u);
  EXPECT_EQ(peek(0xb'8000), 0xffu);
}

TEST_F(VgaStdTest, ModesThatDoNotFitIntoMemoryAreMadeSmaller) {
  dispi(1, 4001), dispi(2, 9000), dispi(3, 33);
  dispi(4, 1);
  EXPECT_EQ(dispi(1), 4000u);
  EXPECT_EQ(dispi(3), 8u);
  EXPECT_EQ(dispi(2), (16u << 20) / 4000);
  dispi(9, 5000);
  EXPECT_EQ(dispi(9), 0u);
}

}  // namespace
}  // namespace penumbra
