// The software TLB: what translated code searches inline, and what C++ uses for guest memory.
//
// Fast path of an access of `size` bytes at linear address `a`, as translated code does it:
//     entry = view + ((a >> 12) & (kEntries - 1))
//     if (entry->read_tag != ((a + size - 1) & ~0xfff)) goto miss     (write_tag for writes)
//     host  = a + entry->addend
// The tag of the last byte's page is compared with the entry of the first byte's page, so an access that
// crosses a page always misses. Only RAM and readable ROM pages have entries; MMIO always misses. A write tag
// is present only when the page is dirty already and holds no translated code.
//
// Entries live in address spaces (one per recently used PCID, so that a CR3 change with PCID keeps them),
// each with one view per privilege. Flush rules: SDM vol. 3, 4.10.4.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "mmu/address.h"
#include "mmu/page_walker.h"
#include "mmu/physical_map.h"
#include "mmu/shadow_windows.h"
#include "mmu/watched_pages.h"

namespace penumbra {

struct TlbEntry {
  static constexpr uint64_t kInvalid = ~uint64_t{0};  // not page aligned: equals no page
  uint64_t read_tag = kInvalid;
  uint64_t write_tag = kInvalid;
  uint64_t addend = 0;  // host address minus linear address, modulo 2^64
  uint64_t info = 0;    // page frame number << 12 | kGlobal | kFetch | kWritable

  static constexpr uint64_t kGlobal = 1;  // survives a CR3 change
  static constexpr uint64_t kFetch = 2;   // this view may execute the page
  static constexpr uint64_t kWritable =
      4;  // RAM that this view may write, dirty already; no write tag: it holds code
  PageFrame frame() const { return {info >> kPageShift}; }
};
static_assert(sizeof(TlbEntry) == 32);

// Who accesses memory: selects the permissions that were checked when an entry was filled.
enum class TlbView : uint8_t { User, Supervisor, SupervisorAc };  // Ac: SMAP lifted by EFLAGS.AC
inline constexpr unsigned kTlbViews = 3;

constexpr Privilege privilege_of(TlbView view) {
  return {.user = view == TlbView::User, .ac = view == TlbView::SupervisorAc};
}

struct TlbStats {
  uint64_t fills = 0;
  uint64_t page_flushes = 0;
  uint64_t space_flushes = 0;
  uint64_t full_flushes = 0;
};

// Told when linear-to-physical mappings of code may have changed, so that caches of host code keyed by linear
// address (jump cache) follow. Called for every flush.
class MappingListener {
 public:
  virtual ~MappingListener() = default;
  // [first, first + bytes), in every address space.
  virtual void pages_unmapped(LinearAddr first, uint64_t bytes) = 0;
  virtual void space_flushed(unsigned space) = 0;  // non-global mappings of one address space
  virtual void all_flushed() = 0;
};

class SoftTlb {
 public:
  static constexpr unsigned kEntries = 8192;  // per view
  static constexpr unsigned kSpaces = 8;      // address spaces kept, least recently used goes first

  explicit SoftTlb(PhysicalMap& map);

  // The entries of one view of the current address space; translated code indexes them.
  TlbEntry* view(TlbView view) {
    return spaces_[current_]->views[static_cast<unsigned>(view)].entries.data();
  }
  unsigned current_space() const { return current_; }

  static unsigned index_of(LinearAddr address) { return (address.value >> kPageShift) & (kEntries - 1); }
  TlbEntry& entry(TlbView view_kind, LinearAddr address) { return view(view_kind)[index_of(address)]; }

  // Records a successful walk of `address` for `view`. MMIO and unclaimed pages are not recorded.
  void fill(TlbView view, LinearAddr address, const Translation& translation);

  // MOV CR3 and mode changes. `pcid` 0 to 4095; keep: CR3 bit 63 was set (or the space is being re-entered
  // without a flush), else non-global entries of that PCID are flushed.
  void switch_space(uint16_t pcid, bool keep);
  void flush_page(LinearAddr address);              // INVLPG: every space, global entries too
  void flush_pcid_page(uint16_t pcid, LinearAddr);  // INVPCID 0: not global entries
  void flush_pcid(uint16_t pcid);                   // INVPCID 1: not global entries
  void flush_all();                                 // INVPCID 2, CR0/CR4/EFER changes
  void flush_all_non_global();                      // INVPCID 3

