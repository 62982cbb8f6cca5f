#include "devices/ide_channel.h"

#include <algorithm>
#include <utility>

namespace penumbra {

namespace {
constexpr uint8_t kInterruptsOff = 0x02, kSoftwareReset = 0x04, kHighOrderByte = 0x80;  // device control
constexpr uint8_t kSecondDrive = 0x10;                                                  // device register
constexpr uint8_t kDiagnostic = 0x90;
constexpr uint16_t kCommandRegisters = 8;
}  // namespace

IdeChannel::IdeChannel(LineOutput interrupt, std::function<void()> changed)
    : interrupt_(std::move(interrupt)), changed_(std::move(changed)) {}

void IdeChannel::attach(unsigned number, std::unique_ptr<AtaDrive> drive) {
  drives_[number] = std::move(drive);
  drives_[number]->set_listener([this] { update(); });
  drives_[number]->hardware_reset();
}

bool IdeChannel::wants_interrupt() const {
  const AtaDrive* drive = drives_[selected_].get();
  return drive && drive->interrupt() && !(control_ & kInterruptsOff);
}

void IdeChannel::update() {
  const bool level = wants_interrupt();
  if (level != level_) {
    level_ = level;
    interrupt_(level);
  }
  changed_();
}

// --- The data port

uint32_t IdeChannel::read_data(unsigned size) {
  AtaDrive* drive = selected();
  uint32_t value = 0;
  if (!drive || drive->phase() != AtaDrive::Phase::ToHost || drive->dma()) return 0;
  const size_t bytes = std::min<size_t>(size, drive->block_left());
  for (size_t i = 0; i < bytes; i++) value |= uint32_t{static_cast<uint8_t>(drive->data()[i])} << 8 * i;
  drive->transferred(bytes);
  return value;
}

void IdeChannel::write_data(unsigned size, uint32_t value) {
  AtaDrive* drive = selected();
  if (!drive || drive->phase() != AtaDrive::Phase::FromHost || drive->dma()) return;
  const size_t bytes = std::min<size_t>(size, drive->block_left());
  for (size_t i = 0; i < bytes; i++) drive->data()[i] = static_cast<std::byte>(value >> 8 * i);
  drive->transferred(bytes);
}

// --- Registers

// Drive 0 answers for a drive 1 that is not there, with zeros (T13/1532D volume 2, 7.2.5).
uint8_t IdeChannel::status() const {
  const AtaDrive* drive = drives_[selected_].get();
  return drive ? drive->status() : 0;
}

uint8_t IdeChannel::read_register(AtaDrive::Register which) {
  AtaDrive* drive = selected();
  if (which == AtaDrive::kCommand) {
    const uint8_t value = status();
    if (drive) drive->clear_interrupt();
    return value;
  }
  if (!drive) return 0;
  return drive->read(which, control_ & kHighOrderByte);
}

void IdeChannel::write_register(AtaDrive::Register which, uint8_t value) {
  control_ &= static_cast<uint8_t>(~kHighOrderByte);
  if (which == AtaDrive::kCommand) {
    if (value == kDiagnostic) {
      selected_ = 0;
      for (const auto& drive : drives_) {
        if (drive) drive->diagnose();
      }
    } else if (AtaDrive* drive = selected()) {
      drive->write(which, value);
    }
    return;
  }
  for (const auto& drive : drives_) {
    if (drive) drive->write(which, value);
  }
  if (which == AtaDrive::kDevice) {
    selected_ = value & kSecondDrive ? 1 : 0;
    update();
  }
}

uint32_t IdeChannel::read_command(uint16_t offset, unsigned size) {
  if (offset == AtaDrive::kData) return read_data(size);
  uint32_t value = 0;
  for (unsigned i = 0; i < size; i++) {
    const unsigned at = offset + i;
    const uint8_t byte = at < kCommandRegisters ? read_register(static_cast<AtaDrive::Register>(at)) : 0xff;
    value |= uint32_t{byte} << 8 * i;
  }
  return value;
}

void IdeChannel::write_command(uint16_t offset, unsigned size, uint32_t value) {
  if (offset == AtaDrive::kData) return write_data(size, value);
  for (unsigned i = 0; i < size && offset + i < kCommandRegisters; i++) {
    write_register(static_cast<AtaDrive::Register>(offset + i), static_cast<uint8_t>(value >> 8 * i));
  }
}

uint8_t IdeChannel::read_control() {
  return status();
}

void IdeChannel::write_control(uint8_t value) {
  const bool resets = value & ~control_ & kSoftwareReset;
  control_ = value;
  if (resets) {
    selected_ = 0;
    for (const auto& drive : drives_) {
      if (drive) drive->software_reset();
    }
  }
  update();
}

void IdeChannel::reset() {
  selected_ = 0;
  control_ = 0;
  for (const auto& drive : drives_) {
    if (drive) drive->hardware_reset();
  }
  update();
}

DeviceState IdeChannel::save() const {
  DeviceState drives = DeviceState::array();
  for (const auto& drive : drives_) drives.push_back(drive ? drive->save() : DeviceState(nullptr));
  return {{"selected", selected_}, {"control", control_}, {"drives", drives}};
}

void IdeChannel::load(const DeviceState& state) {
  const auto selected = bounded(state, "selected", 1), control = bounded(state, "control", 0xff);
  for (unsigned i = 0; i < drives_.size(); i++) {
    if (drives_[i]) drives_[i]->load(state.at("drives").at(i));
  }
  selected_ = static_cast<unsigned>(selected);
  control_ = static_cast<uint8_t>(control);
  level_ = wants_interrupt();
}

}  // namespace penumbra
