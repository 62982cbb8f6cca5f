#include "core/io_bus.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <string>

namespace penumbra {

namespace {
constexpr unsigned kPorts = 0x1'0000;
constexpr uint32_t mask_of(unsigned size) {
  return size >= 4 ? ~uint32_t{0} : (uint32_t{1} << 8 * size) - 1;
}

std::string ports_of(const Device& device, unsigned first, unsigned end) {
  const auto hex = [](unsigned value) {
    char digits[8];
    return std::string(digits, std::to_chars(digits, digits + sizeof digits, value, 16).ptr);
  };
  return std::string(device.name()) + ": I/O ports [" + hex(first) + "h, " + hex(end) + "h)";
}
}  // namespace

void IoBus::add(uint16_t first, uint16_t count, Device& device, uint16_t device_offset) {
  const unsigned end = first + unsigned{count};
  if (count == 0 || end > kPorts) {
    throw std::invalid_argument(ports_of(device, first, end) + " are not a range");
  }
  const auto after = std::ranges::upper_bound(ranges_, first, {}, &Range::first);
  const Range* neighbour = nullptr;
  if (after != ranges_.end() && after->first < end) neighbour = &*after;
  if (after != ranges_.begin()) {
    const Range& before = *std::prev(after);
    if (before.first + unsigned{before.count} > first) neighbour = &before;
  }
  if (neighbour) {
    throw std::invalid_argument(ports_of(device, first, end) + " overlap those of " +
                                std::string(neighbour->device->name()));
  }
  ranges_.insert(after, {.first = first, .count = count, .device_offset = device_offset, .device = &device});
}

IoBus::WindowId IoBus::add_window(uint16_t count, Device& device, uint16_t device_offset) {
  windows_.push_back(
      {.range = {.first = 0, .count = count, .device_offset = device_offset, .device = &device}});
  return {static_cast<unsigned>(windows_.size() - 1)};
}

void IoBus::place(WindowId window, std::optional<uint16_t> first) {
  Window& moved = windows_.at(window.index);
  moved.placed = first && *first + unsigned{moved.range.count} <= kPorts;
  if (moved.placed) moved.range.first = *first;
}

const IoBus::Range* IoBus::range_at(uint16_t port) const {
  const auto after = std::ranges::upper_bound(ranges_, port, {}, &Range::first);
  if (after != ranges_.begin()) {
    const Range& range = *std::prev(after);
    if (port - range.first < range.count) return &range;
  }
  for (const Window& window : windows_) {
    const Range& range = window.range;
    if (window.placed && port >= range.first && port - range.first < range.count) return &range;
  }
  return nullptr;
}

uint32_t IoBus::read(uint16_t port, unsigned size) {
  const Range* range = range_at(port);
  if (range && port - range->first + size <= range->count) {
    const auto offset = static_cast<uint16_t>(range->device_offset + (port - range->first));
    return range->device->read(offset, size) & mask_of(size);
  }
  if (size == 1) return 0xff;
  uint32_t value = 0;
  for (unsigned i = 0; i < size; i++) {
    // Bytes past the last port go nowhere: wrapping to port 0 would reach the DMA controller.
    const uint32_t byte = port + i < kPorts ? read(static_cast<uint16_t>(port + i), 1) : 0xff;
    value |= byte << 8 * i;
  }
  return value;
}

void IoBus::write(uint16_t port, unsigned size, uint32_t value) {
  const Range* range = range_at(port);
  if (range && port - range->first + size <= range->count) {
    const auto offset = static_cast<uint16_t>(range->device_offset + (port - range->first));
    range->device->write(offset, size, value & mask_of(size));
    return;
  }
  if (size == 1) return;
  for (unsigned i = 0; i < size && port + i < kPorts; i++) {
    write(static_cast<uint16_t>(port + i), 1, value >> 8 * i & 0xff);
  }
}

}  // namespace penumbra