  // A frame starts to hold translated code: direct writes to it end.
  void stop_writes_to(PageFrame frame);
  // A chip's memory is watched (PhysicalMap::watch_writes()): the next write to each of these frames is seen.
  // Not light.
  void stop_writes_to_range(PageFrame first, uint64_t frames);

  // A second way from linear to host addresses, kept coherent by the same flushes. Null: none.
  void set_windows(ShadowWindows* windows) { windows_ = windows; }
  // ShadowWindows::fill() for the current address space. While anything is watched no window is filled: every
  // access must come to where watchpoints are compared.
  bool fill_window(TlbView view, ShadowWindows::Width width, LinearAddr linear,
                   const Translation& translation, bool write) {
    if (!windows_ || (watched_ && watched_->any())) return false;
    return windows_->fill(current_, view, width, linear, translation, write);
  }
  // ShadowWindows::fill_around(), after a fill_window() for one of the pages.
  void fill_window_around(TlbView view, ShadowWindows::Width width, LinearAddr first,
                          const ShadowWindows::Neighbours& pages) {
    windows_->fill_around(current_, view, width, first, pages);
  }
  // ShadowWindows::open(), likewise. False: there are no windows.
  bool open_window(TlbView view, LinearAddr linear) {
    if (!windows_ || (watched_ && watched_->any())) return false;
    return windows_->open(current_, view, linear) != ShadowWindows::kNoChunk;
  }
  // ShadowWindows::select() for the current address space.
  void select_windows(WindowState& state, TlbView view, ShadowWindows::Width width) const {
    if (windows_) windows_->select(state, current_, view, width);
  }

  void set_listener(MappingListener* listener) { listener_ = listener; }
  // Pages that get no entry for the accesses to be seen. Whoever changes them flushes.
  void set_watched(const WatchedPages* watched) { watched_ = watched; }
  const TlbStats& stats() const { return stats_; }

  // For tests: every valid entry stands at its index, points into the page it names, and lets nobody write
  // to ROM or translated code.
  bool check_invariants() const;

 private:
  // One view of a space, and the indices filled since its last flush, so that a flush costs what was used.
  struct View {
    static constexpr unsigned kLogged = 2048;
    std::array<TlbEntry, kEntries> entries;
    std::array<uint16_t, kLogged> filled;
    unsigned filled_count = 0;  // above kLogged: any index may be in use

    void note(unsigned index);
    template <class Function>
    void for_each_filled(Function function);
  };
  // Addresses in which something happened, by a hash: no false negatives.
  struct Footprint {
    std::array<uint64_t, 64> bits{};
    static unsigned hash(uint64_t number) { return (number ^ (number >> 12)) & 4095; }
    void add(uint64_t number) { bits[hash(number) >> 6] |= uint64_t{1} << (hash(number) & 63); }
    bool has(uint64_t number) const { return bits[hash(number) >> 6] >> (hash(number) & 63) & 1; }
  };
  static constexpr std::array<unsigned, 3> kLargeShifts{21, 22, 30};
  struct Space {
    uint16_t pcid = 0;
    bool used = false;
    uint64_t last_use = 0;
    std::array<View, kTlbViews> views;
    std::array<Footprint, kLargeShifts.size()> large;  // large pages with entries here, by page size
  };
  static void flush(View& view, bool keep_global);
  static void flush(Space& space, bool keep_global);
  static unsigned flush_page_in(Space& space, LinearAddr page, bool keep_global);
  unsigned space_of(uint16_t pcid) const;  // kSpaces: none
  void flushed_page(LinearAddr page, unsigned shift);

  PhysicalMap& map_;
  std::array<std::unique_ptr<Space>, kSpaces> spaces_;
  // Where any space has global entries: by 2 MiB, and by 1 GiB for those of pages that are larger than 2 MiB.
  Footprint global_areas_;
  Footprint global_gigabytes_;
  unsigned current_ = 0;
  uint64_t use_counter_ = 0;
  MappingListener* listener_ = nullptr;
  ShadowWindows* windows_ = nullptr;
  const WatchedPages* watched_ = nullptr;
  TlbStats stats_;
};

}  // namespace penumbra
