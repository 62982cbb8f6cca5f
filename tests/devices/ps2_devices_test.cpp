// Keyboard and mouse, by themselves and behind the keyboard controller. Expected values: IBM PS/2 Hardware
// Interface Technical Reference, "Keyboards", "Mouse" and "Keyboard and Auxiliary Device Controller";
// Microsoft's IntelliMouse.
#include <gtest/gtest.h>

#include <vector>

#include "devices/keyboard_8042.h"
#include "devices/ps2_keyboard.h"
#include "devices/ps2_mouse.h"
#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

using Bytes = std::vector<unsigned>;
constexpr Nanoseconds kMillisecond = 1'000'000;

Bytes take_all(Ps2Device& device) {
  Bytes bytes;
  while (const auto byte = device.take()) bytes.push_back(*byte);
  return bytes;
}
Bytes send(Ps2Device& device, std::initializer_list<uint8_t> bytes) {
  for (const uint8_t byte : bytes) device.receive(byte);
  return take_all(device);
}

class Ps2KeyboardTest : public testing::Test {
 protected:
  TestClock time_;
  Ps2Keyboard keyboard_{time_.clock()};
  Bytes press(KeyCode code) {
    keyboard_.key(code, true);
    return take_all(keyboard_);
  }
  Bytes release(KeyCode code) {
    keyboard_.key(code, false);
    return take_all(keyboard_);
  }
};

TEST_F(Ps2KeyboardTest, SendsScanCodeSet2) {
  EXPECT_EQ(press(0x1e), (Bytes{0x1c}));  // A
  EXPECT_EQ(release(0x1e), (Bytes{0xf0, 0x1c}));
  EXPECT_EQ(press(0x41), (Bytes{0x83}));        // F7
  EXPECT_EQ(press(0xc8), (Bytes{0xe0, 0x75}));  // up
  EXPECT_EQ(release(0xc8), (Bytes{0xe0, 0xf0, 0x75}));
  EXPECT_EQ(press(kKeyPause), (Bytes{0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77}));
  EXPECT_EQ(release(kKeyPause), Bytes{});
  EXPECT_EQ(press(kKeyPrint), (Bytes{0xe0, 0x12, 0xe0, 0x7c}));
}

TEST_F(Ps2KeyboardTest, SendsScanCodeSet1WhenAsked) {
  EXPECT_EQ(send(keyboard_, {0xf0, 0x01}), (Bytes{0xfa, 0xfa}));
  EXPECT_EQ(send(keyboard_, {0xf0, 0x00}), (Bytes{0xfa, 0xfa, 0x01}));
  EXPECT_EQ(press(0x1e), (Bytes{0x1e}));
  EXPECT_EQ(release(0xc8), (Bytes{0xe0, 0xc8}));
}

TEST_F(Ps2KeyboardTest, CommandsAreAcknowledged) {
  EXPECT_EQ(send(keyboard_, {0xff}), (Bytes{0xfa, 0xaa}));
  EXPECT_EQ(send(keyboard_, {0xee}), (Bytes{0xee}));
  EXPECT_EQ(send(keyboard_, {0xf2}), (Bytes{0xfa, 0xab, 0x83}));
  EXPECT_EQ(send(keyboard_, {0xed, 0x05}), (Bytes{0xfa, 0xfa}));
  EXPECT_EQ(keyboard_.lights(), 5);
  EXPECT_EQ(send(keyboard_, {0x00}), (Bytes{0xfe}));
  EXPECT_EQ(send(keyboard_, {0xed, 0xf4}), (Bytes{0xfa}))
      << "a command in place of the parameter drops what waits";
}

TEST_F(Ps2KeyboardTest, DisabledItIsSilent) {
  EXPECT_EQ(send(keyboard_, {0xf5}), (Bytes{0xfa}));
  EXPECT_EQ(press(0x1e), Bytes{});
  EXPECT_EQ(send(keyboard_, {0xf4}), (Bytes{0xfa}));
  EXPECT_EQ(press(0x1e), (Bytes{0x1c}));
}

TEST_F(Ps2KeyboardTest, AHeldKeyRepeatsAfterItsDelay) {
  send(keyboard_, {0xf3, 0x00});  // 250 ms, 30 a second
  press(0x1e);
  time_.advance(249 * kMillisecond);
  EXPECT_EQ(take_all(keyboard_), Bytes{});
  time_.advance(2 * kMillisecond);
  EXPECT_EQ(take_all(keyboard_), (Bytes{0x1c}));
  unsigned repeats = 0;
  for (unsigned i = 0; i < 1000; ++i) {
    time_.advance(kMillisecond);
    repeats += static_cast<unsigned>(take_all(keyboard_).size());
  }
  EXPECT_NEAR(repeats, 30, 1);
  release(0x1e);
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
}

TEST_F(Ps2KeyboardTest, WhatNobodyReadsIsBounded) {
  for (unsigned i = 0; i < 1000; ++i) keyboard_.key(0xc8, i % 2 == 0);
  EXPECT_LE(take_all(keyboard_).size(), 64u);
}

class Ps2MouseTest : public testing::Test {
 protected:
  Ps2Mouse mouse_;
};

