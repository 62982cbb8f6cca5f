#include "devices/pci_config.h"

#include <bit>
#include <cassert>
#include <stdexcept>
#include <utility>

#include "devices/chip.h"

namespace penumbra {

namespace {
constexpr uint8_t kVendor = 0x00, kDevice = 0x02, kRevisionAndClass = 0x08, kCacheLine = 0x0c,
                  kLatency = 0x0d, kHeaderType = 0x0e, kSubsystemVendor = 0x2c, kSubsystem = 0x2e;
constexpr uint8_t kMultifunction = 0x80;
constexpr uint16_t kCommandBits =
    0x0547;  // I/O, memory, bus master, parity response, SERR#, interrupt disable
constexpr uint16_t kStatusErrors = 0xf900;
constexpr uint32_t kIoIndicator = 1, kWide = 4, kPrefetchable = 8, kRomEnable = 1;
}  // namespace

PciConfig::PciConfig(const Identity& identity) {
  define(kVendor, 2, identity.vendor);
  define(kDevice, 2, identity.device);
  define(kCommand, 2, 0, kCommandBits);
  define(kStatus, 2, 0, 0, kStatusErrors);
  define(kRevisionAndClass, 4, identity.revision | identity.class_code << 8);
  define(kCacheLine, 1, 0, 0xff);
  define(kLatency, 1, 0, 0xff);
  define(kHeaderType, 1, identity.multifunction ? kMultifunction : 0);
  define(kSubsystemVendor, 2, identity.subsystem_vendor);
  define(kSubsystem, 2, identity.subsystem);
  define(kInterruptLine, 1, 0, identity.interrupt_pin ? 0xff : 0);
  define(kInterruptPin, 1, identity.interrupt_pin);
}

void PciConfig::add_io_base(unsigned index, uint32_t size, Placement placement) {
  assert(index < 6 && size >= 4 && std::has_single_bit(size));
  const auto offset = static_cast<uint8_t>(kBase0 + 4 * index);
  define(offset, 4, kIoIndicator, ~(size - 1));
  bases_.push_back({.offset = offset,
                    .io = true,
                    .wide = false,
                    .rom = false,
                    .size = size,
                    .placement = std::move(placement),
                    .seen = {}});
}

void PciConfig::add_memory_base(unsigned index, uint64_t size, Placement placement, bool wide,
                                bool prefetchable) {
  assert(index + wide < 6 && size >= 16 && std::has_single_bit(size));
  const auto offset = static_cast<uint8_t>(kBase0 + 4 * index);
  const uint64_t mask = ~(size - 1);
  define(offset, 4, (wide ? kWide : 0) | (prefetchable ? kPrefetchable : 0), static_cast<uint32_t>(mask));
  if (wide) define(static_cast<uint8_t>(offset + 4), 4, 0, static_cast<uint32_t>(mask >> 32));
  bases_.push_back({.offset = offset,
                    .io = false,
                    .wide = wide,
                    .rom = false,
                    .size = size,
                    .placement = std::move(placement),
                    .seen = {}});
}

void PciConfig::add_rom_base(uint32_t size, Placement placement) {
  assert(size >= 2048 && std::has_single_bit(size));
  define(kRomBase, 4, 0, ~(size - 1) | kRomEnable);
  bases_.push_back({.offset = kRomBase,
                    .io = false,
                    .wide = false,
                    .rom = true,
                    .size = size,
                    .placement = std::move(placement),
                    .seen = {}});
}

void PciConfig::define(uint8_t offset, unsigned size, uint32_t value, uint32_t writable,
                       uint32_t write_one_clears) {
  assert(offset + size <= kBytes);
  for (unsigned i = 0; i < size; i++) {
    bytes_[offset + i] = reset_[offset + i] = static_cast<uint8_t>(value >> 8 * i);
    writable_[offset + i] = static_cast<uint8_t>(writable >> 8 * i);
    clears_[offset + i] = static_cast<uint8_t>(write_one_clears >> 8 * i);
  }
}

void PciConfig::add_capability(uint8_t id, uint8_t offset) {
  define(last_link_, 1, offset);
  define(offset, 2, id);
  last_link_ = static_cast<uint8_t>(offset + 1);
  reset_[kStatus] |= kHasCapabilities;
  bytes_[kStatus] |= kHasCapabilities;
}

uint32_t PciConfig::read(unsigned offset, unsigned size) const {
  uint32_t value = 0;
  for (unsigned i = 0; i < size; i++) {
    value |= uint32_t{offset + i < kBytes ? bytes_[offset + i] : uint8_t{0xff}} << 8 * i;
  }
  return value;
}

void PciConfig::write(unsigned offset, unsigned size, uint32_t value) {
  if (offset >= kBytes || size > kBytes - offset) return;
  for (unsigned i = 0; i < size; i++) {
    const auto written = static_cast<uint8_t>(value >> 8 * i);
    uint8_t& at = bytes_[offset + i];
    const uint8_t mask = writable_[offset + i];
    at = static_cast<uint8_t>((at & ~mask) | (written & mask));
    at = static_cast<uint8_t>(at & ~(written & clears_[offset + i]));
  }
  place_bases();
  if (write_listener_) write_listener_(offset, size);
}

void PciConfig::set(uint8_t offset, unsigned size, uint32_t value) {
  for (unsigned i = 0; i < size && offset + i < kBytes; i++) {
    bytes_[offset + i] = static_cast<uint8_t>(value >> 8 * i);
  }
}

// Nowhere: not enabled, at 0, or at the end of the address space, as during sizing with the decoders on.
std::optional<uint64_t> PciConfig::address_of(const Base& base) const {
  const uint16_t command = word(kCommand);
  if (!(command & (base.io ? kIoSpace : kMemorySpace))) return std::nullopt;
  if (base.rom && !(dword(base.offset) & kRomEnable)) return std::nullopt;
  uint64_t address = dword(base.offset) & ~uint32_t{base.io ? 3u : base.rom ? 0x7ffu : 15u};
  if (base.wide) address |= uint64_t{dword(static_cast<uint8_t>(base.offset + 4))} << 32;
  if (address == 0) return std::nullopt;
  const uint64_t space = base.io ? 0x1'0000 : base.wide ? uint64_t{1} << 52 : uint64_t{1} << 32;
  if (address >= space || base.size >= space - address) return std::nullopt;
  return address;
}

void PciConfig::place_bases() {
  for (Base& base : bases_) {
    const auto address = address_of(base);
    if (address == base.seen) continue;
    base.seen = address;
    base.placement(address);
  }
}

void PciConfig::reset() {
  bytes_ = reset_;
  place_bases();
  if (write_listener_) write_listener_(0, kBytes);
}

DeviceState PciConfig::save() const {
  return {{"version", 1}, {"bytes", bytes_}};
}

// Only what can differ from the configuration's own bytes is taken.
void PciConfig::load(const DeviceState& state) {
  require_version(state, 1, "pci_config");
  const auto bytes = state.at("bytes").get<std::array<uint8_t, kBytes>>();
  for (unsigned i = 0; i < kBase0; i++) {
    const uint8_t fixed = static_cast<uint8_t>(~(writable_[i] | clears_[i]));
    if (i != kStatus && (bytes[i] & fixed) != (reset_[i] & fixed)) {
      throw std::invalid_argument("saved PCI configuration: of another function");
    }
  }
  bytes_ = bytes;
  place_bases();
}

}  // namespace penumbra
