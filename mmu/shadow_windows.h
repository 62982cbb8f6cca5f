// Shadow windows: guest pages mapped into host address space at a fixed distance from their linear address,
// so that a guest access is one host access (design, 4.4).
//
// Fast path of an access at linear address `a`:
//     host = a + table[a >> 32]            64-bit code
//     host = a + table32[a >> 24]          16-bit and 32-bit code
// The table has an entry for each 4 GiB region of the linear address space: the distance to the region's
// chunk (4 GiB of host address space and a guard page, where guest pages are mapped one by one), or kNoChunk,
// which makes every address of the region non-canonical. Entries of regions that are not canonical cannot be
// read. An access therefore reaches a page that fill() has mapped, or faults; there is nothing to compare.
//
// Global pages are mapped in chunks that all address spaces share, for the supervisor. Other pages that user
// mode may access are mapped in chunks of their address space, for user mode and for the supervisor while
// SMAP is lifted. Pages of neither kind have no window: the software TLB serves them.
//
// The first region has a second table with an entry for each 16 MiB, since 32-bit systems have pages of both
// kinds there: an entry leads to the one chunk or to the other.
//
// A window is a TLB: SoftTlb, whose flushes follow SDM vol. 3, 4.10.4, passes each of them on.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
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
};

class ShadowWindows {
 public:
  static constexpr unsigned kRegionShift = 32;
  static constexpr unsigned kSlotShift = 24;  // of table32
  static constexpr uint64_t kSlots = uint64_t{1} << (kRegionShift - kSlotShift);
  static constexpr uint64_t kRegionBytes = uint64_t{1} << kRegionShift;
  static constexpr uint64_t kNoChunk = uint64_t{1} << 62;

  // `spaces`: number of address spaces, as SoftTlb numbers them. `max_mappings`: bound on host mappings, 0 for
  // half of vm.max_map_count. Throws std::runtime_error when the host refuses the address space.
  ShadowWindows(PhysicalMap& map, unsigned spaces, uint64_t max_mappings = 0);
  ~ShadowWindows();
  ShadowWindows(const ShadowWindows&) = delete;
  ShadowWindows& operator=(const ShadowWindows&) = delete;

  // Which code accesses memory: the table that it searches.
  enum class Width : uint8_t { Bits64, Bits32 };

  // What translated code indexes.
  const uint64_t* table(unsigned space, TlbView view, Width width) const;
  static uint64_t index(LinearAddr linear, Width width) {
    return linear.value >> (width == Width::Bits64 ? kRegionShift : kSlotShift);
  }

  // Maps the page of `linear`, for which `translation` is the result of a walk for `view`. False when the
  // access can't be served by a window. Not light: called from the signal handler.
  bool fill(unsigned space, TlbView view, Width width, LinearAddr linear, const Translation& translation,
            bool write);

  // Flushes (SDM vol. 3, 4.10.4), by the rules of the software TLB. Light code.
  void flush_page(unsigned space, LinearAddr page, bool global_too);
  void flush_space(unsigned space);  // not the global pages
  void flush_all();
  void stop_writes_to(PageFrame frame);

  const WindowStats& stats() const { return stats_; }
  uint64_t mappings() const { return mappings_; }

  // For tests: every mapped page leads to the frame that it is recorded for, and none with code is writable.
  bool check_invariants() const;

 private:
  static constexpr uint64_t kPagesOfChunk = kRegionBytes >> kPageShift;
  static constexpr uint64_t kRegionsOfHalf = uint64_t{1} << (47 - kRegionShift);
  static constexpr unsigned kRunPages = 512;  // a large page is mapped in runs of 2 MiB

  static constexpr uint64_t kMaxFrames = uint64_t{1} << 30;

  // What is mapped at a page of a chunk.
  struct PageState {
    uint32_t mapped : 1;
    uint32_t writable : 1;
    uint32_t frame : 30;
  };
  struct Run {
    uint32_t first, count;  // pages of the chunk
  };
  struct Chunk {
    uint64_t region = 0;  // linear address >> kRegionShift
    HostPtr base = nullptr;
    PageState* pages = nullptr;
    bool large = false;  // has pages that stand for a part of a large page: they are flushed together
    std::vector<Run> runs;  // filled since the chunk was emptied; may name pages that are unmapped again
  };
  using ChunkList = std::vector<std::unique_ptr<Chunk>>;

  class Table {
   public:
    Table();
    ~Table();
    Table(const Table&) = delete;
    Table& operator=(const Table&) = delete;
    uint64_t* entries(Width width) { return width == Width::Bits64 ? regions_ : slots_.data(); }
    const uint64_t* entries(Width width) const { return width == Width::Bits64 ? regions_ : slots_.data(); }

   private:
    uint64_t* regions_;
    std::array<uint64_t, kSlots> slots_;
  };
  // Gives the place of `linear` to the chunk unless another chunk has it.
  static void claim(Table& table, Width width, LinearAddr linear, uint64_t delta);
  static uint64_t delta_of(const Chunk& chunk) {
    return reinterpret_cast<uint64_t>(chunk.base) - (chunk.region << kRegionShift);
  }

  Chunk* find(ChunkList& chunks, uint64_t region) const;
  Chunk* make_chunk(ChunkList& chunks, uint64_t region);
  void forget(const Chunk& chunk);
  bool map_run(Chunk& chunk, LinearAddr first, PhysAddr physical, unsigned pages, bool writable);
  void unmap_page(Chunk& chunk, LinearAddr page);
  void empty(Chunk& chunk);
  void protect(Chunk& chunk, uint64_t page);
  void protect_frame(ChunkList& chunks, PageFrame frame, const PageTracker::Writers& writers);
  Table& table_of(unsigned space, TlbView view);

  PhysicalMap& map_;
  uint64_t max_mappings_;
  uint64_t mappings_ = 0;  // upper bound of the host mappings made since everything was dropped
  Table supervisor_;       // global chunks
  struct Space {
    Table user;  // its own chunks
    Table both;  // and the global ones: supervisor, SMAP lifted
    ChunkList chunks;
  };
  std::vector<std::unique_ptr<Space>> spaces_;
  ChunkList global_;
  WindowStats stats_;
};

}  // namespace penumbra
