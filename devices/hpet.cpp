#include "devices/hpet.h"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace penumbra {

namespace {
constexpr uint64_t kTick = 10;  // nanoseconds
constexpr uint64_t kCapabilities = kTick * 1'000'000 << 32 | Hpet::kBlockId;

// Registers
constexpr uint64_t kCapabilityRegister = 0x00, kConfigurationRegister = 0x10, kStatusRegister = 0x20,
                   kCounterRegister = 0xf0, kTimerRegisters = 0x100, kTimerBytes = 0x20;
enum : unsigned { kTimerConfiguration, kTimerComparator, kTimerFsbRoute };
// General configuration
constexpr uint64_t kEnable = 1, kLegacyRoute = 2;
// Timer configuration
constexpr uint64_t kLevelTriggered = 0x02, kInterruptEnable = 0x04, kPeriodic = 0x08, kPeriodicCapable = 0x10,
                   kWide = 0x20, kSetValue = 0x40, kForce32 = 0x100;
constexpr uint64_t kTimerWritable =
    kLevelTriggered | kInterruptEnable | kPeriodic | kSetValue | kForce32 | 0x1f << 9;
constexpr unsigned kRouteShift = 9;
// I/O APIC inputs that a timer can drive: 2, 8, and 16 to 23, which nothing else has.
constexpr uint64_t kRoutes = 0x00ff'0104;
constexpr uint64_t kTimerFixed = kRoutes << 32 | kPeriodicCapable | kWide;

// A guest that sets a period of a tick leaves the host time.
constexpr Nanoseconds kShortestInterval = 20'000;
}  // namespace

Hpet::Hpet(VirtualClock& clock, PhysicalMap& map, Pins pins) : clock_(clock), pins_(std::move(pins)) {
  map.add_mmio(PhysAddr{kBase}, kBytes, *this, "HPET");
  for (unsigned i = 0; i < kTimers; i++) {
    timers_[i].timer = std::make_unique<Timer>(clock, [this, i] { expired(i); });
    timers_[i].configuration = kTimerFixed;
  }
}

void Hpet::reset() {
  for (unsigned i = 0; i < kTimers; i++) {
    drive(i, false);
    timers_[i].timer->cancel();
    timers_[i].configuration = kTimerFixed;
    timers_[i].comparator = ~uint64_t{0};
    timers_[i].period = 0;
  }
  if (legacy()) pins_.legacy(false);
  configuration_ = counter_ = 0;
  counter_time_ = 0;
  status_ = 0;
}

bool Hpet::enabled() const {
  return configuration_ & kEnable;
}
bool Hpet::legacy() const {
  return configuration_ & kLegacyRoute;
}

uint64_t Hpet::counter() const {
  return enabled() ? counter_ + (clock_.now() - counter_time_) / kTick : counter_;
}

// --- Comparators (2.3.9)

void Hpet::arm(unsigned number) {
  Comparator& timer = timers_[number];
  if (!enabled()) return timer.timer->cancel();
  const uint64_t now = counter();
  uint64_t ticks = timer.comparator - now;
  if (timer.configuration & kForce32) ticks = static_cast<uint32_t>(ticks);
  if (ticks == 0) ticks = timer.configuration & kForce32 ? uint64_t{1} << 32 : 0;
  constexpr uint64_t kFar = uint64_t{1} << 58;  // 91 years
  if (ticks == 0 || ticks > kFar) return timer.timer->cancel();
  // From the counter's time, so that rounding does not add up.
  const uint64_t from_start = now + ticks - counter_;
  timer.timer->arm(from_start > kFar ? clock_.now() + ticks * kTick : counter_time_ + from_start * kTick);
}

