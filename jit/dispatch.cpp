// The light half of the translator: finding blocks, following mapping and code changes.
#include <cassert>

#include "core/descriptor.h"
#include "core/host_vector_scope.h"
#include "jit/translator.h"

namespace penumbra::jit {

void Translator::collect_flags() noexcept {
  state_.rflags = (state_.rflags & ~flag::kOf) | (state_.spilled_overflow & 1 ? flag::kOf : 0);
}

BlockKey Translator::key_at_rip(ModeBits extra_mode) const {
  BlockKey key;
  key.rip = state_.rip;
  key.mode = {state_.mode.value | extra_mode.value};
  if (!key.mode.has(ModeBits::kFlatCs)) {
    key.cs_base = static_cast<uint32_t>(state_.segments[kCs].base);
    key.cs_limit = state_.segments[kCs].limit;
  }
  return key;
}

Block* Translator::find_block(const BlockKey& key) const {
  for (Block* block = buckets_[key.hash() % kBuckets]; block; block = block->next_in_bucket) {
    if (block->key == key) return block;
  }
  return nullptr;
}

bool Translator::may_use_windows(const BlockKey& key) const {
  return windows_ && !windows_->given_up() &&
         !(key.mode.value & (ModeBits::kOneInstruction | ModeBits::kCallout)) &&
         windows_->serves(window_width());
}

// jit/README.md, "Blocks for the windows".
bool Translator::wants_windows(const BlockKey& key) const {
  if (!may_use_windows(key) || hot_.cold(key)) return false;
  const bool mature = hot_.mature(vcpu_.tlb().current_space());
  if (!vcpu_.code64()) return mature && hot_.hot(key);
  return mature || !key.mode.has(ModeBits::kUser);
}

// User code, since it is what one page of which is mapped at many addresses. Near the end of the lower half
// of the address space a jump might leave it.
bool Translator::may_be_shared(const BlockKey& key) const {
  constexpr uint32_t kNeeded = ModeBits::kCode64 | ModeBits::kUser;
  constexpr uint32_t kExcluded =
      ModeBits::kOneInstruction | ModeBits::kCallout | ModeBits::kSingleStep | ModeBits::kAlignment;
  constexpr uint64_t kEnd = (uint64_t{1} << 47) - (uint64_t{1} << 32);
  return options_.shared_blocks && (key.mode.value & (kNeeded | kExcluded)) == kNeeded && key.rip < kEnd &&
         !vcpu_.debug().has_breakpoints();
}

Result<Translator::FoundBlock> Translator::block_for(BlockKey key, KeptDeltas likely) noexcept {
  const auto physical = vcpu_.translate_fetch(key.linear());
  if (!physical) return std::unexpected(physical.error());
  key.physical = *physical;
  if (wants_windows(key)) key.mode.value |= ModeBits::kWindows;
  if (may_be_shared(key)) {
    const BlockKey shared = key.as_shared();
    FoundBlock& found = found_before(shared);
    if (found.block && found.key == shared) [[likely]]
      return found;
    if (Block* const block = find_block(shared))
      return found = {.key = shared, .block = block, .host = block->host};
  }
  FoundBlock& found = found_before(key);
  const bool known = found.block && found.key == key;
  if (known && !found.crosses_page) [[likely]]
    return found;
  Block* block = known ? found.block : find_block(key);
  if (block && block->crosses_page) {
    const auto second = vcpu_.translate_fetch(key.linear().page() + kPageSize);
    if (!second) return std::unexpected(second.error());
    if (second->frame() != block->second_frame) {
      kill_block(*block);
      block = nullptr;
    }
  }
  if (!block) {
    const HostVectorScope scope(state_);
    const auto made = translate_block(key, likely);
    if (!made) return std::unexpected(made.error());
    block = *made;
  }
  return found_before(block->key) = {
             .key = block->key, .block = block, .host = block->host, .crosses_page = block->crosses_page};
}

void Translator::note_entry(uint64_t host) {
  if (options_.record_blocks) return;  // the block does it
  recent_rips_[state_.recent_block_offset / 8] = state_.rip;
  state_.recent_blocks[state_.recent_block_offset / 8] = host;
  state_.recent_block_offset += 8;
}

uint64_t Translator::next_host_code(KeptDeltas likely) noexcept {
  clip_registers();
  while (true) {
    if (vcpu_.debug().trap_pending()) vcpu_.take_debug_trap();
    const bool shadow = state_.interrupt_shadow;
    if (step_ == Step::Taken) break;
    if (state_.attention.load(std::memory_order_relaxed) && !shadow && step_ == Step::Off) break;
    ModeBits extra;
    if (vcpu_.debug().has_breakpoints() || state_.rflags & flag::kRf || step_ != Step::Off) [[unlikely]] {
      if (step_ == Step::Wanted) {
        step_ = Step::Taken;
        extra.value = ModeBits::kOneInstruction;
      }
      const Vcpu::BreakpointVerdict verdict = vcpu_.check_breakpoint(extra.value == 0);
      if (verdict == Vcpu::BreakpointVerdict::Stopped) break;
      if (verdict == Vcpu::BreakpointVerdict::Trapped) continue;
      if (verdict == Vcpu::BreakpointVerdict::RunOne) extra.value = ModeBits::kOneInstruction;
    }
    if (shadow) {
      // One instruction runs before interrupts are looked at again (SDM vol. 3, 6.8.3). Where none is
      // waiting, the first poll comes after it in any case.
      state_.interrupt_shadow = state_.debug_shadow = false;
      vcpu_.interrupts_opened();
      const bool nothing_waits = state_.attention.load(std::memory_order_relaxed) == 0 &&
                                 !vcpu_.debug().watching() && !state_.mode.has(ModeBits::kSingleStep);
      if (!nothing_waits) extra.value = ModeBits::kOneInstruction;
    }
    if (options_.jump_cache && extra.value == 0) {
      if (const uint64_t host = current_jump_cache_->find(state_.rip)) {
        state_.spilled_overflow = (state_.rflags & flag::kOf) != 0;
        note_entry(host);
        return host;
      }
    }
    const BlockKey key = key_at_rip(extra);
    const auto block = block_for(key, likely);
    if (!block) {
      vcpu_.deliver(block.error());
      continue;
    }
    if (extra.value == 0 && options_.jump_cache) {
      const LinearAddr linear = key.linear();
      const uint64_t page = linear.value >> kPageShift;
      const TlbEntry& entry = vcpu_.tlb().entry(vcpu_.current_view(), linear);
      const bool global = entry.read_tag == linear.page().value && entry.info & TlbEntry::kGlobal;
      current_jump_cache_->insert(state_.rip, block->host, block->block->entry_with_stack(), page,
                                  page + block->crosses_page, global);
    }
    if (options_.trace_execution) trace_entry(*block->block, shadow);
    state_.spilled_overflow = (state_.rflags & flag::kOf) != 0;
    note_entry(block->host);
    return block->host;
  }
  state_.spilled_overflow = (state_.rflags & flag::kOf) != 0;
  return thunks_.leave;
}

uint64_t Translator::callout_host_code() noexcept {
  const auto block = block_for(key_at_rip({ModeBits::kCallout | ModeBits::kOneInstruction}));
  if (!block) {
    vcpu_.deliver(block.error());
    return next_host_code();
  }
  ++counters_.callout_blocks;
  state_.spilled_overflow = (state_.rflags & flag::kOf) != 0;
  return block->host;
}

uint64_t Translator::tlb_host_code() noexcept {
  ++counters_.window_misses;
  const auto block = block_for(key_at_rip({ModeBits::kOneInstruction}));
  if (!block) {
    vcpu_.deliver(block.error());
    return next_host_code();
  }
  state_.spilled_overflow = (state_.rflags & flag::kOf) != 0;
  return block->host;
}

bool Translator::store_beside_code(const TlbEntry& entry, LinearAddr address, uint64_t size,
                                   uint64_t site) noexcept {
  if (entry.read_tag != address.page().value || !(entry.info & TlbEntry::kWritable) ||
      vcpu_.debug().watching())
    return false;
  PageTracker& tracker = vcpu_.map().tracker();
  const PageFrame frame = entry.frame();
  const Block* const running = block_at(site);
  if (!tracker.holds_code(frame) || overlaps(running, frame, address.page_offset(), size)) return false;
  tracker.before_write(frame, address.page_offset(), size);
  // The last block may have gone with it: then there is an entry for all stores to come.
  if (!tracker.holds_code(frame)) return false;
  state_.found_addend = entry.addend;
  ++counters_.stores_beside_code;
  return true;
}

bool Translator::overlaps(const Block* block, PageFrame frame, uint64_t offset,
                          uint64_t size) const noexcept {
  if (!block ||
      (block->key.physical.frame() != frame && !(block->crosses_page && block->second_frame == frame))) {
    return false;
  }
  for (const FrameNode* node = frames_[frame.number]; node; node = node->next) {
    if (node->block == block && node->begin < offset + size && offset < node->end) return true;
  }
  return false;
}

// Whether the address belongs to an address space whose windows would not pay yet: the kernel's code, whose
// own memory is in windows from the start, accesses it, too.
bool Translator::is_too_young(LinearAddr linear) const {
  return vcpu_.code64() && linear.value >> 63 == 0 && !hot_.mature(vcpu_.tlb().current_space());
}

bool Translator::open_window(LinearAddr linear) noexcept {
  if (!is_canonical(linear.value) || is_too_young(linear)) return false;
  const TlbView view = vcpu_.current_view();
  if (!vcpu_.tlb().open_window(view, linear)) return false;
  vcpu_.tlb().select_windows(state_.windows, view, window_width());
  return true;
}

uint64_t Translator::window_select(LinearAddr linear, WindowSite& site) noexcept {
  ++counters_.window_selections;
  if (!is_canonical(linear.value)) return ShadowWindows::kNoChunk;
  const uint64_t region = linear.value >> ShadowWindows::kRegionShift;
  const WindowState& windows = state_.windows;
  if (windows.table[region] == ShadowWindows::kNoChunk) {
    const HostVectorScope scope(state_);
    if (!open_window(linear)) {
      if (hot_.fault(site.block->key, true)) kill_block(*site.block);
      return ShadowWindows::kNoChunk;
    }
  }
  if (site.block->dead) return windows.table[region];  // its first bytes are a jump now
  constexpr uint32_t kEnough = 4;
  const auto patch = [&](uint32_t offset, uint64_t value) {
    const auto field = static_cast<uint32_t>(value);
    cache_.patch(site.block->host + offset, std::as_bytes(std::span(&field, 1)));
  };
  const WindowSlotFields fields = WindowSlotFields::of(region, site.block->key.mode);
  const auto state = reinterpret_cast<uint64_t>(&state_);
  // SAFETY: the field of a slot of `windows`.
  const uint32_t tag = *reinterpret_cast<const uint32_t*>(state + fields.tag);
  if (tag == static_cast<uint32_t>(region) && ++site.corrections < kEnough) {
    patch(site.tag_offset, state + fields.tag);
    patch(site.delta_offset, state + fields.delta);
  } else {
    patch(site.jump_offset, static_cast<uint64_t>(site.search_offset) - (site.jump_offset + 4));
  }
  return windows.table[region];
}

uint64_t Translator::redispatch_host_code() noexcept {
  current_jump_cache_->forget(state_.rip);
  return next_host_code(kStackDelta);  // patched jumps do not come here
}

uint64_t Translator::link_host_code(BlockLink& link) noexcept {
  const uint64_t generation = generation_;
  const uint64_t rip = state_.rip;
  const uint64_t host = next_host_code(link.from->windows ? link.known : kAllDeltas);
  // No patch when the run loop is wanted, a fault went elsewhere, or the block with the jump is gone.
  if (host == thunks_.leave || generation != generation_ || state_.rip != rip || link.from->dead) return host;
  BlockKey key = link.from->key;
  key.rip = link.target_rip;
  key.physical = {(key.physical.value & ~kPageOffsetMask) | key.linear().page_offset()};
  Block* target = find_block(key);
  if (!target || target->crosses_page || target->host != host) {
    link.by_jump_cache = options_.jump_cache;
    return host;
  }
  point_link(link, target->entry_with(link.known, link.constant));
  link.next_incoming = target->incoming;
  target->incoming = &link;
  ++counters_.links;
  return host;
}

void Translator::point_link(const BlockLink& link, uint64_t host) {
  const uint64_t site = link.from->host + link.patch_offset;
  const auto displacement = static_cast<int32_t>(host - (site + 4));
  cache_.patch(site, std::as_bytes(std::span(&displacement, 1)));
}

Block* Translator::block_at(uint64_t host) const noexcept {
  if (last_looked_up_ && host - last_looked_up_->host < last_looked_up_->host_bytes) return last_looked_up_;
  size_t low = 0, high = blocks_.size();
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (blocks_[middle]->host <= host) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0 || host - blocks_[low - 1]->host >= blocks_[low - 1]->host_bytes) return nullptr;
  return last_looked_up_ = blocks_[low - 1];
}

