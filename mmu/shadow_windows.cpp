#include "mmu/shadow_windows.h"

#include <sys/mman.h>

#include "mmu/soft_tlb.h"

namespace penumbra {

ShadowWindows::~ShadowWindows() {
  const auto release = [](ChunkList& chunks) {
    for (auto& chunk : chunks) {
      munmap(chunk->base, kRegionBytes + kPageSize);
      munmap(chunk->pages, kPagesOfChunk * sizeof(PageState));
    }
  };
  release(global_);
  for (auto& space : spaces_) release(space->chunks);
}

ShadowWindows::Table& ShadowWindows::table_of(unsigned space, TlbView view) {
  switch (view) {
    case TlbView::User:
      return spaces_[space]->user;
    case TlbView::SupervisorAc:
      return spaces_[space]->both;
    default:
      return supervisor_;
  }
}

const uint64_t* ShadowWindows::table(unsigned space, TlbView view, Width width) const {
  return const_cast<ShadowWindows*>(this)->table_of(space, view).entries(width);
}

ShadowWindows::Chunk* ShadowWindows::find(ChunkList& chunks, uint64_t region) const {
  for (auto& chunk : chunks) {
    if (chunk->region == region) return chunk.get();
  }
  return nullptr;
}

void ShadowWindows::claim(Table& table, Width width, LinearAddr linear, uint64_t delta) {
  uint64_t& entry = table.entries(width)[index(linear, width)];
  // SAFETY: linear addresses of the region, plus this, are the chunk's host addresses, one to one.
  if (entry == kNoChunk) entry = delta;
}

bool ShadowWindows::fill(unsigned space, TlbView view, Width width, LinearAddr linear,
                         const Translation& translation, bool write) {
  const bool user = view == TlbView::User;
  if (translation.global ? user : !translation.user || (!user && view != TlbView::SupervisorAc)) return false;
  // User chunks serve both views: what only the supervisor may do (CR0.WP clear) has no place there.
  const bool writable = translation.may_write && (translation.global || translation.writable);
  const PageFrame frame = map_.page(translation.physical).frame;
  if (frame.number >= kMaxFrames || (write && (!writable || map_.tracker().holds_code(frame)))) return false;
  const uint64_t region = linear.value >> kRegionShift;
  if (region >= kRegionsOfHalf && region < (uint64_t{1} << 32) - kRegionsOfHalf) return false;

  if (mappings_ + 2 * kRunPages > max_mappings_) {
    flush_all();
    ++stats_.resets;
  }
  ChunkList& chunks = translation.global ? global_ : spaces_[space]->chunks;
  Chunk* chunk = find(chunks, region);
  if (!chunk) chunk = make_chunk(chunks, region);
  if (!chunk) return false;
  const uint64_t delta = delta_of(*chunk);
  if (translation.global) {
    claim(supervisor_, width, linear, delta);
    for (auto& any : spaces_) claim(any->both, width, linear, delta);
  } else {
    claim(spaces_[space]->user, width, linear, delta);
    claim(spaces_[space]->both, width, linear, delta);
  }
  // A place with both kinds of pages: this view may have been given the other chunk.
  if (table_of(space, view).entries(width)[index(linear, width)] != delta) return false;

  chunk->large |= translation.page_bytes > kPageSize;
  if (translation.global && translation.page_bytes > kPageSize) {
    const uint64_t run_bytes = uint64_t{kRunPages} << kPageShift;
    const uint64_t offset = linear.value & (run_bytes - 1);
    if (map_run(*chunk, {linear.value - offset}, {translation.physical.value - offset}, kRunPages, writable)) {
      return true;
    }
  }
  return map_run(*chunk, linear.page(), {translation.physical.value & ~kPageOffsetMask}, 1, writable);
}

// False, and nothing mapped, unless all of it is RAM in one piece.
bool ShadowWindows::map_run(Chunk& chunk, LinearAddr first, PhysAddr physical, unsigned count, bool writable) {
  const PhysicalMap::Page start = map_.page(physical);
  if (start.kind != PhysicalMap::PageKind::Ram) return false;
  for (unsigned i = 1; i < count; ++i) {
    const PhysicalMap::Page page = map_.page(physical + (uint64_t{i} << kPageShift));
    if (page.kind != PhysicalMap::PageKind::Ram || page.host != start.host + (uint64_t{i} << kPageShift)) return false;
  }
  PageTracker& tracker = map_.tracker();
  const uint64_t offset = first.value & (kRegionBytes - 1);
  const int protection = PROT_READ | (writable ? PROT_WRITE : 0);
  const bool only_page_has_code = count == 1 && tracker.holds_code(start.frame);
  // SAFETY: MAP_FIXED within the chunk's own reservation.
  void* const at = mmap(chunk.base + offset, uint64_t{count} << kPageShift,
                        only_page_has_code ? PROT_READ : protection, MAP_SHARED | MAP_FIXED, map_.ram_fd(),
                        static_cast<off_t>(map_.ram_offset(start.host)));
  if (at == MAP_FAILED) return false;
  const auto first_page = static_cast<uint32_t>(offset >> kPageShift);
  chunk.runs.push_back({first_page, count});
  mappings_ += 2;
  for (unsigned i = 0; i < count; ++i) {
    const PageFrame frame{start.frame.number + i};
    const bool code = tracker.holds_code(frame);
    chunk.pages[first_page + i] = {.mapped = 1,
                                   .writable = writable && !code,
                                   .frame = static_cast<uint32_t>(frame.number)};
    if (!writable) continue;
    if (!code) {
      tracker.note_writer(frame, first + (uint64_t{i} << kPageShift));
    } else if (count > 1) {
      mprotect(chunk.base + offset + (uint64_t{i} << kPageShift), kPageSize, PROT_READ);
      mappings_ += 2;
    }
  }
  ++stats_.fills;
  stats_.pages += count;
  return true;
}

void ShadowWindows::unmap_page(Chunk& chunk, LinearAddr page) {
  const uint64_t offset = page.value & (kRegionBytes - 1);
  PageState& state = chunk.pages[offset >> kPageShift];
  if (!state.mapped) return;
  state = {};
  // SAFETY: as in map_run().
  mmap(chunk.base + offset, kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  mappings_ += 2;
  ++stats_.unmapped;
}

void ShadowWindows::empty(Chunk& chunk) {
  if (chunk.runs.empty()) return;
  constexpr size_t kMany = 1024;
  if (chunk.runs.size() > kMany) {
    madvise(chunk.pages, kPagesOfChunk * sizeof(PageState), MADV_DONTNEED);
  } else {
    for (const Run& run : chunk.runs) {
      for (uint32_t i = 0; i < run.count; ++i) chunk.pages[run.first + i] = {};
    }
  }
  chunk.runs.clear();
  chunk.large = false;
  // SAFETY: the chunk's own reservation.
  mmap(chunk.base, kRegionBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  ++stats_.dropped;
}

void ShadowWindows::flush_page(unsigned space, LinearAddr page, bool global_too) {
  const uint64_t region = page.value >> kRegionShift;
  const auto flush = [&](ChunkList& chunks) {
    Chunk* const chunk = find(chunks, region);
    if (!chunk) return;
    if (chunk->large) {
      empty(*chunk);
    } else {
      unmap_page(*chunk, page);
    }
  };
  flush(spaces_[space]->chunks);
  if (global_too) flush(global_);
}

void ShadowWindows::flush_space(unsigned space) {
  for (auto& chunk : spaces_[space]->chunks) empty(*chunk);
}

void ShadowWindows::flush_all() {
  for (auto& chunk : global_) empty(*chunk);
  for (unsigned space = 0; space < spaces_.size(); ++space) flush_space(space);
  // Which kind of page comes first to a place may be different now. Regions keep their chunks.
  const auto unclaim = [](Table& table) {
    uint64_t* const slots = table.entries(Width::Bits32);
    for (uint64_t i = 0; i < kSlots; ++i) slots[i] = kNoChunk;
  };
  unclaim(supervisor_);
  for (auto& space : spaces_) {
    unclaim(space->user);
    unclaim(space->both);
  }
  mappings_ = 0;
}

void ShadowWindows::protect(Chunk& chunk, uint64_t page) {
  if (!chunk.pages[page].writable) return;
  chunk.pages[page].writable = 0;
  mprotect(chunk.base + (page << kPageShift), kPageSize, PROT_READ);
  mappings_ += 2;
}

void ShadowWindows::protect_frame(ChunkList& chunks, PageFrame frame, const PageTracker::Writers& writers) {
  for (auto& chunk : chunks) {
    if (!writers.many) {
      if (chunk->region != writers.page.value >> kRegionShift) continue;
      const uint64_t page = (writers.page.value & (kRegionBytes - 1)) >> kPageShift;
      if (chunk->pages[page].mapped && chunk->pages[page].frame == frame.number) protect(*chunk, page);
      continue;
    }
    for (const Run& run : chunk->runs) {
      for (uint32_t page = run.first; page < run.first + run.count; ++page) {
        if (chunk->pages[page].mapped && chunk->pages[page].frame == frame.number) protect(*chunk, page);
      }
    }
  }
}

void ShadowWindows::stop_writes_to(PageFrame frame) {
  const PageTracker::Writers writers = map_.tracker().writers(frame);
  if (!writers.any) return;
  protect_frame(global_, frame, writers);
  for (auto& space : spaces_) protect_frame(space->chunks, frame, writers);
}

bool ShadowWindows::check_invariants() const {
  const auto check = [&](const ChunkList& chunks) {
    for (const auto& chunk : chunks) {
      for (const Run& run : chunk->runs) {
        for (uint32_t page = run.first; page < run.first + run.count; ++page) {
          const PageState state = chunk->pages[page];
          if (!state.mapped) continue;
          const PhysicalMap::Page physical = map_.page(start_of(PageFrame{state.frame}));
          if (physical.kind != PhysicalMap::PageKind::Ram) return false;
          if (state.writable && map_.tracker().holds_code(physical.frame)) return false;
          if (__builtin_memcmp(physical.host, chunk->base + (uint64_t{page} << kPageShift), kPageSize) != 0) {
            return false;
          }
        }
      }
    }
    return true;
  };
  for (const auto& space : spaces_) {
    if (!check(space->chunks)) return false;
  }
  return check(global_);
}

}  // namespace penumbra
