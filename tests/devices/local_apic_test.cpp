#include "devices/local_apic.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

// Registers (SDM vol. 3, table 10-1)
constexpr uint16_t kId = 0x20, kVersion = 0x30, kTpr = 0x80, kPpr = 0xa0, kEoi = 0xb0, kLdr = 0xd0,
                   kDfr = 0xe0, kSvr = 0xf0, kIsr = 0x100, kTmr = 0x180, kIrr = 0x200, kEsr = 0x280,
                   kIcrLow = 0x300, kIcrHigh = 0x310, kLvtTimer = 0x320, kLvtLint0 = 0x350, kLvtError = 0x370,
                   kInitial = 0x380, kCurrent = 0x390, kDivide = 0x3e0;

class LocalApicTest : public testing::Test {
 protected:
  static constexpr uint64_t kHz = 100'000'000;  // 10 ns a count
  LocalApicTest() { write(kSvr, 0x1ff); }

  uint32_t read(uint16_t offset) { return apic_.read(offset, 4); }
  void write(uint16_t offset, uint32_t value) { apic_.write(offset, 4, value); }
  void message(uint8_t vector, bool level = false, uint8_t delivery = ApicMessage::kFixed) {
    apic_.receive(
        {.destination = 0, .logical = false, .delivery = delivery, .vector = vector, .level = level});
  }
  int take() { return apic_.pending() ? apic_.acknowledge() : -1; }

  TestClock time_;
  PhysicalMap map_{uint64_t{1} << 20};
  TestLine intr_;
  unsigned nmis_ = 0;
  std::vector<uint8_t> ended_;
  std::vector<ApicMessage> sent_;
  uint8_t external_vector_ = 0x08;
  LocalApic apic_{time_.clock(),
                  map_,
                  0,
                  true,
                  kHz,
                  {.interrupt = intr_.input(),
                   .nmi = [this] { nmis_++; },
                   .acknowledge_external = [this] { return external_vector_; },
                   .end_of_interrupt = [this](uint8_t vector) { ended_.push_back(vector); },
                   .send = [this](const ApicMessage& message) { sent_.push_back(message); }}};
};

TEST_F(LocalApicTest, Identity) {
  EXPECT_EQ(read(kId), 0u);
  EXPECT_EQ(read(kVersion) & 0xff, 0x14u);
  EXPECT_EQ(read(kVersion) >> 16, 5u) << "LVT entries, less one";
  EXPECT_EQ(map_.read({LocalApic::kDefaultBase + kSvr}, 4), 0x1ffu);
}

TEST_F(LocalApicTest, HighestPriorityFirst) {
  message(0x31);
  message(0x45);
  message(0x44);
  EXPECT_TRUE(intr_.level());
  EXPECT_EQ(read(kIrr + 0x10), 1u << 17);
  EXPECT_EQ(take(), 0x45);
  EXPECT_EQ(read(kIsr + 0x20), 1u << 5);
  EXPECT_EQ(take(), -1) << "44h is of the class that is in service";
  EXPECT_EQ(read(kPpr), 0x40u);
  write(kEoi, 0);
  EXPECT_EQ(take(), 0x44);
  write(kEoi, 0);
  EXPECT_EQ(take(), 0x31);
  write(kEoi, 0);
  EXPECT_EQ(take(), -1);
}

TEST_F(LocalApicTest, TaskPriorityHoldsBack) {
  write(kTpr, 0x50);
  message(0x51);
  EXPECT_EQ(take(), -1);
  message(0x61);
  EXPECT_EQ(take(), 0x61);
  write(kEoi, 0);
  apic_.set_task_priority(0x40);
  EXPECT_EQ(read(kTpr), 0x40u);
  EXPECT_EQ(take(), 0x51);
}

TEST_F(LocalApicTest, SpuriousWhenThePriorityRoseMeanwhile) {
  message(0x31);
  ASSERT_TRUE(apic_.pending());
  write(kTpr, 0xf0);
  EXPECT_EQ(apic_.acknowledge(), 0xff);
  EXPECT_EQ(read(kIrr + 0x10), 1u << 17);
}

