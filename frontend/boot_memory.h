// What a boot loader puts into guest RAM: collected and checked once, copied at every reset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mmu/physical_map.h"

namespace penumbra {

// A row of the memory map that guests are told, in the numbers of ACPI's and the BIOS' E820 (ACPI 6.4, 15.1).
struct MemoryRange {
  enum : uint32_t { kRam = 1, kReserved = 2 };
  uint64_t start = 0, size = 0;
  uint32_t type = kRam;
};

// RAM up to where a PC's extended BIOS data would be, the BIOS' last 64 KiB, RAM from 1 MiB and from 4 GiB.
std::vector<MemoryRange> memory_map(const PhysicalMap& map);

inline constexpr uint64_t kLowMemoryEnd = 0x9'fc00;  // as QEMU's firmware says: 1 KiB for the EBDA
inline constexpr uint64_t kHighMemory = 0x10'0000;   // 1 MiB

// With the final zero.
std::vector<std::byte> text_bytes(const std::string& text);

class BootMemory {
 public:
  explicit BootMemory(const PhysicalMap& map) : ranges_(memory_map(map)) {}

  // Keeps the bytes as long as this object lives.
  std::span<const std::byte> keep(std::vector<std::byte> bytes);

  bool is_ram(uint64_t address, uint64_t size) const;
  bool is_free(uint64_t address, uint64_t size) const;  // RAM in which nothing was placed
  // The lowest free address that is a multiple of `alignment` (a power of two), in [from, to).
  std::optional<uint64_t> find_free(uint64_t size, uint64_t alignment, uint64_t from, uint64_t to) const;

  // `bytes` must outlive this object (see keep()); zeros follow them up to `size`. The range must be free.
  void place(uint64_t address, std::span<const std::byte> bytes, uint64_t size);
  void place(uint64_t address, std::vector<std::byte> bytes);

  uint64_t end() const;  // of what was placed highest; 0 when nothing was

  void copy_to(PhysicalMap& map) const;

 private:
  struct Piece {
    uint64_t address, size;
    std::span<const std::byte> bytes;
  };
  const Piece* overlapping(uint64_t address, uint64_t size) const;

  std::vector<MemoryRange> ranges_;
  std::vector<Piece> pieces_;
  std::deque<std::vector<std::byte>> kept_;
};

}  // namespace penumbra
