#include "devices/ahci_ich9.h"

#include <utility>

#include "devices/chip.h"

namespace penumbra {

namespace {
constexpr unsigned kRegistersBase = 5, kIndexBase = 4;  // base addresses (15.1)
constexpr uint32_t kRegisterBytes = 0x1000, kIndexPorts = 32;
constexpr uint16_t kIndexPort = 0x10, kDataPort = 0x14;
constexpr uint8_t kMsiCapability = 0x80, kSataCapability = 0xa8;

// Generic host control (AHCI 3.1)
enum : uint32_t {
  kCapabilities = 0x00,
  kControl = 0x04,
  kInterrupts = 0x08,
  kPortsThere = 0x0c,
  kVersion = 0x10
};
constexpr uint32_t kPortRegisters = 0x100;
constexpr uint32_t kWide = 1u << 31, kQueuing = 1u << 30, kListOverride = 1u << 24, kGeneration1 = 1u << 20,
                   kAhciOnly = 1u << 18, kSlotsShift = 8;
constexpr uint32_t kAhciEnable = 1u << 31, kInterruptEnable = 1u << 1, kControllerReset = 1u << 0;
constexpr uint32_t kVersion13 = 0x0001'0300;
}  // namespace

AhciIch9::AhciIch9(std::string name, PhysicalMap& map, IoBus& io, LineOutput interrupt, MsiSink msi)
    : PciFunction({.vendor = 0x8086,
                   .device = 0x2922,
                   .revision = 2,
                   .class_code = 0x01'06'01,
                   .subsystem_vendor = 0x1af4,
                   .subsystem = 0x1100,
                   .interrupt_pin = 1}),
      name_(std::move(name)),
      interrupt_(std::move(interrupt)),
      dma_(map, config_),
      msi_(config_, kMsiCapability, std::move(msi)),
      ports_([this]<size_t... i>(std::index_sequence<i...>) {
        return std::array<AhciPort, kPorts>{AhciPort(dma_, [this](bool news) { changed(i, news); })...};
      }(std::make_index_sequence<kPorts>())) {
  config_.add_capability(0x12, kSataCapability);
  config_.define(kSataCapability + 2, 2, 0x0010);  // revision 1.0
  config_.define(kSataCapability + 4, 4,
                 (kIndexPort / 4u) << 4 | (0x10 + 4 * kIndexBase) / 4);  // where the index port is
  const auto window = io.add_window(kIndexPorts, *this, 0);
  config_.add_io_base(kIndexBase, kIndexPorts, [&io, window](std::optional<uint64_t> address) {
    io.place(window, address ? std::optional(static_cast<uint16_t>(*address)) : std::nullopt);
  });
  const auto registers = map.add_pci_mmio(kRegisterBytes, *this, name_);
  config_.add_memory_base(kRegistersBase, kRegisterBytes, [&map, registers](std::optional<uint64_t> address) {
    map.place(registers, address ? std::optional(PhysAddr{*address}) : std::nullopt);
  });
  config_.set_write_listener([this](unsigned, unsigned) { update(false); });
}

// --- Registers

uint32_t AhciIch9::read_register(uint64_t offset) const {
  switch (offset) {
    case kCapabilities:
      return kWide | kQueuing | kListOverride | kGeneration1 | kAhciOnly |
             (AhciPort::kSlots - 1) << kSlotsShift | (kPorts - 1);
    case kControl:
      return control_ | kAhciEnable;
    case kInterrupts:
      return status_;
    case kPortsThere:
      return (1u << kPorts) - 1;
    case kVersion:
      return kVersion13;
    default:
      break;
  }
  if (offset < kPortRegisters || offset >= kPortRegisters + kPorts * AhciPort::kBytes) return 0;
  const uint64_t at = offset - kPortRegisters;
  return ports_[at / AhciPort::kBytes].read(static_cast<uint32_t>(at % AhciPort::kBytes));
}

void AhciIch9::write_register(uint64_t offset, uint32_t value) {
  if (offset == kControl) {
    if (value & kControllerReset) {
      for (AhciPort& port : ports_) port.controller_reset();
      control_ = status_ = 0;
      return update(false);
    }
    const uint32_t before = std::exchange(control_, value & kInterruptEnable);
    return update(control_ & ~before);
  }
  if (offset == kInterrupts) {
    status_ &= ~value;
    return collect(false);
  }
  if (offset < kPortRegisters || offset >= kPortRegisters + kPorts * AhciPort::kBytes) return;
  const uint64_t at = offset - kPortRegisters;
  ports_[at / AhciPort::kBytes].write(static_cast<uint32_t>(at % AhciPort::kBytes), value);
}

// Software reaches the registers as doublewords and pairs of them; parts of them are read, and not written
// (3, 4.1).
uint64_t AhciIch9::mmio_read(uint64_t offset, unsigned size) {
  const uint64_t at = offset & ~uint64_t{3};
  const uint64_t value =
      read_register(at) | (offset % 4 + size > 4 ? uint64_t{read_register(at + 4)} << 32 : 0);
  return value >> offset % 4 * 8;
}

void AhciIch9::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  if (offset % 4 != 0 || size < 4) return;
  for (unsigned i = 0; i < size / 4; i++)
    write_register(offset + 4 * i, static_cast<uint32_t>(value >> 32 * i));
}

