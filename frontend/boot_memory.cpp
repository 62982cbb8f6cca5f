#include "frontend/boot_memory.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "core/little_endian.h"

namespace penumbra {

namespace {

constexpr uint64_t kBiosStart = 0xf'0000, kFourGib = uint64_t{1} << 32;

}  // namespace

std::vector<MemoryRange> memory_map(const PhysicalMap& map) {
  std::vector<MemoryRange> ranges = {
      {0, kLowMemoryEnd, MemoryRange::kRam},
      {kLowMemoryEnd, 0xa'0000 - kLowMemoryEnd, MemoryRange::kReserved},
      {kBiosStart, kHighMemory - kBiosStart, MemoryRange::kReserved},
  };
  if (map.ram_below_4g() > kHighMemory)
    ranges.push_back({kHighMemory, map.ram_below_4g() - kHighMemory, MemoryRange::kRam});
  if (map.ram_above_4g() > 0) ranges.push_back({kFourGib, map.ram_above_4g(), MemoryRange::kRam});
  return ranges;
}

std::vector<std::byte> text_bytes(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text.c_str(), text.size() + 1));
  return {bytes.begin(), bytes.end()};
}

std::span<const std::byte> BootMemory::keep(std::vector<std::byte> bytes) {
  return kept_.emplace_back(std::move(bytes));
}

bool BootMemory::is_ram(uint64_t address, uint64_t size) const {
  return std::ranges::any_of(ranges_, [&](const MemoryRange& range) {
    return range.type == MemoryRange::kRam && address >= range.start &&
           lies_within(address - range.start, size, range.size);
  });
}

const BootMemory::Piece* BootMemory::overlapping(uint64_t address, uint64_t size) const {
  for (const Piece& piece : pieces_) {
    if (address < piece.address + piece.size && piece.address < address + size) return &piece;
  }
  return nullptr;
}

bool BootMemory::is_free(uint64_t address, uint64_t size) const {
  return is_ram(address, size) && !overlapping(address, size);
}

std::optional<uint64_t> BootMemory::find_free(uint64_t size, uint64_t alignment, uint64_t from,
                                              uint64_t to) const {
  const auto align = [&](uint64_t address) { return (address + alignment - 1) & ~(alignment - 1); };
  for (const MemoryRange& range : ranges_) {
    uint64_t address = align(std::max(from, range.start));
    while (address < to && size <= to - address && is_ram(address, size)) {
      const Piece* piece = overlapping(address, size);
      if (!piece) return address;
      address = align(piece->address + piece->size);
    }
  }
  return std::nullopt;
}

void BootMemory::place(uint64_t address, std::span<const std::byte> bytes, uint64_t size) {
  assert(size >= bytes.size() && is_free(address, size));
  if (size > 0) pieces_.push_back({address, size, bytes});
}

void BootMemory::place(uint64_t address, std::vector<std::byte> bytes) {
  const std::span<const std::byte> kept = keep(std::move(bytes));
  place(address, kept, kept.size());
}

uint64_t BootMemory::end() const {
  uint64_t end = 0;
  for (const Piece& piece : pieces_) end = std::max(end, piece.address + piece.size);
  return end;
}

void BootMemory::copy_to(PhysicalMap& map) const {
  static constexpr std::array<std::byte, 16 * kPageSize> kZeros{};
  for (const Piece& piece : pieces_) {
    map.write_bytes(PhysAddr{piece.address}, piece.bytes);
    for (uint64_t done = piece.bytes.size(); done < piece.size;) {
      const uint64_t step = std::min<uint64_t>(kZeros.size(), piece.size - done);
      map.write_bytes(PhysAddr{piece.address + done}, std::span(kZeros).first(static_cast<size_t>(step)));
      done += step;
    }
  }
}

}  // namespace penumbra
