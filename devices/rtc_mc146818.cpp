#include "devices/rtc_mc146818.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

namespace penumbra {

namespace {
constexpr uint8_t kSeconds = 0x00, kSecondsAlarm = 0x01, kMinutes = 0x02, kMinutesAlarm = 0x03, kHours = 0x04,
                  kHoursAlarm = 0x05, kWeekday = 0x06, kDay = 0x07, kMonth = 0x08, kYear = 0x09, kA = 0x0a,
                  kB = 0x0b, kC = 0x0c, kD = 0x0d, kCentury = 0x32;
// Register A.
constexpr uint8_t kUpdateInProgress = 0x80, kDivider = 0x70, kRate = 0x0f, kNormalDivider = 0x20;
// Register B; the interrupt enables stand where register C has the flags.
constexpr uint8_t kSet = 0x80, kPeriodic = 0x40, kAlarm = 0x20, kUpdateEnded = 0x10, kSquareWave = 0x08,
                  kBinary = 0x04, k24Hours = 0x02;
constexpr uint8_t kEnables = kPeriodic | kAlarm | kUpdateEnded;
constexpr uint8_t kInterruptFlag = 0x80;    // register C
constexpr uint8_t kValidRamAndTime = 0x80;  // register D
constexpr uint8_t kPm = 0x80;               // hours, in the 12-hour mode
constexpr uint8_t kIndexBits = 0x7f;        // bit 7 of port 70h masks the NMI, of which a PC has none here
constexpr uint8_t kAnyAlarm = 0xc0;         // "don't care" codes are C0h to FFh

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kDay24 = 24 * 3600;
// UIP goes high 244 us before an update cycle of 1984 us (data sheet, table 6, 32,768 Hz).
constexpr int64_t kUpdateLead = 2'228'000;
// The first update comes half a second after the divider was released.
constexpr int64_t kReleasedDivider = kSecond / 2;

// Rounds towards minus infinity: times before 1970 and instants before the divider's zero exist.
constexpr int64_t floor_div(int64_t value, int64_t by) {
  return value / by - (value % by < 0 ? 1 : 0);
}
constexpr int64_t floor_mod(int64_t value, int64_t by) {
  return value - floor_div(value, by) * by;
}

// Periods of `clocks` of the 32,768 Hz crystal, of which a second has a whole number. Both functions are
// exact, so that periodic interrupts and updates don't drift apart.
constexpr int64_t kClocksPerSecond = 32'768;

constexpr int64_t periods_until(int64_t instant, unsigned clocks) {
  const int64_t in_second = floor_mod(instant, kSecond) * kClocksPerSecond / kSecond;
  return floor_div(floor_div(instant, kSecond) * kClocksPerSecond + in_second, clocks);
}

constexpr int64_t end_of_period(int64_t period, unsigned clocks) {
  const int64_t end = (period + 1) * clocks;
  const int64_t in_second = floor_mod(end, kClocksPerSecond);
  return floor_div(end, kClocksPerSecond) * kSecond +
         (in_second * kSecond + kClocksPerSecond - 1) / kClocksPerSecond;
}

constexpr bool is_time(uint8_t index) {
  return index == kCentury ||
         (index <= kYear && index != kSecondsAlarm && index != kMinutesAlarm && index != kHoursAlarm);
}

using std::chrono::days;
using std::chrono::sys_days;
sys_days day_of(int64_t unix_seconds) {
  return sys_days(days(floor_div(unix_seconds, kDay24)));
}

// The calendar of the chip with its century byte: 0000 to 9999.
constexpr int64_t kEarliest = -62'167'219'200, kLatest = 253'402'300'799;
}  // namespace

RtcMc146818::RtcMc146818(VirtualClock& clock, int64_t start_time, LineOutput interrupt)
    : clock_(clock),
      interrupt_(std::move(interrupt)),
      base_(std::clamp(start_time, kEarliest, kLatest)),
      timer_(clock, [this] {
        account();
        update_interrupt();
      }) {
  memory_[kA] = kNormalDivider | 0x06;  // 1,024 Hz, as every PC's firmware leaves it
  memory_[kB] = k24Hours;
}

void RtcMc146818::reset() {
  account();
  memory_[kB] &= static_cast<uint8_t>(~(kEnables | kSquareWave));
  memory_[kC] = 0;
  index_ = 0;
  update_interrupt();
}

// --- time

bool RtcMc146818::divider_runs() const {
  return (memory_[kA] & 0x60) != 0x60;
}
bool RtcMc146818::updates() const {
  return divider_runs() && !(memory_[kB] & kSet);
}

RtcMc146818::Instant RtcMc146818::instant() const {
  return static_cast<int64_t>(clock_.now()) - epoch_;
}

int64_t RtcMc146818::seconds_at(Instant instant) const {
  const int64_t seconds = divider_runs() ? base_ + floor_div(instant, kSecond) : base_;
  return kEarliest + floor_mod(seconds - kEarliest, kLatest + 1 - kEarliest);
}

bool RtcMc146818::update_in_progress() const {
  return updates() && floor_mod(instant(), kSecond) >= kSecond - kUpdateLead;
}

uint8_t RtcMc146818::encode(unsigned value) const {
  return static_cast<uint8_t>(memory_[kB] & kBinary ? value : value / 10 << 4 | value % 10);
}

// What the chip does with values out of range is not defined; here they count as the nearest valid one.
unsigned RtcMc146818::decode(uint8_t value, unsigned lowest, unsigned highest) const {
  const unsigned number = memory_[kB] & kBinary ? value : (value >> 4) * 10u + (value & 15);
  return std::clamp(number, lowest, highest);
}

unsigned RtcMc146818::decode_hour(uint8_t value) const {
  if (memory_[kB] & k24Hours) return decode(value, 0, 23);
  return decode(value & ~kPm, 1, 12) % 12 + (value & kPm ? 12 : 0);
}

// Puts the time of day into the registers.
void RtcMc146818::store_time() {
  const int64_t time = seconds_at(instant());
  const sys_days day = day_of(time);
  const std::chrono::year_month_day date(day);
  const auto in_day = static_cast<unsigned>(floor_mod(time, kDay24));
  const unsigned hour = in_day / 3600;
  memory_[kSeconds] = encode(in_day % 60);
  memory_[kMinutes] = encode(in_day / 60 % 60);
  if (memory_[kB] & k24Hours) {
    memory_[kHours] = encode(hour);
  } else {
    memory_[kHours] = static_cast<uint8_t>(encode(hour % 12 ? hour % 12 : 12) | (hour >= 12 ? kPm : 0));
  }
  const unsigned weekday = std::chrono::weekday(day).c_encoding();  // Sunday is 0
  memory_[kWeekday] = encode((weekday + weekday_shift_) % 7 + 1);
  memory_[kDay] = encode(static_cast<unsigned>(date.day()));
  memory_[kMonth] = encode(static_cast<unsigned>(date.month()));
  const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
  memory_[kYear] = encode(year % 100);
  memory_[kCentury] = encode(year / 100);
}

// The time that the registers say. A day that the month doesn't have is one of the next month.
int64_t RtcMc146818::stored_time() const {
  using namespace std::chrono;
  const auto year_number =
      static_cast<int>(decode(memory_[kCentury], 0, 99) * 100 + decode(memory_[kYear], 0, 99));
  const sys_days first(year(year_number) / month(decode(memory_[kMonth], 1, 12)) / 1);
  const sys_days day = first + days(decode(memory_[kDay], 1, 31) - 1);
  return day.time_since_epoch().count() * kDay24 + decode_hour(memory_[kHours]) * 3600 +
         decode(memory_[kMinutes], 0, 59) * 60 + decode(memory_[kSeconds], 0, 59);
}

// The divider goes on: what is set is the current second, however much of it has passed.
void RtcMc146818::set_time(int64_t unix_seconds) {
  base_ = divider_runs() ? unix_seconds - floor_div(instant(), kSecond) : unix_seconds;
  const unsigned weekday = std::chrono::weekday(day_of(unix_seconds)).c_encoding();
  weekday_shift_ = static_cast<uint8_t>((decode(memory_[kWeekday], 1, 7) - 1 + 7 - weekday) % 7);
}

// --- events

// Clocks of the crystal from one periodic interrupt to the next; 0: there are none. Data sheet, table 5:
// rates 1 and 2 are those of 8 and 9.
unsigned RtcMc146818::period_clocks() const {
  const unsigned rate = memory_[kA] & kRate;
  if (rate == 0 || !divider_runs()) return 0;
  return 1u << (rate <= 2 ? rate + 6 : rate - 1);
}

// The next second after `after` in which the alarm bytes match.
std::optional<int64_t> RtcMc146818::next_alarm(int64_t after) const {
  const auto wanted = [](uint8_t value, unsigned number) -> std::optional<unsigned> {
    return value >= kAnyAlarm ? std::nullopt : std::optional(number);
  };
  const auto hour = wanted(memory_[kHoursAlarm], decode_hour(memory_[kHoursAlarm]));
  const auto minute = wanted(memory_[kMinutesAlarm], decode(memory_[kMinutesAlarm], 0, 255));
  const auto second = wanted(memory_[kSecondsAlarm], decode(memory_[kSecondsAlarm], 0, 255));
  // Such an alarm never comes; the search would look at every second of a day for it.
  if ((minute && *minute > 59) || (second && *second > 59)) return std::nullopt;
  int64_t time = after + 1;
  const int64_t limit = after + kDay24;
  while (time <= limit) {
    const auto in_day = static_cast<unsigned>(floor_mod(time, kDay24));
    if (hour && in_day / 3600 != *hour) {
      time += 3600 - in_day % 3600;
    } else if (minute && in_day / 60 % 60 != *minute) {
      time += 60 - in_day % 60;
    } else if (second && in_day % 60 != *second) {
      time++;
    } else {
      return time;
    }
  }
  return std::nullopt;
}

// Brings register C up to date.
void RtcMc146818::account() {
  const Instant until = instant();
  const Instant from = std::exchange(accounted_, until);
  if (until <= from || !divider_runs()) return;
  uint8_t& flags = memory_[kC];
  if (const unsigned clocks = period_clocks();
      clocks && periods_until(until, clocks) != periods_until(from, clocks)) {
    flags |= kPeriodic;
  }
  if (!updates()) return;
  const int64_t first = floor_div(from, kSecond), last = floor_div(until, kSecond);
  if (first == last) return;
  flags |= kUpdateEnded;
  if (const auto alarm = next_alarm(seconds_at(from)); alarm && *alarm - seconds_at(from) <= last - first) {
    flags |= kAlarm;
  }
}

// When the first event comes that raises an interrupt.
std::optional<RtcMc146818::Instant> RtcMc146818::next_event() const {
  if (!divider_runs()) return std::nullopt;
  std::optional<Instant> next;
  const auto consider = [&next](Instant at) { next = next ? std::min(*next, at) : at; };
  const uint8_t enables = memory_[kB];
  if (const unsigned clocks = period_clocks(); clocks && (enables & kPeriodic)) {
    consider(end_of_period(periods_until(accounted_, clocks), clocks));
  }
  if (updates()) {
    const int64_t second = floor_div(accounted_, kSecond);
    if (enables & kUpdateEnded) consider((second + 1) * kSecond);
    if (enables & kAlarm) {
      const int64_t time = seconds_at(accounted_);
      if (const auto alarm = next_alarm(time)) consider((second + (*alarm - time)) * kSecond);
    }
  }
  return next;
}

void RtcMc146818::arm(std::optional<Instant> event) {
  if (!event) return timer_.cancel();
  timer_.arm(static_cast<Nanoseconds>(std::max<int64_t>(*event + epoch_, 0)));
}

// After register C, an enable or the time changed; account() came before.
void RtcMc146818::update_interrupt() {
  uint8_t& flags = memory_[kC];
  const bool level = flags & memory_[kB] & kEnables;
  flags = static_cast<uint8_t>((flags & ~kInterruptFlag) | (level ? kInterruptFlag : 0));
  // While IRQ is asserted further events only set flags, and those are accounted for when they are read.
  arm(level ? std::nullopt : next_event());
  if (level == interrupt_level_) return;
  interrupt_level_ = level;
  if (interrupt_) interrupt_(level);
}

// --- registers

uint8_t RtcMc146818::read_byte(uint16_t offset) {
  return offset == 1 ? read_register(index_) : 0xff;  // port 70h can only be written
}

void RtcMc146818::write_byte(uint16_t offset, uint8_t value) {
  if (offset == 0) {
    index_ = value & kIndexBits;
  } else if (offset == 1) {
    write_register(index_, value);
  }
}

uint8_t RtcMc146818::read_register(uint8_t index) {
  if (is_time(index)) {
    if (!(memory_[kB] & kSet)) store_time();
    return memory_[index];
  }
  switch (index) {
    case kA:
      return memory_[kA] | (update_in_progress() ? kUpdateInProgress : 0);
    case kC: {
      account();
      update_interrupt();
      const uint8_t flags = std::exchange(memory_[kC], 0);
      update_interrupt();
      return flags;
    }
    case kD:
      return kValidRamAndTime;
    default:
      return memory_[index];
  }
}

void RtcMc146818::write_register(uint8_t index, uint8_t value) {
  account();
  if (is_time(index)) {
    const bool set = memory_[kB] & kSet;
    if (!set) store_time();
    memory_[index] = value;
    if (!set) set_time(stored_time());
  } else if (index == kA) {
    write_a(value);
  } else if (index == kB) {
    write_b(value);
  } else if (index != kC && index != kD) {  // both are read-only
    memory_[index] = value;
  }
  update_interrupt();
}

void RtcMc146818::write_a(uint8_t value) {
  const bool ran = divider_runs();
  const int64_t time = seconds_at(instant());
  memory_[kA] = value & (kDivider | kRate);
  if (ran == divider_runs()) return;
  if (divider_runs()) epoch_ = static_cast<int64_t>(clock_.now()) - kReleasedDivider;
  base_ = time;
  accounted_ = instant();
}

void RtcMc146818::write_b(uint8_t value) {
  const bool was_set = memory_[kB] & kSet;
  // In the old format: the registers are not converted when a program chooses another one while SET.
  if (!was_set && (value & kSet)) store_time();
  memory_[kB] = value & kSet ? value & ~kUpdateEnded : value;  // SET going high clears UIE
  if (was_set && !(value & kSet)) set_time(stored_time());
}

// --- state

DeviceState RtcMc146818::save() const {
  return {{"version", 1},
          {"memory", memory_},
          {"index", index_},
          {"base", base_},
          {"epoch", epoch_},
          {"weekday_shift", weekday_shift_},
          {"accounted", accounted_},
          {"interrupt", interrupt_level_}};
}

void RtcMc146818::load(const DeviceState& state) {
  require_version(state, 1, name());
  // Keeps sums of times within 64 bits.
  const auto limited = [&state](const char* member) {
    constexpr int64_t kLimit = int64_t{1} << 61;
    const auto value = state.at(member).get<int64_t>();
    if (value < -kLimit || value > kLimit)
      throw std::invalid_argument("rtc_mc146818: a saved time is out of range");
    return value;
  };
  for (unsigned i = 0; i < memory_.size(); i++) state.at("memory").at(i).get_to(memory_[i]);
  memory_[kA] &= kDivider | kRate;
  index_ = static_cast<uint8_t>(bounded(state, "index", kIndexBits));
  base_ = limited("base");
  epoch_ = limited("epoch");
  weekday_shift_ = static_cast<uint8_t>(bounded(state, "weekday_shift", 6));
  accounted_ = limited("accounted");
  state.at("interrupt").get_to(interrupt_level_);
  // The timer only: the line is restored by whoever it goes to.
  arm(interrupt_level_ ? std::nullopt : next_event());
}

}  // namespace penumbra
