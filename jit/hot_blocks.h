// Which blocks are worth their translation through the shadow windows. In 64-bit code, all of them, but in
// address spaces too young for their windows to pay, and those that keep faulting. In other code, whose
// translations of user code are not shared, the pages where a signal samples that the time is spent.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "jit/block.h"
#include "mmu/soft_tlb.h"

namespace penumbra::jit {

// Keyed by hashes: those that share a slot share their fate, which costs time and nothing else.
class HotBlocks {
 public:
  static constexpr unsigned kSlots = 1u << 16;
  static constexpr unsigned kHotSamples = 3;
  // A fill costs ten microseconds or more, and its time is sampled as the block's own; a sample stands for
  // half a millisecond. Where a page of code spends more than about a tenth of its time in fills, the
  // blocks that cause them do better with the software TLB.
  static constexpr unsigned kFreeFaults = 64, kFaultsPerSample = 5;

  // `mature_ticks`: how long, by the host's TSC, an address space has run when its windows begin to pay; all
  // pay when `always`.
  HotBlocks(bool always, bool never, uint64_t mature_ticks)
      : always_(always), never_(never), mature_ticks_(mature_ticks) {}
  bool mature(unsigned space) const { return !never_ && (always_ || ages_[space] >= mature_ticks_); }
  void ran(unsigned space, uint64_t ticks) {
    constexpr unsigned kFlushesSurvived = 2;
    ages_[space] += std::min(ticks, (mature_ticks_ << kFlushesSurvived) - ages_[space]);
  }
  // `root`: of its page tables. With another one it is another process's.
  void flushed(unsigned space, uint64_t root) {
    ages_[space] = roots_[space] == root ? ages_[space] / 2 : 0;
    roots_[space] = root;
  }

  // Whether its page has been sampled often.
  bool hot(const BlockKey& key) const { return always_ || page(key).samples >= kHotSamples; }
  // Whether it has faulted too often for windows.
  bool cold(const BlockKey& key) const { return slots_[index(key)].retry_at > page(key).samples; }

  // True when the block's page has just become hot.
  bool sample(const BlockKey& key, unsigned weight) {
    Page& of_block = page(key);
    const bool was_hot = of_block.samples >= kHotSamples;
    of_block.samples = std::min(of_block.samples + weight, kMostSamples);
    return !was_hot && of_block.samples >= kHotSamples;
  }
  // A host page fault of a windowed block. True when it has just become cold, until its page has been sampled
  // twice as often. `refused`: it led to no window, nor would the next one.
  bool fault(const BlockKey& key, bool refused = false) {
    constexpr unsigned kRefusal = 8;
    constexpr unsigned kMany = 8;
    Slot& slot = slots_[index(key)];
    Page& of_block = page(key);
    slot.faults += refused ? kRefusal : 1;
    of_block.faults += refused ? kRefusal : 1;
    const uint32_t free = kFreeFaults + of_block.samples * kFaultsPerSample;
    const bool of_its_own = always_ || key.mode.has(ModeBits::kCode64);
    const bool too_many = of_its_own ? slot.faults > free : of_block.faults > free && slot.faults > kMany;
    if (!too_many || cold(key)) return false;
    of_block.faults -= std::min(of_block.faults, slot.faults);
    slot.faults = 0;
    slot.retry_at = 2 * of_block.samples + kHotSamples;
    return true;
  }
  // 32-bit addresses of the block wrap: it must compute them before it uses them.
  bool wraps(const BlockKey& key) const { return slots_[index(key)].wraps; }
  void set_wraps(const BlockKey& key) { slots_[index(key)].wraps = true; }
  // Bytes of a block that a write has changed. The union of those that have been changed so far; nothing
  // before the third time.
  void patched(const BlockKey& key, uint64_t begin, uint64_t end) {
    Slot& slot = slots_[index(key)];
    slot.patched.begin = slot.patches ? std::min<uint64_t>(slot.patched.begin, begin) : begin;
    slot.patched.end = slot.patches ? std::max<uint64_t>(slot.patched.end, end) : end;
    if (slot.patches < UINT16_MAX) ++slot.patches;
  }
  PatchedBytes patched_bytes(const BlockKey& key, const std::byte* memory) const {
    constexpr unsigned kOften = 3;
    const Slot& slot = slots_[index(key)];
    if (slot.patches < kOften || !memory) return {};
    return {.begin = slot.patched.begin, .end = slot.patched.end, .memory = memory};
  }
  void clear() {
    slots_ = {};
    pages_ = {};
  }

 private:
  struct Slot {
    uint32_t faults = 0;
    uint32_t retry_at = 0;  // cold until its page has so many samples
    bool wraps = false;
    uint16_t patches = 0;
    struct {
      uint16_t begin, end;
    } patched = {};
  };
  // The same for all translations of the code.
  static unsigned index(const BlockKey& key) { return key.physical.value * 0x9e37'79b9'7f4a'7c15 >> 48; }
  static_assert(kSlots == 1u << 16);
  struct Page {
    uint32_t samples = 0;
    uint32_t faults = 0;  // not of blocks that became cold
  };
  Page& page(const BlockKey& key) {
    return pages_[(key.physical.frame().number * 2 + key.mode.has(ModeBits::kUser)) & (kSlots - 1)];
  }
  const Page& page(const BlockKey& key) const { return const_cast<HotBlocks*>(this)->page(key); }
  static constexpr uint32_t kMostSamples = 1u << 28;  // their cost in faults still fits 32 bits
  bool always_, never_;
  uint64_t mature_ticks_;
  std::array<uint64_t, SoftTlb::kSpaces> ages_{}, roots_{};
  std::array<Slot, kSlots> slots_{};
  std::array<Page, kSlots> pages_{};
};

}  // namespace penumbra::jit
