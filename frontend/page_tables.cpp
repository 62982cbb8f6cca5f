#include "frontend/page_tables.h"

#include <fmt/format.h>

#include <functional>

namespace penumbra {

namespace {

constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kLarge = 1 << 7, kNoExecute = uint64_t{1} << 63;
constexpr uint64_t kAddressMask = 0x000f'ffff'ffff'f000;
constexpr std::string_view kNone = "paging is off\n";

struct Leaf {
  uint64_t linear, bytes, physical;
  uint64_t entry;   // its flags
  uint64_t rights;  // of all levels: kWritable and kUser
};
using Visit = std::function<void(const Leaf&)>;

class Walk {
 public:
  Walk(const PagingState& paging, PhysicalMap& map, const Visit& visit)
      : paging_(paging), map_(map), visit_(visit) {}

  void run() {
    switch (paging_.mode) {
      case PagingMode::None:
        break;
      case PagingMode::Bits32:
        table(paging_.root, 22, 0, kWritable | kUser);
        break;
      case PagingMode::Pae:
        for (uint64_t i = 0; i < 4; ++i) {
          if (paging_.pdpte[i] & kPresent)
            table(paging_.pdpte[i] & kAddressMask, 21, i << 30, kWritable | kUser);
        }
        break;
      case PagingMode::Levels4:
        table(paging_.root, 39, 0, kWritable | kUser);
        break;
    }
  }

 private:
  // The table whose entries stand for 1 << shift bytes each.
  void table(uint64_t physical, unsigned shift, uint64_t linear, uint64_t rights) {
    const bool narrow = paging_.mode == PagingMode::Bits32;
    const unsigned entry_bytes = narrow ? 4 : 8, index_bits = narrow ? 10 : 9;
    // A chip's registers are no page table, and reading them may change them.
    if (!map_.page({physical}).host) return;
    for (uint64_t i = 0; i < uint64_t{1} << index_bits; ++i) {
      const uint64_t entry = map_.read({physical + i * entry_bytes}, entry_bytes);
      if (!(entry & kPresent)) continue;
      uint64_t here = linear | i << shift;
      if (paging_.mode == PagingMode::Levels4)
        here = static_cast<uint64_t>(static_cast<int64_t>(here << 16) >> 16);
      const uint64_t both = rights & entry;
      const bool may_be_large = shift == 22 ? paging_.page_size_ext : shift == 21 || shift == 30;
      if (shift == kPageShift || (may_be_large && entry & kLarge)) {
        const uint64_t bytes = uint64_t{1} << shift;
        uint64_t page = entry & kAddressMask & ~(bytes - 1);
        if (shift == 22) page |= (entry >> 13 & 0xff) << 32;  // PSE-36
        visit_({.linear = here, .bytes = bytes, .physical = page, .entry = entry, .rights = both});
      } else {
        table(entry & kAddressMask, shift - index_bits, here, both);
      }
    }
  }

  const PagingState& paging_;
  PhysicalMap& map_;
  const Visit& visit_;
};

void for_each_page(const Vcpu& vcpu, PhysicalMap& map, const Visit& visit) {
  const PagingState paging = vcpu.paging_state();
  Walk(paging, map, visit).run();
}

}  // namespace

std::string mapping_list(const Vcpu& vcpu, PhysicalMap& map) {
  if (vcpu.paging_state().mode == PagingMode::None) return std::string(kNone);
  std::string text;
  for_each_page(vcpu, map, [&text](const Leaf& leaf) {
    const auto flag = [&leaf](uint64_t bit, char letter) { return leaf.entry & bit ? letter : '-'; };
    text += fmt::format("{:016x}: {:016x} {}{}{}{}{}{}{}{}{}\n", leaf.linear, leaf.physical,
                        flag(kNoExecute, 'X'), flag(1 << 8, 'G'), leaf.bytes > kPageSize ? 'P' : '-',
                        flag(1 << 6, 'D'), flag(1 << 5, 'A'), flag(1 << 4, 'C'), flag(1 << 3, 'T'),
                        flag(kUser, 'U'), flag(kWritable, 'W'));
  });
  return text;
}

std::string mapped_ranges(const Vcpu& vcpu, PhysicalMap& map) {
  if (vcpu.paging_state().mode == PagingMode::None) return std::string(kNone);
  std::string text;
  struct {
    uint64_t begin = 0, bytes = 0, rights = 0;
  } range;
  const auto put = [&] {
    if (range.bytes == 0) return;
    text += fmt::format("{:016x}-{:016x} {:016x} {}r{}\n", range.begin, range.begin + range.bytes,
                        range.bytes, range.rights & kUser ? 'u' : '-', range.rights & kWritable ? 'w' : '-');
  };
  for_each_page(vcpu, map, [&](const Leaf& leaf) {
    if (range.bytes != 0 && range.begin + range.bytes == leaf.linear && range.rights == leaf.rights) {
      range.bytes += leaf.bytes;
      return;
    }
    put();
    range = {leaf.linear, leaf.bytes, leaf.rights};
  });
  put();
  return text;
}

}  // namespace penumbra
