// Which blocks are worth their translation through the shadow windows. The signal that samples where
// translated code spends its time heats the pages of code; page faults of the host cool single blocks.
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
  // A fill costs up to ten microseconds, and its time is sampled as the block's own; a sample stands for the
  // interval of SampleTimer. Where a page of code spends more than about a tenth of its time in fills, the
  // blocks that cause them do better with the software TLB.
  static constexpr unsigned kFreeFaults = 64, kFaultsPerSample = 5;

  // Whether an address space has been sampled this often since its last flush; all have when `always`.
  static constexpr uint8_t kMatureSamples = 8;
  explicit HotBlocks(bool always, bool never) : always_(always), never_(never) {}
  bool mature(unsigned space) const { return !never_ && (always_ || ages_[space] >= kMatureSamples); }
  void flushed(unsigned space) { ages_[space] = 0; }

  // Whether the block is to use the windows, in an address space that may.
  bool hot(const BlockKey& key) const { return (always_ || page(key).samples >= kHotSamples) && !cold(key); }

  // True when the block's page has just become hot.
  bool sample(const BlockKey& key, unsigned space) {
    if (ages_[space] < kMatureSamples) ++ages_[space];
    Page& of_block = page(key);
    if (of_block.samples == UINT16_MAX) return false;
    return ++of_block.samples == kHotSamples;
  }
  // A host page fault of a windowed block. True when it has just become cold, until its page has been sampled
  // twice as often.
  bool fault(const BlockKey& key) {
    constexpr unsigned kMany = 8;
    Slot& slot = slots_[index(key)];
    Page& of_block = page(key);
    ++slot.faults;
    ++of_block.faults;
    const bool too_many =
        always_ ? slot.faults > kFreeFaults
                : of_block.faults > kFreeFaults + of_block.samples * kFaultsPerSample && slot.faults > kMany;
    if (!too_many || cold(key)) return false;
    of_block.faults -= std::min(of_block.faults, slot.faults);
    slot.faults = 0;
    slot.retry_at =
        static_cast<uint16_t>(std::min(2u * of_block.samples + kHotSamples, unsigned{UINT16_MAX}));
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
    uint16_t retry_at = 0;  // cold until its page has so many samples
    bool wraps = false;
    uint16_t patches = 0;
    struct {
      uint16_t begin, end;
    } patched = {};
  };
  bool cold(const BlockKey& key) const { return slots_[index(key)].retry_at > page(key).samples; }
  // The same for all translations of the code.
  static unsigned index(const BlockKey& key) { return key.physical.value * 0x9e37'79b9'7f4a'7c15 >> 48; }
  static_assert(kSlots == 1u << 16);
  struct Page {
    uint16_t samples = 0;
    uint32_t faults = 0;  // not of blocks that became cold
  };
  Page& page(const BlockKey& key) {
    return pages_[(key.physical.frame().number * 2 + key.mode.has(ModeBits::kUser)) & (kSlots - 1)];
  }
  const Page& page(const BlockKey& key) const { return const_cast<HotBlocks*>(this)->page(key); }
  bool always_, never_;
  std::array<uint8_t, SoftTlb::kSpaces> ages_{};
  std::array<Slot, kSlots> slots_{};
  std::array<Page, kSlots> pages_{};
};

}  // namespace penumbra::jit