TEST_F(Ps2MouseTest, ReportsMovementWhenEnabled) {
  mouse_.move(5, 3, 0, Ps2Mouse::kLeft);
  EXPECT_EQ(take_all(mouse_), Bytes{});
  EXPECT_EQ(send(mouse_, {0xff}), (Bytes{0xfa, 0xaa, 0x00}));
  EXPECT_EQ(send(mouse_, {0xf4}), (Bytes{0xfa}));
  mouse_.move(5, 3, 0, Ps2Mouse::kLeft);
  EXPECT_EQ(take_all(mouse_), (Bytes{0x29, 5, 0xfd})) << "towards the user is negative";
  mouse_.move(0, 0, 0, 0);
  EXPECT_EQ(take_all(mouse_), (Bytes{0x08, 0, 0}));
  mouse_.move(0, 0, 0, 0);
  EXPECT_EQ(take_all(mouse_), Bytes{});
}

TEST_F(Ps2MouseTest, MovementThatWaitsIsAddedUp) {
  send(mouse_, {0xf4});
  mouse_.move(1, 0, 0, 0);
  for (unsigned i = 0; i < 300; ++i) mouse_.move(-2, 0, 0, 0);
  EXPECT_EQ(take_all(mouse_), (Bytes{0x08, 1, 0, 0x18, 1, 0, 0x18, 1, 0, 0x18, 0xa6, 0}))
      << "-255, -255, -90";
}

TEST_F(Ps2MouseTest, WheelAppearsAfterItsSequence) {
  EXPECT_EQ(send(mouse_, {0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf2}).back(), 3u);
  send(mouse_, {0xf4});
  mouse_.move(0, 0, -1, 0);
  EXPECT_EQ(take_all(mouse_), (Bytes{0x08, 0, 0, 0xff}));
  EXPECT_EQ(send(mouse_, {0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf2}).back(), 4u);
  mouse_.move(0, 0, 1, Ps2Mouse::kExtra);
  EXPECT_EQ(take_all(mouse_), (Bytes{0x08, 0, 0, 0x21}));
}

TEST_F(Ps2MouseTest, StatusAndRemoteMode) {
  EXPECT_EQ(send(mouse_, {0xe8, 3, 0xf3, 40, 0xe9}), (Bytes{0xfa, 0x00, 3, 40}));
  EXPECT_EQ(send(mouse_, {0xf0}), (Bytes{0xfa}));
  mouse_.move(7, 0, 0, 0);
  EXPECT_EQ(take_all(mouse_), Bytes{});
  EXPECT_EQ(send(mouse_, {0xeb}), (Bytes{0xfa, 0x08, 7, 0}));
}

// Behind the controller.
class PluggedTest : public testing::Test {
 protected:
  TestClock time_;
  TestLine keyboard_irq_, mouse_irq_;
  Ps2Keyboard keyboard_{time_.clock()};
  Ps2Mouse mouse_;
  Keyboard8042 controller_{keyboard_irq_.input(), mouse_irq_.input(), [] {}, [](bool) {}};

  PluggedTest() { controller_.plug(&keyboard_, &mouse_); }
  void command(uint8_t value) { out(controller_, 4, value); }
  void data(uint8_t value) { out(controller_, 0, value); }
  void command_byte(uint8_t value) { command(0x60), data(value); }
  Bytes read_all() {
    Bytes bytes;
    while (in(controller_, 4) & 1) bytes.push_back(in(controller_, 0));
    return bytes;
  }
};

TEST_F(PluggedTest, TranslatesToScanCodeSet1) {
  command_byte(0x40);
  keyboard_.key(0x1e, true);
  keyboard_.key(0x1e, false);
  keyboard_.key(0xc8, false);
  EXPECT_EQ(read_all(), (Bytes{0x1e, 0x9e, 0xe0, 0xc8}));
  data(0xf2);
  EXPECT_EQ(read_all(), (Bytes{0xfa, 0xab, 0x41}));
  command_byte(0x00);
  keyboard_.key(0x1e, false);
  EXPECT_EQ(read_all(), (Bytes{0xf0, 0x1c}));
}

TEST_F(PluggedTest, EachByteRaisesTheInterruptOfItsPort) {
  command_byte(0x43);
  keyboard_.key(0xc8, true);
  EXPECT_EQ(keyboard_irq_.rising_edges(), 1u);
  in(controller_, 0);
  EXPECT_EQ(keyboard_irq_.rising_edges(), 2u);
  in(controller_, 0);
  EXPECT_FALSE(keyboard_irq_.level());
  command(0xd4);
  data(0xf4);
  EXPECT_TRUE(mouse_irq_.level());
  EXPECT_TRUE(in(controller_, 4) & 0x20);
  EXPECT_EQ(read_all(), (Bytes{0xfa}));
  mouse_.move(1, 0, 0, 0);
  EXPECT_EQ(read_all(), (Bytes{0x08, 1, 0}));
  EXPECT_EQ(mouse_irq_.rising_edges(), 4u);
}

TEST_F(PluggedTest, ADisabledPortKeepsItsBytes) {
  command_byte(0x50);
  keyboard_.key(0x1e, true);
  EXPECT_EQ(read_all(), Bytes{});
  command(0xae);
  EXPECT_EQ(read_all(), (Bytes{0x1e}));
}

TEST_F(PluggedTest, StateGoesWithTheController) {
  command_byte(0x40);
  keyboard_.key(0xc8, true);
  command(0xd4), data(0xe9);
  const DeviceState saved = controller_.save();
  const Bytes expected = read_all();
  controller_.reset();
  EXPECT_EQ(read_all(), Bytes{});
  controller_.load(saved);
  EXPECT_EQ(read_all(), expected);
}

}  // namespace
}  // namespace penumbra
