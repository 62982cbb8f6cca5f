// The engine: finds or makes the translation of what the vCPU runs next, and keeps translations true to the
// guest's memory and mappings.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/engine.h"
#include "core/vcpu.h"
#include "jit/block.h"
#include "jit/block_translator.h"
#include "jit/code_cache.h"
#include "jit/hot_blocks.h"
#include "jit/jump_cache.h"
#include "jit/options.h"
#include "jit/perf_map.h"
#include "jit/runtime.h"

namespace penumbra::jit {

class Translator final : public Engine,
                         private MappingListener,
                         private CodeWriteListener,
                         private ModeListener,
                         private BreakpointListener {
 public:
  // What the options' trace switches ask for. The vCPU's state at `entered` is the block's first
  // instruction's.
  struct TraceSink {
    std::function<void(std::string_view text)> translated;
    std::function<void(const Block& block)> entered;
  };

  // Throws std::runtime_error when the host refuses memory or lacks a needed feature.
  Translator(Vcpu& vcpu, const TranslatorOptions& options, TraceSink trace = {});
  ~Translator() override;

  void run() override;
  void step() override;
  void interrupt() override;
  void discard_translations() override;

  // What the host refused, and what is done instead: one line, empty if nothing.
  const std::string& warning() const { return warning_; }
  uint64_t window_refusals() const { return windows_ ? windows_->stats().refusals : 0; }

  struct RecentBlock {
    const Block* block;
    LinearAddr linear;
  };
  // The blocks entered last, the latest first; those that were given up with the whole code cache are
  // missing. With TranslatorOptions::record_blocks every entry counts, else only those that the dispatcher
  // saw: no patched jump, no jump through the jump cache.
  std::vector<RecentBlock> recent_blocks() const;

  // Counters for --stats, in the order to show them.
  std::vector<std::pair<std::string, uint64_t>> statistics() const;

  // --- for helpers (light code)
  Vcpu& vcpu() { return vcpu_; }
  // Host address of the block at the vCPU's RIP, delivering what its fetch raises; Thunks::leave when the run
  // loop wants the vCPU. Leaves the flags where Runtime expects them.
  uint64_t next_host_code(KeptDeltas likely = kAllDeltas) noexcept;
  // The same for the one instruction at RIP in callout form.
  uint64_t callout_host_code() noexcept;
  // The same for the one instruction at RIP, with the software TLB.
  uint64_t tlb_host_code() noexcept;
  // Whether translated code may do this store itself although the page holds code: then
  // VcpuState::found_addend is set.
  bool store_beside_code(const TlbEntry& entry, LinearAddr address, uint64_t size, uint64_t site) noexcept;
  // The delta of the region of `linear`, for a block that guessed another one; corrects the guess. kNoChunk
  // when the region has no window.
  uint64_t window_select(LinearAddr linear, WindowSite& site) noexcept;
  // What translated code of 16 and 32 bits relies on: addresses are registers, whose upper halves are zero.
  // (They are undefined once 64-bit mode is left: SDM vol. 1, 3.4.1.1.)
  void clip_registers() noexcept {
    if (vcpu_.code64()) return;
    for (unsigned gpr = 0; gpr < 8; ++gpr) state_.gpr[gpr] = static_cast<uint32_t>(state_.gpr[gpr]);
  }
  // After a direct jump: as next_host_code(), and patches the jump when the target allows.
  uint64_t link_host_code(BlockLink& link) noexcept;
  // After a jump to a dead block: the jump cache may still lead there.
  uint64_t redispatch_host_code() noexcept;
  // A repeated string instruction stopped between elements: to step() it is still the same instruction.
  void repeat_goes_on() noexcept {
    if (step_ == Step::Taken) step_ = Step::Wanted;
  }
  // Gives the guest registers the places and values that they have between blocks. `host(gpr)`: what is in
  // the host's register.
  template <class Host>
  void settle_registers(const Block& block, const Site& site, Host host) noexcept {
    using Value = std::remove_reference_t<decltype(host(0))>;
    host(kRsp) += site.stack_step;
    if (!vcpu_.code64()) host(kRsp) = static_cast<Value>(static_cast<uint32_t>(host(kRsp)));
    for (unsigned i = 0; i < block.swap_count; ++i) {
      const RegisterSwap& swap = block.swaps[i];
      const auto value = static_cast<uint64_t>(host(swap.in_host));
      host(swap.in_host) = static_cast<Value>(state_.gpr[swap.in_memory]);
      state_.gpr[swap.in_memory] = value;
    }
  }
  // Collects the flags that translated code spilled into VcpuState::rflags.
  void collect_flags() noexcept;
  // What a host address in translated code belongs to; nothing when it is in no block.
  std::optional<Site> site_at(uint64_t host) const noexcept;
  Block* block_at(uint64_t host) const noexcept;

  struct Counters {
    uint64_t lookups = 0, links = 0, redispatches = 0, tlb_misses = 0, stores_beside_code = 0,
             callout_accesses = 0, callout_blocks = 0;
    std::array<uint64_t, kSystemOps> system_ops{};
    uint64_t window_fills = 0, window_misses = 0, window_selections = 0, blocks_windowed = 0;
    uint64_t host_faults = 0, blocks_killed = 0, cache_flushes = 0, poll_exits = 0;
  };
  Counters& counters() { return counters_; }

  // Called by the process-wide signal handler on the vCPU's thread; false if the fault is not from translated
  // code.
  bool handle_host_fault(int signal, void* info, void* context);
  // Likewise, for the signal that samples where translated code spends its time.
  void handle_sample(void* context);
  // Time that the core spends in an instruction of translated code is the instruction's: whether a sample has
  // come since the flag was cleared, and counting it for the block that goes on at `host`.
  volatile bool& missed_sample() { return missed_sample_; }
  void take_sample(uint64_t host) noexcept;

 private:
  // MappingListener
  void pages_unmapped(LinearAddr first, uint64_t bytes) override;
  void space_flushed(unsigned space) override;
  void all_flushed() override;
  // CodeWriteListener
  void code_written(PageFrame frame, uint64_t offset, uint64_t size) override;
  // ModeListener
  void mode_changed() override;
  // BreakpointListener
  void breakpoint_added(LinearAddr address) override;
  void breakpoints_removed() override;

  void enter_guest();
  void follow_gs(bool on);
  void run_guest() noexcept;  // light
  BlockKey key_at_rip(ModeBits extra_mode) const;
  struct FoundBlock;
  Result<FoundBlock> block_for(BlockKey key, KeptDeltas likely = kAllDeltas) noexcept;
  Block* find_block(const BlockKey& key) const;
  bool may_use_windows(const BlockKey& key) const;
  bool wants_windows(const BlockKey& key) const;
  bool may_be_shared(const BlockKey& key) const;
  Result<Block*> translate_block(const BlockKey& key, KeptDeltas likely);  // heavy
  void track_block(Block& block);
  bool overlaps(const Block* block, PageFrame frame, uint64_t offset, uint64_t size) const noexcept;
  void kill_block(Block& block);
  void redirect_entry(const Block& block, uint64_t entry);
  void point_link(const BlockLink& link, uint64_t host);
  void flush_translations();
  enum class WindowFault : uint8_t { None, Filled, NoWindow };
  WindowFault window_fault(const Site& site, const void* info, void* context);
  bool is_too_young(LinearAddr linear) const;
  bool open_window(LinearAddr linear) noexcept;  // false when the region has no window
  ShadowWindows::Width window_width() const {
    return vcpu_.code64() ? ShadowWindows::Width::Bits64 : ShadowWindows::Width::Bits32;
  }
  JumpCache& jump_cache_for(const JumpCache::Signature& signature);
  std::unique_ptr<JumpCache> new_jump_cache();
  template <class Function>
  void for_each_jump_cache(unsigned space, Function function) {
    for (JumpCaches& caches : jump_caches_[space]) {
      for (auto& cache : caches.of_mode) {
        if (cache) function(*cache);
      }
    }
  }
  void trace_entry(const Block& block, bool shadow);
  void trace_block(const Block& block, std::span<const std::byte> host_code);
  void note_entry(uint64_t host);

  static constexpr unsigned kFoundBefore = 8192;
  static constexpr unsigned kBuckets = 1u << 19;

  // A block's bytes in one frame.
  struct FrameNode {
    Block* block;
    FrameNode* next;
    uint64_t granules;  // of the first of a frame: that any of them may be in
    uint16_t begin, end;
  };
  // 64 bytes a bit.
  static uint64_t granules_of(uint64_t begin, uint64_t end) {
    return ~uint64_t{0} >> (63 - (end - 1) / 64 % 64) & ~uint64_t{0} << begin / 64 % 64;
  }

  Vcpu& vcpu_;
  VcpuState& state_;
  TranslatorOptions options_;
  TraceSink trace_;
  std::string warning_;
  CodeCache cache_;
  Thunks thunks_;
  BlockTranslator block_translator_;
  Arena arena_{cache_.data()};               // of blocks_
  std::vector<Block*> blocks_;               // by rising host address
  mutable Block* last_looked_up_ = nullptr;  // by block_at()
  bool cut_blocks_ = false;                  // some of blocks_ end before a breakpoint
  std::vector<Block*> buckets_;
  // What find_block() found, by a hash of the key; in the host's nearer caches, unlike buckets and blocks.
  struct alignas(64) FoundBlock {
    BlockKey key;
    Block* block = nullptr;
    uint64_t host = 0;
    bool crosses_page = false;
  };
  std::vector<FoundBlock> found_before_;
  FoundBlock& found_before(const BlockKey& key) {
    return found_before_[key.hash() >> 20 & (kFoundBefore - 1)];
  }
  std::vector<FrameNode*> frames_;  // by frame number
  std::deque<FrameNode> frame_nodes_;
  // Of one address space and privilege: for the modes that were in use last, since a system that loads
  // segment registers on its way in and out changes the mode several times.
  struct JumpCaches {
    std::array<std::unique_ptr<JumpCache>, 8> of_mode;
    unsigned next = 0;
  };
  std::array<std::array<JumpCaches, 2>, SoftTlb::kSpaces> jump_caches_;  // [space][user]
  JumpCache* current_jump_cache_ = nullptr;
  std::unique_ptr<PerfMap> perf_map_;
  std::unique_ptr<ShadowWindows> windows_;
  HotBlocks hot_;
  bool matured_ = false;                 // the current address space, since mode_changed()
  volatile bool missed_sample_ = false;  // by the signal, while it was not translated code that ran
  std::atomic<bool> poll_closed_{false};
  enum class Step : uint8_t { Off, Wanted, Taken };
  Step step_ = Step::Off;
  // Where the dispatcher entered VcpuState::recent_blocks: what shared blocks do not know.
  std::array<uint64_t, std::tuple_size_v<decltype(VcpuState::recent_blocks)>> recent_rips_{};
  uint64_t generation_ = 0;  // counts flush_translations()
  Counters counters_;
};

// "block at L:..." with guest code, classes and host code side by side; shared by -d and `penumbra explain`.
std::string describe_block(const Block& block, std::span<const GuestInstruction> instructions,
                           std::span<const uint32_t> offsets, std::span<const std::byte> host_code,
                           const Thunks& thunks);

}  // namespace penumbra::jit
