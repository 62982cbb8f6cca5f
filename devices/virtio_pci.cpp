#include "devices/virtio_pci.h"

#include <utility>

#include "devices/chip.h"

namespace penumbra {

namespace {
constexpr uint16_t kVendor = 0x1af4;
constexpr unsigned kLegacyBase = 0, kMsixBase = 1, kModernBase = 4;
constexpr uint32_t kLegacyPorts = 128;
constexpr uint64_t kModernBytes = 0x4000;
// The modern registers' parts
constexpr uint32_t kCommon = 0x0000, kIsr = 0x1000, kDevice = 0x2000, kNotify = 0x3000, kPartBytes = 0x1000;
constexpr uint32_t kNotifyMultiplier = 4;

// Capabilities (4.1.4)
constexpr uint8_t kVendorCapability = 0x09;
enum : uint8_t { kCommonType = 1, kNotifyType = 2, kIsrType = 3, kDeviceType = 4, kPciAccessType = 5 };
constexpr uint8_t kMsixCapability = 0x98, kFirstCapability = 0x40, kWindowCapability = 0x84;
// Fields of a capability
constexpr uint8_t kCapBar = 4, kCapOffset = 8, kCapLength = 12, kCapData = 16;

// Device status (2.1)
constexpr uint8_t kDriverOk = 4, kFeaturesOk = 8, kNeedsReset = 64;
constexpr uint8_t kQueueInterrupt = 1, kConfigurationInterrupt = 2;  // ISR status
constexpr uint16_t kNoVector = 0xffff;

// The common configuration structure (4.1.4.3)
enum : uint64_t {
  kDeviceFeatureSelect = 0,
  kDeviceFeature = 4,
  kDriverFeatureSelect = 8,
  kDriverFeature = 12,
  kMsixConfig = 16,
  kNumQueues = 18,
  kDeviceStatus = 20,
  kConfigGeneration = 21,
  kQueueSelect = 22,
  kQueueSize = 24,
  kQueueMsixVector = 26,
  kQueueEnable = 28,
  kQueueNotifyOffset = 30,
  kQueueDescriptors = 32,
  kQueueDriver = 40,
  kQueueDevice = 48,
};
// The legacy registers (4.1.4.8)
enum : uint16_t {
  kLegacyDeviceFeatures = 0,
  kLegacyDriverFeatures = 4,
  kLegacyQueueAddress = 8,
  kLegacyQueueSize = 12,
  kLegacyQueueSelect = 14,
  kLegacyQueueNotify = 16,
  kLegacyStatus = 18,
  kLegacyIsr = 19,
  kLegacyConfigVector = 20,
  kLegacyQueueVector = 22,
};
constexpr unsigned kLegacyConfiguration = 20, kLegacyConfigurationWithMsix = 24;
constexpr unsigned kLegacyPageShift = 12;
}  // namespace

VirtioPci::VirtioPci(std::string name, std::unique_ptr<VirtioDevice> device, PhysicalMap& map, IoBus& io,
                     LineOutput interrupt, MsiSink msi)
    : PciFunction({.vendor = kVendor,
                   .device = device->kind().transitional_pci_id,
                   .revision = 0,
                   .class_code = device->kind().pci_class,
                   .subsystem_vendor = kVendor,
                   .subsystem = device->kind().type,
                   .interrupt_pin = 1}),
      name_(std::move(name)),
      device_(std::move(device)),
      interrupt_(std::move(interrupt)) {
  for (const uint16_t size : device_->queue_sizes()) queues_.emplace_back(map, size);
  const auto window = io.add_window(kLegacyPorts, *this);
  config_.add_io_base(kLegacyBase, kLegacyPorts, [&io, window](std::optional<uint64_t> address) {
    io.place(window, address ? std::optional(static_cast<uint16_t>(*address)) : std::nullopt);
  });
  const auto add_memory = [this, &map](unsigned base, uint64_t bytes, MmioHandler& handler, bool wide) {
    const auto region = map.add_pci_mmio(bytes, handler, name_);
    config_.add_memory_base(
        base, bytes,
        [&map, region](std::optional<uint64_t> address) {
          map.place(region, address ? std::optional(PhysAddr{*address}) : std::nullopt);
        },
        wide, wide);
  };
  // A vector for each queue and one for changes of the configuration.
  msix_ = std::make_unique<PciMsix>(config_, kMsixCapability, kMsixBase,
                                    static_cast<unsigned>(queues_.size()) + 1, std::move(msi));
  add_memory(kMsixBase, PciMsix::kBytes, *msix_, false);
  add_memory(kModernBase, kModernBytes, *this, true);

  uint8_t at = kFirstCapability;
  const auto capability = [this, &at](uint8_t type, uint32_t offset, uint8_t bytes) {
    config_.add_capability(kVendorCapability, at);
    config_.define(static_cast<uint8_t>(at + 2), 2, bytes | type << 8);
    config_.define(static_cast<uint8_t>(at + kCapBar), 1, kModernBase);
    config_.define(static_cast<uint8_t>(at + kCapOffset), 4, offset);
    config_.define(static_cast<uint8_t>(at + kCapLength), 4, kPartBytes);
    at = static_cast<uint8_t>(at + bytes);
  };
  capability(kCommonType, kCommon, 16);
  capability(kIsrType, kIsr, 16);
  capability(kDeviceType, kDevice, 16);
  const uint8_t notify_at = at;
  capability(kNotifyType, kNotify, 20);
  config_.define(static_cast<uint8_t>(notify_at + kCapData), 4, kNotifyMultiplier);
  // A window onto the base addresses for who cannot reach memory (4.1.4.7).
  at = kWindowCapability;
  capability(kPciAccessType, 0, 20);
  config_.define(kWindowCapability + kCapBar, 1, 0, 0xff);
  config_.define(kWindowCapability + kCapOffset, 4, 0, 0xffff'ffff);
  config_.define(kWindowCapability + kCapLength, 4, 0, 0xffff'ffff);
  config_.define(kWindowCapability + kCapData, 4, 0, 0xffff'ffff);
  config_.set_write_listener([this](unsigned offset, unsigned size) {
    msix_->config_written();
    update_line();
    if (offset < kWindowCapability + kCapData + 4u && offset + size > kWindowCapability + kCapLength)
      access_window(offset, size);
  });

  device_->attach(queues_, {.interrupt = [this](unsigned queue) { this->interrupt(queue); },
                            .configuration_changed = [this] { configuration_changed(); }});
}

uint64_t VirtioPci::offered_features() const {
  return device_->features() | VirtioDevice::kIndirectDescriptors | VirtioDevice::kEventIndex |
         VirtioDevice::kVersion1 | VirtioDevice::kAnyLayout;
}

// --- Interrupts

uint16_t VirtioPci::checked_vector(uint16_t vector) const {
  return vector < msix_->vectors() ? vector : kNoVector;
}

void VirtioPci::raise(uint8_t cause, uint16_t vector) {
  if (msix_->enabled()) {
    if (vector != kNoVector) msix_->notify(vector);
    return;
  }
  isr_ |= cause;
  update_line();
}

void VirtioPci::interrupt(unsigned queue) {
  raise(kQueueInterrupt, queues_[queue].vector);
}

void VirtioPci::configuration_changed() {
  generation_++;
  if (status_ & kDriverOk) raise(kConfigurationInterrupt, configuration_vector_);
}

void VirtioPci::update_line() {
  const bool level = isr_ != 0 && !msix_->enabled() && !config_.interrupts_disabled();
  config_.set(PciConfig::kStatus, 2,
              (config_.word(PciConfig::kStatus) & ~PciConfig::kInterruptStatus) |
                  (isr_ ? PciConfig::kInterruptStatus : 0));
  if (level == line_) return;
  line_ = level;
  interrupt_(level);
}

uint8_t VirtioPci::take_isr() {
  const uint8_t isr = std::exchange(isr_, 0);
  update_line();
  return isr;
}

// --- What both kinds of drivers do

void VirtioPci::reset_device() {
  device_->reset();
  for (Virtqueue& queue : queues_) queue.reset();
  status_ = 0;
  offered_select_ = accepted_select_ = 0;
  accepted_ = 0;
  queue_select_ = 0;
  configuration_vector_ = kNoVector;
  take_isr();
}

void VirtioPci::write_status(uint8_t value) {
  if (value == 0) return reset_device();
  // FEATURES_OK reads back only if all is offered, and the standard is agreed on (3.1.1).
  if (value & ~status_ & kFeaturesOk && accepted_ & ~offered_features())
    value &= static_cast<uint8_t>(~kFeaturesOk);
  const bool starts = value & ~status_ & kDriverOk;
  status_ = static_cast<uint8_t>(value | (status_ & kNeedsReset));
  if (!starts) return;
  device_->start(accepted_);
}

// At once: drivers may offer the first buffers before they say that they are ready, and would not be asked to
// tell of more.
void VirtioPci::features_accepted() {
  for (Virtqueue& queue : queues_) queue.set_event_index(accepted_ & VirtioDevice::kEventIndex);
}

void VirtioPci::notify(unsigned queue) {
  // Legacy drivers use queues before they say that they are ready.
  if (queue >= queues_.size() || !queues_[queue].enabled || !config_.bus_master()) return;
  device_->notified(queue);
  check_queues();
}

void VirtioPci::check_queues() {
  for (const Virtqueue& queue : queues_) {
    if (!queue.broken() || status_ & kNeedsReset) continue;
    status_ |= kNeedsReset;
    configuration_changed();
  }
}

// --- The device's own configuration

uint64_t VirtioPci::read_device(uint64_t offset, unsigned size) const {
  uint64_t value = 0;
  for (unsigned i = 0; i < size; i++) {
    value |= uint64_t{device_->read_configuration(static_cast<unsigned>(offset) + i)} << 8 * i;
  }
  return value;
}

void VirtioPci::write_device(uint64_t offset, unsigned size, uint64_t value) {
  for (unsigned i = 0; i < size; i++) {
    device_->write_configuration(static_cast<unsigned>(offset) + i, static_cast<uint8_t>(value >> 8 * i));
  }
}

// --- Registers of today

uint64_t VirtioPci::mmio_read(uint64_t offset, unsigned size) {
  const uint64_t at = offset % kPartBytes;
  switch (offset - at) {
    case kCommon:
      return read_common(at, size);
    case kIsr:
      return at == 0 ? take_isr() : 0;
    case kDevice:
      return read_device(at, size);
    default:
      return 0;
  }
}

void VirtioPci::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  const uint64_t at = offset % kPartBytes;
  switch (offset - at) {
    case kCommon:
      // Addresses are written as halves or whole.
      write_common(at, value & 0xffff'ffff);
      if (size == 8) write_common(at + 4, value >> 32);
      return;
    case kDevice:
      return write_device(at, size, value);
    case kNotify:
      return notify(static_cast<unsigned>(at / kNotifyMultiplier));
    default:
      return;
  }
}

uint64_t VirtioPci::read_common(uint64_t offset, unsigned size) {
  Virtqueue* queue = selected();
  const auto address = [size](uint64_t value, bool high) {
    return size == 8 && !high ? value : high ? value >> 32 : value & 0xffff'ffff;
  };
  switch (offset) {
    case kDeviceFeatureSelect:
      return offered_select_;
    case kDeviceFeature:
      return offered_select_ < 2 ? offered_features() >> 32 * offered_select_ & 0xffff'ffff : 0;
    case kDriverFeatureSelect:
      return accepted_select_;
    case kDriverFeature:
      return accepted_select_ < 2 ? accepted_ >> 32 * accepted_select_ & 0xffff'ffff : 0;
    case kMsixConfig:
      return configuration_vector_;
    case kNumQueues:
      return queues_.size();
    case kDeviceStatus:
      return status_;
    case kConfigGeneration:
      return generation_;
    case kQueueSelect:
      return queue_select_;
    case kQueueNotifyOffset:
      return queue_select_;
    default:
      break;
  }
  if (!queue) return 0;
  switch (offset) {
    case kQueueSize:
      return queue->size();
    case kQueueMsixVector:
      return queue->vector;
    case kQueueEnable:
      return queue->enabled;
    case kQueueDescriptors:
    case kQueueDescriptors + 4:
      return address(queue->descriptors, offset != kQueueDescriptors);
    case kQueueDriver:
    case kQueueDriver + 4:
      return address(queue->available, offset != kQueueDriver);
    case kQueueDevice:
    case kQueueDevice + 4:
      return address(queue->used, offset != kQueueDevice);
    default:
      return 0;
  }
}

void VirtioPci::write_common(uint64_t offset, uint64_t value) {
  const auto word = static_cast<uint16_t>(value);
  const auto half = [value](uint64_t& of, bool high) {
    of = high ? (of & 0xffff'ffff) | value << 32 : (of & ~uint64_t{0xffff'ffff}) | value;
  };
  switch (offset) {
    case kDeviceFeatureSelect:
      offered_select_ = static_cast<uint32_t>(value);
      return;
    case kDriverFeatureSelect:
      accepted_select_ = static_cast<uint32_t>(value);
      return;
    case kDriverFeature:
      if (accepted_select_ < 2 && !(status_ & kFeaturesOk)) half(accepted_, accepted_select_ == 1);
      features_accepted();
      return;
    case kMsixConfig:
      configuration_vector_ = checked_vector(word);
      return;
    case kDeviceStatus:
      return write_status(static_cast<uint8_t>(value));
    case kQueueSelect:
      queue_select_ = word;
      return;
    default:
      break;
  }
  Virtqueue* queue = selected();
  if (!queue) return;
  switch (offset) {
    case kQueueSize:
      if (!queue->enabled) queue->set_size(word);
      return;
    case kQueueMsixVector:
      queue->vector = checked_vector(word);
      return;
    case kQueueEnable:
      if (word == 1) queue->enabled = true;
      return;
    case kQueueDescriptors:
    case kQueueDescriptors + 4:
      return half(queue->descriptors, offset != kQueueDescriptors);
    case kQueueDriver:
    case kQueueDriver + 4:
      return half(queue->available, offset != kQueueDriver);
    case kQueueDevice:
    case kQueueDevice + 4:
      return half(queue->used, offset != kQueueDevice);
    default:
      return;
  }
}

// The window of the configuration space: an access to its data register is one to the base address that it
// names.
void VirtioPci::access_window(unsigned offset, unsigned size) {
  const uint32_t length = config_.dword(kWindowCapability + kCapLength),
                 at = config_.dword(kWindowCapability + kCapOffset);
  constexpr unsigned kData = kWindowCapability + kCapData;
  if (config_.byte(kWindowCapability + kCapBar) != kModernBase ||
      (length != 1 && length != 2 && length != 4) || at % length != 0 || at >= kModernBytes)
    return;
  if (offset == kData && size == length) {
    mmio_write(at, length, config_.dword(kData));
  }
  // Reads see what the register held when the window was moved there, or after the last write.
  if (offset != kData) config_.set(kData, 4, static_cast<uint32_t>(mmio_read(at, length)));
}

// --- Legacy registers

unsigned VirtioPci::legacy_configuration() const {
  return msix_->enabled() ? kLegacyConfigurationWithMsix : kLegacyConfiguration;
}

uint32_t VirtioPci::read(uint16_t offset, unsigned size) {
  const unsigned configuration = legacy_configuration();
  if (offset >= configuration) return static_cast<uint32_t>(read_device(offset - configuration, size));
  const Virtqueue* queue = selected();
  switch (offset) {
    case kLegacyDeviceFeatures:
      return static_cast<uint32_t>(offered_features());
    case kLegacyDriverFeatures:
      return static_cast<uint32_t>(accepted_);
    case kLegacyQueueAddress:
      return queue ? static_cast<uint32_t>(queue->descriptors >> kLegacyPageShift) : 0;
    case kLegacyQueueSize:
      return queue ? queue->most_entries() : 0;
    case kLegacyQueueSelect:
      return queue_select_;
    case kLegacyStatus:
      return status_;
    case kLegacyIsr:
      return take_isr();
    case kLegacyConfigVector:
      return configuration_vector_;
    case kLegacyQueueVector:
      return queue ? queue->vector : kNoVector;
    default:
      return 0;
  }
}

void VirtioPci::write(uint16_t offset, unsigned size, uint32_t value) {
  const unsigned configuration = legacy_configuration();
  if (offset >= configuration) return write_device(offset - configuration, size, value);
  Virtqueue* queue = selected();
  switch (offset) {
    case kLegacyDriverFeatures:
      accepted_ = value & offered_features();
      features_accepted();
      return;
    case kLegacyQueueAddress:
      // A driver that takes its queue away resets the device by it.
      if (value == 0) return reset_device();
      if (queue) queue->set_legacy_address(uint64_t{value} << kLegacyPageShift);
      return;
    case kLegacyQueueSelect:
      queue_select_ = static_cast<uint16_t>(value);
      return;
    case kLegacyQueueNotify:
      return notify(value & 0xffff);
    case kLegacyStatus:
      return write_status(static_cast<uint8_t>(value));
    case kLegacyConfigVector:
      configuration_vector_ = checked_vector(static_cast<uint16_t>(value));
      return;
    case kLegacyQueueVector:
      if (queue) queue->vector = checked_vector(static_cast<uint16_t>(value));
      return;
    default:
      return;
  }
}

// --- State

void VirtioPci::reset() {
  config_.reset();
  msix_->reset();
  reset_device();
  generation_ = 0;
}

DeviceState VirtioPci::save() const {
  DeviceState queues = DeviceState::array();
  for (const Virtqueue& queue : queues_) queues.push_back(queue.save());
  return {{"version", 1},
          {"config", config_.save()},
          {"msix", msix_->save()},
          {"queues", queues},
          {"status", status_},
          {"isr", isr_},
          {"generation", generation_},
          {"offered_select", offered_select_},
          {"accepted_select", accepted_select_},
          {"accepted", accepted_},
          {"configuration_vector", configuration_vector_},
          {"queue_select", queue_select_},
          {"device", device_->save()}};
}

void VirtioPci::load(const DeviceState& state) {
  require_version(state, 1, name_);
  const auto byte = [&state](const char* what) { return static_cast<uint8_t>(bounded(state, what, 0xff)); };
  const uint8_t status = byte("status"), isr = byte("isr"), generation = byte("generation");
  const auto vector = static_cast<uint16_t>(bounded(state, "configuration_vector", 0xffff)),
             select = static_cast<uint16_t>(bounded(state, "queue_select", 0xffff));
  config_.load(state.at("config"));
  msix_->load(state.at("msix"));
  for (unsigned i = 0; i < queues_.size(); i++) queues_[i].load(state.at("queues").at(i));
  device_->load(state.at("device"));
  status_ = status;
  isr_ = isr;
  generation_ = generation;
  state.at("offered_select").get_to(offered_select_);
  state.at("accepted_select").get_to(accepted_select_);
  state.at("accepted").get_to(accepted_);
  configuration_vector_ = vector;
  queue_select_ = select;
  line_ = isr_ != 0 && !msix_->enabled() && !config_.interrupts_disabled();
}

}  // namespace penumbra