std::optional<Site> Translator::site_at(uint64_t host) const noexcept {
  const Block* const at = block_at(host);
  if (!at) return std::nullopt;
  const Block& block = *at;
  const SiteRecord* found = nullptr;
  for (unsigned i = 0; i < block.site_count && block.sites[i].host_offset <= host - block.host; ++i) {
    found = &block.sites[i];
  }
  if (!found) return std::nullopt;
  const SiteKind kind = found->site_kind();
  uint64_t rip = kind == SiteKind::Poll ? block.poll_targets[found->guest] : block.key.rip + found->guest;
  if (block.key.shared() && rip >> 62 != kPollIndirect >> 62) rip += state_.code_page;
  return Site{.rip = rip,
              .flags = static_cast<FlagHome>(found->flags),
              .kind = kind,
              .stack_step = found->stack_step};
}

// --- code that changes

void Translator::track_block(Block& block) {
  PageTracker& tracker = vcpu_.map().tracker();
  const auto track = [&](PageFrame frame, uint64_t begin, uint64_t end) {
    if (!tracker.can_hold_code(frame)) {
      tracker.set_holds_untracked_code(true);
      return;
    }
    if (!tracker.holds_code(frame)) {
      tracker.set_holds_code(frame, true);
      vcpu_.tlb().stop_writes_to(frame);
    }
    FrameNode*& first = frames_[frame.number];
    const uint64_t granules = granules_of(begin, end) | (first ? first->granules : 0);
    frame_nodes_.push_back(
        {&block, first, granules, static_cast<uint16_t>(begin), static_cast<uint16_t>(end)});
    first = &frame_nodes_.back();
  };
  const uint64_t begin = block.key.physical.page_offset();
  const uint64_t end = begin + block.guest_bytes;
  if (block.live_end != 0) {
    track(block.key.physical.frame(), begin, begin + block.live_begin);
    track(block.key.physical.frame(), begin + block.live_end, end);
    return;
  }
  track(block.key.physical.frame(), begin, end < kPageSize ? end : kPageSize);
  if (block.crosses_page) track(block.second_frame, 0, end - kPageSize);
}

