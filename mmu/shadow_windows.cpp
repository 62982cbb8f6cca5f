#include "mmu/shadow_windows.h"

#include <sys/mman.h>

#include <algorithm>

#include "mmu/soft_tlb.h"

namespace penumbra {

const ShadowWindows::Table& ShadowWindows::table_of(unsigned space, TlbView view) const {
  switch (view) {
    case TlbView::User:
      return spaces_[space]->user;
    case TlbView::SupervisorAc:
      return spaces_[space]->both;
    default:
      return supervisor_;
  }
}

const uint64_t* ShadowWindows::table(unsigned space, TlbView view) const {
  return table_of(space, view).entries();
}

uint64_t ShadowWindows::flat(unsigned space, TlbView view) const {
  const auto& chunk = spaces_[space]->flat[static_cast<unsigned>(view)];
  return reinterpret_cast<uint64_t>(chunk ? chunk->base : nowhere_ + kGuardBytes);
}

void ShadowWindows::select(WindowState& state, unsigned space, TlbView view, Width width) const {
  const bool lifted = view == TlbView::SupervisorAc;
  const bool stale = state.space != space || state.version != version_;
  if (stale) {
    const Slots& lower = spaces_[space]->slots;
    state.user_tag = lower.tag;
    state.lower_delta = lower.delta;
    state.upper_tag = upper_.tag;
    state.upper_delta = upper_.delta;
    state.space = space;
    state.version = version_;
  }
  if (stale || state.lifted != lifted) {
    state.lifted_tag = lifted ? state.user_tag : WindowState::kNoTags;
    state.lifted = lifted;
  }
  state.table = table(space, view);
  if (width == Width::Bits64) return;
  state.flat = flat(space, view);
  if (state.gs_is_flat && state.gs != state.flat) {
    asm volatile("wrgsbase %0" : : "r"(state.flat));
    state.gs = state.flat;
  }
}

ShadowWindows::Chunk* ShadowWindows::find(const ChunkList& chunks, uint64_t region) const {
  for (auto& chunk : chunks) {
    if (chunk->region == region) return chunk.get();
  }
  return nullptr;
}

std::optional<LinearAddr> ShadowWindows::linear_at(uint64_t host) const {
  const uint64_t offset = host - reinterpret_cast<uint64_t>(cells_);
  const uint64_t cell = offset / kCellBytes;
  if (cell >= kCells || !cell_owner_[cell] || offset % kCellBytes < kGuardBytes) return std::nullopt;
  return LinearAddr{host - delta_of(*cell_owner_[cell])};
}

// User chunks serve both views: what only the supervisor may do (CR0.WP clear) has no place there.
bool ShadowWindows::writable_for(Width width, const Translation& translation) {
  return translation.may_write && (width == Width::Bits32 || translation.global || translation.writable);
}

bool ShadowWindows::has_window(Width width, LinearAddr linear, const Translation& translation) {
  if (width == Width::Bits32) return linear.value < kRegionBytes;
  const bool upper = is_upper(linear.value >> kRegionShift);
  // A user page of the upper half would be the supervisor's with and without SMAP lifted.
  return translation.global == upper && translation.user != upper;
}

ShadowWindows::Chunk* ShadowWindows::chunk_of(unsigned space, TlbView view, Width width, LinearAddr linear) {
  if (width == Width::Bits64) {
    return open(space, view, linear) == kNoChunk ? nullptr
                                                 : chunk_for(space, view, linear.value >> kRegionShift);
  }
  if (!flat_available_) return nullptr;
  Space& owner = *spaces_[space];
  Chunk* const chunk = owner.flat[static_cast<unsigned>(view)].get();
  return chunk ? chunk : make_flat(owner, view);
}

bool ShadowWindows::fill(unsigned space, TlbView view, Width width, LinearAddr linear,
                         const Translation& translation, bool write) {
  const PageFrame frame = map_.page(translation.physical).frame;
  const bool writable = writable_for(width, translation);
  if (frame.number >= kMaxFrames || (write && (!writable || map_.tracker().holds_code(frame)))) return false;
  if (!has_window(width, linear, translation) || given_up()) return false;
  if (mappings_ + 2 * kRunPages > max_mappings_) {
    flush_all();
    ++stats_.resets;
  }
  Chunk* const chunk = chunk_of(space, view, width, linear);
  if (!chunk) {
    give_way();
    return false;
  }

  if (translation.page_bytes > kPageSize) {
    constexpr uint64_t kRunBytes = uint64_t{kRunPages} << kPageShift;
    const uint64_t offset = linear.value & (kRunBytes - 1);
    const uint64_t page_start = linear.value & (kRegionBytes - 1) & ~(translation.page_bytes - 1);
    for (uint64_t at = page_start; at < page_start + translation.page_bytes;
         at += uint64_t{1} << kAreaShift) {
      chunk->large[at >> kAreaShift] = static_cast<uint8_t>(std::countr_zero(translation.page_bytes));
    }
    if (map_run(*chunk, {linear.value - offset}, {translation.physical.value - offset}, kRunPages, writable,
                translation.global)) {
      return !give_way();
    }
  }
  const bool mapped = map_run(*chunk, linear.page(), {translation.physical.value & ~kPageOffsetMask}, 1,
                              writable, translation.global);
  return !give_way() && mapped;
}

void ShadowWindows::fill_around(unsigned space, TlbView view, Width width, LinearAddr first,
                                const Neighbours& pages) {
  if (mappings_ + 4 * kNeighbours > max_mappings_) return;
  Chunk* const chunk = chunk_of(space, view, width, first);
  if (!chunk) return;
  // Pages that follow each other in memory, too, are mapped at once.
  struct {
    unsigned begin, count = 0;
    PhysAddr physical;
    bool writable, global;
  } run;
  const auto map_it = [&] {
    if (run.count == 0) return;
    map_run(*chunk, first + (uint64_t{run.begin} << kPageShift), run.physical, run.count, run.writable,
            run.global);
    run.count = 0;
  };
  for (unsigned i = 0; i < kNeighbours; ++i) {
    const LinearAddr linear = first + (uint64_t{i} << kPageShift);
    const PageState& now = chunk->pages[(linear.value & (kRegionBytes - 1)) >> kPageShift];
    const bool writable = pages[i] && writable_for(width, *pages[i]);
    const PageFrame frame = pages[i] ? map_.page(pages[i]->physical).frame : PageFrame{kMaxFrames};
    if (frame.number >= kMaxFrames || pages[i]->page_bytes != kPageSize ||
        !has_window(width, linear, *pages[i]) || map_.tracker().holds_code(frame) ||
        (now.mapped && (now.writable || !writable))) {
      map_it();
      continue;
    }
    const PhysAddr next = run.physical + (uint64_t{run.count} << kPageShift);
    if (run.count != 0 && (next.value != pages[i]->physical.value || run.writable != writable ||
                           run.global != pages[i]->global)) {
      map_it();
    }
    if (run.count == 0) {
      run = {.begin = i, .physical = pages[i]->physical, .writable = writable, .global = pages[i]->global};
    }
    ++run.count;
  }
  map_it();
  give_way();
}

// False, and nothing mapped, unless all of it is RAM in one piece.
bool ShadowWindows::map_run(Chunk& chunk, LinearAddr first, PhysAddr physical, unsigned count, bool writable,
                            bool global) {
  const PhysicalMap::Page start = map_.page(physical);
  if (start.kind != PhysicalMap::PageKind::Ram) return false;
  for (unsigned i = 1; i < count; ++i) {
    const PhysicalMap::Page page = map_.page(physical + (uint64_t{i} << kPageShift));
    if (page.kind != PhysicalMap::PageKind::Ram || page.host != start.host + (uint64_t{i} << kPageShift))
      return false;
  }
  PageTracker& tracker = map_.tracker();
  const uint64_t offset = first.value & (kRegionBytes - 1);
  const int protection = PROT_READ | (writable ? PROT_WRITE : 0);
  const bool only_page_has_code = count == 1 && tracker.holds_code(start.frame);
  // SAFETY: MAP_FIXED within the chunk's own reservation.
  void* const at =
      mmap(chunk.base + offset, uint64_t{count} << kPageShift, only_page_has_code ? PROT_READ : protection,
           MAP_SHARED | MAP_FIXED | (count <= kNeighbours ? MAP_POPULATE : 0), map_.ram_fd(),
           static_cast<off_t>(map_.ram_offset(start.host)));
  if (at == MAP_FAILED) {
    refused_ = true;
    return false;
  }
  const auto first_page = static_cast<uint32_t>(offset >> kPageShift);
  if (count > kNeighbours) {
    chunk.runs.push_back({first_page, count, static_cast<uint32_t>(start.frame.number), global});
  } else {
    // Page by page, each once: what is flushed and filled again and again must not make the list longer.
    for (uint32_t page = first_page; page < first_page + count; ++page) {
      if (chunk.pages[page].listed) continue;
      chunk.runs.push_back(
          {page, 1, static_cast<uint32_t>(start.frame.number + (page - first_page)), global});
      chunk.pages[page].listed = 1;
    }
  }
  mappings_ += 2;
  if (writable && start.written) start.written->store(true, std::memory_order_relaxed);
  for (unsigned i = 0; i < count; ++i) {
    const PageFrame frame{start.frame.number + i};
    const bool code = tracker.holds_code(frame);
    chunk.pages[first_page + i] = {.mapped = 1,
                                   .writable = writable && !code,
                                   .global = global,
                                   .listed = chunk.pages[first_page + i].listed,
                                   .frame = static_cast<uint32_t>(frame.number)};
    if (!writable) continue;
    if (!code) {
      tracker.note_writer(frame, first + (uint64_t{i} << kPageShift));
    } else if (count > 1) {
      if (mprotect(chunk.base + offset + (uint64_t{i} << kPageShift), kPageSize, PROT_READ) != 0)
        refused_ = true;
      mappings_ += 2;
    }
  }
  ++stats_.fills;
  stats_.pages += count;
  return true;
}

void ShadowWindows::unmap(Chunk& chunk, uint64_t first, uint64_t pages) {
  for (uint64_t page = first; page < first + pages; ++page) {
    chunk.pages[page] = {
        .mapped = 0, .writable = 0, .global = 0, .listed = chunk.pages[page].listed, .frame = 0};
  }
  // SAFETY: as in map_run().
  if (mmap(chunk.base + (first << kPageShift), pages << kPageShift, PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
    refused_ = true;
  }
  mappings_ += 2;
  stats_.unmapped += pages;
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
  chunk.large = {};
  // SAFETY: the chunk's own reservation.
  if (mmap(chunk.base, kRegionBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
           0) == MAP_FAILED) {
    refused_ = true;
    // Splits no mapping, so it needs none.
    mprotect(chunk.base, kRegionBytes, PROT_NONE);
  }
  ++stats_.dropped;
}

void ShadowWindows::empty_non_global(Chunk& chunk) {
  size_t kept = 0;
  uint64_t first = 0, count = 0;  // to be unmapped in one piece
  for (const Run& run : chunk.runs) {
    PageState& state = chunk.pages[run.first];
    if (run.count > 1 ? run.global : state.mapped && state.global) {
      chunk.runs[kept++] = run;
      continue;
    }
    if (run.count == 1) state.listed = 0;
    if (run.count == 1 && !state.mapped) continue;
    if (first + count != run.first) {
      if (count != 0) unmap(chunk, first, count);
      first = run.first;
      count = 0;
    }
    count += run.count;
  }
  if (count != 0) unmap(chunk, first, count);
  if (kept == 0) {
    empty(chunk);
  } else {
    chunk.runs.resize(kept);
  }
}

void ShadowWindows::flush_page_of(Chunk& chunk, uint64_t page) {
  const uint64_t offset = page & (kRegionBytes - 1);
  if (const unsigned shift = chunk.large[offset >> kAreaShift]) {
    const uint64_t bytes = uint64_t{1} << shift;
    const uint64_t start = offset & ~(bytes - 1);
    unmap(chunk, start >> kPageShift, bytes >> kPageShift);
    for (uint64_t area = start >> kAreaShift; area < (start + bytes) >> kAreaShift; ++area)
      chunk.large[area] = 0;
  } else if (chunk.pages[offset >> kPageShift].mapped) {
    unmap(chunk, offset >> kPageShift, 1);
  }
}

void ShadowWindows::flush_page(unsigned space, LinearAddr page, bool global_too) {
  const uint64_t region = page.value >> kRegionShift;
  if (Chunk* const chunk = find(spaces_[space]->chunks, region)) flush_page_of(*chunk, page.value);
  if (global_too) {
    if (Chunk* const chunk = find(global_, region)) flush_page_of(*chunk, page.value);
  }
  for (unsigned i = 0; region == 0 && i < spaces_.size(); ++i) {
    if (i != space && !global_too) continue;
    for (auto& chunk : spaces_[i]->flat) {
      if (!chunk) continue;
      const bool global =
          chunk->pages[page.value >> kPageShift].global || chunk->large[page.value >> kAreaShift];
      if (global ? global_too : i == space) flush_page_of(*chunk, page.value);
    }
  }
  give_way();
}

void ShadowWindows::flush_space(unsigned space) {
  for (auto& chunk : spaces_[space]->chunks) empty(*chunk);
  for (auto& chunk : spaces_[space]->flat) {
    if (chunk) empty_non_global(*chunk);
  }
  give_way();
}

void ShadowWindows::flush_all() {
  for_each_chunk([this](Chunk& chunk) { empty(chunk); });
  mappings_ = 0;
}

bool ShadowWindows::give_way() {
  if (!refused_) return false;
  const uint64_t had = mappings_;
  if (spare_) munmap(spare_, kSparePages * kPageSize);
  spare_ = nullptr;
  flush_all();
  // The host has less to give than it said. Others need mappings, too.
  max_mappings_ = std::min(max_mappings_, had) / 2;
  ++stats_.refusals;
  refused_ = false;
  return true;
}

void ShadowWindows::protect(Chunk& chunk, uint64_t page) {
  if (!chunk.pages[page].writable) return;
  chunk.pages[page].writable = 0;
  if (mprotect(chunk.base + (page << kPageShift), kPageSize, PROT_READ) != 0) refused_ = true;
  mappings_ += 2;
}

void ShadowWindows::protect_frame(Chunk& chunk, PageFrame frame, const PageTracker::Writers& writers) {
  if (!writers.many) {
    if (chunk.region != writers.page.value >> kRegionShift) return;
    const uint64_t page = (writers.page.value & (kRegionBytes - 1)) >> kPageShift;
    if (chunk.pages[page].mapped && chunk.pages[page].frame == frame.number) protect(chunk, page);
    return;
  }
  for (const Run& run : chunk.runs) {
    if (run.count > 1 && frame.number - run.frame >= run.count) continue;
    const uint64_t page = run.count > 1 ? run.first + (frame.number - run.frame) : run.first;
    if (chunk.pages[page].mapped && chunk.pages[page].frame == frame.number) protect(chunk, page);
  }
}

void ShadowWindows::stop_writes_to(PageFrame frame) {
  const PageTracker::Writers writers = map_.tracker().writers(frame);
  if (!writers.any) return;
  for_each_chunk([&](Chunk& chunk) { protect_frame(chunk, frame, writers); });
  give_way();
}

// Neighbours are protected at once: a frame buffer has thousands of pages.
void ShadowWindows::stop_writes_to_range(PageFrame first, uint64_t frames) {
  for_each_chunk([&](Chunk& chunk) {
    uint64_t begin = 0, count = 0;
    const auto protect_them = [&] {
      if (count == 0) return;
      if (mprotect(chunk.base + (begin << kPageShift), count << kPageShift, PROT_READ) != 0) refused_ = true;
      mappings_ += 2;
      count = 0;
    };
    for (const Run& run : chunk.runs) {
      for (uint64_t page = run.first; page < run.first + run.count; ++page) {
        PageState& state = chunk.pages[page];
        if (!state.mapped || !state.writable || state.frame - first.number >= frames) continue;
        state.writable = 0;
        if (begin + count != page) protect_them();
        if (count++ == 0) begin = page;
      }
    }
    protect_them();
  });
  give_way();
}

bool ShadowWindows::check(const Chunk& chunk) const {
  for (const Run& run : chunk.runs) {
    for (uint32_t page = run.first; page < run.first + run.count; ++page) {
      const PageState state = chunk.pages[page];
      if (!state.mapped) continue;
      const PhysicalMap::Page physical = map_.page(start_of(PageFrame{state.frame}));
      if (physical.kind != PhysicalMap::PageKind::Ram) return false;
      if (state.writable && map_.tracker().holds_code(physical.frame)) return false;
      if (__builtin_memcmp(physical.host, chunk.base + (uint64_t{page} << kPageShift), kPageSize) != 0)
        return false;
    }
  }
  return true;
}

bool ShadowWindows::check_invariants() const {
  bool good = true;
  for_each_chunk([&](const Chunk& chunk) { good = good && check(chunk); });
  return good;
}

}  // namespace penumbra
