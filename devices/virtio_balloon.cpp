#include "devices/virtio_balloon.h"

#include <algorithm>
#include <array>

#include "core/little_endian.h"
#include "devices/chip.h"
#include "mmu/discard_page.h"

namespace penumbra {

namespace {
enum : unsigned { kInflateQueue, kDeflateQueue, kStatisticsQueue };
constexpr uint64_t kStatisticsFeature = 1u << 1;  // 5.5.3
constexpr uint16_t kQueueSize = 128;
// The configuration (5.5.4): how many pages are wanted, how many there are
constexpr unsigned kActual = 4, kConfigurationBytes = 8;
constexpr size_t kEntryBytes = 4;           // page numbers, little-endian (5.5.6)
constexpr uint32_t kNoQuestion = 0x1'0000;  // in a saved state: beyond all heads
constexpr size_t kStatisticBytes = 2 + 8;   // tag and value, packed (5.5.6.3)
}  // namespace

std::vector<uint16_t> VirtioBalloon::queue_sizes() const {
  return {kQueueSize, kQueueSize, kQueueSize};
}

uint64_t VirtioBalloon::features() const {
  return kStatisticsFeature;
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
  tell_size();
}

void VirtioBalloon::tell_size() {
  if (size_listener_) size_listener_();
}

// A page that comes back needs nothing: it is zeros at the guest's first access.
void VirtioBalloon::notified(unsigned number) {
  while (auto buffer = queue(number).take()) {
    if (number == kStatisticsQueue) {
      request_statistics();  // one buffer is what the driver has (5.5.6.3)
      question_ = buffer->head;
      read_statistics(*buffer);
      continue;
    }
    if (number == kInflateQueue) inflate(*buffer);
    give_back(number, *buffer, 0);
  }
}

bool VirtioBalloon::request_statistics() {
  if (!question_) return false;
  VirtqueueBuffer buffer;
  buffer.head = *std::exchange(question_, std::nullopt);
  give_back(kStatisticsQueue, buffer, 0);
  return true;
}

void VirtioBalloon::read_statistics(const VirtqueueBuffer& buffer) {
  std::array<std::byte, kStatistics * kStatisticBytes> entries;
  const size_t got = buffer.read(map_, 0, entries);
  statistics_ = nothing_said();
  for (size_t at = 0; at + kStatisticBytes <= got; at += kStatisticBytes) {
    const auto tag = load_field<uint16_t>(entries, at);
    if (tag < kStatistics) statistics_[tag] = load_field<uint64_t>(entries, at + sizeof tag);
  }
  if (statistics_listener_) statistics_listener_();
}

void VirtioBalloon::reset() {
  if (std::exchange(actual_, 0) != 0) tell_size();
  statistics_ = nothing_said();
  question_.reset();
}

void VirtioBalloon::inflate(const VirtqueueBuffer& buffer) {
  std::array<std::byte, 1024> entries;
  size_t offset = 0;
  while (const size_t got = buffer.read(map_, offset, entries)) {
    for (size_t at = 0; at + kEntryBytes <= got; at += kEntryBytes)
      discard_page(map_, PhysAddr{load_field<uint32_t>(entries, at) * kPageBytes});
    offset += got;
  }
}

DeviceState VirtioBalloon::save() const {
  return {{"wanted", wanted_},
          {"actual", actual_},
          {"statistics", statistics_},
          {"question", question_ ? *question_ : kNoQuestion}};
}

void VirtioBalloon::load(const DeviceState& state) {
  const auto wanted = static_cast<uint32_t>(bounded(state, "wanted", UINT32_MAX)),
             actual = static_cast<uint32_t>(bounded(state, "actual", UINT32_MAX));
  const auto statistics = state.at("statistics").get<Statistics>();
  const uint64_t question = bounded(state, "question", kNoQuestion);
  wanted_ = wanted;
  actual_ = actual;
  statistics_ = statistics;
  question_.reset();
  if (question != kNoQuestion) question_ = static_cast<uint16_t>(question);
}

}  // namespace penumbra
