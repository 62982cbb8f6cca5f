// Which blocks are worth their translation through the shadow windows. The signal that samples where translated
// code spends its time heats them; page faults of the host cool them.
#pragma once

#include <array>
#include <cstdint>

#include "jit/block.h"

namespace penumbra::jit {

// Keyed by a hash: two blocks that share a slot share their fate, which costs time and nothing else.
class HotBlocks {
 public:
  static constexpr unsigned kSlots = 1u << 16;
  static constexpr unsigned kHotSamples = 2;
  // A fill costs a few microseconds, a sample stands for kSampleInterval: a block that spends more than about
  // a tenth of its time in fills does better with the software TLB.
  static constexpr unsigned kFreeFaults = 64, kFaultsPerSample = 20;

  bool hot(const BlockKey& key) const {
    const Slot& slot = slots_[index(key)];
    return slot.samples >= kHotSamples && !slot.cold;
  }
  bool cold(const BlockKey& key) const { return slots_[index(key)].cold; }

  // True when the block has just become hot.
  bool sample(const BlockKey& key) {
    Slot& slot = slots_[index(key)];
    if (slot.samples < UINT16_MAX) ++slot.samples;
    return slot.samples == kHotSamples && !slot.cold;
  }
  // A host page fault of a windowed block. True when it has just become cold, for good.
  bool fault(const BlockKey& key) {
    Slot& slot = slots_[index(key)];
    if (slot.cold || ++slot.faults <= kFreeFaults + slot.samples * kFaultsPerSample) return false;
    slot.cold = true;
    return true;
  }
  void clear() { slots_ = {}; }

 private:
  struct Slot {
    uint32_t faults = 0;
    uint16_t samples = 0;
    bool cold = false;
  };
  static unsigned index(const BlockKey& key) { return key.hash() >> 17 & (kSlots - 1); }
  std::array<Slot, kSlots> slots_{};
};

}  // namespace penumbra::jit
