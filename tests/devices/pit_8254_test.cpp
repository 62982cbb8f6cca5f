// Expected values: Intel 8254 datasheet (order number 231164), "Mode Definitions" and the figures there.
#include "devices/pit_8254.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

constexpr uint16_t kControl = 3;

class Pit8254Test : public testing::Test {
 protected:
  TestClock time_;
  TestLine irq0_;
  Pit8254 pit_{time_.clock(), irq0_.input()};

  // Lets time pass until just after CLK pulse `pulse`, counted from power-on.
  void at(uint64_t pulse) {
    using Wide = unsigned __int128;
    time_.advance_to(
        static_cast<Nanoseconds>((Wide{pulse} * 1'000'000'000 + Pit8254::kClkHz - 1) / Pit8254::kClkHz));
  }
  void control(unsigned counter, unsigned access, unsigned mode, bool bcd = false) {
    out(pit_, kControl, static_cast<uint8_t>(counter << 6 | access << 4 | mode << 1 | bcd));
  }
  void program(unsigned counter, unsigned mode, uint16_t count, bool bcd = false) {
    control(counter, 3, mode, bcd);
    write_count(counter, count);
  }
  void write_count(unsigned counter, uint16_t count) {
    out(pit_, static_cast<uint16_t>(counter), static_cast<uint8_t>(count));
    out(pit_, static_cast<uint16_t>(counter), static_cast<uint8_t>(count >> 8));
  }
  uint16_t read_count(unsigned counter) {
    out(pit_, kControl, static_cast<uint8_t>(counter << 6));  // counter latch command
    const uint8_t low = in(pit_, static_cast<uint16_t>(counter));
    return static_cast<uint16_t>(low | in(pit_, static_cast<uint16_t>(counter)) << 8);
  }
  uint8_t status(unsigned counter) {
    out(pit_, kControl, static_cast<uint8_t>(0xe0 | 2u << counter));
    return in(pit_, static_cast<uint16_t>(counter));
  }
  // OUT after each of the pulses [first, end), as the figures show it.
  std::string outputs(unsigned counter, uint64_t first, uint64_t end) {
    std::string result;
    for (uint64_t pulse = first; pulse < end; pulse++) {
      at(pulse);
      result += pit_.output(counter) ? '-' : '_';
    }
    return result;
  }
  std::vector<uint16_t> counts(unsigned counter, uint64_t first, uint64_t end) {
    std::vector<uint16_t> result;
    for (uint64_t pulse = first; pulse < end; pulse++) {
      at(pulse);
      result.push_back(read_count(counter));
    }
    return result;
  }
  using Counts = std::vector<uint16_t>;
};

TEST_F(Pit8254Test, SilentBeforeItIsProgrammed) {
  time_.advance(3'600'000'000'000);
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
  EXPECT_EQ(irq0_.rising_edges(), 0u);
  const uint16_t first = read_count(0);
  at(1'000'000'000'000);
  EXPECT_EQ(read_count(0), first);
  write_count(0, 100);  // no control word
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
}

TEST_F(Pit8254Test, ControlWordAloneCountsNothing) {
  control(0, 3, 2);
  const uint16_t first = read_count(0);
  time_.advance(1'000'000'000);
  EXPECT_EQ(read_count(0), first);
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
}

// Mode 0: "OUT ... will remain low until the Counter reaches zero", "N + 1 CLK pulses after the initial count
// is written"; first diagram: 4 3 2 1 0 FFFF FFFE.
TEST_F(Pit8254Test, Mode0InterruptOnTerminalCount) {
  control(0, 1, 0);
  EXPECT_FALSE(irq0_.level());
  out(pit_, 0, 4);
  EXPECT_EQ(outputs(0, 1, 8), "____---");
  EXPECT_EQ(irq0_.rising_edges(), 1u);
}

TEST_F(Pit8254Test, Mode0CountsOnAfterZero) {
  control(1, 1, 0);
  out(pit_, 1, 4);
  std::vector<uint8_t> low_bytes;
  for (uint64_t pulse = 1; pulse < 8; pulse++) {
    at(pulse);
    low_bytes.push_back(in(pit_, 1));
  }
  EXPECT_EQ(low_bytes, (std::vector<uint8_t>{4, 3, 2, 1, 0, 0xff, 0xfe}));
}

// Second diagram of mode 0: GATE low stops the count and not OUT.
TEST_F(Pit8254Test, Mode0GateStopsCounting) {
  program(2, 0, 3);
  at(2);
  EXPECT_EQ(read_count(2), 2);
  pit_.set_gate(2, false);
  at(5);
  EXPECT_EQ(read_count(2), 2);
  pit_.set_gate(2, true);
  EXPECT_EQ(outputs(2, 6, 9), "_--");
}

// "If an initial count is written while GATE = 0, it will still be loaded on the next CLK pulse. When GATE
// goes high, OUT will go high N CLK pulses later."
TEST_F(Pit8254Test, Mode0CountWrittenWhileGateIsLow) {
  pit_.set_gate(2, false);
  program(2, 0, 3);
  at(10);
  EXPECT_EQ(read_count(2), 3);
  pit_.set_gate(2, true);
  EXPECT_EQ(outputs(2, 11, 15), "__--");
}

// "Writing the first byte disables counting. OUT is set low immediately."
TEST_F(Pit8254Test, Mode0FirstByteStopsCounting) {
  program(0, 0, 2);
  at(10);
  EXPECT_TRUE(irq0_.level());
  out(pit_, 0, 5);
  EXPECT_FALSE(irq0_.level());
  const uint16_t held = read_count(0);
  at(100);
  EXPECT_EQ(read_count(0), held);
  EXPECT_FALSE(irq0_.level());
  out(pit_, 0, 0);
  EXPECT_EQ(outputs(0, 101, 108), "_____--");
}

// Mode 1: "OUT will go low on the CLK pulse following a trigger ... and will remain low until the Counter
// reaches zero": N pulses. First diagram.
TEST_F(Pit8254Test, Mode1OneShot) {
  pit_.set_gate(2, false);
  program(2, 1, 3);
  EXPECT_EQ(outputs(2, 1, 4), "---") << "OUT is high until the trigger";
  pit_.set_gate(2, true);
  EXPECT_EQ(outputs(2, 3, 9), "-___--");
  pit_.set_gate(2, false);
  pit_.set_gate(2, true);
  EXPECT_EQ(outputs(2, 9, 13), "___-") << "a new trigger needs no new count";
}

// Second diagram: "The one-shot is retriggerable".
TEST_F(Pit8254Test, Mode1TriggerDuringThePulseStartsItAnew) {
  pit_.set_gate(2, false);
  program(2, 1, 3);
  pit_.set_gate(2, true);
  at(2);
  pit_.set_gate(2, false);
  pit_.set_gate(2, true);
  EXPECT_EQ(outputs(2, 3, 8), "___--");
}

// Third diagram: "If a new count is written to the Counter during a one-shot pulse, the current one-shot is
// not affected unless the Counter is retriggered."
TEST_F(Pit8254Test, Mode1NewCountWaitsForTheTrigger) {
  pit_.set_gate(2, false);
  program(2, 1, 2);
  pit_.set_gate(2, true);
  at(1);
  write_count(2, 4);
  EXPECT_EQ(outputs(2, 1, 6), "__---");
  pit_.set_gate(2, false);
  pit_.set_gate(2, true);
  EXPECT_EQ(outputs(2, 6, 11), "____-");
}

// Mode 2, first diagram: count 3 shows 3 2 1 3 2 1; OUT is low while the count is 1.
TEST_F(Pit8254Test, Mode2RateGenerator) {
  program(1, 2, 3);
  EXPECT_EQ(counts(1, 1, 8), (Counts{3, 2, 1, 3, 2, 1, 3}));
  EXPECT_EQ(outputs(1, 8, 14), "-_--_-");
}

TEST_F(Pit8254Test, Mode2RaisesTheLineOncePerPeriod) {
  program(0, 2, 1193);
  const unsigned before = irq0_.rising_edges();
  at(1 + 1192);
  EXPECT_EQ(irq0_.rising_edges(), before);
  at(1 + 1193);
  EXPECT_EQ(irq0_.rising_edges(), before + 1);
  at(1 + 1193 * 1000);
  EXPECT_EQ(irq0_.rising_edges(), before + 1000);
  EXPECT_TRUE(irq0_.level());
}

// "GATE = 0 disables counting. If GATE goes low during an output pulse, OUT is set high immediately. A
// trigger reloads the Counter with the initial count on the next CLK pulse."
TEST_F(Pit8254Test, Mode2GateRestartsTheCycle) {
  program(2, 2, 3);
  at(3);
  EXPECT_FALSE(pit_.output(2));
  pit_.set_gate(2, false);
  EXPECT_TRUE(pit_.output(2));
  at(20);
  EXPECT_TRUE(pit_.output(2));
  pit_.set_gate(2, true);
  EXPECT_EQ(counts(2, 21, 25), (Counts{3, 2, 1, 3}));
}

// Third diagram: "Writing a new count while counting does not affect the current counting sequence ... the
// new count will be loaded at the end of the current counting cycle."
TEST_F(Pit8254Test, Mode2NewCountTakesOverAtTheEndOfTheCycle) {
  program(1, 2, 4);
  at(2);
  write_count(1, 5);
  EXPECT_EQ(counts(1, 2, 12), (Counts{3, 2, 1, 5, 4, 3, 2, 1, 5, 4}));
}

TEST_F(Pit8254Test, Mode2NewCountMovesTheLinesEdges) {
  program(0, 2, 100);
  at(50);
  write_count(0, 300);
  const unsigned before = irq0_.rising_edges();
  at(101);
  EXPECT_EQ(irq0_.rising_edges(), before + 1);
  at(400);
  EXPECT_EQ(irq0_.rising_edges(), before + 1);
  at(401);
  EXPECT_EQ(irq0_.rising_edges(), before + 2);
  at(701);
  EXPECT_EQ(irq0_.rising_edges(), before + 3);
}

TEST_F(Pit8254Test, CountOfZeroIsTheLargest) {
  program(1, 2, 0);
  EXPECT_EQ(counts(1, 1, 3), (Counts{0, 0xffff}));
  at(65'536);
  EXPECT_FALSE(pit_.output(1));
  at(65'537);
  EXPECT_TRUE(pit_.output(1));
  program(2, 2, 0, true);
  at(65'538);
  EXPECT_EQ(counts(2, 65'538, 65'540), (Counts{0, 0x9999}));
}

TEST_F(Pit8254Test, CountOfOneIsIllegalInMode2AndHarmless) {
  program(0, 2, 1);
  time_.advance(1'000'000'000);
  EXPECT_LE(irq0_.rising_edges(), 1u);
}

// Mode 3, first diagram: 4 2 4 2, OUT high for N/2 and low for N/2.
TEST_F(Pit8254Test, Mode3EvenCount) {
  program(1, 3, 4);
  EXPECT_EQ(counts(1, 1, 9), (Counts{4, 2, 4, 2, 4, 2, 4, 2}));
  EXPECT_EQ(outputs(1, 9, 17), "--__--__");
}

// Second diagram: 4 2 0 4 2, "OUT will be high for (N + 1)/2 counts and low for (N - 1)/2 counts".
TEST_F(Pit8254Test, Mode3OddCount) {
  program(1, 3, 5);
  EXPECT_EQ(counts(1, 1, 11), (Counts{4, 2, 0, 4, 2, 4, 2, 0, 4, 2}));
  EXPECT_EQ(outputs(1, 11, 21), "---__---__");
}

// Third diagram: GATE.
TEST_F(Pit8254Test, Mode3GateLowSetsOutHighAndATriggerReloads) {
  program(2, 3, 4);
  at(3);
  EXPECT_FALSE(pit_.output(2));
  pit_.set_gate(2, false);
  EXPECT_EQ(outputs(2, 3, 10), "-------");
  pit_.set_gate(2, true);
  EXPECT_EQ(outputs(2, 10, 18), "--__--__");
}

// "If a trigger is received after writing a new count but before the end of the current half-cycle ...
// Otherwise, the new count will be loaded at the end of the current half-cycle."
TEST_F(Pit8254Test, Mode3NewCountTakesOverAtTheEndOfTheHalfCycle) {
  program(1, 3, 8);
  at(2);
  write_count(1, 4);
  EXPECT_EQ(outputs(1, 2, 15), "---__--__--__");
  at(100);
  program(1, 3, 8);
  at(106);
  ASSERT_FALSE(pit_.output(1));
  write_count(1, 4);
  EXPECT_EQ(outputs(1, 106, 117), "___--__--__");
}

TEST_F(Pit8254Test, Mode3DrivesBothEdgesOfTheLine) {
  program(0, 3, 1000);
  const unsigned rising = irq0_.rising_edges(), falling = irq0_.falling_edges();
  at(500);
  EXPECT_TRUE(irq0_.level());
  at(501);
  EXPECT_FALSE(irq0_.level());
  at(1001);
  EXPECT_TRUE(irq0_.level());
  at(100'001);
  EXPECT_EQ(irq0_.rising_edges(), rising + 100);
  EXPECT_EQ(irq0_.falling_edges(), falling + 100);
}

// Mode 4, first diagram: "for an initial count of N, OUT does not strobe low until N + 1 CLK pulses after the
// initial count is written".
TEST_F(Pit8254Test, Mode4SoftwareTriggeredStrobe) {
  program(1, 4, 3);
  EXPECT_EQ(outputs(1, 0, 7), "----_--");
  EXPECT_EQ(read_count(1), 0xfffe) << "counts on: 0, FFFF, FFFE";
  at(70'000);
  EXPECT_TRUE(pit_.output(1));
}

TEST_F(Pit8254Test, Mode4StrobesTheLineOnce) {
  program(0, 4, 1000);
  const unsigned before = irq0_.rising_edges();
  at(1001);
  EXPECT_EQ(irq0_.rising_edges(), before);
  at(1002);
  EXPECT_EQ(irq0_.rising_edges(), before + 1);
  time_.advance(1'000'000'000);
  EXPECT_EQ(irq0_.rising_edges(), before + 1) << "passing zero again is no strobe";
}

// Third diagram: "If a new count is written during counting, it will be loaded on the next CLK pulse and
// counting will continue from the new count."
TEST_F(Pit8254Test, Mode4NewCountStartsAnew) {
  program(1, 4, 3);
  at(2);
  write_count(1, 2);
  EXPECT_EQ(outputs(1, 2, 8), "---_--");
}

TEST_F(Pit8254Test, Mode4GateStopsCounting) {
  program(2, 4, 3);
  at(1);
  pit_.set_gate(2, false);
  at(10);
  EXPECT_EQ(read_count(2), 3);
  pit_.set_gate(2, true);
  EXPECT_EQ(outputs(2, 10, 16), "---_--");
}

// Mode 5, first diagram: OUT strobes low N + 1 CLK pulses after a trigger.
TEST_F(Pit8254Test, Mode5HardwareTriggeredStrobe) {
  pit_.set_gate(2, false);
  program(2, 5, 3);
  at(20);
  EXPECT_TRUE(pit_.output(2));
  pit_.set_gate(2, true);
  EXPECT_EQ(outputs(2, 20, 27), "----_--");
  pit_.set_gate(2, false);
  EXPECT_EQ(outputs(2, 27, 29), "--") << "the level of GATE has no effect";
  pit_.set_gate(2, true);
  EXPECT_EQ(outputs(2, 29, 34), "---_-");
}

TEST_F(Pit8254Test, ModeNumbers6And7Are2And3) {
  program(1, 6, 3);
  EXPECT_EQ(counts(1, 1, 5), (Counts{3, 2, 1, 3}));
  program(2, 7, 4);
  EXPECT_EQ(counts(2, 5, 9), (Counts{4, 2, 4, 2}));
}

TEST_F(Pit8254Test, BcdCounting) {
  program(1, 0, 0x1001, true);
  EXPECT_EQ(counts(1, 1, 4), (Counts{0x1001, 0x1000, 0x0999}));
  at(1 + 1002);
  EXPECT_EQ(read_count(1), 0x9999) << "below zero";
  EXPECT_TRUE(pit_.output(1));
}

// "Read/Write least significant byte only", "most significant byte only"; the other byte of the count is
// zero.
TEST_F(Pit8254Test, SingleByteAccess) {
  control(1, 2, 0);
  out(pit_, 1, 0x12);
  at(1);
  EXPECT_EQ(in(pit_, 1), 0x12);
  at(2);
  EXPECT_EQ(in(pit_, 1), 0x11) << "11FF";
  control(2, 1, 0);
  out(pit_, 2, 0x34);
  at(3);
  EXPECT_EQ(in(pit_, 2), 0x34);
  EXPECT_EQ(in(pit_, 2), 0x34);
}

// "The count is then held in the latch until it is read by the CPU (or until the Counter is reprogrammed)."
TEST_F(Pit8254Test, LatchHoldsTheCount) {
  program(1, 0, 0x1234);
  at(1);
  out(pit_, kControl, 0x40);
  at(100);
  out(pit_, kControl, 0x40);  // ignored: not read yet
  EXPECT_EQ(in(pit_, 1), 0x34);
  out(pit_, kControl, 0x40);  // the same: half read
  EXPECT_EQ(in(pit_, 1), 0x12);
  EXPECT_EQ(read_count(1), 0x1234 - 99);
  out(pit_, kControl, 0x40);
  program(1, 0, 0x55aa);
  at(101);
  EXPECT_EQ(in(pit_, 1), 0xaa);
  EXPECT_EQ(in(pit_, 1), 0x55);
}

// Status byte: OUT, NULL COUNT, and "the counter's programmed Mode exactly as written in the last Mode
// Control Word".
TEST_F(Pit8254Test, ReadBackStatus) {
  control(1, 3, 6, true);
  EXPECT_EQ(status(1), 0x80 | 0x40 | 0x3d) << "OUT is high, no count";
  write_count(1, 0x0003);
  EXPECT_EQ(status(1), 0x80 | 0x40 | 0x3d) << "written and not loaded yet";
  at(1);
  EXPECT_EQ(status(1), 0x80 | 0x3d);
  at(3);
  EXPECT_EQ(status(1), 0x3d);
  write_count(1, 5);
  EXPECT_EQ(status(1), 0x40 | 0x3d) << "loaded at the end of the cycle";
  at(4);
  EXPECT_EQ(status(1), 0x80 | 0x3d);
}

// "If both count and status of a counter are latched, the first read operation of that counter will return
// latched status... The next one or two reads ... return latched count."
TEST_F(Pit8254Test, ReadBackOfCountAndStatusOfSeveralCounters) {
  program(1, 0, 0x2222);
  program(2, 0, 0x3333);
  at(1);
  out(pit_, kControl, 0xc0 | 0x0c);
  at(50);
  EXPECT_EQ(in(pit_, 2), 0x30);
  EXPECT_EQ(in(pit_, 2), 0x33);
  EXPECT_EQ(in(pit_, 2), 0x33);
  EXPECT_EQ(in(pit_, 1), 0x30);
  EXPECT_EQ(in(pit_, 1), 0x22);
  EXPECT_EQ(in(pit_, 1), 0x22);
  EXPECT_EQ(in(pit_, 1), static_cast<uint8_t>(0x2222 - 49));
}

TEST_F(Pit8254Test, ControlWordRegisterCannotBeRead) {
  EXPECT_EQ(in(pit_, kControl), 0xff);
}

TEST_F(Pit8254Test, PeriodStaysExactOverDays) {
  program(0, 3, 0);
  const uint64_t periods = 1'000'000;  // 15 hours
  at(1 + 65'536 * periods - 1);
  EXPECT_FALSE(irq0_.level());
  at(1 + 65'536 * periods);
  EXPECT_TRUE(irq0_.level());
}

// A tick interrupt that the host made late comes, and so do the others of the last tenth of a second.
TEST_F(Pit8254Test, LateInterruptsAreMadeUpForWithinBounds) {
  program(0, 2, 11'932);  // 10 ms
  const unsigned before = irq0_.rising_edges();
  time_.jump(45'000'000);
  EXPECT_EQ(irq0_.rising_edges(), before + 1) << "one at a time";
  time_.advance(1'000'000);
  EXPECT_EQ(irq0_.rising_edges(), before + 4);
  time_.jump(3'600'000'000'000);
  time_.advance(1'000'000);
  EXPECT_LE(irq0_.rising_edges(), before + 20) << "an hour's are not";
}

TEST_F(Pit8254Test, FastestRateLeavesTheHostTime) {
  program(0, 2, 2);
  unsigned expiries = 0;
  const Nanoseconds end = time_.now() + 10'000'000;
  while (time_.clock().next_deadline() && *time_.clock().next_deadline() < end) {
    time_.advance_to(*time_.clock().next_deadline());
    ASSERT_LT(++expiries, 1000u);
  }
}

TEST_F(Pit8254Test, LoadedTimerGoesOn) {
  program(0, 2, 1000);
  at(700);
  const DeviceState saved = pit_.save();
  TestLine line;
  Pit8254 other(time_.clock(), line.input());
  other.load(saved);
  EXPECT_EQ(other.save(), saved);
  at(1000);
  EXPECT_EQ(line.rising_edges(), 0u);
  at(1001);
  EXPECT_EQ(line.rising_edges(), 1u);
  pit_.reset();
  other.reset();
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
  EXPECT_FALSE(line.level());
}

// A counter that is too fast to follow, saved: the loaded one had its next edge sooner.
TEST_F(Pit8254Test, LoadedFastTimerGoesOnAtTheSameTime) {
  program(0, 3, 11);
  time_.advance(1'000'000);
  TestLine line;
  Pit8254 other(time_.clock(), line.input());
  const auto deadline = time_.clock().next_deadline();
  other.load(pit_.save());
  EXPECT_EQ(time_.clock().next_deadline(), deadline);
  pit_.reset();
  EXPECT_EQ(time_.clock().next_deadline(), deadline);
}

// Linux, in one-shot mode, wrote a count of 1156 and the host ran something else for 3 ms in the middle of
// that: the interrupt never came, and the guest's time stood still.
TEST(Pit8254, AHostThatIsBusyDuringAWriteLosesNoInterrupt) {
  for (const unsigned mode : {0u, 4u}) {
    Nanoseconds time = 0, passes = 3'000'000;  // with every look at the clock
    VirtualClock clock([&] { return time += passes; });
    TestLine irq0;
    Pit8254 pit(clock, irq0.input());
    out(pit, kControl, static_cast<uint8_t>(3u << 4 | mode << 1));
    const unsigned before = irq0.rising_edges();
    out(pit, 0, 1156 & 0xff);
    out(pit, 0, 1156 >> 8);
    clock.run_expired();
    EXPECT_EQ(irq0.rising_edges(), before + 1) << "mode " << mode;
    // And again, over a count that ran out.
    out(pit, 0, 1156 & 0xff);
    out(pit, 0, 1156 >> 8);
    clock.run_expired();
    EXPECT_EQ(irq0.rising_edges(), before + 2) << "mode " << mode;
  }
}

TEST_F(Pit8254Test, LoadRefusesImpossibleStates) {
  DeviceState state = pit_.save();
  state["counters"][0]["initial"] = 0;
  EXPECT_THROW(pit_.load(state), std::invalid_argument);
  state = pit_.save();
  state["counters"][1]["origin"] = int64_t{1} << 62;
  EXPECT_THROW(pit_.load(state), std::invalid_argument);
  state = pit_.save();
  state["version"] = 99;
  EXPECT_THROW(pit_.load(state), std::invalid_argument);
  EXPECT_ANY_THROW(pit_.load(DeviceState::object()));
}

}  // namespace
}  // namespace penumbra
