#include "devices/pit_8254.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace penumbra {

namespace {
constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;

// Control word.
constexpr unsigned kReadBack = 3;                                            // in place of a counter's number
constexpr unsigned kLatch = 0, kLowByte = 1, kHighByte = 2, kBothBytes = 3;  // RW bits
// Read-back command: the bits are clear for what is wanted.
constexpr uint8_t kNoCount = 0x20, kNoStatus = 0x10;
// Status byte.
constexpr uint8_t kOutput = 0x80, kNullCount = 0x40;

// A host that stops the machine for long would cause as many interrupts as would have come in that time.
// Of them only the latest are made up for, so that guests that count ticks lose little time under load.
constexpr Nanoseconds kMadeUpFor = 100'000'000;
// A guest may ask for 600,000 interrupts a second; this keeps the host from doing nothing else.
constexpr Nanoseconds kShortestInterval = 20'000;

uint32_t from_bcd(uint16_t value) {
  uint32_t result = 0;
  // The datasheet doesn't define digits above nine; they count as nine, so that the count stays in range.
  for (int shift = 12; shift >= 0; shift -= 4) result = result * 10 + std::min(value >> shift & 15, 9);
  return result;
}

uint16_t to_bcd(uint32_t value) {
  uint16_t result = 0;
  for (unsigned shift = 0; shift < 16; shift += 4, value /= 10) result |= value % 10 << shift;
  return result;
}
}  // namespace

// --- one counter

unsigned Pit8254::Counter::mode() const {
  const unsigned field = control >> 1 & 7;
  return field > 5 ? field & 3 : field;  // "X10" and "X11" are modes 2 and 3
}

// "The largest possible initial count is 0; this is equivalent to 2^16 for binary counting and 10^4 for BCD
// counting."
uint32_t Pit8254::Counter::programmed_count() const {
  const uint32_t count = bcd() ? from_bcd(count_register) : count_register;
  return count ? count : modulus();
}

Pit8254::Pulse Pit8254::Counter::elapsed_at(Pulse now) const {
  return paused ? elapsed : std::max<Pulse>(now - origin, 0);
}

uint16_t Pit8254::Counter::value_at(Pulse now) const {
  if (phase != Phase::Running) return held;
  const auto passed = static_cast<uint64_t>(elapsed_at(now));
  uint32_t value;
  if (mode() == 2) {
    value = initial - static_cast<uint32_t>(passed % initial);
  } else if (mode() == 3) {
    // Counts by two from the initial count, or from one less when that is odd, in each half of the cycle.
    auto in_half = static_cast<uint32_t>(passed % initial);
    if (in_half >= high_half()) in_half -= static_cast<uint32_t>(high_half());
    value = (initial & ~1u) - 2 * in_half;
  } else {
    value = static_cast<uint32_t>((initial + modulus() - passed % modulus()) % modulus());
  }
  value %= modulus();
  return bcd() ? to_bcd(value) : static_cast<uint16_t>(value);
}

bool Pit8254::Counter::output_at(Pulse now) const {
  if (phase == Phase::Unprogrammed) return false;
  const unsigned m = mode();
  if (phase != Phase::Running) return m != 0;
  const Pulse passed = elapsed_at(now);
  const Pulse in_cycle = passed % initial;
  switch (m) {
    case 0:
      return passed >= initial;
    case 1:
      return now < origin || passed >= initial;
    case 2:  // a count of 1 is illegal: OUT stays high
      return paused || initial == 1 || in_cycle != initial - 1;
    case 3:
      return paused || in_cycle < high_half();
    default:
      return passed != initial;
  }
}

uint8_t Pit8254::Counter::status_at(Pulse now) const {
  const bool loaded = phase == Phase::Running && !count_waits && (paused || now >= origin);
  return static_cast<uint8_t>(control | (output_at(now) ? kOutput : 0) | (loaded ? 0 : kNullCount));
}

Pit8254::Pulse Pit8254::Counter::cycle_end(Pulse now) const {
  if (now < origin) return mode() == 3 ? origin + high_half() : origin + initial;
  const Pulse start = now - (now - origin) % initial;
  const Pulse half = start + high_half();
  return mode() == 3 && now < half ? half : start + initial;
}