void Hpet::expired(unsigned number) {
  Comparator& timer = timers_[number];
  if (!enabled()) return;
  const Nanoseconds now = clock_.now();
  if (timer.configuration & kPeriodic && timer.period != 0) {
    // Periods that passed unseen are one interrupt.
    const uint64_t mask = timer.configuration & kForce32 ? 0xffff'ffff : ~uint64_t{0};
    const uint64_t late = (counter() - timer.comparator) & mask;
    timer.comparator = (timer.comparator + (late / timer.period + 1) * timer.period) & mask;
    arm(number);
    if (timer.timer->armed()) timer.timer->arm(std::max(timer.timer->deadline(), now + kShortestInterval));
  } else if (timer.configuration & kForce32) {
    arm(number);  // it comes round
  }
  interrupt(number);
}

void Hpet::interrupt(unsigned number) {
  Comparator& timer = timers_[number];
  if (timer.configuration & kLevelTriggered) {
    status_ |= uint32_t{1} << number;
    if (timer.configuration & kInterruptEnable) drive(number, true);
  } else if (timer.configuration & kInterruptEnable) {
    drive(number, false);
    drive(number, true);
    drive(number, false);
  }
}

void Hpet::drive(unsigned number, bool level) {
  Comparator& timer = timers_[number];
  if (timer.level == level) return;
  timer.level = level;
  if (legacy() && number < 2) {
    pins_.legacy_interrupt(number == 0 ? 0 : 8, level);
  } else {
    const auto route = static_cast<unsigned>(timer.configuration >> kRouteShift & 0x1f);
    if (kRoutes >> route & 1) pins_.interrupt(route, level);
  }
}

// --- Registers

uint64_t Hpet::mmio_read(uint64_t offset, unsigned size) {
  if (offset % 8 + size > 8) return ~uint64_t{0};
  return read_register(offset & ~uint64_t{7}) >> offset % 8 * 8;
}

// 32-bit halves or whole registers (2.1).
void Hpet::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  if (size == 8 && offset % 8 == 0) return write_register(offset, value);
  if (size != 4 || offset % 4 != 0) return;
  const uint64_t at = offset & ~uint64_t{7};
  const unsigned shift = offset % 8 * 8;
  const uint64_t mask = uint64_t{0xffff'ffff} << shift;
  // The other half is written with what it holds; of the status, where ones clear, with zeros.
  uint64_t rest = at == kStatusRegister ? 0 : read_register(at) & ~mask;
  if (at >= kTimerRegisters && (at - kTimerRegisters) % kTimerBytes / 8 == kTimerComparator) {
    const auto number = static_cast<unsigned>((at - kTimerRegisters) / kTimerBytes);
    // The halves of a period come one after the other, and SETVAL counts for both.
    if (number < kTimers && timers_[number].configuration & kPeriodic && shift != 0)
      rest = timers_[number].comparator & 0xffff'ffff;
  }
  write_register(at, rest | value << shift);
}

uint64_t Hpet::read_register(uint64_t offset) const {
  switch (offset) {
    case kCapabilityRegister:
      return kCapabilities;
    case kConfigurationRegister:
      return configuration_;
    case kStatusRegister:
      return status_;
    case kCounterRegister:
      return counter();
    default:
      break;
  }
  const uint64_t number = (offset - kTimerRegisters) / kTimerBytes;
  if (offset < kTimerRegisters || number >= kTimers) return 0;
  switch ((offset - kTimerRegisters) % kTimerBytes / 8) {
    case kTimerConfiguration:
      return timers_[number].configuration;
    case kTimerComparator:
      return timers_[number].comparator;
    default:
      return 0;
  }
}

void Hpet::write_register(uint64_t offset, uint64_t value) {
  switch (offset) {
    case kCapabilityRegister:
      return;
    case kConfigurationRegister:
      return write_configuration(value);
    case kStatusRegister:
      for (unsigned i = 0; i < kTimers; i++) {
        const uint32_t bit_of_timer = uint32_t{1} << i;
        if (!(value & status_ & bit_of_timer)) continue;
        status_ &= ~bit_of_timer;
        drive(i, false);
      }
      return;
    case kCounterRegister:
      if (enabled()) return;  // 2.3.7: only while it is halted
      counter_ = value;
      return;
    default:
      break;
  }
  const uint64_t number = (offset - kTimerRegisters) / kTimerBytes;
  if (offset < kTimerRegisters || number >= kTimers) return;
  write_timer(static_cast<unsigned>(number),
              static_cast<unsigned>((offset - kTimerRegisters) % kTimerBytes / 8), value);
}

