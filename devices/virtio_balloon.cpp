#include "devices/virtio_balloon.h"

#include <algorithm>
#include <array>

#include "devices/chip.h"
#include "mmu/discard_page.h"

namespace penumbra {

namespace {
enum : unsigned { kInflateQueue, kDeflateQueue };
constexpr uint16_t kQueueSize = 128;
// The configuration (5.5.4): how many pages are wanted, how many there are
constexpr unsigned kActual = 4, kConfigurationBytes = 8;
constexpr size_t kEntryBytes = 4;  // page numbers, little-endian (5.5.6)
}  // namespace

std::vector<uint16_t> VirtioBalloon::queue_sizes() const {
  return {kQueueSize, kQueueSize};
}

void VirtioBalloon::set_wanted(uint64_t bytes) {
  wanted_ = static_cast<uint32_t>(std::min<uint64_t>(bytes / kPageBytes, UINT32_MAX));
  transport_.configuration_changed();
}

uint8_t VirtioBalloon::read_configuration(unsigned offset) const {
  if (offset >= kConfigurationBytes) return 0;
  return static_cast<uint8_t>((offset < kActual ? wanted_ : actual_) >> 8 * (offset % kActual));
}

void VirtioBalloon::write_configuration(unsigned offset, uint8_t value) {
  if (offset < kActual || offset >= kConfigurationBytes) return;
  const unsigned shift = 8 * (offset - kActual);
  actual_ = (actual_ & ~(uint32_t{0xff} << shift)) | uint32_t{value} << shift;
}

// A page that comes back needs nothing: it is zeros at the guest's first access.
void VirtioBalloon::notified(unsigned number) {
  while (auto buffer = queue(number).take()) {
    if (number == kInflateQueue) inflate(*buffer);
    give_back(number, *buffer, 0);
  }
}

void VirtioBalloon::inflate(const VirtqueueBuffer& buffer) {
  std::array<std::byte, 1024> entries;
  size_t offset = 0;
  while (const size_t got = buffer.read(map_, offset, entries)) {
    for (size_t at = 0; at + kEntryBytes <= got; at += kEntryBytes) {
      uint64_t page = 0;
      for (size_t i = 0; i < kEntryBytes; i++)
        page |= uint64_t{static_cast<uint8_t>(entries[at + i])} << 8 * i;
      discard_page(map_, PhysAddr{page * kPageBytes});
    }
    offset += got;
  }
}

DeviceState VirtioBalloon::save() const {
  return {{"wanted", wanted_}, {"actual", actual_}};
}

void VirtioBalloon::load(const DeviceState& state) {
  const auto wanted = static_cast<uint32_t>(bounded(state, "wanted", UINT32_MAX)),
             actual = static_cast<uint32_t>(bounded(state, "actual", UINT32_MAX));
  wanted_ = wanted;
  actual_ = actual;
}

}  // namespace penumbra
