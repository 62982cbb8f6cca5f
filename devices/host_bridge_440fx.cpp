#include "devices/host_bridge_440fx.h"

#include "devices/chip.h"

namespace penumbra {

namespace {
// Ports, as offsets from CF8h
constexpr uint16_t kAddressPort = 0, kDataPort = 4, kPortsEnd = 8;
constexpr uint32_t kEnable = 0x8000'0000, kAddressBits = 0x80ff'ffff;

// Configuration registers
constexpr uint8_t kPmcConfiguration = 0x50, kDeterboTimer = 0x57, kPam0 = 0x59, kPams = 7, kSmram = 0x72;
constexpr uint8_t kReadEnable = 1, kWriteEnable = 2;

constexpr uint64_t kShadowStart = 0xc'0000, kSegmentBytes = 0x4000, kBiosStart = 0xf'0000,
                   kBiosBytes = 0x1'0000;
constexpr uint64_t kHoleStart = 0xa'0000, kHoleEnd = 0x10'0000;
}  // namespace

HostBridge440fx::HostBridge440fx(PhysicalMap& map, PciBus& bus, Device& isa)
    : PciFunction({.vendor = 0x8086,
                   .device = 0x1237,
                   .revision = 2,
                   .class_code = 0x06'00'00,
                   .subsystem_vendor = 0x1af4,
                   .subsystem = 0x1100}),
      map_(map),
      bus_(bus),
      isa_(isa) {
  // CPU and PCI accesses to memory cannot be turned off (PCICMD).
  config_.define(PciConfig::kCommand, 2, 0x0006, 0x0100);
  config_.define(PciConfig::kStatus, 2, 0x0280, 0, 0x7000);
  config_.define(kPmcConfiguration, 2, 0, 0xffff);
  config_.define(kDeterboTimer, 1, 0x01, 0xff);
  config_.define(kPam0, 4, 0, 0x3333'3330);
  config_.define(kPam0 + 4, 3, 0, 0x33'3333);
  config_.define(0x60, 4, 0x0101'0101, 0xffff'ffff);  // DRAM row boundaries
  config_.define(0x64, 4, 0x0101'0101, 0xffff'ffff);
  config_.define(kSmram, 1, 0x02, 0x78);
  config_.set_write_listener([this](unsigned offset, unsigned size) {
    if (offset < kPam0 + kPams && offset + size > kPam0) show_segments();
  });
  map_.add_hole(PhysAddr{kHoleStart}, kHoleEnd - kHoleStart);
  for (unsigned i = 0; i < kSegments; i++) {
    const uint64_t start = i + 1 < kSegments ? kShadowStart + i * kSegmentBytes : kBiosStart;
    segments_[i] = map_.add_shadow(PhysAddr{start}, i + 1 < kSegments ? kSegmentBytes : kBiosBytes);
  }
}

// PAM0's upper half is F0000h; the halves of PAM1 to PAM6, lower one first, are the 16 KiB segments.
void HostBridge440fx::show_segments() {
  for (unsigned i = 0; i < kSegments; i++) {
    const unsigned half = i + 1 < kSegments ? 2 + i : 1;
    const unsigned attribute = config_.byte(static_cast<uint8_t>(kPam0 + half / 2)) >> (half % 2 * 4);
    using enum PhysicalMap::Visibility;
    map_.show(segments_[i], !(attribute & kReadEnable) ? Hidden
                            : attribute & kWriteEnable ? Writable
                                                       : ReadOnly);
  }
}

void HostBridge440fx::open_shadow_ram() {
  config_.write(kPam0, 4, 0x3333'3330);
  config_.write(kPam0 + 4, 2, 0x3333);
  config_.write(kPam0 + 6, 1, 0x33);
}

// --- Configuration mechanism #1 (PCI 3.0, 3.2.2.3.2). There is no bus but 0.

bool HostBridge440fx::selected() const {
  return address_ & kEnable && (address_ >> 16 & 0xff) == 0;
}

uint32_t HostBridge440fx::read(uint16_t offset, unsigned size) {
  if (offset == kAddressPort && size == 4) return address_;
  if (offset < kDataPort) return isa_.read(offset, size);
  if (offset + size > kPortsEnd || !selected()) return 0xffff'ffff;
  return bus_.read_config(static_cast<uint8_t>(address_ >> 8), (address_ & 0xfc) + (offset - kDataPort),
                          size);
}

void HostBridge440fx::write(uint16_t offset, unsigned size, uint32_t value) {
  if (offset == kAddressPort && size == 4) {
    address_ = value & kAddressBits;
  } else if (offset < kDataPort) {
    isa_.write(offset, size, value);
  } else if (offset + size <= kPortsEnd && selected()) {
    bus_.write_config(static_cast<uint8_t>(address_ >> 8), (address_ & 0xfc) + (offset - kDataPort), size,
                      value);
  }
}

void HostBridge440fx::reset() {
  address_ = 0;
  config_.reset();
}

DeviceState HostBridge440fx::save() const {
  return {{"version", 1}, {"address", address_}, {"config", config_.save()}};
}

void HostBridge440fx::load(const DeviceState& state) {
  require_version(state, 1, name());
  const auto address = bounded(state, "address", kAddressBits);
  config_.load(state.at("config"));
  address_ = static_cast<uint32_t>(address);
  show_segments();
}

}  // namespace penumbra
