#include "devices/acpi_pm_piix4.h"

#include <utility>

#include "devices/chip.h"

namespace penumbra {

namespace {
// Configuration registers
constexpr uint8_t kPmBase = 0x40, kDevActB = 0x58, kPmRegMisc = 0x80, kSmBusBase = 0x90, kSmBusConfig = 0xd2;
constexpr uint8_t kPmIoEnable = 0x01;
constexpr uint32_t kPmBaseBits = 0xffc0;
// DEVACTB, bit 25: writes to APMC raise an SMI. SeaBIOS takes it for "somebody has set up SMM" and leaves SMM
// alone.
constexpr uint32_t kApmcEnable = 1u << 25;

// The PM block
constexpr uint16_t kStatus = 0, kEnable = 2, kControl = 4, kTimer = 8, kTimerEnd = 12;
// PMSTS and PMEN
constexpr uint16_t kTimerOverflow = 0x0001, kGlobal = 0x0020, kPowerButton = 0x0100, kRtc = 0x0400;
constexpr uint16_t kStatusBits = 0x8d31, kEnableBits = kTimerOverflow | kGlobal | kPowerButton | kRtc;
constexpr uint16_t kSciSources = kEnableBits;
// PMCNTRL
constexpr uint16_t kSciEnable = 0x0001, kSleepEnable = 0x2000, kControlBits = 0x1c03;
constexpr unsigned kSleepTypeShift = 10, kSleepTypeBits = 7;

constexpr uint64_t kTimerHz = 3'579'545, kSecond = 1'000'000'000;
constexpr unsigned kHalfPeriodShift = 23;  // TMROF_STS is set when bit 23 changes
constexpr uint32_t kTimerBits = 0xff'ffff;

uint64_t ticks_at(Nanoseconds time) {
  return time / kSecond * kTimerHz + time % kSecond * kTimerHz / kSecond;
}
// The first nanosecond at which that many ticks have passed.
Nanoseconds time_of(uint64_t ticks) {
  return ticks / kTimerHz * kSecond + (ticks % kTimerHz * kSecond + kTimerHz - 1) / kTimerHz;
}
}  // namespace

AcpiPmPiix4::AcpiPmPiix4(VirtualClock& clock, IoBus& io, LineOutput sci, std::function<void()> power_off)
    : PciFunction({.vendor = 0x8086,
                   .device = 0x7113,
                   .revision = 3,
                   .class_code = 0x06'80'00,
                   .subsystem_vendor = 0x1af4,
                   .subsystem = 0x1100,
                   .interrupt_pin = 1}),
      clock_(clock),
      io_(io),
      sci_(std::move(sci)),
      power_off_(std::move(power_off)),
      window_(io.add_window(kBlockPorts, *this, kBlock)),
      timer_(clock, [this] {
        note_timer();
        update();
      }) {
  config_.define(PciConfig::kCommand, 2, 0, 0x0001);
  config_.define(PciConfig::kStatus, 2, 0x0280, 0, 0x0800);
  config_.define(kPmBase, 4, 1, kPmBaseBits);
  config_.define(0x44, 4, 0, 0xffff'ffff);  // CNTA to DEVRESJ: timers and device monitors
  for (uint8_t offset = 0x48; offset < 0x80; offset = static_cast<uint8_t>(offset + 4)) {
    config_.define(offset, 4, offset == kDevActB ? kApmcEnable : 0, 0xffff'ffff);
  }
  config_.define(kPmRegMisc, 1, 0, kPmIoEnable);
  config_.define(kSmBusBase, 4, 1, 0xfff0);
  config_.define(kSmBusConfig, 1, 0, 0x0f);
  config_.set_write_listener([this](unsigned, unsigned) { io_.place(window_, block()); });
}

std::optional<uint16_t> AcpiPmPiix4::block() const {
  const auto base = static_cast<uint16_t>(config_.dword(kPmBase) & kPmBaseBits);
  if (!(config_.byte(kPmRegMisc) & kPmIoEnable) || base == 0) return std::nullopt;
  return base;
}

void AcpiPmPiix4::set_up(uint16_t block, uint8_t interrupt) {
  config_.write(PciConfig::kInterruptLine, 1, interrupt);
  config_.write(kPmBase, 4, block | 1u);
  config_.write(kPmRegMisc, 1, kPmIoEnable);
}

void AcpiPmPiix4::press_power_button() {
  status_ |= kPowerButton;
  update();
}

uint64_t AcpiPmPiix4::ticks() const {
  return ticks_at(clock_.now());
}

// TMROF_STS follows the timer without an interrupt of its own while it is not enabled.
void AcpiPmPiix4::note_timer() {
  const uint64_t halves = ticks() >> kHalfPeriodShift;
  if (halves == overflow_seen_) return;
  overflow_seen_ = halves;
  status_ |= kTimerOverflow;
}

bool AcpiPmPiix4::sci_level() const {
  if (!(control_ & kSciEnable)) return false;
  const bool gpe = (gpe_status_[0] & gpe_enable_[0]) || (gpe_status_[1] & gpe_enable_[1]);
  return (status_ & enable_ & kSciSources) || gpe;
}

void AcpiPmPiix4::update() {
  const bool level = sci_level();
  if (level != sci_driven_) {
    sci_driven_ = level;
    sci_(level);
  }
  if (enable_ & kTimerOverflow && !(status_ & kTimerOverflow)) {
    timer_.arm(time_of((overflow_seen_ + 1) << kHalfPeriodShift));
  } else {
    timer_.cancel();
  }
}

void AcpiPmPiix4::write_control(uint16_t value) {
  control_ = value & kControlBits;
  update();
  if (!(value & kSleepEnable)) return;
  const unsigned type = value >> kSleepTypeShift & kSleepTypeBits;
  if (type == kSoftOff || type == kHibernate) power_off_();
}

uint8_t AcpiPmPiix4::read_byte(uint16_t offset) {
  const auto half = [offset](uint16_t value) {
    return static_cast<uint8_t>(offset & 1 ? value >> 8 : value);
  };
  switch (offset) {
    case kStatus:
    case kStatus + 1:
      note_timer();
      update();
      return half(status_);
    case kEnable:
    case kEnable + 1:
      return half(enable_);
    case kControl:
    case kControl + 1:
      return half(control_);
    case kGpe:
    case kGpe + 1:
      return gpe_status_[offset - kGpe];
    case kGpe + 2:
    case kGpe + 3:
      return gpe_enable_[offset - kGpe - 2];
    case kApm:
      return apm_control_;
    case kApm + 1:
      return apm_status_;
    default:
      return offset < kGpe ? 0 : 0xff;  // the PM block's other registers
  }
}

uint32_t AcpiPmPiix4::read(uint16_t offset, unsigned size) {
  const auto timer = static_cast<uint32_t>(ticks() & kTimerBits);  // once: its bytes belong together
  uint32_t value = 0;
  for (unsigned i = 0; i < size; i++) {
    const auto at = static_cast<uint16_t>(offset + i);
    const uint8_t byte =
        at >= kTimer && at < kTimerEnd ? static_cast<uint8_t>(timer >> 8 * (at - kTimer)) : read_byte(at);
    value |= uint32_t{byte} << 8 * i;
  }
  return value;
}

void AcpiPmPiix4::write_byte(uint16_t offset, uint8_t value) {
  const auto merged = [offset, value](uint16_t old) {
    return static_cast<uint16_t>(offset & 1 ? (old & 0x00ff) | value << 8 : (old & 0xff00) | value);
  };
  switch (offset) {
    case kStatus:
    case kStatus + 1:
      note_timer();
      status_ &= static_cast<uint16_t>(~(merged(0) & kStatusBits));
      break;
    case kEnable:
    case kEnable + 1:
      note_timer();
      enable_ = merged(enable_) & kEnableBits;
      break;
    case kControl:
    case kControl + 1:
      write_control(merged(control_));
      return;
    case kGpe:
    case kGpe + 1:
      gpe_status_[offset - kGpe] &= static_cast<uint8_t>(~value);
      break;
    case kGpe + 2:
    case kGpe + 3:
      gpe_enable_[offset - kGpe - 2] = value;
      break;
    case kApm:
      apm_control_ = value;
      if (value == kEnableAcpi) control_ |= kSciEnable;
      if (value == kDisableAcpi) control_ &= static_cast<uint16_t>(~kSciEnable);
      break;
    case kApm + 1:
      apm_status_ = value;
      break;
    default:
      break;
  }
  update();
}

// A word is written at once: SLP_TYP and SLP_EN are in the control register's upper half.
void AcpiPmPiix4::write(uint16_t offset, unsigned size, uint32_t value) {
  if (offset == kControl && size >= 2) {
    write_control(static_cast<uint16_t>(value));
    return;
  }
  for (unsigned i = 0; i < size; i++) {
    write_byte(static_cast<uint16_t>(offset + i), static_cast<uint8_t>(value >> 8 * i));
  }
}

void AcpiPmPiix4::reset() {
  config_.reset();
  status_ = enable_ = control_ = 0;
  for (unsigned i = 0; i < 2; i++) gpe_status_[i] = gpe_enable_[i] = 0;
  apm_control_ = apm_status_ = 0;
  overflow_seen_ = ticks() >> kHalfPeriodShift;
  update();
}

DeviceState AcpiPmPiix4::save() const {
  return {{"version", 1},
          {"config", config_.save()},
          {"status", status_},
          {"enable", enable_},
          {"control", control_},
          {"gpe_status", {gpe_status_[0], gpe_status_[1]}},
          {"gpe_enable", {gpe_enable_[0], gpe_enable_[1]}},
          {"apm_control", apm_control_},
          {"apm_status", apm_status_},
          {"overflow_seen", overflow_seen_}};
}

void AcpiPmPiix4::load(const DeviceState& state) {
  require_version(state, 1, name());
  const auto status = bounded(state, "status", kStatusBits), enable = bounded(state, "enable", kEnableBits),
             control = bounded(state, "control", kControlBits),
             apm_control = bounded(state, "apm_control", 0xff),
             apm_status = bounded(state, "apm_status", 0xff),
             overflow = bounded(state, "overflow_seen", ticks() >> kHalfPeriodShift);
  const DeviceState& gpe_status = state.at("gpe_status");
  const DeviceState& gpe_enable = state.at("gpe_enable");
  for (unsigned i = 0; i < 2; i++) {
    gpe_status_[i] = gpe_status.at(i).get<uint8_t>();
    gpe_enable_[i] = gpe_enable.at(i).get<uint8_t>();
  }
  config_.load(state.at("config"));
  io_.place(window_, block());
  status_ = static_cast<uint16_t>(status);
  enable_ = static_cast<uint16_t>(enable);
  control_ = static_cast<uint16_t>(control);
  apm_control_ = static_cast<uint8_t>(apm_control);
  apm_status_ = static_cast<uint8_t>(apm_status);
  overflow_seen_ = overflow;
  sci_driven_ = sci_level();
  update();
}

}  // namespace penumbra
