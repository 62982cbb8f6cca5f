// Shadow windows: guest pages mapped into host address space at a fixed distance from their linear address,
// so that a guest access is one host access (design, 4.4).
//
// 64-bit code. The linear address space is cut into regions of 4 GiB. A region in use has a chunk: 4 GiB of
// host address space where guest pages are mapped one by one, between guards of 4 GiB. Translated code
// guesses in which region an address lies, and checks the guess:
//
//     if (address >> 32 != tag[slot]) goto other
//     host = address + displacement + delta[slot]
//
// The displacement may lead out of the region, then the access ends in a guard. The slots of the current
// address space and privilege are in WindowState. `other` finds the delta in a table with an entry for each
// region; kNoChunk there makes every address of the region non-canonical, and entries of regions that are not
// canonical cannot be read.
//
// 16-bit and 32-bit code. Each address space and privilege has one window for all of its 4 GiB, behind the
// host's GS:
//
//     host = gs: address            with guards for base + 8 * index + displacement before it wraps
//
// An access therefore reaches a page that fill() has mapped, or faults; no page is compared.
//
// In the upper half, chunks belong to all address spaces and hold global pages, for the supervisor. In the
// lower half they belong to an address space and hold pages that user mode may access, for user mode and for
// the supervisor while SMAP is lifted. Other pages have no window in 64-bit code: the software TLB serves
// them.
//
// A window is a TLB: SoftTlb, whose flushes follow SDM vol. 3, 4.10.4, passes each of them on.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mmu/address.h"
#include "mmu/page_walker.h"
#include "mmu/physical_map.h"

namespace penumbra {

enum class TlbView : uint8_t;

struct WindowStats {
  uint64_t fills = 0;     // host mappings made
  uint64_t pages = 0;     // guest pages in them
  uint64_t unmapped = 0;  // pages taken away one by one
  uint64_t dropped = 0;   // chunks emptied
  uint64_t resets = 0;    // everything dropped because there were too many host mappings
  uint64_t refusals = 0;  // everything dropped because the host refused one
};

// What translated code reads; part of VcpuState, for the current address space and privilege.
struct WindowState {
  static constexpr unsigned kSlots = 8;
  // As a region: no address in it is canonical, nor is such an address plus any delta.
  static constexpr uint32_t kNoTag = 0x8000'0000;
  static constexpr std::array<uint32_t, kSlots> kNoTags{kNoTag, kNoTag, kNoTag, kNoTag,
                                                        kNoTag, kNoTag, kNoTag, kNoTag};
  // Of the lower half, by how far a region is from its upper end: systems that put stack, libraries and
  // programs of each process at random addresses do so within such distances, and code that processes share
  // guesses a slot.
  static constexpr unsigned slot_of(uint64_t region) {
    constexpr uint64_t kLast = 0x7fff;
    if (region > kLast) return (region ^ region >> 4 ^ region >> 8) & (kSlots - 1);
    const int distance = std::bit_width(kLast - region);
    return distance <= 2 ? 0 : distance <= 9 ? 1 : distance <= 13 ? 2 : distance == 14 ? 3 : 4 + region % 4;
  }

  // Lower half: user mode's, and the supervisor's while SMAP is lifted. Upper half: the supervisor's.
  std::array<uint32_t, kSlots> user_tag = kNoTags, lifted_tag = kNoTags, upper_tag = kNoTags;
  std::array<uint64_t, kSlots> lower_delta{}, upper_delta{};
  const uint64_t* table = nullptr;  // by region; null: no windows
  uint64_t flat = 0;                // host address of linear address 0, for 16-bit and 32-bit code

  // Deltas that a block keeps, by the register that they go with, and of its constant addresses
  // (jit/block_translator.h).
  static constexpr unsigned kKept = 17;
  std::array<uint64_t, kKept> kept{};
  uint64_t found = 0;  // result of helper::window_select

  // What the above was made for.
  unsigned space = ~0u;
  bool lifted = false;
  uint64_t version = 0;
  bool gs_is_flat = false;  // this thread runs translated code: GS follows `flat`
  uint64_t gs = 0;
};

class ShadowWindows {
 public:
  static constexpr unsigned kRegionShift = 32;
  static constexpr uint64_t kRegionBytes = uint64_t{1} << kRegionShift;
  static constexpr uint64_t kNoChunk = uint64_t{1} << 62;
  // How far from an address in its region the displacements and steps of a block may lead.
  static constexpr uint64_t kGuardBytes = uint64_t{4} << 30;

