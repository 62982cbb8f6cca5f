// Expected values: Motorola MC146818 data sheet (ADI-856); register and table numbers are its.
#include "devices/rtc_mc146818.h"

#include <gtest/gtest.h>

#include <array>
#include <stdexcept>

#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

constexpr Nanoseconds kSecond = 1'000'000'000, kMillisecond = 1'000'000, kMicrosecond = 1'000;
constexpr uint8_t kA = 0x0a, kB = 0x0b, kC = 0x0c, kD = 0x0d, kCentury = 0x32;
constexpr int64_t kStart = 1'709'210'096;  // Thursday, 2024-02-29 12:34:56 UTC

class RtcTest : public testing::Test {
 protected:
  TestClock time_;
  TestLine irq8_;
  RtcMc146818 rtc_{time_.clock(), kStart, irq8_.input()};

  uint8_t get(uint8_t index) {
    out(rtc_, 0, index);
    return in(rtc_, 1);
  }
  void set(uint8_t index, uint8_t value) {
    out(rtc_, 0, index);
    out(rtc_, 1, value);
  }
  // Hours, minutes, seconds as the registers have them.
  uint32_t clock_face() { return uint32_t{get(4)} << 16 | uint32_t{get(2)} << 8 | get(0); }
  // Century, year, month, day.
  uint32_t date() {
    return uint32_t{get(kCentury)} << 24 | uint32_t{get(9)} << 16 | uint32_t{get(8)} << 8 | get(7);
  }
  void set_time(uint32_t date, uint32_t face) {
    set(kB, get(kB) | 0x80);
    set(kCentury, static_cast<uint8_t>(date >> 24));
    set(9, static_cast<uint8_t>(date >> 16));
    set(8, static_cast<uint8_t>(date >> 8));
    set(7, static_cast<uint8_t>(date));
    set(4, static_cast<uint8_t>(face >> 16));
    set(2, static_cast<uint8_t>(face >> 8));
    set(0, static_cast<uint8_t>(face));
    set(kB, get(kB) & 0x7f);
  }
};

TEST_F(RtcTest, ShowsTheStartTimeInBcd) {
  EXPECT_EQ(date(), 0x20240229u);
  EXPECT_EQ(clock_face(), 0x123456u);
  EXPECT_EQ(get(6), 5) << "Sunday is 1";
  EXPECT_EQ(get(kD), 0x80) << "valid RAM and time";
}

TEST_F(RtcTest, TimeFollowsTheClock) {
  time_.advance(4 * kSecond - 1);
  EXPECT_EQ(clock_face(), 0x123459u);
  time_.advance(1);
  EXPECT_EQ(clock_face(), 0x123500u);
  time_.advance(12 * 3600 * kSecond);
  EXPECT_EQ(date(), 0x20240301u);
  EXPECT_EQ(clock_face(), 0x003500u);
  EXPECT_EQ(get(6), 6);
}

TEST_F(RtcTest, NeedsNoTimerUntilAnInterruptIsEnabled) {
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
  time_.advance(1000 * kSecond);
  EXPECT_EQ(irq8_.rising_edges(), 0u);
}

TEST_F(RtcTest, BinaryAndTwelveHourModes) {
  set(kB, 0x06);  // DM, 24
  EXPECT_EQ(clock_face(), (12u << 16 | 34 << 8 | 56));
  EXPECT_EQ(date(), (20u << 24 | 24 << 16 | 2 << 8 | 29));
  set(kB, 0x04);
  EXPECT_EQ(get(4), 0x80 | 12) << "noon is 12 PM";
  set(kB, 0x00);
  EXPECT_EQ(get(4), 0x92);
  time_.advance(3600 * kSecond);
  EXPECT_EQ(get(4), 0x81);
  time_.advance(11 * 3600 * kSecond);
  EXPECT_EQ(get(4), 0x12) << "midnight is 12 AM";
}