TEST_F(LocalApicTest, EndOfALevelTriggeredInterruptIsToldToTheIoApic) {
  message(0x31, true);
  EXPECT_EQ(read(kTmr + 0x10), 1u << 17);
  EXPECT_EQ(take(), 0x31);
  write(kEoi, 0);
  EXPECT_EQ(ended_, (std::vector<uint8_t>{0x31}));
  message(0x31, false);
  EXPECT_EQ(read(kTmr + 0x10), 0u);
  EXPECT_EQ(take(), 0x31);
  write(kEoi, 0);
  EXPECT_EQ(ended_.size(), 1u);
}

TEST_F(LocalApicTest, SoftwareDisabledItTakesNothing) {
  write(kLvtTimer, 0x31);
  write(kSvr, 0xff);
  message(0x31);
  EXPECT_EQ(take(), -1);
  EXPECT_EQ(read(kLvtTimer), 0x1'0031u) << "masked";
  write(kLvtTimer, 0x31);
  EXPECT_EQ(read(kLvtTimer), 0x1'0031u);
}

// As firmware leaves it, and as systems without ACPI count on.
TEST_F(LocalApicTest, ExternalInterruptsPassThroughAfterReset) {
  apic_.reset();
  apic_.set_lint0(true);
  EXPECT_TRUE(intr_.level());
  EXPECT_EQ(take(), 0x08);
  apic_.set_lint0(false);
  EXPECT_FALSE(apic_.pending());
  write(kSvr, 0x1ff);
  write(kLvtLint0, 0x1'0700);
  apic_.set_lint0(true);
  EXPECT_EQ(take(), -1);
  write(kLvtLint0, 0x0700);
  EXPECT_EQ(take(), 0x08);
}

TEST_F(LocalApicTest, GloballyDisabledThePinIsTheProcessors) {
  write(kLvtLint0, 0x1'0700);
  EXPECT_TRUE(apic_.set_base(LocalApic::kDefaultBase));
  EXPECT_EQ(map_.read({LocalApic::kDefaultBase + kSvr}, 4), 0xffff'ffffu);
  apic_.set_lint0(true);
  EXPECT_EQ(take(), 0x08);
}

TEST_F(LocalApicTest, BaseMoves) {
  EXPECT_TRUE(apic_.set_base(0xd000'0000 | 0x900));
  EXPECT_EQ(map_.read({0xd000'0000 + kSvr}, 4), 0x1ffu);
  EXPECT_EQ(map_.read({LocalApic::kDefaultBase + kSvr}, 4), 0xffff'ffffu);
  EXPECT_FALSE(apic_.set_base(LocalApic::kDefaultBase | 0xd00)) << "x2APIC";
  EXPECT_FALSE(apic_.set_base(uint64_t{1} << 60));
}

TEST_F(LocalApicTest, LogicalDestinations) {
  const auto is_for = [this](uint8_t destination, bool logical) {
    return apic_.is_destination({.destination = destination, .logical = logical});
  };
  write(kLdr, 0x0200'0000);
  EXPECT_TRUE(is_for(0x03, true));
  EXPECT_FALSE(is_for(0x04, true));
  EXPECT_TRUE(is_for(0xff, true));
  EXPECT_TRUE(is_for(0x00, false));
  EXPECT_FALSE(is_for(0x01, false));
  EXPECT_TRUE(is_for(0xff, false));
  write(kDfr, 0x0fff'ffff);  // clusters
  write(kLdr, 0x2400'0000);
  EXPECT_TRUE(is_for(0x26, true));
  EXPECT_FALSE(is_for(0x22, true));
  EXPECT_FALSE(is_for(0x14, true));
}

TEST_F(LocalApicTest, InterprocessorInterrupts) {
  write(kIcrLow, 0x4'0031);  // to itself
  EXPECT_EQ(take(), 0x31);
  write(kEoi, 0);
  write(kIcrHigh, 0x0100'0000);
  write(kIcrLow, 0x4032);
  EXPECT_EQ(take(), -1);
  ASSERT_EQ(sent_.size(), 1u);
  EXPECT_EQ(sent_[0].destination, 1);
  EXPECT_EQ(sent_[0].vector, 0x32);
  write(kIcrLow, 0x8'4033);  // all
  EXPECT_EQ(take(), 0x33);
  write(kIcrLow, 0xc'4400);  // NMI to the others
  EXPECT_EQ(nmis_, 0u);
  write(kIcrLow, 0x8'4400);
  EXPECT_EQ(nmis_, 1u);
}

// SDM vol. 3, 10.5.3
TEST_F(LocalApicTest, IllegalVectorsAreErrors) {
  write(kLvtError, 0x40);
  message(0x05);
  EXPECT_EQ(take(), 0x40);
  EXPECT_EQ(read(kEsr), 0u) << "not latched yet";
  write(kEsr, 0);
  EXPECT_EQ(read(kEsr), 0x40u);
  write(kEsr, 0);
  EXPECT_EQ(read(kEsr), 0u);
  write(kIcrLow, 0x4'0001);
  write(kEsr, 0);
  EXPECT_EQ(read(kEsr), 0x20u);
}

// SDM vol. 3, 10.5.4
TEST_F(LocalApicTest, OneShotTimer) {
  write(kDivide, 0xb);  // by 1
  write(kLvtTimer, 0x31);
  write(kInitial, 1000);
  time_.advance(4'000);
  EXPECT_EQ(read(kCurrent), 600u);
  EXPECT_EQ(take(), -1);
  time_.advance(6'001);
  EXPECT_EQ(take(), 0x31);
  EXPECT_EQ(read(kCurrent), 0u);
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
}

TEST_F(LocalApicTest, PeriodicTimerWithADivider) {
  write(kDivide, 0x3);  // by 16
  write(kLvtTimer, 0x2'0031);
  write(kInitial, 1000);  // 160 us
  unsigned interrupts = 0;
  for (unsigned i = 0; i < 1600; i++) {
    time_.advance(1'000);
    if (take() == 0x31) {
      interrupts++;
      write(kEoi, 0);
    }
  }
  EXPECT_EQ(interrupts, 9u) << "every 160 us in 1.6 ms, the tenth being due just now";
  EXPECT_GT(read(kCurrent), 0u);
  write(kInitial, 0);
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
}

TEST_F(LocalApicTest, MaskedTimerCountsSilently) {
  write(kDivide, 0xb);
  write(kLvtTimer, 0x1'0031);
  write(kInitial, 1000);
  time_.advance(20'000);
  EXPECT_EQ(take(), -1);
}

TEST_F(LocalApicTest, FastPeriodLeavesTheHostTime) {
  write(kDivide, 0xb);
  write(kLvtTimer, 0x2'0031);
  write(kInitial, 1);
  unsigned expiries = 0;
  const Nanoseconds end = time_.now() + 10'000'000;
  while (*time_.clock().next_deadline() < end) {
    time_.advance_to(*time_.clock().next_deadline());
    ASSERT_LT(++expiries, 1000u);
  }
}

TEST_F(LocalApicTest, TscDeadline) {
  apic_.set_tsc_deadline(1'000'000, 5'000);
  EXPECT_EQ(apic_.tsc_deadline(), 0u) << "only in that mode";
  write(kLvtTimer, 0x4'0031);
  apic_.set_tsc_deadline(1'000'000, 5'000);
  EXPECT_EQ(apic_.tsc_deadline(), 1'000'000u);
  time_.advance(4'999);
  EXPECT_EQ(take(), -1);
  time_.advance(1);
  EXPECT_EQ(take(), 0x31);
  EXPECT_EQ(apic_.tsc_deadline(), 0u);
  apic_.set_tsc_deadline(2'000'000, 5'000);
  apic_.set_tsc_deadline(0, 0);
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
}

TEST_F(LocalApicTest, SavedTimerGoesOn) {
  write(kDivide, 0xb);
  write(kLvtTimer, 0x2'0031);
  write(kInitial, 10'000);
  message(0x61, true);
  time_.advance(30'000);
  const DeviceState saved = apic_.save();
  apic_.reset();
  apic_.load(saved);
  EXPECT_EQ(apic_.save(), saved);
  EXPECT_EQ(take(), 0x61);
  write(kEoi, 0);
  EXPECT_EQ(read(kCurrent), 7'000u);
  time_.advance(80'000);
  EXPECT_EQ(take(), 0x31);
}

}  // namespace
}  // namespace penumbra
