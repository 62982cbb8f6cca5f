// Linear pages with watchpoints on them. The software TLB gives no direct access to them, so that every
// access there comes to C++, which compares it with the watchpoints themselves.
#pragma once

#include <array>
#include <cstdint>

#include "mmu/address.h"

namespace penumbra {

class WatchedPages {
 public:
  static constexpr unsigned kRanges = 64;

  void clear() { count_ = 0; }
  // False when there is no room for another range.
  bool add(LinearAddr address, uint64_t bytes, bool reads) {
    if (count_ == kRanges) return false;
    ranges_[count_++] = {address.value >> kPageShift, (address.value + (bytes - 1)) >> kPageShift, reads};
    return true;
  }
  bool any() const { return count_ != 0; }

  // Whether writes to the page, and whether reads too, must be seen.
  bool writes(LinearAddr page) const { return find(page.value >> kPageShift, false); }
  bool reads(LinearAddr page) const { return find(page.value >> kPageShift, true); }

 private:
  struct Range {
    uint64_t first, last;
    bool reads;
  };
  bool find(uint64_t page, bool reads) const {
    for (unsigned i = 0; i < count_; ++i) {
      if (page >= ranges_[i].first && page <= ranges_[i].last && (ranges_[i].reads || !reads)) return true;
    }
    return false;
  }
  std::array<Range, kRanges> ranges_;
  unsigned count_ = 0;
};

}  // namespace penumbra
