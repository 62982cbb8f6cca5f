// Expected values: Intel 8259A datasheet (order number 231468), "Cascade Mode".
#include "devices/pic_pair.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

class PicPairTest : public testing::Test {
 protected:
  PicPair pics_;

  void initialise(uint8_t master_icw4 = 0x01) {
    const auto words = [](Device& chip, uint8_t vector, uint8_t icw3, uint8_t icw4) {
      out(chip, 0, 0x11);
      out(chip, 1, vector);
      out(chip, 1, icw3);
      out(chip, 1, icw4);
    };
    words(pics_.master(), 0x30, 0x04, master_icw4);
    words(pics_.slave(), 0x38, 0x02, 0x01);
  }
  void pulse(unsigned irq) {
    pics_.set_irq(irq, false);
    pics_.set_irq(irq, true);
  }
  void end_of_interrupt(Device& chip) { out(chip, 0, 0x20); }
};

TEST_F(PicPairTest, SilentBeforeInitialisation) {
  for (unsigned irq = 0; irq < 16; irq++) pulse(irq);
  EXPECT_FALSE(pics_.pending());
}

TEST_F(PicPairTest, EachLineHasItsVector) {
  initialise();
  for (unsigned irq = 0; irq < 16; irq++) {
    if (irq == 2) continue;
    pulse(irq);
    ASSERT_TRUE(pics_.pending()) << irq;
    EXPECT_EQ(pics_.acknowledge(), 0x30 + irq);
    EXPECT_FALSE(pics_.pending()) << irq;
    if (irq >= 8) end_of_interrupt(pics_.slave());
    end_of_interrupt(pics_.master());
    EXPECT_FALSE(pics_.pending()) << irq;
  }
}

TEST_F(PicPairTest, CascadeInputIsNoLineOfItsOwn) {
  initialise();
  pulse(2);
  EXPECT_FALSE(pics_.pending());
}

TEST_F(PicPairTest, SlavesLinesHaveThePriorityOfInput2) {
  initialise();
  pulse(3);
  pulse(8);
  pulse(1);
  EXPECT_EQ(pics_.acknowledge(), 0x31);
  end_of_interrupt(pics_.master());
  EXPECT_EQ(pics_.acknowledge(), 0x38);
  EXPECT_FALSE(pics_.pending());
  end_of_interrupt(pics_.slave());
  end_of_interrupt(pics_.master());
  EXPECT_EQ(pics_.acknowledge(), 0x33);
}

// The slave's INT must fall and rise again between two of its requests, or the master misses the second.
TEST_F(PicPairTest, TwoRequestsOfTheSlaveAtOnce) {
  initialise();
  pulse(9);
  pulse(10);
  EXPECT_EQ(pics_.acknowledge(), 0x39);
  end_of_interrupt(pics_.slave());
  EXPECT_FALSE(pics_.pending()) << "input 2 is in service";
  end_of_interrupt(pics_.master());
  ASSERT_TRUE(pics_.pending());
  EXPECT_EQ(pics_.acknowledge(), 0x3a);
}

// Special fully nested mode: "when an interrupt request from a certain slave is in service this slave is not
// locked out from the master's priority logic".
TEST_F(PicPairTest, SpecialFullyNestedModeLetsTheSlavesHigherRequestsThrough) {
  initialise();
  pulse(12);
  pics_.acknowledge();
  pulse(8);
  EXPECT_FALSE(pics_.pending());
  initialise(0x11);
  pulse(12);
  pics_.acknowledge();
  pulse(8);
  ASSERT_TRUE(pics_.pending());
  EXPECT_EQ(pics_.acknowledge(), 0x38);
}

TEST_F(PicPairTest, SpuriousInterrupts) {
  initialise();
  pulse(7);
  pics_.set_irq(7, false);
  EXPECT_EQ(pics_.acknowledge(), 0x37);
  // The slave's request goes after the master latched it: the master drops it too, since INT fell.
  pulse(15);
  pics_.set_irq(15, false);
  EXPECT_EQ(pics_.acknowledge(), 0x37);
}

TEST_F(PicPairTest, ListenersHearIntrAndWhatTheCpuTook) {
  std::vector<bool> levels;
  std::vector<unsigned> taken;
  pics_.set_interrupt_listener([&](bool level) { levels.push_back(level); });
  pics_.set_acknowledge_listener([&](unsigned irq) { taken.push_back(irq); });
  initialise();
  pulse(0);
  pics_.acknowledge();
  end_of_interrupt(pics_.master());
  pulse(14);
  pics_.acknowledge();
  pics_.acknowledge();  // spurious
  EXPECT_EQ(levels, (std::vector<bool>{true, false, true, false}));
  EXPECT_EQ(taken, (std::vector<unsigned>{0, 14}));
  pics_.announce();
  EXPECT_EQ(levels.size(), 5u);
}

// A slave that was given another number than 2 doesn't answer, so the data bus floats.
TEST_F(PicPairTest, SlaveWithAnotherCascadeNumberIsNotHeard) {
  initialise();
  out(pics_.slave(), 0, 0x11);
  out(pics_.slave(), 1, 0x38);
  out(pics_.slave(), 1, 0x05);
  out(pics_.slave(), 1, 0x01);
  pulse(8);
  EXPECT_EQ(pics_.acknowledge(), 0xff);
}

}  // namespace
}  // namespace penumbra
