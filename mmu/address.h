// Strong types for the three address spaces: guest linear, guest physical, host.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace penumbra {

inline constexpr unsigned kPageShift = 12;
inline constexpr uint64_t kPageSize = uint64_t{1} << kPageShift;
inline constexpr uint64_t kPageOffsetMask = kPageSize - 1;

// Guest linear address: after segmentation, before paging. Prints as "L:".
struct LinearAddr {
  uint64_t value = 0;

  constexpr LinearAddr page() const { return {value & ~kPageOffsetMask}; }
  constexpr uint64_t page_offset() const { return value & kPageOffsetMask; }
  constexpr LinearAddr operator+(uint64_t bytes) const { return {value + bytes}; }
  constexpr auto operator<=>(const LinearAddr&) const = default;
};

// Number of a 4 KiB page of guest physical memory.
struct PageFrame {
  uint64_t number = 0;

  constexpr auto operator<=>(const PageFrame&) const = default;
};

// Guest physical address: after paging and the A20 gate. Prints as "P:".
struct PhysAddr {
  uint64_t value = 0;

  constexpr PageFrame frame() const { return {value >> kPageShift}; }
  constexpr uint64_t page_offset() const { return value & kPageOffsetMask; }
  constexpr PhysAddr operator+(uint64_t bytes) const { return {value + bytes}; }
  constexpr auto operator<=>(const PhysAddr&) const = default;
};

constexpr PhysAddr start_of(PageFrame frame) {
  return {frame.number << kPageShift};
}

// True when an access of `size` bytes (at least 1) touches two pages.
constexpr bool crosses_page(LinearAddr address, uint64_t size) {
  return address.page_offset() + size > kPageSize;
}

// An address in the VMM's own process. Stays inside mmu/ and the translator's memory path.
using HostPtr = std::byte*;

}  // namespace penumbra
