// Accesses to the physical map. Light code, but for the chips behind it: whoever may reach one holds a
// HostVectorScope (core/README.md).
#include "mmu/physical_map.h"

#include <algorithm>

namespace penumbra {

namespace {

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

constexpr uint64_t ones(unsigned size) {
  return size == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * size)) - 1;
}

}  // namespace

const PhysicalMap::Range* PhysicalMap::find(const std::vector<Range>& ranges, uint64_t physical) {
  const Range* first = ranges.data();
  size_t count = ranges.size();
  while (count > 0) {
    const size_t half = count / 2;
    const Range& middle = first[half];
    if (physical < middle.start) {
      count = half;
    } else if (physical < middle.end) {
      return &middle;
    } else {
      first += half + 1;
      count -= half + 1;
    }
  }
  return nullptr;
}

PhysicalMap::Page PhysicalMap::page(PhysAddr address) const {
  const uint64_t start = address.value & a20_mask_ & kPhysicalMask & ~kPageOffsetMask;
  Page page{.frame = PhysAddr{start}.frame()};
  if (const Range* range = find(ranges_, start)) {
    const uint64_t offset = start - range->start;
    page.handler = range->handler;
    page.region_offset = range->region_offset + offset;
    page.written = range->written;
    if (range->host) {
      page.kind = range->writable ? PageKind::Ram : PageKind::Rom;
      page.host = range->host + offset;
    } else if (range->handler) {
      page.kind = PageKind::Mmio;
    }
  }
  return page;
}

bool PhysicalMap::is_ram(PhysAddr address, uint64_t bytes) const {
  uint64_t at = address.value & a20_mask_;
  while (bytes > 0) {
    const Range* range = find(ranges_, at);
    if (!range || !range->host || !range->writable) return false;
    const uint64_t here = range->end - at;
    if (bytes <= here) return true;
    bytes -= here;
    at += here;
  }
  return false;
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
    if (at.written) at.written->store(true, std::memory_order_relaxed);
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
      if (at.written) at.written->store(true, std::memory_order_relaxed);
      __builtin_memcpy(at.host + address.page_offset(), from.data(), bytes);
    } else if (at.handler) {
      for (size_t i = 0; i < bytes; ++i) write(address + i, 1, static_cast<uint64_t>(from[i]));
    }
    from = from.subspan(bytes);
    address = address + bytes;
  }
}

}  // namespace penumbra
