// Maps RIP to host code for jumps that are not chained: what translated code searches without touching flags.
//
//     slot = crc32(rip) & 0xffff                                    no flag changes; functions begin at
//     multiples of 16, which if (entries[slot].key + rip == 0) goto entries[slot].code     must not meet in
//     few slots; keys hold -rip: JRCXZ compares
//
// For one privilege, address space and mode; emptied with the mappings that it stands for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include "mmu/address.h"

namespace penumbra::jit {

class JumpCache {
 public:
  static constexpr unsigned kSlots = 65536;
  struct Entry {
    uint64_t key, code;
    uint64_t stack_known;  // the same for a jump that knows the region of RSP (WarmEntry)
  };

  // Throws std::runtime_error when the host refuses the memory.
  JumpCache();
  ~JumpCache();
  JumpCache(const JumpCache&) = delete;
  JumpCache& operator=(const JumpCache&) = delete;

  void* table() const { return entries_; }
  static unsigned slot_of(uint64_t rip) {
    uint64_t crc = 0;
    asm("crc32q %1, %0" : "+r"(crc) : "r"(rip));
    return crc & (kSlots - 1);
  }
  uint64_t find(uint64_t rip) const {
    const unsigned slot = slot_of(rip);
    return entries_[slot].key + rip == 0 ? entries_[slot].code : 0;
  }
  // `page` and `other_page`: linear page numbers that the block's bytes are on; global: a CR3 change keeps
  // them.
  void insert(uint64_t rip, uint64_t code, uint64_t stack_known, uint64_t page, uint64_t other_page,
              bool global);
  void forget(uint64_t rip);
  void clear();
  void clear_non_global();
  // Drops the blocks on these linear pages, and perhaps others.
  void forget_pages(uint64_t first, uint64_t count);

  // What the entries were found for; see Translator::mode_changed().
  struct Signature {
    uint32_t mode = 0, cs_base = 0, cs_limit = 0;
    bool operator==(const Signature&) const = default;
  };
  Signature signature;

 private:
  static constexpr unsigned kMaxLog = 2048;
  static constexpr unsigned kPageBits = 32768;
  static unsigned page_bit(uint64_t page) { return (page ^ page >> 15) % kPageBits; }
  bool holds_page(uint64_t page) const { return pages_[page_bit(page) / 64] >> page_bit(page) % 64 & 1; }

  Entry* entries_;
  // Slots filled since they were emptied; beyond kMaxLog: any.
  struct Log {
    std::array<uint16_t, kMaxLog> slots;
    unsigned count = 0;
    void add(unsigned slot) {
      if (count < kMaxLog) slots[count] = static_cast<uint16_t>(slot);
      if (count <= kMaxLog) ++count;
    }
  };
  void empty(Log& log);
  void forget_page(uint64_t page);
  void forget_page(const Log& log, uint64_t page);
  Log global_, local_;
  std::array<uint64_t, kPageBits / 64> pages_{};  // hash set of pages with entries
};

}  // namespace penumbra::jit