uint32_t AhciIch9::read(uint16_t offset, unsigned size) {
  if (size != 4) return 0xffff'ffff;
  if (offset == kIndexPort) return index_;
  return offset == kDataPort ? read_register(index_) : 0;
}

void AhciIch9::write(uint16_t offset, unsigned size, uint32_t value) {
  if (size != 4) return;
  if (offset == kIndexPort) index_ = value & (kRegisterBytes - 4);
  if (offset == kDataPort) write_register(index_, value);
}

// --- Interrupts (AHCI 10.7)

void AhciIch9::changed(unsigned port, bool news) {
  if (ports_[port].interrupt()) collect(news);
}

// A port whose cause is still there when software clears its bit gets it back, and makes another message.
void AhciIch9::collect(bool news) {
  const uint32_t before = status_;
  for (unsigned i = 0; i < kPorts; i++) status_ |= uint32_t{ports_[i].interrupt()} << i;
  update(news || (status_ & ~before) != 0);
}

bool AhciIch9::wants_line() const {
  return status_ != 0 && control_ & kInterruptEnable && !msi_.enabled() && !config_.interrupts_disabled();
}

void AhciIch9::update(bool news) {
  const bool pending = status_ != 0 && control_ & kInterruptEnable;
  config_.set(PciConfig::kStatus, 2,
              (config_.word(PciConfig::kStatus) & ~PciConfig::kInterruptStatus) |
                  (pending ? PciConfig::kInterruptStatus : 0));
  const bool level = wants_line();
  if (level != line_) {
    line_ = level;
    interrupt_(level);
  }
  if (pending && news) msi_.notify();
}

// --- State

void AhciIch9::reset() {
  config_.reset();
  for (AhciPort& port : ports_) port.reset();
  control_ = status_ = index_ = 0;
  update(false);
}

DeviceState AhciIch9::save() const {
  DeviceState ports = DeviceState::array();
  for (const AhciPort& port : ports_) ports.push_back(port.save());
  return {{"version", 1},        {"config", config_.save()}, {"ports", ports},
          {"control", control_}, {"status", status_},        {"index", index_}};
}

void AhciIch9::load(const DeviceState& state) {
  require_version(state, 1, name_);
  const auto control = bounded(state, "control", kInterruptEnable),
             status = bounded(state, "status", (1u << kPorts) - 1),
             index = bounded(state, "index", kRegisterBytes - 4);
  for (unsigned i = 0; i < kPorts; i++) ports_[i].load(state.at("ports").at(i));
  config_.load(state.at("config"));
  control_ = static_cast<uint32_t>(control) & kInterruptEnable;
  status_ = static_cast<uint32_t>(status);
  index_ = static_cast<uint32_t>(index) & ~uint32_t{3};
  line_ = wants_line();
}

}  // namespace penumbra
