// Expected values: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
// Controller"; command names are its own. The probe sequences are those of Linux' i8042 driver.
#include "devices/keyboard_8042.h"

#include <gtest/gtest.h>

#include <vector>

namespace penumbra {
namespace {

constexpr uint8_t kOutputFull = 0x01, kSystemFlag = 0x04, kCommandLast = 0x08, kMouseByte = 0x20,
                  kTimeout = 0x40;

class Keyboard8042Test : public testing::Test {
 protected:
  bool irq1_ = false, irq12_ = false, a20_ = true;
  unsigned rises1_ = 0, resets_ = 0;
  Keyboard8042 chip_{[this](bool level) {
                       irq1_ = level;
                       rises1_ += level;
                     },
                     [this](bool level) { irq12_ = level; }, [this] { resets_++; },
                     [this](bool level) { a20_ = level; }};

  uint8_t status() { return static_cast<uint8_t>(chip_.read(4, 1)); }
  uint8_t data() { return static_cast<uint8_t>(chip_.read(0, 1)); }
  void command(uint8_t value) { chip_.write(4, 1, value); }
  void command(uint8_t value, uint8_t parameter) {
    command(value);
    chip_.write(0, 1, parameter);
  }
  void send(uint8_t value) { chip_.write(0, 1, value); }
  uint8_t ask(uint8_t value) {
    command(value);
    EXPECT_TRUE(status() & kOutputFull);
    return data();
  }
};

TEST_F(Keyboard8042Test, SilentAfterReset) {
  EXPECT_EQ(status(), 0x10);  // bit 4: not inhibited by the lock
  send(0xff);
  EXPECT_FALSE(irq1_);
  EXPECT_FALSE(irq12_);
  EXPECT_TRUE(a20_);
}

TEST_F(Keyboard8042Test, StatusTellsCommandsFromData) {
  command(0xae);
  EXPECT_TRUE(status() & kCommandLast);
  send(0xf4);
  EXPECT_FALSE(status() & kCommandLast);
}

// Command AA: 55h; the system flag is clear at power-on and set by the self-test or the command byte's bit 2.
TEST_F(Keyboard8042Test, SelfTestSetsTheSystemFlag) {
  EXPECT_FALSE(status() & kSystemFlag);
  EXPECT_EQ(ask(0xaa), 0x55);
  EXPECT_TRUE(status() & kSystemFlag);
  command(0x60, 0x00);
  EXPECT_FALSE(status() & kSystemFlag);
}

// Commands AB and A9: 00h when the lines of the port are sound.
TEST_F(Keyboard8042Test, PortTestsPass) {
  EXPECT_EQ(ask(0xab), 0x00);
  EXPECT_EQ(ask(0xa9), 0x00);
}

TEST_F(Keyboard8042Test, CommandByteReadsBack) {
  command(0x60, 0x65);
  EXPECT_EQ(ask(0x20), 0x65);
  EXPECT_EQ(ask(0x20), 0x65);
  command(0x60, 0xff);
  EXPECT_EQ(ask(0x20), 0x7f);  // bit 7 is reserved, 0
}

TEST_F(Keyboard8042Test, PortsAreDisabledAndEnabledByCommand) {
  command(0x60, 0x00);
  command(0xa7);
  EXPECT_EQ(ask(0x20), 0x20);
  command(0xad);
  EXPECT_EQ(ask(0x20), 0x30);
  EXPECT_EQ(ask(0xe0), 0x00);  // test inputs: the clocks are held low
  command(0xa8);
  EXPECT_EQ(ask(0x20), 0x10);
  command(0xae);
  EXPECT_EQ(ask(0x20), 0x00);
  EXPECT_EQ(ask(0xe0), 0x03);
}

TEST_F(Keyboard8042Test, AnAbsentKeyboardTimesOut) {
  command(0x60, 0x01);
  send(0xf2);
  EXPECT_TRUE(irq1_);
  EXPECT_EQ(status() & (kOutputFull | kMouseByte | kTimeout), kOutputFull | kTimeout);
  EXPECT_EQ(data(), 0xfe);
  EXPECT_FALSE(irq1_);
  EXPECT_EQ(status() & (kOutputFull | kTimeout), 0);
}

TEST_F(Keyboard8042Test, AnAbsentMouseTimesOut) {
  command(0x60, 0x02);
  command(0xd4, 0xf2);
  EXPECT_TRUE(irq12_);
  EXPECT_FALSE(irq1_);
  EXPECT_EQ(status() & (kOutputFull | kMouseByte | kTimeout), kOutputFull | kMouseByte | kTimeout);
  EXPECT_EQ(data(), 0xfe);
  EXPECT_FALSE(irq12_);
}

TEST_F(Keyboard8042Test, AnswersOfBothPortsComeOneAfterTheOther) {
  command(0x60, 0x03);
  send(0xf2);
  command(0xd4, 0xf2);
  EXPECT_TRUE(irq1_);
  EXPECT_FALSE(irq12_);
  EXPECT_EQ(data(), 0xfe);
  EXPECT_FALSE(irq1_);
  EXPECT_TRUE(irq12_);
  EXPECT_TRUE(status() & kMouseByte);
  EXPECT_EQ(data(), 0xfe);
  EXPECT_FALSE(status() & kOutputFull);
}

TEST_F(Keyboard8042Test, SendingToAPortEnablesIt) {
  command(0x60, 0x30);
  send(0xf4);
  data();
  EXPECT_EQ(ask(0x20), 0x20);
  command(0xd4, 0xf4);
  data();
  EXPECT_EQ(ask(0x20), 0x00);
}

// Linux, i8042_check_aux: the loop command, the disable bit, and the interrupt.
TEST_F(Keyboard8042Test, LinuxFindsTheMousePort) {
  command(0xd3, 0x5a);
  EXPECT_TRUE(status() & kMouseByte);
  EXPECT_EQ(data(), 0x5a);
  command(0xa7);
  EXPECT_TRUE(ask(0x20) & 0x20);
  command(0xa8);
  EXPECT_FALSE(ask(0x20) & 0x20);
  command(0x60, 0x02);
  command(0xd3, 0xa5);
  EXPECT_TRUE(irq12_);
  EXPECT_TRUE(status() & kMouseByte);
  EXPECT_EQ(data(), 0xa5);
  // No active multiplexing: the last byte of its knock would come back changed.
  for (const uint8_t knock : {0xf0, 0x56, 0xa4}) {
    command(0xd3, knock);
    EXPECT_EQ(data(), knock);
  }
}

TEST_F(Keyboard8042Test, CommandD2GivesAByteAsTheKeyboardDoes) {
  command(0x60, 0x01);
  command(0xd2, 0x1c);
  EXPECT_TRUE(irq1_);
  EXPECT_FALSE(status() & kMouseByte);
  EXPECT_EQ(data(), 0x1c);
}

TEST_F(Keyboard8042Test, AnAnswerThatReplacesAnotherGivesANewEdge) {
  command(0x60, 0x01);
  command(0xd2, 0x1c);
  command(0xd2, 0x1d);
  EXPECT_EQ(rises1_, 2u);
  EXPECT_EQ(data(), 0x1d);
}

TEST_F(Keyboard8042Test, OutputPortDrivesA20AndShowsTheInterrupts) {
  EXPECT_EQ(ask(0xd0), 0xcf);
  command(0xd1, 0xdd);
  EXPECT_FALSE(a20_);
  EXPECT_EQ(ask(0xd0) & 0x02, 0x00);
  command(0xd1, 0xdf);
  EXPECT_TRUE(a20_);
  EXPECT_EQ(resets_, 0u);
  command(0x60, 0x01);
  command(0xd2, 0x00);
  EXPECT_EQ(ask(0xd0) & 0x30, 0x10);  // bit 4: IRQ 1
}

TEST_F(Keyboard8042Test, A20Commands) {
  command(0xdd);
  EXPECT_FALSE(a20_);
  command(0xdf);
  EXPECT_TRUE(a20_);
}

TEST_F(Keyboard8042Test, ResetOpensTheA20Gate) {
  command(0xdd);
  chip_.reset();
  EXPECT_TRUE(a20_);
}

// Commands F0 to FF pulse the output port's bits whose bit in the command is 0; bit 0 is the reset line.
TEST_F(Keyboard8042Test, PulseOfBit0Resets) {
  command(0xff);
  command(0xf1);
  EXPECT_EQ(resets_, 0u);
  command(0xfe);
  EXPECT_EQ(resets_, 1u);
  command(0xf0);
  EXPECT_EQ(resets_, 2u);
  command(0xd1, 0x02);
  EXPECT_EQ(resets_, 3u);
}

TEST_F(Keyboard8042Test, InputPortShowsNoLock) {
  EXPECT_EQ(ask(0xc0) & 0x80, 0x80);
}

TEST_F(Keyboard8042Test, ANewCommandDropsAnUnfinishedOne) {
  command(0x60, 0x01);
  command(0x60);
  command(0xab);
  data();
  send(0xf4);  // goes to the keyboard, not into the command byte
  EXPECT_TRUE(status() & kTimeout);
  data();
  EXPECT_EQ(ask(0x20), 0x01);
}

TEST_F(Keyboard8042Test, SavedStateKeepsAnUnfinishedCommand) {
  command(0x60, 0x02);
  send(0xf2);
  command(0xd4, 0xf2);
  command(0xd1);
  const DeviceState state = chip_.save();
  bool irq12 = false, a20 = true;
  Keyboard8042 other(
      {}, [&](bool level) { irq12 = level; }, {}, [&](bool level) { a20 = level; });
  other.load(state);
  EXPECT_EQ(other.save(), state);
  other.write(0, 1, 0xdd);
  EXPECT_FALSE(a20);
  EXPECT_EQ(other.read(0, 1), 0xfeu);
  EXPECT_TRUE(irq12);
}

}  // namespace
}  // namespace penumbra
