#include "devices/local_apic.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <utility>

namespace penumbra {

namespace {
// Registers, by offset / 16 (SDM vol. 3, table 10-1)
enum : unsigned {
  kId = 0x02,
  kVersion = 0x03,
  kTaskPriority = 0x08,
  kArbitrationPriority = 0x09,
  kProcessorPriority = 0x0a,
  kEndOfInterrupt = 0x0b,
  kRemoteRead = 0x0c,
  kLogicalDestination = 0x0d,
  kDestinationFormat = 0x0e,
  kSpurious = 0x0f,
  kInService = 0x10,
  kTriggerMode = 0x18,
  kInterruptRequest = 0x20,
  kErrorStatus = 0x28,
  kCommandLow = 0x30,
  kCommandHigh = 0x31,
  kLvtFirst = 0x32,
  kLvtLast = 0x37,
  kInitialCount = 0x38,
  kCurrentCount = 0x39,
  kDivide = 0x3e,
};
constexpr uint32_t kVersionValue = 0x0005'0014;  // integrated APIC, six LVT entries

// APIC_BASE
constexpr uint64_t kBootstrap = 0x100, kX2Apic = 0x400, kGlobalEnable = 0x800, kBaseMask = 0xff'ffff'f000;
// SVR
constexpr uint32_t kSoftwareEnable = 0x100, kSpuriousBits = 0x3ff;
// LVT
constexpr uint32_t kVectorBits = 0xff, kRemoteIrr = 0x4000, kLevel = 0x8000, kMasked = 0x1'0000,
                   kPolarity = 0x2000, kDeliveryBits = 0x700, kTimerMode = 0x6'0000;
constexpr uint32_t kOneShot = 0, kPeriodic = 0x2'0000, kTscDeadline = 0x4'0000;
constexpr uint32_t kLvtWritable[] = {kVectorBits | kMasked | kTimerMode,
                                     kVectorBits | kMasked | kDeliveryBits,
                                     kVectorBits | kMasked | kDeliveryBits,
                                     kVectorBits | kMasked | kDeliveryBits | kPolarity | kLevel,
                                     kVectorBits | kMasked | kDeliveryBits | kPolarity | kLevel,
                                     kVectorBits | kMasked};
// ESR (SDM vol. 3, 10.5.3)
constexpr uint32_t kSendIllegalVector = 0x20, kReceiveIllegalVector = 0x40, kIllegalRegister = 0x80;
// ICR
constexpr uint64_t kCommandBits = 0xff00'0000'000c'cfff;
constexpr unsigned kShorthandShift = 18;
enum : unsigned { kNoShorthand, kSelf, kAll, kOthers };
constexpr uint32_t kLogicalMode = 0x800, kAssert = 0x4000;

constexpr uint8_t kFirstLegalVector = 16, kBroadcast = 0xff;
constexpr uint32_t kFlatModel = 0xffff'ffff, kFormatOnes = 0x0fff'ffff;

constexpr Nanoseconds kSecond = 1'000'000'000;
// A periodic timer interrupts no oftener: a guest that sets a count of 1 leaves the host time.
constexpr Nanoseconds kShortestInterval = 20'000;

uint64_t scale(uint64_t value, uint64_t by, uint64_t over) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(value) * by / over);
}
}  // namespace

int LocalApic::Vectors::highest() const {
  for (int word = 7; word >= 0; word--) {
    if (words_[static_cast<unsigned>(word)])
      return word * 32 + 31 - std::countl_zero(words_[static_cast<unsigned>(word)]);
  }
  return -1;
}

LocalApic::LocalApic(VirtualClock& clock, PhysicalMap& map, uint8_t id, bool bootstrap, uint64_t timer_hz,
                     Pins pins)
    : pins_(std::move(pins)),
      clock_(clock),
      map_(map),
      region_(map.add_mmio(PhysAddr{kDefaultBase}, kBytes, *this, "local APIC")),
      bootstrap_(bootstrap),
      first_id_(id),
      timer_hz_(timer_hz),
      timer_(clock, [this] { timer_expired(); }) {
  reset();
}

void LocalApic::reset() {
  timer_.cancel();
  base_ = kDefaultBase | kGlobalEnable | (bootstrap_ ? kBootstrap : 0);
  map_.place(region_, PhysAddr{kDefaultBase});
  id_ = first_id_;
  task_priority_ = 0;
  logical_destination_ = 0;
  destination_format_ = kFlatModel;
  spurious_ = 0xff;
  errors_ = error_status_ = 0;
  command_ = 0;
  lvt_.fill(kMasked);
  if (bootstrap_) lvt_[kLint0] = ApicMessage::kExtInt << 8;
  requested_ = in_service_ = level_triggered_ = {};
  initial_count_ = divide_ = 0;
  timer_start_ = 0;
  deadline_ = 0;
  update();
}

