// Expected values: Intel 8259A datasheet (order number 231468), "Initialization Command Words", "Operation
// Command Words" and the sections on modes; 82371SB (PIIX3) for the ELCR.
#include "devices/pic_8259a.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

constexpr uint8_t kEoi = 0x20, kSpecificEoi = 0x60, kReadIrr = 0x0a, kReadIsr = 0x0b, kPoll = 0x0c;

class Pic8259aTest : public testing::Test {
 protected:
  TestLine int_;
  Pic8259a pic_{"pic", Pic8259a::Wiring::Master, 0xf8, int_.input()};

  // Alone (SNGL), vectors from 20h.
  void initialise(uint8_t icw1 = 0x13, uint8_t icw4 = 0x01) {
    out(pic_, 0, icw1);
    out(pic_, 1, 0x20);
    out(pic_, 1, icw4);
  }
  uint8_t irr() {
    out(pic_, 0, kReadIrr);
    return in(pic_, 0);
  }
  uint8_t isr() {
    out(pic_, 0, kReadIsr);
    return in(pic_, 0);
  }
  void pulse(unsigned input) {
    pic_.set_input(input, false);
    pic_.set_input(input, true);
  }
};

TEST_F(Pic8259aTest, SilentBeforeInitialisation) {
  pulse(0);
  pulse(5);
  EXPECT_FALSE(int_.level());
  out(pic_, 1, 0x00);  // OCW1 alone
  EXPECT_FALSE(int_.level());
  out(pic_, 0, 0x13);
  out(pic_, 1, 0x20);
  pulse(0);
  EXPECT_FALSE(int_.level()) << "ICW4 is still to come";
  out(pic_, 1, 0x01);
  EXPECT_TRUE(int_.level());
}

// "ICW1: The edge sense circuit is reset, which means that following initialization, an interrupt request
// (IR) input must make a low-to-high transition to generate an interrupt. The Interrupt Mask Register is
// cleared."
TEST_F(Pic8259aTest, InitialisationForgetsEdgesAndMasks) {
  initialise();
  out(pic_, 1, 0xff);
  pulse(3);
  initialise();
  EXPECT_EQ(in(pic_, 1), 0x00);
  EXPECT_FALSE(int_.level());
  EXPECT_EQ(irr(), 0x00) << "IRR is what is read after ICW1";
  pulse(3);
  EXPECT_TRUE(int_.level());
}

// "If IC4 = 0, then all functions selected in ICW4 are set to zero."
TEST_F(Pic8259aTest, WithoutIcw4) {
  initialise(0x13, 0x03);
  out(pic_, 0, 0x12);
  out(pic_, 1, 0x40);
  pulse(1);
  EXPECT_EQ(pic_.acknowledge().vector, 0x41);
  EXPECT_EQ(isr(), 0x02) << "no automatic end of interrupt";
}

TEST_F(Pic8259aTest, AcknowledgeGivesVectorAndMovesTheRequestToInService) {
  initialise();
  pulse(4);
  EXPECT_EQ(irr(), 0x10);
  const auto answer = pic_.acknowledge();
  EXPECT_EQ(answer.vector, 0x24);
  EXPECT_FALSE(answer.spurious);
  EXPECT_EQ(irr(), 0x00);
  EXPECT_EQ(isr(), 0x10);
  EXPECT_FALSE(int_.level());
}

// Fully nested mode: "while the IS bit is set, all further interrupts of the same or lower priority are
// inhibited, while higher levels will generate an interrupt".
TEST_F(Pic8259aTest, FullyNested) {
  initialise();
  pulse(4);
  pic_.acknowledge();
  pulse(4);
  pulse(5);
  EXPECT_FALSE(int_.level());
  pulse(3);
  EXPECT_TRUE(int_.level());
  EXPECT_EQ(pic_.acknowledge().vector, 0x23);
  EXPECT_EQ(isr(), 0x18);
  out(pic_, 0, kEoi);  // of the highest: 3
  EXPECT_EQ(isr(), 0x10);
  EXPECT_FALSE(int_.level());
  out(pic_, 0, kEoi);
  EXPECT_TRUE(int_.level());
  EXPECT_EQ(pic_.acknowledge().vector, 0x24);
}

TEST_F(Pic8259aTest, SpecificEndOfInterrupt) {
  initialise();
  pulse(4);
  pic_.acknowledge();
  pulse(2);
  pic_.acknowledge();
  out(pic_, 0, kSpecificEoi | 4);
  EXPECT_EQ(isr(), 0x04);
}

TEST_F(Pic8259aTest, MaskHoldsARequestBack) {
  initialise();
  out(pic_, 1, 0x02);
  EXPECT_EQ(in(pic_, 1), 0x02);
  pulse(1);
  EXPECT_FALSE(int_.level());
  EXPECT_EQ(irr(), 0x02) << "the IRR is in front of the mask";
  out(pic_, 1, 0x00);
  EXPECT_TRUE(int_.level());
}

// "If the IR input goes low before [the first INTA] a DEFAULT IR7 will occur when the CPU acknowledges the
// interrupt"; it sets no bit of the ISR.
TEST_F(Pic8259aTest, SpuriousInterrupt) {
  initialise();
  pulse(3);
  EXPECT_TRUE(int_.level());
  pic_.set_input(3, false);
  EXPECT_FALSE(int_.level());
  const auto answer = pic_.acknowledge();
  EXPECT_EQ(answer.vector, 0x27);
  EXPECT_TRUE(answer.spurious);
  EXPECT_EQ(isr(), 0x00);
}