void Translator::code_written(PageFrame frame, uint64_t offset, uint64_t size) {
  FrameNode*& first = frames_[frame.number];
  if (first && !(first->granules & granules_of(offset, offset + size))) return;
  uint64_t granules = 0;
  FrameNode** at = &first;
  while (*at) {
    FrameNode& node = **at;
    if (!node.block->dead && node.begin < offset + size && offset < node.end) {
      const Block& block = *node.block;
      const uint64_t begin = block.key.physical.page_offset();
      if (frame == block.key.physical.frame() && offset >= begin) {
        hot_.patched(block.key, offset - begin, offset + size - begin);
      }
      kill_block(*node.block);
    }
    if (node.block->dead) {
      *at = node.next;
    } else {
      granules |= granules_of(node.begin, node.end);
      at = &node.next;
    }
  }
  if (first) {
    first->granules = granules;
  } else {
    vcpu_.map().tracker().set_holds_code(frame, false);
  }
}

// Jumps that were patched to the block are cut. Whoever else still jumps to its host code (the jump cache, a
// thunk on its way) lands in Thunks::redispatch.
void Translator::kill_block(Block& block) {
  if (block.dead) return;
  block.dead = true;
  if (FoundBlock& found = found_before(block.key); found.block == &block) found.block = nullptr;
  Block** at = &buckets_[block.key.hash() % kBuckets];
  while (*at != &block) at = &(*at)->next_in_bucket;
  *at = block.next_in_bucket;
  for (const BlockLink* link = block.incoming; link; link = link->next_incoming) {
    // A dead block may still be running. Its own first bytes are another jump.
    if (!link->from->dead || link->patch_offset >= kEntryPatchBytes)
      point_link(*link, link->from->host + link->stub_offset);
  }
  block.incoming = nullptr;
  if (block.loop) point_link(*block.loop, block.host + block.loop->stub_offset);
  // The jump that is put at its entry does not stop those who enter behind it.
  const bool entered_behind = block.warm_count != 0 && !block.key.shared();
  for (unsigned space = 0; entered_behind && space < SoftTlb::kSpaces; ++space) {
    for_each_jump_cache(space, [&block](JumpCache& cache) { cache.forget(block.key.rip); });
  }

  redirect_entry(block, block.host);
  if (block.stack_entry_offset != 0) redirect_entry(block, block.host + block.stack_entry_offset);
  ++counters_.blocks_killed;
}