std::optional<Pit8254::Pulse> Pit8254::Counter::edge_after(Pulse pulse) const {
  if (phase != Phase::Running || paused) return std::nullopt;
  const auto when_later = [pulse](Pulse edge) { return edge > pulse ? std::optional(edge) : std::nullopt; };
  switch (mode()) {
    case 0:
      return when_later(origin + initial);
    case 1:
      return when_later(pulse < origin ? origin : origin + initial);
    case 2:
    case 3:
      if (initial == 1) return std::nullopt;
      return cycle_end(pulse);
    default:
      return when_later(origin + initial + 1);
  }
}

void Pit8254::Counter::start(Pulse load_pulse) {
  phase = Phase::Running;
  initial = programmed_count();
  origin = load_pulse;
  elapsed = 0;
  paused = !gate && !triggered();
  count_waits = false;
  reload_at.reset();
}

// A new count takes over at the end of a cycle (mode 2) or of a half cycle (mode 3).
void Pit8254::Counter::reload(Pulse boundary) {
  const bool low_half = mode() == 3 && (boundary - origin) % initial != 0;
  initial = programmed_count();
  origin = low_half ? boundary - high_half() : boundary;
  count_waits = false;
  reload_at.reset();
}

// --- the chip

Pit8254::Pit8254(VirtualClock& clock, LineOutput out0)
    : clock_(clock), out0_(std::move(out0)), timer_(clock, [this] { edge(); }) {}

// The chip has no reset pin. A machine that was reset finds it as after power-on; the gates are not its own.
void Pit8254::reset() {
  for (Counter& counter : counters_) {
    const bool gate = counter.gate;
    counter = Counter{};
    counter.gate = gate;
  }
  next_edge_.reset();
  timer_.cancel();
  drive(false);
}

void Pit8254::look() {
  using Wide = unsigned __int128;  // 64 bits would overflow after four hours
  now_ = static_cast<Pulse>(Wide{clock_.now()} * kClkHz / kNanosecondsPerSecond);
}

Nanoseconds Pit8254::time_of(Pulse pulse) const {
  if (pulse <= 0) return 0;
  using Wide = unsigned __int128;
  return static_cast<Nanoseconds>((Wide{static_cast<uint64_t>(pulse)} * kNanosecondsPerSecond + kClkHz - 1) /
                                  kClkHz);
}

// The counter, after a new count has taken over if it was time for that.
Pit8254::Counter& Pit8254::up_to_date(unsigned number) {
  Counter& counter = counters_[number];
  if (counter.reload_at && *counter.reload_at <= now()) {
    if (number == 0) finish_late_edge();
    counter.reload(*counter.reload_at);
    follow(number);
  }
  return counter;
}

bool Pit8254::output(unsigned counter) {
  look();
  return up_to_date(counter).output_at(now());
}

void Pit8254::set_gate(unsigned number, bool level) {
  look();
  Counter& counter = up_to_date(number);
  if (counter.gate == level) return;
  counter.gate = level;
  const Pulse pulse = now();
  if (counter.triggered()) {
    const bool has_count = counter.phase == Phase::AwaitTrigger || counter.phase == Phase::Running;
    if (level && has_count) counter.start(pulse + 1);
  } else if (counter.phase == Phase::Running) {
    if (!level) {
      counter.elapsed = counter.elapsed_at(pulse);
      counter.paused = true;
      counter.reload_at.reset();  // the trigger that ends the pause loads the new count
    } else if (counter.periodic()) {
      counter.start(pulse + 1);
    } else {
      counter.origin = pulse - counter.elapsed;
      counter.paused = false;
    }
  }
  follow(number);
}

// --- registers

uint8_t Pit8254::read_byte(uint16_t offset) {
  if (offset > 2) return 0xff;  // the control word register can't be read
  look();
  return read_counter(up_to_date(offset));
}

void Pit8254::write_byte(uint16_t offset, uint8_t value) {
  look();
  if (offset < 3) {
    write_count(offset, value);
  } else if (offset == 3) {
    control_word(value);
  }
}