TEST_F(Pic8259aTest, EdgeTriggeredInputMustRiseAgain) {
  initialise();
  pulse(0);
  pic_.acknowledge();
  out(pic_, 0, kEoi);
  EXPECT_FALSE(int_.level()) << "still high";
  pulse(0);
  EXPECT_TRUE(int_.level());
}

// "If LTIM = 1, then the 8259A will operate in the level interrupt mode."
TEST_F(Pic8259aTest, LevelTriggeredInputsRepeat) {
  initialise(0x1b);
  pic_.set_input(1, true);
  pic_.acknowledge();
  EXPECT_FALSE(int_.level());
  out(pic_, 0, kEoi);
  EXPECT_TRUE(int_.level());
  pic_.set_input(1, false);
  EXPECT_FALSE(int_.level());
}

// PIIX3: one bit an input; those of the timer, the keyboard and the cascade can't be set.
TEST_F(Pic8259aTest, EdgeLevelControlRegister) {
  initialise();
  out(pic_, Pic8259a::kElcrOffset, 0xff);
  EXPECT_EQ(in(pic_, Pic8259a::kElcrOffset), 0xf8);
  out(pic_, Pic8259a::kElcrOffset, 0x20);
  pic_.set_input(5, true);
  pic_.acknowledge();
  out(pic_, 0, kEoi);
  EXPECT_TRUE(int_.level()) << "level";
  pic_.set_input(5, false);
  pic_.set_input(6, true);
  pic_.acknowledge();
  out(pic_, 0, kEoi);
  EXPECT_FALSE(int_.level()) << "edge";
}

TEST_F(Pic8259aTest, AutomaticEndOfInterrupt) {
  initialise(0x13, 0x03);
  pulse(2);
  EXPECT_EQ(pic_.acknowledge().vector, 0x22);
  EXPECT_EQ(isr(), 0x00);
  pulse(5);
  EXPECT_TRUE(int_.level());
}

// "Automatic rotation: in this mode a device, after being serviced, receives the lowest priority"; the
// example of the datasheet: 4 is serviced and becomes the lowest, 5 the highest.
TEST_F(Pic8259aTest, RotationOnEndOfInterrupt) {
  initialise();
  pulse(4);
  pic_.acknowledge();
  out(pic_, 0, 0xa0);
  pulse(4);
  pulse(6);
  EXPECT_EQ(pic_.acknowledge().vector, 0x26);
  out(pic_, 0, kEoi);
  EXPECT_EQ(pic_.acknowledge().vector, 0x24);
}

TEST_F(Pic8259aTest, SetPriority) {
  initialise();
  out(pic_, 0,
      0xc0 | 5);  // "if IR5 is programmed as the bottom priority device, then IR6 will have the highest"
  pulse(0);
  pulse(6);
  EXPECT_EQ(pic_.acknowledge().vector, 0x26);
}

TEST_F(Pic8259aTest, RotationInTheAutomaticEoiMode) {
  initialise(0x13, 0x03);
  out(pic_, 0, 0x80);
  pulse(0);
  pic_.acknowledge();
  pulse(0);
  pulse(1);
  EXPECT_EQ(pic_.acknowledge().vector, 0x21) << "0 has become the lowest";
  out(pic_, 0, 0x00);
  pic_.acknowledge();
}

// "In the special mask mode, when a mask bit is set in OCW1, it inhibits further interrupts at that level and
// enables interrupts from all other levels (lower as well as higher) that are not masked."
TEST_F(Pic8259aTest, SpecialMaskMode) {
  initialise();
  pulse(2);
  pic_.acknowledge();
  pulse(6);
  EXPECT_FALSE(int_.level());
  out(pic_, 1, 0x04);
  out(pic_, 0, 0x68);
  EXPECT_TRUE(int_.level());
  EXPECT_EQ(pic_.acknowledge().vector, 0x26);
  out(pic_, 0, kEoi);
  EXPECT_EQ(isr(), 0x04) << "a non-specific EOI leaves a masked level in service";
  out(pic_, 0, 0x48);
  pulse(7);
  EXPECT_FALSE(int_.level());
}

// Poll command: the next read is an acknowledgement; "W0-W2: binary code of the highest priority level
// requesting service. I: equal to a 1 if there is an interrupt."
TEST_F(Pic8259aTest, Poll) {
  initialise();
  out(pic_, 0, kPoll);
  EXPECT_EQ(in(pic_, 0), 0x00);
  pulse(5);
  out(pic_, 0, kPoll);
  EXPECT_EQ(in(pic_, 0), 0x85);
  EXPECT_EQ(isr(), 0x20);
  EXPECT_FALSE(int_.level());
}

TEST_F(Pic8259aTest, ReadsOfTheRegistersNeedNoNewCommand) {
  initialise();
  pulse(1);
  pic_.acknowledge();
  EXPECT_EQ(isr(), 0x02);
  EXPECT_EQ(in(pic_, 0), 0x02);
  EXPECT_EQ(in(pic_, 1), 0x00) << "A0 = 1 reads the mask whatever was chosen";
}

TEST_F(Pic8259aTest, LoadTakesOverRequestsInServiceAndModes) {
  initialise();
  out(pic_, 1, 0x80);
  pulse(4);
  pic_.acknowledge();
  pulse(2);
  TestLine line;
  Pic8259a other("pic", Pic8259a::Wiring::Master, 0xf8, line.input());
  other.load(pic_.save());
  EXPECT_EQ(other.save(), pic_.save());
  EXPECT_TRUE(other.interrupt());
  EXPECT_EQ(other.acknowledge().vector, 0x22);
  DeviceState state = pic_.save();
  state["lowest_priority"] = 8;
  EXPECT_THROW(other.load(state), std::invalid_argument);
}

}  // namespace
}  // namespace penumbra
