// The checksum of IPv4, TCP and UDP: RFC 1071.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace penumbra {

// One's complement sum of the 16-bit words, the first byte the upper one; an odd last byte is followed by a
// zero.
inline uint16_t internet_sum(std::span<const std::byte> bytes, uint16_t start = 0) {
  // In the host's byte order, which swaps the sum's bytes and nothing else (RFC 1071, 2B).
  uint64_t sum = 0;
  size_t at = 0;
  for (; at + 4 <= bytes.size(); at += 4) {
    uint32_t word;
    std::memcpy(&word, bytes.data() + at, 4);
    sum += word;
  }
  if (at < bytes.size()) {
    uint32_t word = 0;
    std::memcpy(&word, bytes.data() + at, bytes.size() - at);
    sum += word;
  }
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  const uint32_t total = static_cast<uint32_t>((sum & 0xff) << 8 | sum >> 8) + start;
  return static_cast<uint16_t>((total & 0xffff) + (total >> 16));
}

inline uint16_t internet_checksum(std::span<const std::byte> bytes, uint16_t start = 0) {
  return static_cast<uint16_t>(~internet_sum(bytes, start));
}

}  // namespace penumbra