// --- Priorities (SDM vol. 3, 10.8)

bool LocalApic::enabled() const {
  return base_ & kGlobalEnable;
}
bool LocalApic::software_enabled() const {
  return enabled() && spurious_ & kSoftwareEnable;
}

uint8_t LocalApic::processor_priority() const {
  const int serviced = in_service_.highest();
  const auto service_class = static_cast<uint8_t>(serviced < 0 ? 0 : serviced & 0xf0);
  return task_priority_ >> 4 >= service_class >> 4 ? task_priority_ : service_class;
}

// The vector that the processor would take now; -1: none.
int LocalApic::deliverable() const {
  if (!software_enabled()) return -1;
  const int vector = requested_.highest();
  return vector >= 0 && (vector >> 4) > (processor_priority() >> 4) ? vector : -1;
}

// With the APIC switched off the pin is the processor's INTR.
bool LocalApic::takes_external() const {
  if (!enabled()) return true;
  const uint32_t entry = lvt_[kLint0];
  return !(entry & kMasked) && (entry & kDeliveryBits) >> 8 == ApicMessage::kExtInt;
}

bool LocalApic::routes_nmi() const {
  const uint32_t entry = lvt_[kLint0];
  return enabled() && !(entry & kMasked) && (entry & kDeliveryBits) >> 8 == ApicMessage::kNmi;
}

bool LocalApic::pending() const {
  return deliverable() >= 0 || (lint0_ && takes_external());
}

void LocalApic::update() {
  const bool level = pending();
  // Every request is told: the processor looks at pending() only then.
  if (level || driven_ != level) pins_.interrupt(level);
  driven_ = level;
}

uint8_t LocalApic::acknowledge() {
  const int vector = deliverable();
  if (vector >= 0) {
    const auto taken = static_cast<uint8_t>(vector);
    requested_.clear(taken);
    in_service_.set(taken);
    driven_ = pending();
    return taken;
  }
  if (lint0_ && takes_external()) return pins_.acknowledge_external();
  return static_cast<uint8_t>(spurious_ & kVectorBits);  // SDM vol. 3, 10.9
}

// --- Messages

bool LocalApic::is_destination(const ApicMessage& message) const {
  if (!enabled()) return false;
  if (message.destination == kBroadcast) return true;
  if (!message.logical) return message.destination == id_;
  const auto mine = static_cast<uint8_t>(logical_destination_ >> 24);
  if (destination_format_ == kFlatModel) return (message.destination & mine) != 0;
  // Cluster model: the cluster's number, then a bit for each of its members.
  return message.destination >> 4 == mine >> 4 && (message.destination & mine & 0x0f) != 0;
}

void LocalApic::receive(const ApicMessage& message) {
  if (!is_destination(message)) return;
  switch (message.delivery) {
    case ApicMessage::kFixed:
    case ApicMessage::kLowestPriority:
      return accept(message.vector, message.level);
    case ApicMessage::kNmi:
      return pins_.nmi();
    case ApicMessage::kExtInt:
      return accept(pins_.acknowledge_external(), false);
    default:
      return;
  }
}

void LocalApic::accept(uint8_t vector, bool level) {
  if (!software_enabled()) return;
  if (vector < kFirstLegalVector) return report(kReceiveIllegalVector);
  requested_.set(vector);
  level ? level_triggered_.set(vector) : level_triggered_.clear(vector);
  update();
}

void LocalApic::report(uint32_t error) {
  const bool was = errors_ & error;
  errors_ |= error;
  if (!was) deliver_local(kErrorEntry);
}

void LocalApic::deliver_local(Lvt entry) {
  const uint32_t value = lvt_[entry];
  if (value & kMasked) return;
  const bool fixed_only = entry == kTimerEntry || entry == kErrorEntry;
  switch (fixed_only ? uint32_t{ApicMessage::kFixed} : (value & kDeliveryBits) >> 8) {
    case ApicMessage::kFixed:
      if ((value & kVectorBits) < kFirstLegalVector && entry == kErrorEntry)
        return;  // it would report itself for ever
      return accept(static_cast<uint8_t>(value & kVectorBits), entry == kLint0 && value & kLevel);
    case ApicMessage::kNmi:
      return pins_.nmi();
    default:
      return;
  }
}