// Puts a jump to Thunks::redispatch there.
void Translator::redirect_entry(const Block& block, uint64_t entry) {
  std::byte code[kEntryPatchBytes];
  const auto put = [&code](unsigned at_byte, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) code[at_byte + i] = static_cast<std::byte>(value >> 8 * i);
  };
  put(0, 0xbb49, 2);  // mov r11, imm64
  put(2, reinterpret_cast<uint64_t>(&block), 8);
  put(10, 0xe9, 1);  // jmp rel32
  put(11, static_cast<uint32_t>(thunks_.redispatch - (entry + kEntryPatchBytes)), 4);
  cache_.patch(entry, code);
}

// --- mappings that change

JumpCache& Translator::jump_cache_for(const JumpCache::Signature& signature) {
  JumpCaches& caches = jump_caches_[vcpu_.tlb().current_space()][state_.mode.has(ModeBits::kUser)];
  for (auto& cache : caches.of_mode) {
    if (cache && cache->signature == signature) return *cache;
  }
  std::unique_ptr<JumpCache>& oldest = caches.of_mode[caches.next++ % caches.of_mode.size()];
  if (oldest) {
    oldest->clear();
  } else {
    const HostVectorScope scope(state_);
    oldest = new_jump_cache();
  }
  oldest->signature = signature;
  return *oldest;
}

