// The small chips of a PC's system ports. Expected values: 82371SB (PIIX3) for ports 61h, 92h
// and CF9h; Intel 8237A datasheet (order number 231466); QEMU's documentation for the debug devices.
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "devices/debug_console.h"
#include "devices/debug_exit.h"
#include "devices/dma_8237.h"
#include "devices/pit_8254.h"
#include "devices/port_61.h"
#include "devices/port_92.h"
#include "devices/post_port.h"
#include "devices/reset_control.h"
#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

class Port61Test : public testing::Test {
 protected:
  TestClock time_;
  Pit8254 pit_{time_.clock(), {}};
  Port61 port_{time_.clock(), [this](bool level) { pit_.set_gate(2, level); },
               [this] { return pit_.output(2); }};
};

TEST_F(Port61Test, OnlyTheLowFourBitsAreWritable) {
  out(port_, 0, 0xff);
  EXPECT_EQ(in(port_, 0) & 0xcf, 0x0f) << "no parity nor channel error";
  EXPECT_TRUE(port_.speaker_on());
  out(port_, 0, 0x00);
  EXPECT_EQ(in(port_, 0) & 0xcf, 0x00);
  EXPECT_FALSE(port_.speaker_on());
}

// How Linux and firmware calibrate: counter 2 in mode 0, started by its gate, OUT2 polled.
TEST_F(Port61Test, GateStartsCounter2AndOut2ReadsBack) {
  out(pit_, 3, 0xb0);
  out(pit_, 2, 0xe8);
  out(pit_, 2, 0x03);
  time_.advance(10'000'000);
  EXPECT_EQ(in(port_, 0) & 0x20, 0x00) << "the gate is low";
  out(port_, 0, 0x01);
  time_.advance(1'000'000'000ull * 999 / Pit8254::kClkHz);
  EXPECT_EQ(in(port_, 0) & 0x20, 0x00);
  time_.advance(2'000);
  EXPECT_EQ(in(port_, 0) & 0x20, 0x20);
}

TEST_F(Port61Test, RefreshToggleChangesEvery15Microseconds) {
  unsigned changes = 0;
  uint8_t last = in(port_, 0) & 0x10;
  for (unsigned i = 0; i < 1000; i++) {
    time_.advance(1'000);
    const uint8_t now = in(port_, 0) & 0x10;
    changes += now != last;
    last = now;
  }
  EXPECT_NEAR(changes, 66, 1);
}

struct Counter {
  unsigned count = 0;
  std::function<void()> call() {
    return [this] { count++; };
  }
};

TEST(Port92, FastResetIsARisingEdge) {
  Counter resets;
  Port92 port(resets.call(), [](bool) {});
  out(port, 0, 0x01);
  EXPECT_EQ(resets.count, 1u);
  out(port, 0, 0x03);
  EXPECT_EQ(resets.count, 1u);
  out(port, 0, 0x02);
  out(port, 0, 0x03);
  EXPECT_EQ(resets.count, 2u);
}

TEST(Port92, A20Gate) {
  Counter resets;
  TestLine a20;
  Port92 port(resets.call(), a20.input());
  EXPECT_EQ(in(port, 0), 0x00);
  out(port, 0, 0xfe);
  EXPECT_TRUE(a20.level());
  EXPECT_EQ(in(port, 0), 0x02);
  port.reset();
  EXPECT_FALSE(a20.level());
  EXPECT_EQ(resets.count, 0u);
}

TEST(ResetControl, Bit2Resets) {
  Counter resets;
  ResetControl chip(resets.call());
  chip.write(ResetControl::kOffset, 1, 0x02);
  EXPECT_EQ(resets.count, 0u);
  EXPECT_EQ(chip.read(ResetControl::kOffset, 1), 0x02u);
  chip.write(ResetControl::kOffset, 1, 0x06);
  EXPECT_EQ(resets.count, 1u);
  chip.write(ResetControl::kOffset, 1, 0x06);
  EXPECT_EQ(resets.count, 1u) << "no edge";
}

// A doubleword at CF8h is a PCI configuration address. Its second byte has bit 2 set for half of all devices.
TEST(ResetControl, PciConfigurationAddressDoesNotReset) {
  Counter resets;
  ResetControl chip(resets.call());
  chip.write(0, 4, 0x8000'0c00);
  chip.write(0, 4, 0x8000'ff00);
  EXPECT_EQ(resets.count, 0u);
  EXPECT_EQ(chip.read(0, 4), 0xffff'ffffu) << "no PCI";
}

TEST(PostPort, ReadsBackTheLastCode) {
  PostPort port;
  out(port, 0, 0x5a);
  EXPECT_EQ(port.code(), 0x5a);
  EXPECT_EQ(in(port, 0), 0x5a);
}

TEST(DebugConsole, ReadsAsE9AndPassesBytesOn) {
  std::string text;
  DebugConsole console("debug_console", [&](uint8_t byte) { text += static_cast<char>(byte); });
  EXPECT_EQ(in(console, 0), 0xe9);
  for (const char c : std::string("hello")) out(console, 0, static_cast<uint8_t>(c));
  EXPECT_EQ(text, "hello");
}

TEST(DebugExit, ExitCodeIsTwiceTheValueAndOne) {
  std::vector<int> codes;
  DebugExit chip([&](int code) { codes.push_back(code); });
  chip.write(0, 1, 0x10);
  chip.write(0, 4, 0);
  chip.write(2, 2, 0x101);
  EXPECT_EQ(codes, (std::vector<int>{0x21, 1, 0x203}));
  EXPECT_EQ(chip.read(0, 1), 0u);
}

TEST(Dma8237, AddressAndCountAreReadAndWrittenLowByteFirst) {
  DmaPageRegisters pages;
  PhysicalMap map{uint64_t{1} << 20};
  Dma8237 dma("dma", 0, map, pages);
  out(dma, 12, 0);  // clear the first/last flip-flop
  out(dma, 2, 0x34);
  out(dma, 2, 0x12);
  out(dma, 3, 0x78);
  out(dma, 3, 0x56);
  EXPECT_EQ(in(dma, 2), 0x34);
  EXPECT_EQ(in(dma, 2), 0x12);
  EXPECT_EQ(in(dma, 3), 0x78);
  out(dma, 12, 0);
  EXPECT_EQ(in(dma, 3), 0x78);
  EXPECT_EQ(in(dma, 3), 0x56);
}

// Master clear sets the mask register. Single mask, clear mask, all mask.
TEST(Dma8237, Masks) {
  DmaPageRegisters pages;
  PhysicalMap map{uint64_t{1} << 20};
  Dma8237 dma("dma", 0, map, pages);
  EXPECT_EQ(in(dma, 15), 0x0f);
  out(dma, 10, 0x02);
  EXPECT_EQ(in(dma, 15), 0x0b);
  out(dma, 14, 0);
  EXPECT_EQ(in(dma, 15), 0x00);
  out(dma, 10, 0x05);
  EXPECT_EQ(in(dma, 15), 0x02);
  out(dma, 15, 0xfc);
  EXPECT_EQ(in(dma, 15), 0x0c);
  out(dma, 13, 0);
  EXPECT_EQ(in(dma, 15), 0x0f);
}

// Status: bits 4 to 7 are requests, here those by software.
TEST(Dma8237, StatusShowsSoftwareRequests) {
  DmaPageRegisters pages;
  PhysicalMap map{uint64_t{1} << 20};
  Dma8237 dma("dma", 0, map, pages);
  out(dma, 9, 0x06);
  EXPECT_EQ(in(dma, 8), 0x40);
  out(dma, 9, 0x02);
  EXPECT_EQ(in(dma, 8), 0x00);
}

TEST(Dma8237, SecondControllersRegistersAreTwoPortsApart) {
  DmaPageRegisters pages;
  PhysicalMap map{uint64_t{1} << 20};
  Dma8237 dma("dma", 4, map, pages);
  out(dma, 12 << 1, 0);
  out(dma, 4, 0xaa);
  out(dma, 4, 0xbb);
  EXPECT_EQ(in(dma, 4), 0xaa);
  EXPECT_EQ(in(dma, 5), 0xbb);
}

class DmaTransfer : public testing::Test {
 protected:
  // Channel 2: mode, address, count less one
  void program(uint8_t mode, uint32_t address, uint16_t count) {
    out(dma_, 12, 0);
    out(dma_, 4, static_cast<uint8_t>(address));
    out(dma_, 4, static_cast<uint8_t>(address >> 8));
    out(dma_, 5, static_cast<uint8_t>(count));
    out(dma_, 5, static_cast<uint8_t>(count >> 8));
    out(pages_, 0, static_cast<uint8_t>(address >> 16));
    out(dma_, 11, mode | 2);
    out(dma_, 10, 2);
  }
  DmaPageRegisters pages_;
  PhysicalMap map_{uint64_t{1} << 20};
  Dma8237 dma_{"dma", 0, map_, pages_};
  std::vector<std::byte> data_ = std::vector<std::byte>(100, std::byte{0x5a});
};

TEST_F(DmaTransfer, EndsWithTheTerminalCountAndMasksTheChannel) {
  program(0x44, 0x2'3456, 59);  // single, to memory
  auto moved = dma_.to_memory(2, std::span(data_).first(40));
  EXPECT_EQ(moved.bytes, 40u);
  EXPECT_FALSE(moved.terminal_count);
  moved = dma_.to_memory(2, data_);
  EXPECT_EQ(moved.bytes, 20u);
  EXPECT_TRUE(moved.terminal_count);
  EXPECT_EQ(map_.read({0x2'3456}, 1), 0x5au);
  EXPECT_EQ(map_.read({0x2'3456 + 59}, 1), 0x5au);
  EXPECT_EQ(map_.read({0x2'3456 + 60}, 1), 0u);
  EXPECT_EQ(in(dma_, 15) & 4, 4);
  EXPECT_EQ(in(dma_, 8), 0x04) << "terminal count";
  EXPECT_EQ(in(dma_, 8), 0x00) << "until it was read";
  EXPECT_EQ(in(dma_, 5), 0xff);
  EXPECT_EQ(in(dma_, 5), 0xff);
  EXPECT_EQ(dma_.to_memory(2, data_).bytes, 0u);
}

TEST_F(DmaTransfer, AutoInitializeBeginsAnew) {
  program(0x54, 0x1000, 9);
  EXPECT_TRUE(dma_.to_memory(2, data_).terminal_count);
  EXPECT_EQ(in(dma_, 15) & 4, 0);
  data_.assign(100, std::byte{0x11});
  EXPECT_EQ(dma_.to_memory(2, data_).bytes, 10u);
  EXPECT_EQ(map_.read({0x1000}, 1), 0x11u);
}

TEST_F(DmaTransfer, AddressesStayWithinTheirPage) {
  program(0x44, 0x3'fffe, 3);
  EXPECT_EQ(dma_.to_memory(2, data_).bytes, 4u);
  EXPECT_EQ(map_.read({0x3'fffe}, 2), 0x5a5au);
  EXPECT_EQ(map_.read({0x3'0000}, 2), 0x5a5au);
  EXPECT_EQ(map_.read({0x4'0000}, 2), 0u);
}

TEST_F(DmaTransfer, DownwardsAndFromMemory) {
  for (unsigned i = 0; i < 8; i++) map_.write({0x5000 + i}, 1, i);
  program(0x68, 0x5007, 7);
  EXPECT_EQ(dma_.from_memory(2, data_).bytes, 8u);
  for (unsigned i = 0; i < 8; i++) EXPECT_EQ(static_cast<unsigned>(data_[i]), 7 - i);
  program(0x44, 0x5000, 7);
  EXPECT_EQ(dma_.from_memory(2, data_).bytes, 0u) << "programmed for the other way";
}

TEST(DmaPageRegisters, ReadBack) {
  DmaPageRegisters pages;
  for (uint16_t i = 0; i < 15; i++) out(pages, i, static_cast<uint8_t>(i * 3));
  for (uint16_t i = 0; i < 15; i++) EXPECT_EQ(in(pages, i), i * 3);
  EXPECT_EQ(in(pages, 15), 0xff);
}

}  // namespace
}  // namespace penumbra