void Hpet::write_configuration(uint64_t value) {
  const uint64_t before = configuration_, after = value & (kEnable | kLegacyRoute);
  if ((before ^ after) & kLegacyRoute) {
    for (unsigned i = 0; i < 2; i++) drive(i, false);
  }
  if ((before ^ after) & kEnable) {
    counter_ = counter();
    counter_time_ = clock_.now();
  }
  configuration_ = after;
  if ((before ^ after) & kLegacyRoute) pins_.legacy(legacy());
  for (unsigned i = 0; i < kTimers; i++) {
    if ((before ^ after) & kEnable) arm(i);
    if (!enabled()) drive(i, false);
  }
}

void Hpet::write_timer(unsigned number, unsigned which, uint64_t value) {
  Comparator& timer = timers_[number];
  if (which == kTimerConfiguration) {
    drive(number, false);
    timer.configuration = kTimerFixed | (value & kTimerWritable);
    if (timer.configuration & kForce32) {
      timer.comparator = static_cast<uint32_t>(timer.comparator);
      timer.period = static_cast<uint32_t>(timer.period);
    }
    if (!(timer.configuration & kLevelTriggered)) status_ &= ~(uint32_t{1} << number);
    if (status_ >> number & 1 && timer.configuration & kInterruptEnable) drive(number, true);
    arm(number);
  } else if (which == kTimerComparator) {
    write_comparator(timer, value);
    arm(number);
  }
}

// 2.3.9.2: of a periodic timer the register is the period, but right after SETVAL the next comparison's
// value.
void Hpet::write_comparator(Comparator& timer, uint64_t value) {
  if (timer.configuration & kForce32) value = static_cast<uint32_t>(value);
  if (!(timer.configuration & kPeriodic) || timer.configuration & kSetValue) {
    timer.comparator = value;
  }
  if (timer.configuration & kPeriodic && !(timer.configuration & kSetValue)) timer.period = value;
  timer.configuration &= ~kSetValue;
}

// --- State

DeviceState Hpet::save() const {
  DeviceState timers = DeviceState::array();
  for (const Comparator& timer : timers_) {
    timers.push_back(
        {{"configuration", timer.configuration},
         {"comparator", timer.comparator},
         {"period", timer.period},
         {"level", timer.level},
         {"deadline", timer.timer->armed() ? DeviceState(timer.timer->deadline()) : DeviceState(nullptr)}});
  }
  return {{"version", 1},        {"configuration", configuration_},
          {"counter", counter_}, {"counter_time", counter_time_},
          {"status", status_},   {"timers", timers}};
}

void Hpet::load(const DeviceState& state) {
  require_version(state, 1, name());
  const auto configuration = bounded(state, "configuration", kEnable | kLegacyRoute);
  const auto status = bounded(state, "status", (1u << kTimers) - 1);
  const auto counter_time = bounded(state, "counter_time", clock_.now());
  const auto counter = state.at("counter").get<uint64_t>();
  for (unsigned i = 0; i < kTimers; i++) {
    const DeviceState& saved = state.at("timers").at(i);
    Comparator& timer = timers_[i];
    timer.configuration = kTimerFixed | (saved.at("configuration").get<uint64_t>() & kTimerWritable);
    saved.at("comparator").get_to(timer.comparator);
    saved.at("period").get_to(timer.period);
    saved.at("level").get_to(timer.level);
    const DeviceState& deadline = saved.at("deadline");
    deadline.is_null() ? timer.timer->cancel() : timer.timer->arm(deadline.get<Nanoseconds>());
  }
  configuration_ = configuration;
  status_ = static_cast<uint32_t>(status);
  counter_ = counter;
  counter_time_ = counter_time;
}

}  // namespace penumbra