  // `spaces`: number of address spaces, as SoftTlb numbers them. `max_mappings`: bound on host mappings, 0
  // for half of vm.max_map_count. Throws std::runtime_error when the host refuses the address space.
  ShadowWindows(PhysicalMap& map, unsigned spaces, uint64_t max_mappings = 0);
  ~ShadowWindows();
  ShadowWindows(const ShadowWindows&) = delete;
  ShadowWindows& operator=(const ShadowWindows&) = delete;

  // Which code accesses memory: how its windows are found.
  enum class Width : uint8_t { Bits64, Bits32 };
  // Bits32 needs a host that lets user mode write GS (FSGSBASE).
  bool serves(Width width) const { return width == Width::Bits64 || flat_available_; }

  // Brings `state` to an address space and a privilege. Light code.
  void select(WindowState& state, unsigned space, TlbView view, Width width) const;
  // With every change of what select() hands out.
  uint64_t version() const { return version_; }

  // The delta of the region of `linear`, giving it a chunk and a slot if they are free; kNoChunk when the
  // view has no windows there. Not light.
  uint64_t open(unsigned space, TlbView view, LinearAddr linear);
  // The linear address that a chunk of 64-bit code maps at this host address.
  std::optional<LinearAddr> linear_at(uint64_t host) const;

  // Maps the page of `linear`, for which `translation` is the result of a walk for `view`. False when the
  // access can't be served by a window. Not light: called from the signal handler. No delta of a chunk
  // changes.
  bool fill(unsigned space, TlbView view, Width width, LinearAddr linear, const Translation& translation,
            bool write);

  // After fill(): the translations of its neighbours, where they are known; a system touches most of them
  // soon. `first` is a multiple of their size.
  static constexpr unsigned kNeighbours = 16;
  using Neighbours = std::array<std::optional<Translation>, kNeighbours>;
  void fill_around(unsigned space, TlbView view, Width width, LinearAddr first, const Neighbours& pages);

  // Flushes (SDM vol. 3, 4.10.4), by the rules of the software TLB. Light code.
  void flush_page(unsigned space, LinearAddr page, bool global_too);
  void flush_space(unsigned space);  // not the global pages
  void flush_all();
  void stop_writes_to(PageFrame frame);
  void stop_writes_to_range(PageFrame first, uint64_t frames);
  // After flush_space(), where no translated code goes on with deltas that it has: takes back the chunks of
  // an address space that has many, which other guest processes have left. Not light.
  bool has_many_chunks(unsigned space) const { return spaces_[space]->chunks.size() > kKeptChunks; }
  void recycle(unsigned space);

  // The host refused so much that no window is filled any more.
  bool given_up() const { return max_mappings_ < kLeastMappings; }

  const WindowStats& stats() const { return stats_; }
  uint64_t mappings() const { return mappings_; }

  // For tests: every mapped page leads to the frame that it is recorded for, and none with code is writable.
  bool check_invariants() const;
  const uint64_t* table(unsigned space, TlbView view) const;
  uint64_t flat(unsigned space, TlbView view) const;

 private:
  static constexpr uint64_t kPagesOfChunk = kRegionBytes >> kPageShift;
  static constexpr uint64_t kRegionsOfHalf = uint64_t{1} << (47 - kRegionShift);
  static constexpr unsigned kRunPages = 512;  // a large page is mapped in runs of 2 MiB
  static constexpr unsigned kAreaShift = 21;
  static constexpr uint64_t kCellBytes = kRegionBytes + kGuardBytes;
  static constexpr unsigned kCells = 2048;
  // base + 8 * index + displacement
  static constexpr uint64_t kFlatBytes = kGuardBytes + 9 * kRegionBytes + kGuardBytes;
  static constexpr unsigned kMaxChunks = 64, kKeptChunks = 8;  // of one address space
  static constexpr uint64_t kMaxFrames = uint64_t{1} << 28;
  static constexpr uint64_t kLeastMappings = 4 * kRunPages;  // with fewer, windows are not worth their time
  static constexpr unsigned kSparePages = 64;