void Pit8254::control_word(uint8_t value) {
  const unsigned number = value >> 6;
  if (number == kReadBack) return read_back(value);
  Counter& counter = up_to_date(number);
  if ((value >> 4 & 3) == kLatch) return latch_count(counter);
  if (number == 0) finish_late_edge();
  const uint16_t held = counter.value_at(now());
  const bool gate = counter.gate;
  counter = Counter{};
  counter.control = value & 0x3f;
  counter.gate = gate;
  counter.phase = Phase::AwaitCount;
  counter.held = held;
  follow(number);
}

void Pit8254::read_back(uint8_t value) {
  for (unsigned number = 0; number < counters_.size(); number++) {
    if (!(value & 2u << number)) continue;
    Counter& counter = up_to_date(number);
    if (!(value & kNoCount)) latch_count(counter);
    // A status that was latched and not read yet stays, as a count does.
    if (!(value & kNoStatus) && !counter.latched_status) counter.latched_status = counter.status_at(now());
  }
}

// "If a Counter is latched and then, some time later, latched again before the count is read, the second
// Counter Latch Command is ignored."
void Pit8254::latch_count(Counter& counter) {
  if (counter.latched_count) return;
  counter.latched_count = counter.value_at(now());
  counter.read_high = false;
}

uint8_t Pit8254::read_counter(Counter& counter) {
  if (counter.latched_status) return *std::exchange(counter.latched_status, std::nullopt);
  const uint16_t value = counter.latched_count.value_or(counter.value_at(now()));
  const bool both = counter.access() == kBothBytes;
  const bool high = counter.access() == kHighByte || (both && counter.read_high);
  if (both) counter.read_high = !high;
  if (high || !both) counter.latched_count.reset();
  return static_cast<uint8_t>(high ? value >> 8 : value);
}

void Pit8254::write_count(unsigned number, uint8_t value) {
  Counter& counter = up_to_date(number);
  switch (counter.access()) {
    case kLatch:  // no control word yet
      return;
    case kLowByte:
      counter.count_register = value;
      break;
    case kHighByte:
      counter.count_register = static_cast<uint16_t>(value << 8);
      break;
    case kBothBytes:
      if (!counter.low_byte) {
        counter.low_byte = value;
        // Mode 0: "Writing the first byte disables counting. OUT is set low immediately."
        if (counter.mode() != 0) return;
        if (number == 0) finish_late_edge();
        counter.held = counter.value_at(now());
        counter.phase = Phase::AwaitCount;
        return follow(number);
      }
      counter.count_register = static_cast<uint16_t>(value << 8 | *counter.low_byte);
      counter.low_byte.reset();
      break;
  }
  if (number == 0) finish_late_edge();
  count_written(counter);
  follow(number);
}

void Pit8254::count_written(Counter& counter) {
  const Pulse pulse = now();
  if (counter.triggered()) {
    if (counter.phase == Phase::AwaitCount) counter.phase = Phase::AwaitTrigger;
    counter.count_waits = true;
  } else if (!counter.periodic() || counter.phase != Phase::Running ||
             (!counter.paused && pulse < counter.origin)) {
    counter.start(pulse + 1);
  } else {
    counter.count_waits = true;
    if (!counter.paused) counter.reload_at = counter.cycle_end(pulse);
  }
}

// --- the line of counter 0

void Pit8254::drive(bool level) {
  if (out0_level_ == level) return;
  out0_level_ = level;
  if (out0_) out0_(level);
}

// An edge to `level`; one to the level that the line has is the end of a strobe.
void Pit8254::drive_edge(bool level) {
  drive(!level);
  drive(level);
}

// Before counter 0 changes: an edge that is due must not get lost because the timer is late.
void Pit8254::finish_late_edge() {
  if (!next_edge_ || *next_edge_ > now()) return;
  drive_edge(counters_[0].output_at(*next_edge_));
  next_edge_.reset();
}

// After a counter changed.
void Pit8254::follow(unsigned number) {
  if (number != 0) return;
  const Pulse pulse = now();
  drive(counters_[0].output_at(pulse));
  next_edge_ = counters_[0].edge_after(pulse);
  if (next_edge_) {
    timer_.arm(time_of(*next_edge_));
  } else {
    timer_.cancel();
  }
}

