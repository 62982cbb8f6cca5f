#include "mmu/page_walker.h"

#include <optional>

namespace penumbra {

namespace {

// Bits of paging-structure entries (SDM vol. 3, tables 4-4 to 4-20).
constexpr uint64_t kPresent = 1u << 0, kWritable = 1u << 1, kUser = 1u << 2, kAccessed = 1u << 5,
                   kDirty = 1u << 6, kLarge = 1u << 7, kGlobal = 1u << 8, kNoExecute = uint64_t{1} << 63;

constexpr uint64_t low_bits(unsigned count) {
  return (uint64_t{1} << count) - 1;
}

// One level of a walk: the index' place in the linear address, and what an entry of it may be.
struct Level {
  unsigned shift;       // of the linear address; a leaf here maps 1 << shift bytes
  bool rights;          // R/W, U/S and XD bits exist (not in a PDPTE of PAE paging)
  bool may_be_large;    // bit 7 is PS
  bool large_reserved;  // bit 7 is reserved (PML4E)
};

constexpr Level kLevels4[] = {
    {.shift = 39, .rights = true, .may_be_large = false, .large_reserved = true},
    {.shift = 30, .rights = true, .may_be_large = true, .large_reserved = false},
    {.shift = 21, .rights = true, .may_be_large = true, .large_reserved = false},
    {.shift = 12, .rights = true, .may_be_large = false, .large_reserved = false},
};
constexpr Level kLevels32[] = {
    {.shift = 22, .rights = true, .may_be_large = true, .large_reserved = false},
    {.shift = 12, .rights = true, .may_be_large = false, .large_reserved = false},
};

// An entry of a table and where it is, so that accessed and dirty bits can be set.
struct Entry {
  uint64_t value = ~uint64_t{0};
  HostPtr host = nullptr;  // RAM only
  PageFrame frame;
  uint64_t offset = 0;
};

// Tables in MMIO or beyond memory read as ones: chips are not asked, no system keeps tables there.
Entry read_entry(PhysicalMap& map, PhysAddr address, unsigned bytes) {
  const PhysicalMap::Page page = map.page(address);
  Entry entry{.frame = page.frame, .offset = address.page_offset()};
  if (!page.host) return entry;
  const HostPtr host = page.host + entry.offset;
  if (page.kind == PhysicalMap::PageKind::Ram) entry.host = host;
  if (bytes == 4) {
    uint32_t value;
    __builtin_memcpy(&value, host, 4);
    entry.value = value;
  } else {
    __builtin_memcpy(&entry.value, host, 8);
  }
  return entry;
}

// Locked, as the hardware does it (SDM vol. 3, 8.1.2.1). All these bits are in the entry's first byte.
void set_bits(PhysicalMap& map, Entry& entry, uint64_t bits) {
  if ((entry.value & bits) == bits || !entry.host) return;
  map.tracker().before_write(entry.frame, entry.offset, 1);
  __atomic_fetch_or(reinterpret_cast<uint8_t*>(entry.host), static_cast<uint8_t>(bits), __ATOMIC_SEQ_CST);
  entry.value |= bits;
}

// Reserved bits that are set in an entry (SDM vol. 3, 4.3 to 4.5).
uint64_t reserved_bits(const PagingState& paging, const Level& level, bool large, unsigned entry_bytes) {
  if (entry_bytes == 4) {
    if (!large) return 0;
    // PSE-36: bits 13 to 20 are physical bits 32 to 39; those beyond MAXPHYADDR and bit 21 are reserved.
    const unsigned extra = paging.physical_bits > 40 ? 8 : paging.physical_bits - 32;
    return low_bits(22) & ~low_bits(13 + extra);
  }
  uint64_t reserved = low_bits(52) & ~low_bits(paging.physical_bits);
  if (paging.mode == PagingMode::Pae) reserved |= low_bits(63) & ~low_bits(52);
  if (!paging.no_execute) reserved |= kNoExecute;
  if (level.large_reserved) reserved |= kLarge;
  if (large) reserved |= low_bits(level.shift) & ~low_bits(13);
  return reserved;
}

PhysAddr large_page(uint64_t entry, const Level& level, unsigned entry_bytes) {
  if (entry_bytes == 4) return {(entry & 0xffc0'0000) | ((entry >> 13) & 0xff) << 32};
  return {entry & low_bits(52) & ~low_bits(level.shift)};
}

struct Tables {
  const Level* levels;
  unsigned count;
  unsigned entry_bytes;
  unsigned index_bits;
  PhysAddr root;
};

// The tables that a walk goes through. None: PAE with an absent PDPTE.
std::optional<Tables> tables_of(const PagingState& paging, LinearAddr address) {
  switch (paging.mode) {
    case PagingMode::Bits32:
      return Tables{kLevels32, 2, 4, 10, {paging.root & 0xffff'f000}};
    case PagingMode::Pae: {
      const uint64_t pdpte = paging.pdpte[(address.value >> 30) & 3];
      if (!(pdpte & kPresent)) return std::nullopt;
      return Tables{kLevels4 + 2, 2, 8, 9, {pdpte & low_bits(52) & ~kPageOffsetMask}};
    }
    default:
      return Tables{kLevels4, 4, 8, 9, {paging.root & low_bits(52) & ~kPageOffsetMask}};
  }
}

PhysAddr entry_address(const Tables& tables, PhysAddr table, const Level& level, LinearAddr address) {
  return table + ((address.value >> level.shift) & low_bits(tables.index_bits)) * tables.entry_bytes;
}

}  // namespace

// Without kMark, an accessed bit that is clear ends the walk.
template <bool kMark>
std::expected<Translation, PageFault> PageWalker::walk_entries(const PagingState& paging, LinearAddr address,
                                                               AccessKind access, Privilege privilege) {
  if (paging.mode == PagingMode::None) {
    return Translation{.physical = {address.value & 0xffff'ffff}, .may_write = true, .may_fetch = true};
  }
  const bool write = access == AccessKind::Write;
  const bool fetch = access == AccessKind::Fetch;
  const bool nx_enabled = paging.no_execute && paging.mode != PagingMode::Bits32;
  const auto fault = [&](uint32_t why) {
    uint32_t code = why;
    if (write) code |= page_fault::kWrite;
    if (privilege.user) code |= page_fault::kUser;
    if (fetch && (nx_enabled || paging.smep)) code |= page_fault::kFetch;
    return std::unexpected(PageFault{.address = address, .error_code = code});
  };

  const std::optional<Tables> tables = tables_of(paging, address);
  if (!tables) return fault(0);
  uint64_t rights = kWritable | kUser;
  bool no_execute = false;
  PhysAddr table = tables->root;
  for (unsigned i = 0;; ++i) {
    const Level& level = tables->levels[i];
    Entry entry = read_entry(map_, entry_address(*tables, table, level, address), tables->entry_bytes);
    if (!(entry.value & kPresent)) return fault(0);
    const bool may_be_large = level.may_be_large && (tables->entry_bytes == 8 || paging.page_size_ext);
    const bool large = may_be_large && entry.value & kLarge;
    if (entry.value & reserved_bits(paging, level, large, tables->entry_bytes)) {
      return fault(page_fault::kPresent | page_fault::kReserved);
    }
    if (!kMark && !(entry.value & kAccessed)) return fault(0);
    rights &= entry.value;
    no_execute |= nx_enabled && entry.value & kNoExecute;
    if (!large && i + 1 < tables->count) {
      set_bits(map_, entry, kAccessed);
      table = {entry.value & low_bits(52) & ~kPageOffsetMask};
      continue;
    }

    // The leaf: permissions (SDM vol. 3, 4.6.1).
    const bool user_page = rights & kUser;
    const bool writable = rights & kWritable;
    const bool may_read = privilege.user ? user_page : !user_page || !paging.smap || privilege.ac;
    const bool may_write = may_read && (writable || (!privilege.user && !paging.write_protect));
    const bool may_fetch = !no_execute && (privilege.user ? user_page : !user_page || !paging.smep);
    if (!(write ? may_write : fetch ? may_fetch : may_read)) return fault(page_fault::kPresent);
    set_bits(map_, entry, write ? kAccessed | kDirty : kAccessed);

    const PhysAddr page = large ? large_page(entry.value, level, tables->entry_bytes)
                                : PhysAddr{entry.value & low_bits(52) & ~kPageOffsetMask};
    const uint64_t page_bytes = uint64_t{1} << level.shift;
    return Translation{.physical = page + (address.value & (page_bytes - 1)),
                       .may_write = may_write && entry.value & kDirty,
                       .may_fetch = may_fetch,
                       .global = paging.global_pages && entry.value & kGlobal,
                       .user = user_page,
                       .writable = writable,
                       .page_bytes = page_bytes};
  }
}

template std::expected<Translation, PageFault> PageWalker::walk_entries<true>(const PagingState&, LinearAddr,
                                                                              AccessKind, Privilege);
template std::expected<Translation, PageFault> PageWalker::walk_entries<false>(const PagingState&, LinearAddr,
                                                                               AccessKind, Privilege);

PageWalker::Path PageWalker::path(const PagingState& paging, LinearAddr address) const {
  Path path;
  if (paging.mode == PagingMode::None) {
    path.physical = PhysAddr{address.value & 0xffff'ffff};
    return path;
  }
  const std::optional<Tables> tables = tables_of(paging, address);
  if (!tables) return path;
  PhysAddr table = tables->root;
  for (unsigned i = 0; i < tables->count; ++i) {
    const Level& level = tables->levels[i];
    const PhysAddr at = entry_address(*tables, table, level, address);
    const uint64_t value = read_entry(map_, at, tables->entry_bytes).value;
    const bool large =
        level.may_be_large && (tables->entry_bytes == 8 || paging.page_size_ext) && value & kLarge;
    const bool malformed =
        value & kPresent && value & reserved_bits(paging, level, large, tables->entry_bytes);
    path.steps[path.count++] = {at, value, level.shift, malformed};
    if (!(value & kPresent) || malformed) return path;
    table = large ? large_page(value, level, tables->entry_bytes)
                  : PhysAddr{value & low_bits(52) & ~kPageOffsetMask};
    if (large || i + 1 == tables->count) {
      path.physical = table + (address.value & low_bits(level.shift));
      return path;
    }
  }
  return path;
}

std::expected<PhysAddr, PageFault> PageWalker::probe(const PagingState& paging, LinearAddr address) const {
  const Path found = path(paging, address);
  if (!found.physical) return std::unexpected(PageFault{.address = address, .error_code = 0});
  return *found.physical;
}

}  // namespace penumbra