  // What is mapped at a page of a chunk.
  struct PageState {
    uint32_t mapped : 1;
    uint32_t writable : 1;
    uint32_t global : 1;
    uint32_t listed : 1;  // is a run of its own
    uint32_t frame : 28;
  };
  struct Run {
    uint32_t first, count;  // pages of the chunk
    uint32_t frame;         // of the first one, the others follow; of a single page, PageState knows better
    bool global;
  };
  struct Chunk {
    uint64_t region = 0;  // linear address >> kRegionShift
    HostPtr base = nullptr;
    PageState* pages = nullptr;
    std::vector<Run> runs;  // filled since the chunk was emptied; may name pages that are unmapped again
    // Where a part of a large page is mapped, by 2 MiB: log2 of the page's size. Such pages are flushed
    // together.
    std::array<uint8_t, (kRegionBytes >> kAreaShift)> large{};
  };
  using ChunkList = std::vector<std::unique_ptr<Chunk>>;

  // By region.
  class Table {
   public:
    Table();
    ~Table();
    Table(const Table&) = delete;
    Table& operator=(const Table&) = delete;
    uint64_t& operator[](uint64_t region) { return regions_[region]; }
    const uint64_t* entries() const { return regions_; }

   private:
    uint64_t* regions_;
  };
  struct Slots {
    std::array<uint32_t, WindowState::kSlots> tag = WindowState::kNoTags;
    std::array<uint64_t, WindowState::kSlots> delta{};
  };
  struct Space {
    Table user;  // its own chunks
    Table both;  // and the global ones: supervisor, SMAP lifted
    Slots slots;
    ChunkList chunks;
    std::array<std::unique_ptr<Chunk>, 3> flat;  // by TlbView, for 16-bit and 32-bit code
  };
  static uint64_t delta_of(const Chunk& chunk) {
    return reinterpret_cast<uint64_t>(chunk.base) - (chunk.region << kRegionShift);
  }
  static bool is_upper(uint64_t region) { return region >= (uint64_t{1} << 32) - kRegionsOfHalf; }
  static void claim(Slots& slots, uint64_t region, uint64_t delta);

  const Table& table_of(unsigned space, TlbView view) const;
  Chunk* find(const ChunkList& chunks, uint64_t region) const;
  Chunk* chunk_for(unsigned space, TlbView view, uint64_t region);
  Chunk* make_chunk(ChunkList& chunks, uint64_t region);
  Chunk* make_flat(Space& space, TlbView view);
  static PageState* reserve_pages();
  static bool writable_for(Width width, const Translation& translation);
  static bool has_window(Width width, LinearAddr linear, const Translation& translation);
  Chunk* chunk_of(unsigned space, TlbView view, Width width, LinearAddr linear);
  bool map_run(Chunk& chunk, LinearAddr first, PhysAddr physical, unsigned pages, bool writable, bool global);
  void unmap(Chunk& chunk, uint64_t first, uint64_t pages);
  void flush_page_of(Chunk& chunk, uint64_t page);
  // At the end of whatever may have set refused_: what could not be unmapped or protected must not stay. True
  // if so.
  bool give_way();
  void empty(Chunk& chunk);
  void empty_non_global(Chunk& chunk);
  void protect(Chunk& chunk, uint64_t page);
  void protect_frame(Chunk& chunk, PageFrame frame, const PageTracker::Writers& writers);
  bool check(const Chunk& chunk) const;
  template <class Function>
  void for_each_chunk(Function function) const {
    for (const auto& chunk : global_) function(*chunk);
    for (const auto& space : spaces_) {
      for (const auto& chunk : space->chunks) function(*chunk);
      for (const auto& chunk : space->flat) {
        if (chunk) function(*chunk);
      }
    }
  }

  PhysicalMap& map_;
  uint64_t max_mappings_;
  uint64_t mappings_ = 0;    // upper bound of the host mappings made since everything was dropped
  bool refused_ = false;     // the host has refused to map, unmap or protect
  HostPtr spare_ = nullptr;  // mappings to give back, without which even unmapping may be refused
  bool flat_available_;
  uint64_t version_ = 1;
  HostPtr cells_ = nullptr;  // of chunks: kCells times a guard and a chunk, and a last guard
  std::vector<Chunk*> cell_owner_;
  std::vector<unsigned> free_cells_;
  HostPtr nowhere_ = nullptr;  // a flat window with nothing in it
  Table supervisor_;           // global chunks
  Slots upper_;                // likewise
  std::vector<std::unique_ptr<Space>> spaces_;
  ChunkList global_;
  WindowStats stats_;
};

}  // namespace penumbra