TEST_F(RtcTest, SetsTheTime) {
  set_time(0x19991231, 0x235958);
  EXPECT_EQ(clock_face(), 0x235958u);
  time_.advance(2 * kSecond);
  EXPECT_EQ(date(), 0x20000101u);
  EXPECT_EQ(clock_face(), 0x000000u);
}

TEST_F(RtcTest, SetsTheTimeInTheTwelveHourBinaryMode) {
  set(kB, 0x84);
  set(kCentury, 20);
  set(9, 24);
  set(8, 2);
  set(7, 29);
  set(4, 0x80 | 11);
  set(2, 59);
  set(0, 59);
  set(kB, 0x04);
  EXPECT_EQ(get(4), 0x80 | 11);
  time_.advance(kSecond);
  EXPECT_EQ(get(4), 12);
  EXPECT_EQ(get(7), 1) << "the day after February 29";
}

// SET: "any update cycle in progress is aborted and the program may initialize the time and calendar bytes
// without an update occurring in the midst".
TEST_F(RtcTest, SetStopsUpdates) {
  set(kB, 0x92);
  EXPECT_EQ(get(kB) & 0x10, 0) << "SET going high clears UIE";
  const uint32_t face = clock_face();
  time_.advance(100 * kSecond);
  EXPECT_EQ(clock_face(), face);
  EXPECT_EQ(get(kC) & 0x30, 0);
  EXPECT_EQ(get(kA) & 0x80, 0);
}

TEST_F(RtcTest, SingleRegisterCanBeWrittenWithoutSet) {
  set(2, 0x10);
  EXPECT_EQ(clock_face(), 0x121056u);
  set(6, 1);
  EXPECT_EQ(get(6), 1) << "any day of the week may be called 1";
  time_.advance(24 * 3600 * kSecond);
  EXPECT_EQ(get(6), 2);
}

TEST_F(RtcTest, LeapYearsFollowTheCentury) {
  set_time(0x19000228, 0x235959);
  time_.advance(kSecond);
  EXPECT_EQ(date(), 0x19000301u);
  set_time(0x20000228, 0x235959);
  time_.advance(kSecond);
  EXPECT_EQ(date(), 0x20000229u);
}

TEST_F(RtcTest, InvalidTimesAreHarmless) {
  for (const uint8_t value : {0x00, 0x7f, 0xaa, 0xff}) {
    set(kB, 0x82);
    for (const uint8_t index : {0, 2, 4, 6, 7, 8, 9, 0x32}) set(index, value);
    set(kB, 0x02);
    time_.advance(kSecond);
    EXPECT_LE(get(8), 0x12);
    EXPECT_GE(get(8), 0x01);
  }
}

TEST_F(RtcTest, LastYearOfTheCalendarIsFollowedByTheFirst) {
  set_time(0x99991231, 0x235959);
  time_.advance(kSecond);
  EXPECT_EQ(date(), 0x00000101u);
}