void LocalApic::set_lint0(bool level) {
  const bool rises = level && !lint0_;
  lint0_ = level;
  if (rises && enabled() && (lvt_[kLint0] & kDeliveryBits) >> 8 != ApicMessage::kExtInt)
    deliver_local(kLint0);
  update();
}

void LocalApic::set_lint1(bool level) {
  const bool rises = level && !std::exchange(lint1_, level);
  if (!rises) return;
  enabled() ? deliver_local(kLint1) : pins_.nmi();
}

void LocalApic::end_interrupt() {
  const int vector = in_service_.highest();
  if (vector < 0) return;
  const auto ended = static_cast<uint8_t>(vector);
  in_service_.clear(ended);
  if (level_triggered_.has(ended)) {
    pins_.end_of_interrupt(ended);
    // A level-triggered local pin that is still high.
    if (lint0_ && (lvt_[kLint0] & kLevel) && (lvt_[kLint0] & kVectorBits) == ended &&
        (lvt_[kLint0] & kDeliveryBits) == 0)
      deliver_local(kLint0);
  }
  update();
}

void LocalApic::send_ipi() {
  ApicMessage message{.destination = static_cast<uint8_t>(command_ >> 56),
                      .logical = (command_ & kLogicalMode) != 0,
                      .delivery = static_cast<uint8_t>(command_ >> 8 & 7),
                      .vector = static_cast<uint8_t>(command_),
                      .level = false};
  const bool has_vector =
      message.delivery == ApicMessage::kFixed || message.delivery == ApicMessage::kLowestPriority;
  if (has_vector && message.vector < kFirstLegalVector) return report(kSendIllegalVector);
  if (message.delivery == ApicMessage::kInit && !(command_ & kAssert)) return;  // INIT level de-assert
  const unsigned shorthand = command_ >> kShorthandShift & 3;
  if (shorthand == kSelf) {
    if (has_vector) accept(message.vector, false);
    return;
  }
  if (shorthand != kNoShorthand) {
    message.destination = kBroadcast;
    message.logical = false;
  }
  if (shorthand != kOthers) receive(message);
  if (pins_.send) pins_.send(message);
}

// --- Registers

bool LocalApic::set_base(uint64_t value) {
  constexpr uint64_t kKnown = kBaseMask | kGlobalEnable | kBootstrap;
  if (value & ~kKnown || value & kX2Apic) return false;
  const bool was_enabled = enabled();
  base_ = (value & ~kBootstrap) | (bootstrap_ ? kBootstrap : 0);
  if (!(value & kGlobalEnable)) {
    const uint64_t kept = base_;
    if (was_enabled) reset();  // SDM vol. 3, 10.4.3: the registers are lost
    base_ = kept;
    map_.place(region_, std::nullopt);
  } else {
    map_.place(region_, PhysAddr{value & kBaseMask});
  }
  update();
  return true;
}

void LocalApic::set_task_priority(uint8_t value) {
  task_priority_ = value;
  update();
}

uint64_t LocalApic::mmio_read(uint64_t offset, unsigned size) {
  if (offset >= kBytes || offset % 16 + size > 16) return ~uint64_t{0};
  // Registers are aligned to 16 bytes and have 4; what is between them is reserved.
  const uint64_t value = read_register(static_cast<unsigned>(offset / 16));
  const unsigned shift = offset % 16 * 8;
  return shift < 64 ? value >> shift : 0;
}

void LocalApic::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  if (offset >= kBytes || offset % 16 != 0 || size < 4) return;
  write_register(static_cast<unsigned>(offset / 16), static_cast<uint32_t>(value));
}

uint32_t LocalApic::read_register(unsigned index) {
  switch (index) {
    case kId:
      return uint32_t{id_} << 24;
    case kVersion:
      return kVersionValue;
    case kTaskPriority:
      return task_priority_;
    case kArbitrationPriority:
    case kRemoteRead:
    case kEndOfInterrupt:
      return 0;
    case kProcessorPriority:
      return processor_priority();
    case kLogicalDestination:
      return logical_destination_;
    case kDestinationFormat:
      return destination_format_;
    case kSpurious:
      return spurious_;
    case kErrorStatus:
      return error_status_;
    case kCommandLow:
      return static_cast<uint32_t>(command_);
    case kCommandHigh:
      return static_cast<uint32_t>(command_ >> 32);
    case kInitialCount:
      return initial_count_;
    case kCurrentCount:
      return current_count();
    case kDivide:
      return divide_;
    default:
      break;
  }
  if (index >= kInService && index < kInService + 8) return in_service_.word(index - kInService);
  if (index >= kTriggerMode && index < kTriggerMode + 8) return level_triggered_.word(index - kTriggerMode);
  if (index >= kInterruptRequest && index < kInterruptRequest + 8)
    return requested_.word(index - kInterruptRequest);
  if (index >= kLvtFirst && index <= kLvtLast) return lvt_[index - kLvtFirst];
  report(kIllegalRegister);
  return 0;
}

