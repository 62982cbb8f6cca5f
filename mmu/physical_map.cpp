// Accesses to the physical map. Light code, but for the chips behind it: whoever may reach one holds a
// HostVectorScope (core/README.md).
#include "mmu/physical_map.h"

#include <algorithm>

namespace penumbra {

namespace {

constexpr uint64_t k4g = uint64_t{1} << 32;
// Physical addresses have at most 52 bits (SDM vol. 3, 4.1.4).
constexpr uint64_t kPhysicalMask = (uint64_t{1} << 52) - 1;

// One host access, as the guest expects of an aligned one.
uint64_t load(const std::byte* from, unsigned size) {
  uint64_t value = 0;
  switch (size) {
    case 1:
      return static_cast<uint64_t>(*from);
    case 2:
      __builtin_memcpy(&value, from, 2);
      return value;
    case 4:
      __builtin_memcpy(&value, from, 4);
      return value;
    default:
      __builtin_memcpy(&value, from, 8);
      return value;
  }
}

void store(std::byte* to, unsigned size, uint64_t value) {
  switch (size) {
    case 1:
      __builtin_memcpy(to, &value, 1);
      return;
    case 2:
      __builtin_memcpy(to, &value, 2);
      return;
    case 4:
      __builtin_memcpy(to, &value, 4);
      return;
    default:
      __builtin_memcpy(to, &value, 8);
      return;
  }
}

constexpr uint64_t ones(unsigned size) { return size == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * size)) - 1; }

}  // namespace

const PhysicalMap::Region* PhysicalMap::region_at(uint64_t physical) const {
  for (const Region& region : regions_) {
    if (physical - region.start < region.bytes) return &region;
  }
  return nullptr;
}

PhysicalMap::Page PhysicalMap::page(PhysAddr address) const {
  const uint64_t start = address.value & a20_mask_ & kPhysicalMask & ~kPageOffsetMask;
  Page page{.frame = PhysAddr{start}.frame()};
  if (const Region* region = region_at(start)) {
    page.region_offset = start - region->start;
    page.kind = region->host ? PageKind::Rom : PageKind::Mmio;
    page.host = region->host ? region->host + page.region_offset : nullptr;
    page.handler = region->handler;
  } else if (start < ram_below_4g()) {
    page.kind = PageKind::Ram;
    page.host = ram_ + start;
  } else if (start >= k4g && start - k4g < ram_above_4g()) {
    page.kind = PageKind::Ram;
    page.host = ram_ + ram_below_4g() + (start - k4g);
  }
  return page;
}

uint64_t PhysicalMap::read(PhysAddr address, unsigned size) {
  const Page at = page(address);
  if (at.host) return load(at.host + address.page_offset(), size);
  if (at.handler) return at.handler->mmio_read(at.region_offset + address.page_offset(), size) & ones(size);
  return ones(size);
}

void PhysicalMap::write(PhysAddr address, unsigned size, uint64_t value) {
  const Page at = page(address);
  if (at.kind == PageKind::Ram) {
    tracker_.before_write(at.frame, address.page_offset(), size);
    store(at.host + address.page_offset(), size, value);
  } else if (at.handler) {
    at.handler->mmio_write(at.region_offset + address.page_offset(), size, value & ones(size));
  }
}

void PhysicalMap::read_bytes(PhysAddr address, std::span<std::byte> to) {
  while (!to.empty()) {
    const size_t bytes = std::min<size_t>(to.size(), kPageSize - address.page_offset());
    const Page at = page(address);
    if (at.host) {
      __builtin_memcpy(to.data(), at.host + address.page_offset(), bytes);
    } else {
      for (size_t i = 0; i < bytes; ++i) to[i] = static_cast<std::byte>(read(address + i, 1));
    }
    to = to.subspan(bytes);
    address = address + bytes;
  }
}

void PhysicalMap::write_bytes(PhysAddr address, std::span<const std::byte> from) {
  while (!from.empty()) {
    const size_t bytes = std::min<size_t>(from.size(), kPageSize - address.page_offset());
    const Page at = page(address);
    if (at.kind == PageKind::Ram) {
      tracker_.before_write(at.frame, address.page_offset(), bytes);
      __builtin_memcpy(at.host + address.page_offset(), from.data(), bytes);
    } else if (at.handler) {
      for (size_t i = 0; i < bytes; ++i) write(address + i, 1, static_cast<uint64_t>(from[i]));
    }
    from = from.subspan(bytes);
    address = address + bytes;
  }
}

}  // namespace penumbra
