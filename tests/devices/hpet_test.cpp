#include "devices/hpet.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

// Registers (IA-PC HPET 1.0a, 2.3)
constexpr uint64_t kCapabilities = 0x000, kConfiguration = 0x010, kStatus = 0x020, kCounter = 0x0f0,
                   kTimer0 = 0x100, kComparator0 = 0x108;

class HpetTest : public testing::Test {
 protected:
  uint64_t read(uint64_t offset, unsigned size = 8) { return hpet_.mmio_read(offset, size); }
  void write(uint64_t offset, uint64_t value, unsigned size = 8) { hpet_.mmio_write(offset, size, value); }
  std::string seen() { return std::exchange(seen_, ""); }

  TestClock time_;
  PhysicalMap map_{uint64_t{1} << 20};
  std::string seen_;
  Hpet hpet_{
      time_.clock(),
      map_,
      {.interrupt = [this](unsigned input,
                           bool level) { seen_ += std::to_string(input) + (level ? "+" : "-"); },
       .legacy_interrupt = [this](unsigned irq,
                                  bool level) { seen_ += "L" + std::to_string(irq) + (level ? "+" : "-"); },
       .legacy = [this](bool on) { seen_ += on ? "legacy " : "normal "; }}};
};

TEST_F(HpetTest, CounterCountsWhileEnabled) {
  EXPECT_EQ(read(kCapabilities) >> 32, 10'000'000u) << "femtoseconds";
  EXPECT_EQ(read(kCapabilities) >> 8 & 0x1f, 2u) << "timers, less one";
  time_.advance(1'000);
  EXPECT_EQ(read(kCounter), 0u);
  write(kConfiguration, 1);
  time_.advance(1'000);
  EXPECT_EQ(read(kCounter), 100u);
  EXPECT_EQ(read(kCounter, 4), 100u);
  EXPECT_EQ(read(kCounter + 4, 4), 0u);
  write(kConfiguration, 0);
  time_.advance(1'000);
  EXPECT_EQ(read(kCounter), 100u);
  write(kCounter, 0xffff'ffff);
  write(kConfiguration, 1);
  time_.advance(10);
  EXPECT_EQ(read(kCounter + 4, 4), 1u);
  EXPECT_EQ(map_.read({Hpet::kBase + 4}, 4), 10'000'000u);
}

TEST_F(HpetTest, OneShotEdge) {
  write(kTimer0, 0x04 | 16 << 9);
  write(kComparator0, 50);
  write(kConfiguration, 1);
  time_.advance(499);
  EXPECT_EQ(seen(), "");
  time_.advance(1);
  EXPECT_EQ(seen(), "16+16-");
  time_.advance(1'000'000);
  EXPECT_EQ(seen(), "");
}

TEST_F(HpetTest, LevelStaysUntilItsStatusIsCleared) {
  write(kTimer0, 0x06 | 16 << 9);
  write(kComparator0, 50);
  write(kConfiguration, 1);
  time_.advance(500);
  EXPECT_EQ(seen(), "16+");
  EXPECT_EQ(read(kStatus), 1u);
  write(kStatus, 1);
  EXPECT_EQ(seen(), "16-");
  EXPECT_EQ(read(kStatus), 0u);
}

// 2.3.9.2.2, as Linux programs it: SETVAL, the first comparison, then the period
TEST_F(HpetTest, PeriodicWithSetValue) {
  write(kTimer0, 0x04 | 0x08 | 0x40 | 0x100 | 16 << 9);
  write(kComparator0, 100'000, 4);
  write(kComparator0, 10'000, 4);
  write(kConfiguration, 1);
  time_.advance(999'999);
  EXPECT_EQ(seen(), "");
  time_.advance(1);
  EXPECT_EQ(seen(), "16+16-");
  time_.advance(100'000);
  EXPECT_EQ(seen(), "16+16-");
  time_.advance(300'000);
  EXPECT_EQ(seen(), "16+16-16+16-16+16-");
  EXPECT_EQ(read(kComparator0), 150'000u);
}

TEST_F(HpetTest, LegacyReplacement) {
  write(kTimer0, 0x04);
  write(kComparator0, 50);
  write(kConfiguration, 3);
  EXPECT_EQ(seen(), "legacy ");
  time_.advance(500);
  EXPECT_EQ(seen(), "L0+L0-");
  write(kConfiguration, 1);
  EXPECT_EQ(seen(), "normal ");
}

TEST_F(HpetTest, RoutesThatAreNotThereGoNowhere) {
  write(kTimer0, 0x04 | 5 << 9);
  write(kComparator0, 50);
  write(kConfiguration, 1);
  time_.advance(500);
  EXPECT_EQ(seen(), "");
}

TEST_F(HpetTest, SavedTimersGoOn) {
  write(kTimer0, 0x04 | 0x08 | 0x40 | 16 << 9);
  write(kComparator0, 100'000);
  write(kComparator0, 10'000);
  write(kConfiguration, 1);
  time_.advance(1'050'000);
  seen();
  const DeviceState saved = hpet_.save();
  hpet_.reset();
  hpet_.load(saved);
  EXPECT_EQ(hpet_.save(), saved);
  EXPECT_EQ(read(kCounter), 105'000u);
  time_.advance(50'000);
  EXPECT_EQ(seen(), "16+16-");
}

}  // namespace
}  // namespace penumbra
