#include "mmu/soft_tlb.h"

namespace penumbra {

namespace {

constexpr unsigned kAreaShift = 21, kGigabyteShift = 30;  // of the footprints of global entries

bool valid(const TlbEntry& entry) {
  return entry.read_tag != TlbEntry::kInvalid;
}

void invalidate(TlbEntry& entry) {
  entry.read_tag = TlbEntry::kInvalid;
  entry.write_tag = TlbEntry::kInvalid;
}

}  // namespace

void SoftTlb::View::note(unsigned index) {
  if (filled_count < kLogged) filled[filled_count] = static_cast<uint16_t>(index);
  if (filled_count <= kLogged) ++filled_count;
}

template <class Function>
void SoftTlb::View::for_each_filled(Function function) {
  if (filled_count <= kLogged) {
    for (unsigned i = 0; i < filled_count; ++i) function(filled[i]);
  } else {
    for (unsigned index = 0; index < kEntries; ++index) function(index);
  }
}

SoftTlb::SoftTlb(PhysicalMap& map) : map_(map) {
  for (auto& space : spaces_) space = std::make_unique<Space>();
  spaces_[0]->used = true;
}

void SoftTlb::fill(TlbView view_kind, LinearAddr address, const Translation& translation) {
  const PhysicalMap::Page page = map_.page(translation.physical);
  if (!page.host) return;
  const bool watched = watched_ && watched_->any();
  if (watched && watched_->reads(address)) return;
  Space& space = *spaces_[current_];
  View& view = space.views[static_cast<unsigned>(view_kind)];
  const unsigned index = index_of(address);
  TlbEntry& entry = view.entries[index];
  if (!valid(entry)) view.note(index);
  const LinearAddr linear = address.page();
  entry.read_tag = linear.value;
  const bool direct_write = translation.may_write && page.kind == PhysicalMap::PageKind::Ram &&
                            !map_.tracker().holds_code(page.frame) && !(watched && watched_->writes(address));
  entry.write_tag = direct_write ? linear.value : TlbEntry::kInvalid;
  // SAFETY: only [linear, linear + 4 KiB) matches the tags, which the addend takes to the host page.
  entry.addend = reinterpret_cast<uint64_t>(page.host) - linear.value;
  entry.info = page.frame.number << kPageShift | (translation.global ? TlbEntry::kGlobal : 0) |
               (translation.may_fetch ? TlbEntry::kFetch : 0) |
               (translation.may_write && page.kind == PhysicalMap::PageKind::Ram ? TlbEntry::kWritable : 0);
  if (direct_write) map_.tracker().note_writer(page.frame, linear);
  if (direct_write && page.written) page.written->store(true, std::memory_order_relaxed);
  for (unsigned i = 0; i < kLargeShifts.size(); ++i) {
    if (translation.page_bytes == uint64_t{1} << kLargeShifts[i]) {
      space.large[i].add(address.value >> kLargeShifts[i]);
    }
  }
  if (translation.global) {
    global_areas_.add(address.value >> kAreaShift);
    if (translation.page_bytes > uint64_t{1} << kAreaShift)
      global_gigabytes_.add(address.value >> kGigabyteShift);
  }
  ++stats_.fills;
}

void SoftTlb::flush(View& view, bool keep_global) {
  if (!keep_global) {
    view.for_each_filled([&](unsigned index) { invalidate(view.entries[index]); });
    view.filled_count = 0;
    return;
  }
  if (view.filled_count > View::kLogged) {
    view.filled_count = 0;
    for (unsigned index = 0; index < kEntries; ++index) {
      TlbEntry& entry = view.entries[index];
      if (!valid(entry)) continue;
      if (entry.info & TlbEntry::kGlobal) {
        view.note(index);
      } else {
        invalidate(entry);
      }
    }
    return;
  }
  unsigned kept = 0;
  for (unsigned i = 0; i < view.filled_count; ++i) {
    TlbEntry& entry = view.entries[view.filled[i]];
    if (!valid(entry)) continue;
    if (entry.info & TlbEntry::kGlobal) {
      view.filled[kept++] = view.filled[i];
    } else {
      invalidate(entry);
    }
  }
  view.filled_count = kept;
}

void SoftTlb::flush(Space& space, bool keep_global) {
  for (View& view : space.views) flush(view, keep_global);
  if (!keep_global) space.large = {};
}

// An entry made from a large page goes with every other one of that page (SDM vol. 3, 4.10.4.1). Returns log2
// of the page's size.
unsigned SoftTlb::flush_page_in(Space& space, LinearAddr page, bool keep_global) {
  unsigned largest = kPageShift;
  const auto drop = [keep_global](TlbEntry& entry) {
    if (!(keep_global && entry.info & TlbEntry::kGlobal)) invalidate(entry);
  };
  for (View& view : space.views) {
    TlbEntry& entry = view.entries[index_of(page)];
    if (entry.read_tag == page.value) drop(entry);
  }
  for (unsigned i = 0; i < kLargeShifts.size(); ++i) {
    const unsigned shift = kLargeShifts[i];
    if (!space.large[i].has(page.value >> shift)) continue;
    largest = shift;
    const uint64_t pages = uint64_t{1} << (shift - kPageShift);
    const uint64_t first = page.value >> shift << shift;
    for (View& view : space.views) {
      for (uint64_t n = 0; n < pages && n < kEntries; ++n) {
        TlbEntry& entry = view.entries[index_of({first + (n << kPageShift)})];
        if (valid(entry) && entry.read_tag >> shift == page.value >> shift) drop(entry);
      }
    }
  }
  return largest;
}

unsigned SoftTlb::space_of(uint16_t pcid) const {
  for (unsigned i = 0; i < kSpaces; ++i) {
    if (spaces_[i]->used && spaces_[i]->pcid == pcid) return i;
  }
  return kSpaces;
}

void SoftTlb::switch_space(uint16_t pcid, bool keep) {
  unsigned next = space_of(pcid);
  bool stale = !keep;
  if (next == kSpaces) {
    next = 0;
    for (unsigned i = 0; i < kSpaces; ++i) {
      if (!spaces_[i]->used) {
        next = i;
        break;
      }
      if (spaces_[i]->last_use < spaces_[next]->last_use) next = i;
    }
    stale = true;
  }
  Space& space = *spaces_[next];
  space.pcid = pcid;
  space.used = true;
  space.last_use = ++use_counter_;
  current_ = next;
  if (!stale) return;
  flush(space, true);
  if (windows_) windows_->flush_space(next);
  ++stats_.space_flushes;
  if (listener_) listener_->space_flushed(next);
}

void SoftTlb::flushed_page(LinearAddr page, unsigned shift) {
  ++stats_.page_flushes;
  if (listener_) listener_->pages_unmapped({page.value >> shift << shift}, uint64_t{1} << shift);
}

void SoftTlb::flush_page(LinearAddr address) {
  const LinearAddr page = address.page();
  const bool everywhere =
      global_areas_.has(page.value >> kAreaShift) || global_gigabytes_.has(page.value >> kGigabyteShift);
  unsigned shift = kPageShift;
  for (unsigned i = 0; i < kSpaces; ++i) {
    if (i != current_ && !(everywhere && spaces_[i]->used)) continue;
    shift = std::max(shift, flush_page_in(*spaces_[i], page, false));
    if (windows_) windows_->flush_page(i, page, true);
  }
  flushed_page(page, shift);
}

void SoftTlb::flush_pcid_page(uint16_t pcid, LinearAddr address) {
  const unsigned space = space_of(pcid);
  if (space == kSpaces) return;
  const unsigned shift = flush_page_in(*spaces_[space], address.page(), true);
  if (windows_) windows_->flush_page(space, address.page(), false);
  flushed_page(address.page(), shift);
}

void SoftTlb::flush_pcid(uint16_t pcid) {
  const unsigned space = space_of(pcid);
  if (space == kSpaces) return;
  flush(*spaces_[space], true);
  if (windows_) windows_->flush_space(space);
  ++stats_.space_flushes;
  if (listener_) listener_->space_flushed(space);
}

void SoftTlb::flush_all() {
  for (auto& space : spaces_) flush(*space, false);
  if (windows_) windows_->flush_all();
  global_areas_ = {};
  global_gigabytes_ = {};
  ++stats_.full_flushes;
  if (listener_) listener_->all_flushed();
}

void SoftTlb::flush_all_non_global() {
  for (unsigned i = 0; i < kSpaces; ++i) {
    flush(*spaces_[i], true);
    if (windows_) windows_->flush_space(i);
    if (listener_) listener_->space_flushed(i);
  }
  ++stats_.full_flushes;
}

void SoftTlb::stop_writes_to(PageFrame frame) {
  PageTracker& tracker = map_.tracker();
  const PageTracker::Writers writers = tracker.writers(frame);
  if (!writers.any) return;
  if (windows_) windows_->stop_writes_to(frame);
  for (auto& space : spaces_) {
    for (View& view : space->views) {
      if (!writers.many) {
        TlbEntry& entry = view.entries[index_of(writers.page)];
        if (entry.frame() == frame) entry.write_tag = TlbEntry::kInvalid;
        continue;
      }
      view.for_each_filled([&](unsigned index) {
        TlbEntry& entry = view.entries[index];
        if (entry.frame() == frame) entry.write_tag = TlbEntry::kInvalid;
      });
    }
  }
  tracker.forget_writers(frame);
}

void SoftTlb::stop_writes_to_range(PageFrame first, uint64_t frames) {
  if (windows_) windows_->stop_writes_to_range(first, frames);
  for (auto& space : spaces_) {
    for (View& view : space->views) {
      view.for_each_filled([&](unsigned index) {
        TlbEntry& entry = view.entries[index];
        if (entry.frame().number - first.number < frames) entry.write_tag = TlbEntry::kInvalid;
      });
    }
  }
}

bool SoftTlb::check_invariants() const {
  for (const auto& space : spaces_) {
    for (const View& view : space->views) {
      for (unsigned index = 0; index < kEntries; ++index) {
        const TlbEntry& entry = view.entries[index];
        if (!valid(entry)) {
          if (entry.write_tag != TlbEntry::kInvalid) return false;
          continue;
        }
        const LinearAddr page{entry.read_tag};
        const PhysicalMap::Page physical = map_.page(start_of(entry.frame()));
        if (page.page_offset() != 0 || index_of(page) != index || !physical.host ||
            reinterpret_cast<HostPtr>(page.value + entry.addend) != physical.host) {
          return false;
        }
        const bool writable = entry.write_tag != TlbEntry::kInvalid;
        if (writable && (entry.write_tag != entry.read_tag || physical.kind != PhysicalMap::PageKind::Ram ||
                         map_.tracker().holds_code(entry.frame()))) {
          return false;
        }
      }
    }
  }
  return true;
}

}  // namespace penumbra