// Register A, UIP, with table 6: update cycle 1984 us, and 244 us from UIP to it.
TEST_F(RtcTest, UpdateInProgressPrecedesTheUpdate) {
  EXPECT_EQ(get(kA) & 0x80, 0);
  time_.advance_to(kSecond - 2'228 * kMicrosecond - 1);
  EXPECT_EQ(get(kA) & 0x80, 0);
  const uint32_t face = clock_face();
  time_.advance(1);
  EXPECT_EQ(get(kA) & 0x80, 0x80);
  time_.advance_to(kSecond - 1);
  EXPECT_EQ(get(kA) & 0x80, 0x80);
  EXPECT_EQ(clock_face(), face);
  time_.advance(1);
  EXPECT_EQ(get(kA) & 0x80, 0);
  EXPECT_EQ(clock_face(), face + 1);
}

TEST_F(RtcTest, UpdateEndedInterrupt) {
  get(kC);
  set(kB, 0x12);
  time_.advance_to(kSecond - 1);
  EXPECT_FALSE(irq8_.level());
  time_.advance(1);
  EXPECT_TRUE(irq8_.level());
  time_.advance(3 * kSecond);
  EXPECT_EQ(irq8_.rising_edges(), 1u) << "IRQ stays until register C is read";
  EXPECT_EQ(get(kC), 0x80 | 0x40 | 0x10);
}

// Table 5, with a 32,768 Hz crystal.
TEST_F(RtcTest, PeriodicInterruptRates) {
  const std::array<Nanoseconds, 16> periods = {
      0,         3'906'250, 7'812'500,  122'070,    244'140,    488'281,     976'562,     1'953'125,
      3'906'250, 7'812'500, 15'625'000, 31'250'000, 62'500'000, 125'000'000, 250'000'000, 500'000'000};
  for (uint8_t rate = 1; rate < 16; rate++) {
    set(kA, 0x20 | rate);
    set(kB, 0x42);
    get(kC);
    unsigned interrupts = 0;
    const Nanoseconds end = time_.now() + kSecond;
    while (time_.clock().next_deadline() && *time_.clock().next_deadline() <= end) {
      time_.advance_to(*time_.clock().next_deadline());
      ASSERT_TRUE(irq8_.level());
      EXPECT_EQ(get(kC) & 0xc0, 0xc0);
      ASSERT_FALSE(irq8_.level());
      interrupts++;
    }
    time_.advance_to(end);
    EXPECT_EQ(interrupts, kSecond / periods[rate]) << +rate;
  }
  set(kA, 0x20);
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt) << "rate 0: none";
}

// "The PF bit is set ... independent of the state of the PIE bit."
TEST_F(RtcTest, FlagsAreSetWithoutEnables) {
  get(kC);
  time_.advance(kMillisecond);
  EXPECT_EQ(get(kC), 0x40);
  EXPECT_EQ(get(kC), 0x00) << "reading clears";
  time_.advance(kSecond);
  EXPECT_EQ(get(kC), 0x50);
  EXPECT_EQ(irq8_.rising_edges(), 0u);
}

TEST_F(RtcTest, EnablingAnInterruptWhoseFlagIsSetRaisesIt) {
  time_.advance(kSecond);
  EXPECT_FALSE(irq8_.level());
  set(kB, 0x12);
  EXPECT_TRUE(irq8_.level());
  set(kB, 0x02);
  EXPECT_FALSE(irq8_.level());
}

TEST_F(RtcTest, AlarmInterrupt) {
  set(1, 0x03);
  set(3, 0x35);
  set(5, 0x12);
  set(kB, 0x22);
  time_.advance_to(7 * kSecond - 1);
  EXPECT_FALSE(irq8_.level());
  time_.advance(1);
  EXPECT_TRUE(irq8_.level());
  EXPECT_EQ(get(kC) & 0xa0, 0xa0);
  EXPECT_EQ(clock_face(), 0x123503u);
  time_.advance(24 * 3600 * kSecond - 1);
  EXPECT_FALSE(irq8_.level());
  time_.advance(1);
  EXPECT_TRUE(irq8_.level()) << "every day";
}

// An alarm byte of C0h to FFh is "don't care": alarms every hour, minute or second.
TEST_F(RtcTest, AlarmWithDontCareBytes) {
  set(1, 0x10);
  set(3, 0xff);
  set(5, 0xc0);
  set(kB, 0x22);
  time_.advance(14 * kSecond);
  EXPECT_TRUE(irq8_.level()) << "12:35:10";
  get(kC);
  time_.advance(59 * kSecond);
  EXPECT_FALSE(irq8_.level());
  time_.advance(kSecond);
  EXPECT_TRUE(irq8_.level());
  set(1, 0xff);
  get(kC);
  time_.advance(kSecond);
  EXPECT_TRUE(irq8_.level());
}