void LocalApic::write_register(unsigned index, uint32_t value) {
  switch (index) {
    case kId:
      id_ = static_cast<uint8_t>(value >> 24);
      return;
    case kTaskPriority:
      return set_task_priority(static_cast<uint8_t>(value));
    case kEndOfInterrupt:
      return end_interrupt();
    case kLogicalDestination:
      logical_destination_ = value & 0xff00'0000;
      return;
    case kDestinationFormat:
      destination_format_ = value | kFormatOnes;
      return;
    case kSpurious:
      return write_svr(value);
    case kErrorStatus:
      error_status_ = std::exchange(errors_, 0);
      return;
    case kCommandLow:
      command_ = ((command_ & ~uint64_t{0xffff'ffff}) | value) & kCommandBits;
      return send_ipi();
    case kCommandHigh:
      command_ = ((command_ & 0xffff'ffff) | uint64_t{value} << 32) & kCommandBits;
      return;
    case kInitialCount:
      if ((lvt_[kTimerEntry] & kTimerMode) == kTscDeadline) return;
      initial_count_ = value;
      timer_start_ = clock_.now();
      return start_timer();
    case kDivide:
      if (const uint32_t divide = value & 0x0b; divide != divide_) {
        const uint32_t left = current_count();
        divide_ = divide;
        // What is left is counted at the new rate.
        const Nanoseconds gone = duration(initial_count_ - left), now = clock_.now();
        timer_start_ = now > gone ? now - gone : 0;
        if (timer_.armed() && (lvt_[kTimerEntry] & kTimerMode) != kTscDeadline) start_timer();
      }
      return;
    case kVersion:
    case kArbitrationPriority:
    case kProcessorPriority:
    case kRemoteRead:
    case kCurrentCount:
      return;
    default:
      break;
  }
  if (index >= kLvtFirst && index <= kLvtLast) return write_lvt(static_cast<Lvt>(index - kLvtFirst), value);
  if (index >= kInService && index < kErrorStatus) return;
  report(kIllegalRegister);
}

// SDM vol. 3, 10.4.7.2: software-disabled, all LVT entries are masked and stay so.
void LocalApic::write_svr(uint32_t value) {
  spurious_ = value & kSpuriousBits;
  if (!(spurious_ & kSoftwareEnable)) {
    for (uint32_t& entry : lvt_) entry |= kMasked;
  }
  update();
}

void LocalApic::write_lvt(Lvt entry, uint32_t value) {
  const uint32_t old_mode = lvt_[kTimerEntry] & kTimerMode;
  lvt_[entry] = value & kLvtWritable[entry];
  if (!(spurious_ & kSoftwareEnable)) lvt_[entry] |= kMasked;
  if (entry == kTimerEntry && (value & kTimerMode) != old_mode) {
    // SDM vol. 3, 10.5.4.1: changing to or from TSC-deadline mode disarms the timer.
    if ((value & kTimerMode) == kTscDeadline || old_mode == kTscDeadline) {
      timer_.cancel();
      initial_count_ = 0;
      deadline_ = 0;
    }
  }
  update();
}

// --- The timer (SDM vol. 3, 10.5.4)

unsigned LocalApic::divider() const {
  const unsigned value = (divide_ & 3) | (divide_ >> 1 & 4);
  return value == 7 ? 1 : 2u << value;
}

// Until that many counts have passed: the first nanosecond at which they have.
Nanoseconds LocalApic::duration(uint64_t count) const {
  const uint64_t cycles = count * divider();
  return scale(cycles, kSecond, timer_hz_) + (cycles ? 1 : 0);
}

uint32_t LocalApic::current_count() const {
  if (initial_count_ == 0 || !timer_.armed() || (lvt_[kTimerEntry] & kTimerMode) == kTscDeadline) return 0;
  const uint64_t counts = scale(clock_.now() - timer_start_, timer_hz_, kSecond) / divider();
  if ((lvt_[kTimerEntry] & kTimerMode) == kPeriodic)
    return static_cast<uint32_t>(initial_count_ - counts % initial_count_);
  return counts >= initial_count_ ? 0 : static_cast<uint32_t>(initial_count_ - counts);
}

void LocalApic::start_timer() {
  if (initial_count_ == 0) return timer_.cancel();
  timer_.arm(timer_start_ + duration(initial_count_));
}

void LocalApic::set_tsc_deadline(uint64_t tsc, Nanoseconds from_now) {
  if ((lvt_[kTimerEntry] & kTimerMode) != kTscDeadline) return;
  deadline_ = tsc;
  if (tsc == 0) return timer_.cancel();
  constexpr Nanoseconds kFar = Nanoseconds{1} << 62;
  timer_.arm(clock_.now() + std::min(from_now, kFar));
}

void LocalApic::timer_expired() {
  deadline_ = 0;
  if ((lvt_[kTimerEntry] & kTimerMode) == kPeriodic) {
    // Rounds that passed unseen are one interrupt, as for a processor that kept interrupts off.
    const Nanoseconds now = clock_.now(), round = std::max<Nanoseconds>(duration(initial_count_), 1);
    timer_start_ += (now - timer_start_) / round * round;
    timer_.arm(std::max(timer_start_ + round, now + kShortestInterval));
  }
  deliver_local(kTimerEntry);
}

// --- State

DeviceState LocalApic::save() const {
  return {{"version", 1},
          {"base", base_},
          {"id", id_},
          {"task_priority", task_priority_},
          {"logical_destination", logical_destination_},
          {"destination_format", destination_format_},
          {"spurious", spurious_},
          {"errors", errors_},
          {"error_status", error_status_},
          {"command", command_},
          {"lvt", lvt_},
          {"requested", requested_.words()},
          {"in_service", in_service_.words()},
          {"level_triggered", level_triggered_.words()},
          {"initial_count", initial_count_},
          {"divide", divide_},
          {"timer_start", timer_start_},
          {"deadline", deadline_},
          {"timer", timer_.armed() ? DeviceState(timer_.deadline()) : DeviceState(nullptr)},
          {"lint0", lint0_},
          {"lint1", lint1_}};
}

void LocalApic::load(const DeviceState& state) {
  require_version(state, 1, name());
  const auto base = bounded(state, "base", kBaseMask | kGlobalEnable | kBootstrap | 0xff);
  const auto start = bounded(state, "timer_start", clock_.now());
  const auto divide = bounded(state, "divide", 0x0b);
  const DeviceState& timer = state.at("timer");
  const bool armed = !timer.is_null();
  const Nanoseconds deadline = armed ? timer.get<Nanoseconds>() : 0;
  auto lvt = state.at("lvt").get<std::array<uint32_t, kLvts>>();
  for (unsigned i = 0; i < kLvts; i++) lvt[i] &= kLvtWritable[i];
  const auto requested = state.at("requested").get<std::array<uint32_t, 8>>(),
             in_service = state.at("in_service").get<std::array<uint32_t, 8>>(),
             level = state.at("level_triggered").get<std::array<uint32_t, 8>>();
  id_ = static_cast<uint8_t>(bounded(state, "id", 0xff));
  task_priority_ = static_cast<uint8_t>(bounded(state, "task_priority", 0xff));
  state.at("logical_destination").get_to(logical_destination_);
  state.at("destination_format").get_to(destination_format_);
  spurious_ = static_cast<uint32_t>(bounded(state, "spurious", kSpuriousBits));
  state.at("errors").get_to(errors_);
  state.at("error_status").get_to(error_status_);
  command_ = state.at("command").get<uint64_t>() & kCommandBits;
  state.at("initial_count").get_to(initial_count_);
  state.at("deadline").get_to(deadline_);
  state.at("lint0").get_to(lint0_);
  state.at("lint1").get_to(lint1_);
  base_ = base & ~uint64_t{0xff};
  lvt_ = lvt;
  requested_.words() = requested;
  in_service_.words() = in_service;
  level_triggered_.words() = level;
  divide_ = static_cast<uint32_t>(divide);
  timer_start_ = start;
  map_.place(region_, base_ & kGlobalEnable ? std::optional(PhysAddr{base_ & kBaseMask}) : std::nullopt);
  armed ? timer_.arm(deadline) : timer_.cancel();
  driven_ = pending();
}

}  // namespace penumbra