// Where the host has no memory for one more: one of the others. Throws when there is none.
std::unique_ptr<JumpCache> Translator::new_jump_cache() {
  try {
    return std::make_unique<JumpCache>();
  } catch (const std::exception&) {
    for (auto& of_space : jump_caches_) {
      for (JumpCaches& caches : of_space) {
        for (auto& cache : caches.of_mode) {
          if (!cache) continue;
          cache->clear();
          return std::move(cache);
        }
      }
    }
    throw;
  }
}

void Translator::mode_changed() {
  const BlockKey key = key_at_rip({});
  // What leads to blocks with windows is for mature address spaces only.
  const uint32_t windows = hot_.mature(vcpu_.tlb().current_space()) ? uint32_t{ModeBits::kWindows} : 0;
  current_jump_cache_ = &jump_cache_for({key.mode.value | windows, key.cs_base, key.cs_limit});
  state_.jump_cache = current_jump_cache_->table();
}

// Blocks that run across the address; whoever jumps to it comes to next_host_code() from now on.
void Translator::breakpoint_added(LinearAddr address) {
  for (Block* block : blocks_) {
    const uint64_t offset = block->key.shared() ? address.page_offset() - block->key.rip
                                                : address.value - block->key.linear().value;
    if (!block->dead && offset < block->guest_bytes) kill_block(*block);
  }
}

// Blocks that breakpoints have cut, so that the code becomes what it was before them. Those of breakpoints
// that are left are cut again.
void Translator::breakpoints_removed() {
  if (!std::exchange(cut_blocks_, false)) return;
  for (Block* block : blocks_) {
    if (block->cut && !block->dead) kill_block(*block);
  }
}

void Translator::pages_unmapped(LinearAddr first, uint64_t bytes) {
  for (unsigned space = 0; space < SoftTlb::kSpaces; ++space) {
    for_each_jump_cache(
        space, [=](JumpCache& cache) { cache.forget_pages(first.value >> kPageShift, bytes >> kPageShift); });
  }
}

void Translator::space_flushed(unsigned space) {
  hot_.flushed(space, state_.cr3 >> kPageShift);
  if (windows_ && windows_->has_many_chunks(space)) {
    const HostVectorScope scope(state_);
    windows_->recycle(space);
    vcpu_.tlb().select_windows(state_.windows, vcpu_.current_view(), window_width());
  }
  for_each_jump_cache(space, [](JumpCache& cache) { cache.clear_non_global(); });
}

void Translator::all_flushed() {
  for (unsigned space = 0; space < SoftTlb::kSpaces; ++space) {
    for_each_jump_cache(space, [](JumpCache& cache) { cache.clear(); });
  }
}

void Translator::run_guest() noexcept {
  load_guest_vector_state(state_);
  using Enter = void (*)(uint64_t host_code);
  // SAFETY: the thunk has the C++ calling convention, preserves what it asks for, and leaves through
  // Thunks::leave.
  reinterpret_cast<Enter>(thunks_.enter)(next_host_code());
  collect_flags();
  save_guest_vector_state(state_);
}

}  // namespace penumbra::jit
