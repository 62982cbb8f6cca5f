// Maps RIP to host code for jumps that are not chained: what translated code searches without touching flags.
//
//     slot = rip & 0xffff
//     if (keys[slot] + rip == 0) goto code[slot]     keys hold -rip, so that JRCXZ can compare
//
// For one privilege, address space and mode; emptied with the mappings that it stands for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace penumbra::jit {

class JumpCache {
 public:
  static constexpr unsigned kSlots = 65536;
  static constexpr int32_t kKeysOffset = 0;
  static constexpr int32_t kCodeOffset = kSlots * 8;

  // Throws std::runtime_error when the host refuses the memory.
  JumpCache();
  ~JumpCache();
  JumpCache(const JumpCache&) = delete;
  JumpCache& operator=(const JumpCache&) = delete;

  void* table() const { return keys_; }
  uint64_t find(uint64_t rip) const {
    const unsigned slot = rip & (kSlots - 1);
    return keys_[slot] + rip == 0 ? code_[slot] : 0;
  }
  // `page` and `other_page`: linear page numbers that the block's bytes are on; global: a CR3 change keeps
  // them.
  void insert(uint64_t rip, uint64_t code, uint64_t page, uint64_t other_page, bool global);
  void forget(uint64_t rip);
  void clear();
  void clear_non_global() {
    if (has_non_global_) clear();
  }
  // Empties the cache if it may hold a block on this linear page.
  void forget_page(uint64_t page);

  // What the entries were found for; see Translator::mode_changed().
  struct Signature {
    uint32_t mode = 0, cs_base = 0, cs_limit = 0;
    bool operator==(const Signature&) const = default;
  };
  Signature signature;

 private:
  static constexpr unsigned kMaxLog = 2048;
  static constexpr unsigned kPageBits = 4096;

  uint64_t* keys_;
  uint64_t* code_;
  std::array<uint16_t, kMaxLog> filled_;  // slots filled since clear(); beyond kMaxLog: all
  unsigned filled_count_ = 0;
  bool has_non_global_ = false;
  std::array<uint64_t, kPageBits / 64> pages_{};  // hash set of pages with entries
};

}  // namespace penumbra::jit
