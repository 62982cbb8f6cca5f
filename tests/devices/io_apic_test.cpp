#include "devices/io_apic.h"

#include <gtest/gtest.h>

#include <vector>

namespace penumbra {
namespace {

class IoApicTest : public testing::Test {
 protected:
  uint32_t read(uint8_t index) {
    apic_.write(0, 4, index);
    return apic_.read(0x10, 4);
  }
  void write(uint8_t index, uint32_t value) {
    apic_.write(0, 4, index);
    apic_.write(0x10, 4, value);
  }
  void entry(unsigned input, uint32_t low, uint8_t destination = 0) {
    write(static_cast<uint8_t>(0x11 + 2 * input), uint32_t{destination} << 24);
    write(static_cast<uint8_t>(0x10 + 2 * input), low);
  }

  PhysicalMap map_{uint64_t{1} << 20};
  std::vector<ApicMessage> sent_;
  IoApic apic_{map_, [this](const ApicMessage& message) { sent_.push_back(message); }};
};

// 290566, 3.2
TEST_F(IoApicTest, Registers) {
  EXPECT_EQ(read(1) >> 16, 23u);
  EXPECT_EQ(read(0x10), 0x1'0000u) << "masked after reset";
  write(0, 0x0f00'0000);
  EXPECT_EQ(read(0), 0x0f00'0000u);
  entry(3, 0x1'a931, 0x05);
  EXPECT_EQ(read(0x16), 0x1'a931u);
  EXPECT_EQ(read(0x17), 0x0500'0000u);
  EXPECT_EQ(read(0x40), 0u) << "no such entry";
  EXPECT_EQ(map_.read({IoApic::kBase}, 4), 0x40u);
}

TEST_F(IoApicTest, EdgesBecomeMessages) {
  entry(4, 0x0931, 0x02);  // lowest priority, logical
  apic_.set_input(4, true);
  apic_.set_input(4, true);
  apic_.set_input(4, false);
  ASSERT_EQ(sent_.size(), 1u);
  EXPECT_EQ(sent_[0].vector, 0x31);
  EXPECT_EQ(sent_[0].destination, 0x02);
  EXPECT_TRUE(sent_[0].logical);
  EXPECT_EQ(sent_[0].delivery, ApicMessage::kLowestPriority);
  EXPECT_FALSE(sent_[0].level);
}

TEST_F(IoApicTest, EdgesOfAMaskedInputAreLost) {
  entry(4, 0x1'0031);
  apic_.set_input(4, true);
  entry(4, 0x0031);
  EXPECT_TRUE(sent_.empty());
}

TEST_F(IoApicTest, LevelsComeAgainAfterTheEndOfTheInterrupt) {
  entry(10, 0x8031);
  apic_.set_input(10, true);
  ASSERT_EQ(sent_.size(), 1u);
  EXPECT_TRUE(sent_[0].level);
  EXPECT_EQ(read(0x24) & 0x4000, 0x4000u) << "remote IRR";
  apic_.set_input(10, false);
  apic_.set_input(10, true);
  EXPECT_EQ(sent_.size(), 1u);
  apic_.end_of_interrupt(0x31);
  EXPECT_EQ(sent_.size(), 2u);
  apic_.set_input(10, false);
  apic_.end_of_interrupt(0x31);
  EXPECT_EQ(sent_.size(), 2u);
  EXPECT_EQ(read(0x24) & 0x4000, 0u);
}

TEST_F(IoApicTest, LevelThatIsUnmaskedInterrupts) {
  entry(10, 0x1'8031);
  apic_.set_input(10, true);
  EXPECT_TRUE(sent_.empty());
  entry(10, 0x8031);
  EXPECT_EQ(sent_.size(), 1u);
  apic_.write(0x40, 4, 0x31);  // the EOI register
  EXPECT_EQ(sent_.size(), 2u);
}

}  // namespace
}  // namespace penumbra
