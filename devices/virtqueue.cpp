#include "devices/virtqueue.h"

#include <algorithm>
#include <array>
#include <bit>
#include <stdexcept>

#include "core/little_endian.h"
#include "devices/chip.h"

namespace penumbra {

namespace {
// Descriptors (2.6.5)
constexpr uint64_t kDescriptorBytes = 16;
constexpr uint16_t kNext = 1, kWrite = 2, kIndirect = 4;
// The available ring: flags, index, entries, used_event; the used ring: flags, index, entries, avail_event
constexpr uint64_t kFlags = 0, kIndex = 2, kRing = 4, kUsedEntryBytes = 8;
constexpr uint16_t kNoInterrupt = 1;
constexpr uint64_t kLegacyAlignment = 4096;
// A buffer of more than this is no disk request and no packet: it bounds what one may make the device copy.
constexpr uint64_t kMostBytes = uint64_t{64} << 20;
}  // namespace

// --- Buffers

size_t VirtqueueBuffer::sum(const std::vector<Piece>& pieces) {
  size_t total = 0;
  for (const Piece& piece : pieces) total += piece.bytes;
  return total;
}

namespace {
// Calls `move(address, bytes of the span)` for each piece's part.
template <class Span, class Move>
size_t for_each_piece(const std::vector<VirtqueueBuffer::Piece>& pieces, size_t offset, Span data,
                      Move move) {
  size_t done = 0;
  for (const VirtqueueBuffer::Piece& piece : pieces) {
    if (offset >= piece.bytes) {
      offset -= piece.bytes;
      continue;
    }
    const size_t bytes = std::min<size_t>(piece.bytes - offset, data.size() - done);
    move(PhysAddr{piece.address + offset}, data.subspan(done, bytes));
    done += bytes;
    offset = 0;
    if (done == data.size()) break;
  }
  return done;
}
}  // namespace

size_t VirtqueueBuffer::read(PhysicalMap& map, size_t offset, std::span<std::byte> to) const {
  return for_each_piece(readable, offset, to, [&map](PhysAddr address, std::span<std::byte> part) {
    if (map.is_ram(address, part.size())) {
      map.read_bytes(address, part);
    } else {
      std::ranges::fill(part, std::byte{0});
    }
  });
}

size_t VirtqueueBuffer::write(PhysicalMap& map, size_t offset, std::span<const std::byte> from) const {
  return for_each_piece(writable, offset, from, [&map](PhysAddr address, std::span<const std::byte> part) {
    if (map.is_ram(address, part.size())) map.write_bytes(address, part);
  });
}

// --- The transport's side

void Virtqueue::set_size(uint16_t size) {
  if (std::has_single_bit(size) && size <= most_) size_ = size;
}

// 2.6.2
void Virtqueue::set_legacy_address(uint64_t address) {
  descriptors = address;
  available = address + kDescriptorBytes * size_;
  const uint64_t end = available + kRing + 2 * (uint64_t{size_} + 1);
  used = (end + kLegacyAlignment - 1) & ~(kLegacyAlignment - 1);
  enabled = address != 0;
}

void Virtqueue::reset() {
  size_ = most_;
  descriptors = available = used = 0;
  enabled = false;
  vector = 0xffff;
  taken_ = given_ = 0;
  event_index_ = broken_ = false;
}

// --- The device's side

std::optional<uint16_t> Virtqueue::read16(uint64_t address) const {
  if (!map_.is_ram(PhysAddr{address}, 2)) return std::nullopt;
  std::array<std::byte, 2> bytes;
  map_.read_bytes(PhysAddr{address}, bytes);
  return load_field<uint16_t>(bytes, 0);
}

bool Virtqueue::write16(uint64_t address, uint16_t value) {
  if (!map_.is_ram(PhysAddr{address}, 2)) return false;
  std::array<std::byte, 2> bytes;
  store_field(bytes, 0, value);
  map_.write_bytes(PhysAddr{address}, bytes);
  return true;
}

std::optional<VirtqueueBuffer> Virtqueue::take() {
  if (!enabled || broken_) return std::nullopt;
  const auto index = read16(available + kIndex);
  if (!index || static_cast<uint16_t>(*index - taken_) > size_) {
    broken_ = true;
    return std::nullopt;
  }
  if (*index == taken_) return std::nullopt;
  const auto head = read16(available + kRing + 2 * uint64_t{static_cast<uint16_t>(taken_ % size_)});
  VirtqueueBuffer buffer;
  if (!head || *head >= size_ || !follow(buffer, descriptors, size_, *head, true)) {
    broken_ = true;
    return std::nullopt;
  }
  buffer.head = *head;
  taken_++;
  // The driver is asked to tell about the next one (2.6.10).
  if (event_index_) write16(used + kRing + kUsedEntryBytes * size_, taken_);
  return buffer;
}

// A chain in the queue's own table, or in a table of its own that one descriptor names (2.6.5.3).
bool Virtqueue::follow(VirtqueueBuffer& buffer, uint64_t table, uint32_t entries, uint16_t index,
                       bool indirect_allowed) {
  uint64_t total = buffer.readable_bytes() + buffer.writable_bytes();
  for (uint32_t count = 0; count < entries; count++) {
    if (index >= entries) return false;
    std::array<std::byte, kDescriptorBytes> bytes;
    const PhysAddr at{table + kDescriptorBytes * index};
    if (!map_.is_ram(at, bytes.size())) return false;
    map_.read_bytes(at, bytes);
    const auto address = load_field<uint64_t>(bytes, 0);
    const auto length = load_field<uint32_t>(bytes, 8);
    const auto flags = load_field<uint16_t>(bytes, 12);
    if (flags & kIndirect) {
      // The only one of its chain.
      const uint32_t inner = length / kDescriptorBytes;
      constexpr uint32_t kMostInner = 1024;
      if (!indirect_allowed || count != 0 || flags & kNext || length % kDescriptorBytes != 0 || inner == 0 ||
          inner > kMostInner)
        return false;
      return follow(buffer, address, inner, 0, false);
    }
    total += length;
    if (total > kMostBytes) return false;
    if (flags & kWrite) {
      buffer.writable.push_back({address, length});
    } else {
      if (!buffer.writable.empty()) return false;  // 2.6.4.2
      buffer.readable.push_back({address, length});
    }
    if (!(flags & kNext)) return true;
    index = load_field<uint16_t>(bytes, 14);
  }
  return false;  // a loop
}

bool Virtqueue::give_back(const VirtqueueBuffer& buffer, uint32_t written) {
  if (!enabled || broken_) return false;
  const uint64_t entry = used + kRing + kUsedEntryBytes * (given_ % size_);
  if (!map_.is_ram(PhysAddr{entry}, kUsedEntryBytes)) {
    broken_ = true;
    return false;
  }
  std::array<std::byte, kUsedEntryBytes> bytes{};
  store_field(bytes, 0, buffer.head);
  store_field(bytes, 4, written);
  map_.write_bytes(PhysAddr{entry}, bytes);
  const uint16_t before = given_++;
  if (!write16(used + kIndex, given_)) {
    broken_ = true;
    return false;
  }
  if (event_index_) {
    const auto event = read16(available + kRing + 2 * uint64_t{size_});
    return event && static_cast<uint16_t>(given_ - *event - 1) < static_cast<uint16_t>(given_ - before);
  }
  const auto flags = read16(available + kFlags);
  return flags && !(*flags & kNoInterrupt);
}

DeviceState Virtqueue::save() const {
  return {{"size", size_},
          {"descriptors", descriptors},
          {"available", available},
          {"used", used},
          {"enabled", enabled},
          {"vector", vector},
          {"taken", taken_},
          {"given", given_},
          {"event_index", event_index_},
          {"broken", broken_}};
}

void Virtqueue::load(const DeviceState& state) {
  const auto size = bounded(state, "size", most_);
  if (!std::has_single_bit(size)) throw std::invalid_argument("virtqueue: a saved size is no power of two");
  size_ = static_cast<uint16_t>(size);
  state.at("descriptors").get_to(descriptors);
  state.at("available").get_to(available);
  state.at("used").get_to(used);
  state.at("enabled").get_to(enabled);
  vector = static_cast<uint16_t>(bounded(state, "vector", 0xffff));
  taken_ = static_cast<uint16_t>(bounded(state, "taken", 0xffff));
  given_ = static_cast<uint16_t>(bounded(state, "given", 0xffff));
  state.at("event_index").get_to(event_index_);
  state.at("broken").get_to(broken_);
}

}  // namespace penumbra