void Pit8254::edge() {
  if (!next_edge_) return;
  Counter& counter = counters_[0];
  drive_edge(counter.output_at(*next_edge_));
  const Nanoseconds time = clock_.now();
  look();
  const Pulse oldest = now() - static_cast<Pulse>(kMadeUpFor * kClkHz / kNanosecondsPerSecond);
  const Pulse after = std::max(*next_edge_, oldest);
  if (counter.reload_at && *counter.reload_at <= after) counter.reload(*counter.reload_at);
  next_edge_ = counter.edge_after(after);
  if (next_edge_) timer_.arm(std::max(time_of(*next_edge_), time + kShortestInterval));
}

// --- state

namespace {
template <typename T>
DeviceState or_null(const std::optional<T>& value) {
  return value ? DeviceState(*value) : DeviceState(nullptr);
}

template <typename T>
void load_optional(const DeviceState& state, const char* name, std::optional<T>& to) {
  const DeviceState& value = state.at(name);
  to = value.is_null() ? std::nullopt : std::optional(value.get<T>());
}
}  // namespace

DeviceState Pit8254::save() const {
  DeviceState counters = DeviceState::array();
  for (const Counter& counter : counters_) {
    counters.push_back({{"control", counter.control},
                        {"count_register", counter.count_register},
                        {"count_waits", counter.count_waits},
                        {"reload_at", or_null(counter.reload_at)},
                        {"gate", counter.gate},
                        {"phase", static_cast<unsigned>(counter.phase)},
                        {"held", counter.held},
                        {"initial", counter.initial},
                        {"origin", counter.origin},
                        {"paused", counter.paused},
                        {"elapsed", counter.elapsed},
                        {"low_byte", or_null(counter.low_byte)},
                        {"read_high", counter.read_high},
                        {"latched_count", or_null(counter.latched_count)},
                        {"latched_status", or_null(counter.latched_status)}});
  }
  return {{"version", 1},
          {"counters", counters},
          {"out0", out0_level_},
          {"next_edge", or_null(next_edge_)},
          {"deadline", timer_.armed() ? DeviceState(timer_.deadline()) : DeviceState(nullptr)}};
}

void Pit8254::load(const DeviceState& state) {
  require_version(state, 1, name());
  // Keeps times in nanoseconds within 64 bits; 2^53 pulses are 239 years.
  constexpr Pulse kLimit = Pulse{1} << 53;
  const auto checked = [](std::optional<Pulse> pulse) {
    if (pulse && (*pulse < -kLimit || *pulse > kLimit)) {
      throw std::invalid_argument("pit_8254: a saved time is out of range");
    }
    return pulse;
  };
  for (unsigned number = 0; number < counters_.size(); number++) {
    const DeviceState& saved = state.at("counters").at(number);
    Counter& counter = counters_[number];
    counter = Counter{};
    counter.control = static_cast<uint8_t>(bounded(saved, "control", 0x3f));
    saved.at("count_register").get_to(counter.count_register);
    saved.at("count_waits").get_to(counter.count_waits);
    load_optional(saved, "reload_at", counter.reload_at);
    checked(counter.reload_at);
    saved.at("gate").get_to(counter.gate);
    counter.phase = static_cast<Phase>(bounded(saved, "phase", static_cast<unsigned>(Phase::Running)));
    saved.at("held").get_to(counter.held);
    counter.initial = static_cast<uint32_t>(bounded(saved, "initial", 65'536));
    if (counter.initial == 0) throw std::invalid_argument("pit_8254: a saved count is zero");
    counter.origin = *checked(saved.at("origin").get<Pulse>());
    saved.at("paused").get_to(counter.paused);
    counter.elapsed = *checked(saved.at("elapsed").get<Pulse>());
    load_optional(saved, "low_byte", counter.low_byte);
    saved.at("read_high").get_to(counter.read_high);
    load_optional(saved, "latched_count", counter.latched_count);
    load_optional(saved, "latched_status", counter.latched_status);
  }
  state.at("out0").get_to(out0_level_);
  load_optional(state, "next_edge", next_edge_);
  checked(next_edge_);
  // Not that of the edge: a fast timer's edges are late (see kShortestInterval).
  std::optional<Nanoseconds> deadline;
  load_optional(state, "deadline", deadline);
  if (next_edge_ && deadline) {
    timer_.arm(*deadline);
  } else {
    timer_.cancel();
  }
}

}  // namespace penumbra
