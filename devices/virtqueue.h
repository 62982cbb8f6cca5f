// A split virtqueue: buffers that the driver offers in memory, and that the device gives back.
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS), 2.6. Everything in memory is the guest's and may change at any
// time: each field is read once and checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/device.h"
#include "mmu/physical_map.h"

namespace penumbra {

// One chain of descriptors: what the device may read comes first, what it may write follows.
class VirtqueueBuffer {
 public:
  struct Piece {
    uint64_t address;
    uint32_t bytes;
  };
  uint16_t head = 0;
  std::vector<Piece> readable, writable;

  size_t readable_bytes() const { return sum(readable); }
  size_t writable_bytes() const { return sum(writable); }
  // From byte `offset` of the readable part on, as many as there are; how many they were. Bytes outside RAM
  // are zeros.
  size_t read(PhysicalMap& map, size_t offset, std::span<std::byte> to) const;
  // The same into the writable part; bytes outside RAM go nowhere.
  size_t write(PhysicalMap& map, size_t offset, std::span<const std::byte> from) const;

 private:
  static size_t sum(const std::vector<Piece>& pieces);
};

class Virtqueue {
 public:
  Virtqueue(PhysicalMap& map, uint16_t most_entries) : map_(map), most_(most_entries), size_(most_entries) {}

  // --- The transport's side
  uint16_t most_entries() const { return most_; }
  uint16_t size() const { return size_; }
  void set_size(uint16_t size);                       // ignored unless a power of two up to most_entries()
  uint64_t descriptors = 0, available = 0, used = 0;  // addresses
  bool enabled = false;
  uint16_t vector = 0xffff;
  void set_event_index(bool on) { event_index_ = on; }
  // Where the three parts are in a legacy driver's single allocation.
  void set_legacy_address(uint64_t address);
  void reset();

  // --- The device's side
  // The next buffer that the driver offers; none: there is no more, or the queue is broken.
  std::optional<VirtqueueBuffer> take();
  // Gives a buffer back with that many bytes written into it. True: the driver wants to be interrupted.
  bool give_back(const VirtqueueBuffer& buffer, uint32_t written);
  // The driver broke the rules: nothing more is taken until a reset.
  bool broken() const { return broken_; }

  DeviceState save() const;
  void load(const DeviceState& state);

 private:
  std::optional<uint16_t> read16(uint64_t address) const;
  bool write16(uint64_t address, uint16_t value);
  bool follow(VirtqueueBuffer& buffer, uint64_t table, uint32_t entries, uint16_t index,
              bool indirect_allowed);

  PhysicalMap& map_;
  const uint16_t most_;
  uint16_t size_;
  uint16_t taken_ = 0, given_ = 0;  // running indices
  bool event_index_ = false, broken_ = false;
};

}  // namespace penumbra
