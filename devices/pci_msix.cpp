#include "devices/pci_msix.h"

#include <algorithm>
#include <cassert>
#include <stdexcept>
#include <utility>

#include "devices/chip.h"

namespace penumbra {

namespace {
constexpr uint8_t kCapabilityId = 0x11;
constexpr uint8_t kControl = 2, kTable = 4, kPending = 8;  // in the capability
constexpr uint16_t kEnable = 0x8000, kMaskAll = 0x4000;
constexpr uint64_t kPendingOffset = 0x800;
constexpr unsigned kEntryBytes = 16, kDataWord = 2, kControlWord = 3;
}  // namespace

PciMsix::PciMsix(PciConfig& config, uint8_t capability, unsigned base, unsigned vectors, MsiSink send)
    : config_(config), capability_(capability), send_(std::move(send)), entries_(vectors) {
  assert(vectors > 0 && vectors <= kMostVectors);
  config.add_capability(kCapabilityId, capability);
  config.define(static_cast<uint8_t>(capability + kControl), 2, vectors - 1, kEnable | kMaskAll);
  config.define(static_cast<uint8_t>(capability + kTable), 4, base);
  config.define(static_cast<uint8_t>(capability + kPending), 4, base | static_cast<uint32_t>(kPendingOffset));
}

bool PciMsix::enabled() const {
  return config_.word(static_cast<uint8_t>(capability_ + kControl)) & kEnable;
}

bool PciMsix::masked(const Entry& entry) const {
  return entry.words[kControlWord] & kMasked ||
         config_.word(static_cast<uint8_t>(capability_ + kControl)) & kMaskAll;
}

// A message is a bus-master write, which needs the enable of those.
bool PciMsix::sends(const Entry& entry) const {
  return !masked(entry) && config_.bus_master();
}

bool PciMsix::signals_nmi() const {
  return enabled() && std::ranges::any_of(entries_, [this](const Entry& entry) {
           return sends(entry) && ApicMessage::is_nmi(entry.address(), entry.words[kDataWord]);
         });
}

void PciMsix::notify(unsigned vector) {
  if (vector >= entries_.size() || !enabled()) return;
  Entry& entry = entries_[vector];
  if (!sends(entry)) {
    entry.pending = true;
    return;
  }
  send_(entry.address(), entry.words[kDataWord]);
}

void PciMsix::send_pending() {
  for (unsigned vector = 0; vector < entries_.size(); vector++) {
    Entry& entry = entries_[vector];
    if (!entry.pending || !sends(entry)) continue;
    entry.pending = false;
    notify(vector);
  }
}

void PciMsix::config_written() {
  if (enabled()) send_pending();
}

// --- The table and the pending bits

uint32_t PciMsix::read_dword(uint64_t offset) const {
  if (offset < entries_.size() * kEntryBytes)
    return entries_[offset / kEntryBytes].words[offset % kEntryBytes / 4];
  uint32_t bits = 0;
  if (offset >= kPendingOffset) {
    for (unsigned i = 0; i < 32; i++) {
      const uint64_t vector = (offset - kPendingOffset) * 8 + i;
      if (vector < entries_.size() && entries_[vector].pending) bits |= uint32_t{1} << i;
    }
  }
  return bits;
}

uint64_t PciMsix::mmio_read(uint64_t offset, unsigned size) {
  const uint64_t at = offset & ~uint64_t{3};
  const uint64_t value = read_dword(at) | (offset % 4 + size > 4 ? uint64_t{read_dword(at + 4)} << 32 : 0);
  return value >> offset % 4 * 8;
}

// Doublewords and quadwords only (6.8.2).
void PciMsix::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  if (offset % 4 != 0 || size < 4) return;
  for (unsigned i = 0; i < size / 4; i++) {
    const uint64_t at = offset + 4 * i;
    if (at >= entries_.size() * kEntryBytes) return;
    entries_[at / kEntryBytes].words[at % kEntryBytes / 4] = static_cast<uint32_t>(value >> 32 * i);
  }
  config_written();
}

void PciMsix::reset() {
  for (Entry& entry : entries_) entry = {};
}

DeviceState PciMsix::save() const {
  DeviceState entries = DeviceState::array();
  for (const Entry& entry : entries_) {
    entries.push_back({entry.words[0], entry.words[1], entry.words[2], entry.words[3], entry.pending});
  }
  return entries;
}

void PciMsix::load(const DeviceState& state) {
  if (state.size() != entries_.size()) throw std::invalid_argument("saved MSI-X table: of another size");
  for (unsigned i = 0; i < entries_.size(); i++) {
    for (unsigned word = 0; word < 4; word++) state.at(i).at(word).get_to(entries_[i].words[word]);
    state.at(i).at(4).get_to(entries_[i].pending);
  }
}

}  // namespace penumbra
