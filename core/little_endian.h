// Little-endian fields of files and of structures in guest memory, by offset.
#pragma once

#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace penumbra {

// True when `size` bytes at `offset` lie in `total` bytes, however large the three are.
constexpr bool lies_within(uint64_t offset, uint64_t size, uint64_t total) {
  return offset <= total && size <= total - offset;
}

// The caller has checked the bounds.
template <std::unsigned_integral T>
T load_field(std::span<const std::byte> bytes, size_t offset) {
  assert(lies_within(offset, sizeof(T), bytes.size()));
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template <std::unsigned_integral T>
void store_field(std::span<std::byte> bytes, size_t offset, T value) {
  assert(lies_within(offset, sizeof(T), bytes.size()));
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

}  // namespace penumbra