TEST_F(RtcTest, AlarmInTheTwelveHourMode) {
  set(kB, 0x20);
  set(1, 0x00);
  set(3, 0x00);
  set(5, 0x81);  // 1 PM
  time_.advance_to((25 * 60 + 3) * kSecond);
  EXPECT_FALSE(irq8_.level());
  time_.advance(kSecond);
  EXPECT_TRUE(irq8_.level());
}

TEST_F(RtcTest, ImpossibleAlarmNeverComes) {
  set(1, 0x99);
  set(3, 0xff);
  set(5, 0xff);
  set(kB, 0x22);
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
  time_.advance(48 * 3600 * kSecond);
  EXPECT_EQ(get(kC) & 0x20, 0);
}

// Register A, DV; after the divider reset "the first update cycle begins one-half second later".
TEST_F(RtcTest, DividerReset) {
  set(kA, 0x70);
  const uint32_t face = clock_face();
  time_.advance(100 * kSecond);
  EXPECT_EQ(clock_face(), face);
  set(kA, 0x26);
  EXPECT_EQ(clock_face(), face);
  time_.advance(500 * kMillisecond - 1);
  EXPECT_EQ(clock_face(), face);
  time_.advance(1);
  EXPECT_EQ(clock_face(), face + 1);
}

// RESET pin: clears PIE, AIE, UIE, SQWE and the flags; clock, calendar and RAM stay.
TEST_F(RtcTest, ResetKeepsTimeAndMemory) {
  set(0x40, 0x5a);
  set(kB, 0x7a);
  time_.advance(kSecond);
  EXPECT_TRUE(irq8_.level());
  const uint32_t face = clock_face();
  rtc_.reset();
  EXPECT_FALSE(irq8_.level());
  EXPECT_EQ(get(kB), 0x02);
  EXPECT_EQ(get(kC), 0x00);
  EXPECT_EQ(get(0x40), 0x5a);
  EXPECT_EQ(clock_face(), face);
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
}

TEST_F(RtcTest, RegistersCAndDAreReadOnlyAndTheIndexIsSevenBits) {
  set(kC, 0xff);
  set(kD, 0x00);
  EXPECT_EQ(get(kC), 0x00);
  EXPECT_EQ(get(kD), 0x80);
  set(0xc0, 0x11);  // with the NMI mask bit
  EXPECT_EQ(get(0x40), 0x11);
  EXPECT_EQ(in(rtc_, 0), 0xff) << "port 70h can only be written";
  for (uint8_t index = 0x0e; index < 0x80; index++) {
    if (index != kCentury) set(index, index);
  }
  for (uint8_t index = 0x0e; index < 0x80; index++) {
    if (index == kCentury) continue;
    EXPECT_EQ(get(index), index);
  }
}

TEST_F(RtcTest, LoadedAlarmGoesOn) {
  set(1, 0x00);
  set(3, 0x35);
  set(5, 0x12);
  set(kB, 0x22);
  TestLine line;
  RtcMc146818 other(time_.clock(), 0, line.input());
  other.load(rtc_.save());
  EXPECT_EQ(other.save(), rtc_.save());
  time_.advance(4 * kSecond - 1);
  EXPECT_FALSE(line.level());
  time_.advance(1);
  EXPECT_TRUE(line.level());
}

TEST_F(RtcTest, LoadRefusesImpossibleStates) {
  DeviceState state = rtc_.save();
  state["epoch"] = INT64_MIN;
  EXPECT_THROW(rtc_.load(state), std::invalid_argument);
  state = rtc_.save();
  state["memory"] = DeviceState::array();
  EXPECT_ANY_THROW(rtc_.load(state));
}

TEST(Rtc, StartTimesBefore1970AndBeyondTheCalendar) {
  TestClock time;
  RtcMc146818 early(time.clock(), -1, {});
  out(early, 0, 9);
  EXPECT_EQ(in(early, 1), 0x69);
  RtcMc146818 late(time.clock(), INT64_MAX, {});
  out(late, 0, 9);
  EXPECT_EQ(in(late, 1), 0x99);
}

}  // namespace
}  // namespace penumbra
