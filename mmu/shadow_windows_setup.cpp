// Reserving host address space for the shadow windows. Runs before the guest does, or in the signal handler.
#include <asm/hwcap2.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "mmu/shadow_windows.h"
#include "mmu/soft_tlb.h"

namespace penumbra {

namespace {

constexpr uint64_t kTableBytes = (uint64_t{1} << 32) * sizeof(uint64_t);

void* reserve(uint64_t bytes, int protection) {
  return mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

uint64_t host_mapping_limit() {
  std::ifstream file("/proc/sys/vm/max_map_count");
  uint64_t limit = 65530;
  file >> limit;
  return limit;
}

[[noreturn]] void refuse(const char* what) {
  throw std::runtime_error(std::string("shadow windows: ") + what + ": " + std::strerror(errno));
}

void* reserve_or_throw(uint64_t bytes) {
  void* const memory = reserve(bytes, PROT_NONE);
  if (memory == MAP_FAILED) refuse("no address space");
  return memory;
}

}  // namespace

// Entries of canonical regions say kNoChunk; those between the halves are not readable, so that probing them
// costs a hostile guest no memory of the host's.
ShadowWindows::Table::Table() {
  regions_ = static_cast<uint64_t*>(reserve_or_throw(kTableBytes));
  constexpr uint64_t kHalfBytes = kRegionsOfHalf * sizeof(uint64_t);
  for (const uint64_t first : {uint64_t{0}, (uint64_t{1} << 32) - kRegionsOfHalf}) {
    if (mprotect(regions_ + first, kHalfBytes, PROT_READ | PROT_WRITE) != 0) {
      const int reason = errno;
      munmap(regions_, kTableBytes);
      errno = reason;
      refuse("no memory for tables");
    }
    for (uint64_t i = 0; i < kRegionsOfHalf; ++i) regions_[first + i] = kNoChunk;
  }
}

ShadowWindows::Table::~Table() {
  munmap(regions_, kTableBytes);
}

ShadowWindows::ShadowWindows(PhysicalMap& map, unsigned spaces, uint64_t max_mappings)
    : map_(map),
      max_mappings_(max_mappings ? max_mappings : host_mapping_limit() / 2),
      flat_available_(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) {
  if (!__builtin_cpu_supports("bmi2")) throw std::runtime_error("shadow windows: the host has no BMI2");
  if (given_up()) throw std::runtime_error("shadow windows: vm.max_map_count is too small");
  if (map_.ram_fd() < 0) {
    errno = map_.ram_fd_error();
    refuse("guest RAM is no file, memfd_create");
  }
  for (unsigned i = 0; i < spaces; ++i) spaces_.push_back(std::make_unique<Space>());
  cells_ = static_cast<HostPtr>(reserve_or_throw(kCells * kCellBytes + kGuardBytes));
  void* const nowhere = reserve(kFlatBytes, PROT_NONE);
  void* const spare = reserve(kSparePages * kPageSize, PROT_READ);
  if (nowhere == MAP_FAILED || spare == MAP_FAILED) {
    const int reason = errno;
    if (nowhere != MAP_FAILED) munmap(nowhere, kFlatBytes);
    munmap(cells_, kCells * kCellBytes + kGuardBytes);
    errno = reason;
    refuse("no address space");
  }
  nowhere_ = static_cast<HostPtr>(nowhere);
  spare_ = static_cast<HostPtr>(spare);
  for (unsigned i = 0; i < kSparePages; i += 2)
    mprotect(spare_ + i * kPageSize, kPageSize, PROT_READ | PROT_WRITE);
  cell_owner_.resize(kCells);
  for (unsigned i = kCells; i-- > 0;) free_cells_.push_back(i);
}

ShadowWindows::~ShadowWindows() {
  for_each_chunk([](Chunk& chunk) { munmap(chunk.pages, kPagesOfChunk * sizeof(PageState)); });
  for (auto& space : spaces_) {
    for (auto& chunk : space->flat) {
      if (chunk) munmap(chunk->base - kGuardBytes, kFlatBytes);
    }
  }
  munmap(cells_, kCells * kCellBytes + kGuardBytes);
  munmap(nowhere_, kFlatBytes);
  if (spare_) munmap(spare_, kSparePages * kPageSize);
}

ShadowWindows::PageState* ShadowWindows::reserve_pages() {
  void* const pages = reserve(kPagesOfChunk * sizeof(PageState), PROT_READ | PROT_WRITE);
  return pages == MAP_FAILED ? nullptr : static_cast<PageState*>(pages);
}

ShadowWindows::Chunk* ShadowWindows::make_chunk(ChunkList& chunks, uint64_t region) {
  if (chunks.size() >= kMaxChunks || free_cells_.empty()) return nullptr;
  PageState* const pages = reserve_pages();
  if (!pages) {
    refused_ = true;
    return nullptr;
  }
  const unsigned cell = free_cells_.back();
  free_cells_.pop_back();
  chunks.push_back(std::make_unique<Chunk>());
  Chunk& chunk = *chunks.back();
  chunk.region = region;
  chunk.base = cells_ + cell * kCellBytes + kGuardBytes;
  chunk.pages = pages;
  cell_owner_[cell] = &chunk;
  return &chunk;
}

ShadowWindows::Chunk* ShadowWindows::make_flat(Space& space, TlbView view) {
  void* const base = reserve(kFlatBytes, PROT_NONE);
  PageState* const pages = base == MAP_FAILED ? nullptr : reserve_pages();
  if (!pages) {
    if (base != MAP_FAILED) munmap(base, kFlatBytes);
    refused_ = true;
    return nullptr;
  }
  auto& chunk = space.flat[static_cast<unsigned>(view)];
  chunk = std::make_unique<Chunk>();
  chunk->base = static_cast<HostPtr>(base) + kGuardBytes;
  chunk->pages = pages;
  ++version_;
  return chunk.get();
}

ShadowWindows::Chunk* ShadowWindows::chunk_for(unsigned space, TlbView view, uint64_t region) {
  const bool upper = is_upper(region);
  if (view == (upper ? TlbView::User : TlbView::Supervisor)) return nullptr;
  if (!upper && region >= kRegionsOfHalf) return nullptr;
  ChunkList& chunks = upper ? global_ : spaces_[space]->chunks;
  Chunk* const chunk = find(chunks, region);
  return chunk ? chunk : make_chunk(chunks, region);
}

void ShadowWindows::claim(Slots& slots, uint64_t region, uint64_t delta) {
  const unsigned slot = WindowState::slot_of(region);
  slots.tag[slot] = static_cast<uint32_t>(region);
  slots.delta[slot] = delta;
}

uint64_t ShadowWindows::open(unsigned space, TlbView view, LinearAddr linear) {
  const uint64_t region = linear.value >> kRegionShift;
  const Chunk* const chunk = given_up() ? nullptr : chunk_for(space, view, region);
  if (!chunk) {
    give_way();
    return kNoChunk;
  }
  const uint64_t delta = delta_of(*chunk);
  Slots& slots = is_upper(region) ? upper_ : spaces_[space]->slots;
  // SAFETY: linear addresses of the region, plus this, are the chunk's host addresses, one to one.
  if (is_upper(region)) {
    supervisor_[region] = delta;
    for (auto& any : spaces_) any->both[region] = delta;
  } else {
    spaces_[space]->user[region] = spaces_[space]->both[region] = delta;
  }
  if (slots.tag[WindowState::slot_of(region)] == WindowState::kNoTag) {
    claim(slots, region, delta);
    ++version_;
  }
  return delta;
}

void ShadowWindows::recycle(unsigned space) {
  Space& owner = *spaces_[space];
  for (auto& chunk : owner.chunks) {
    owner.user[chunk->region] = owner.both[chunk->region] = kNoChunk;
    const auto cell = static_cast<unsigned>(static_cast<uint64_t>(chunk->base - cells_) / kCellBytes);
    cell_owner_[cell] = nullptr;
    free_cells_.push_back(cell);
    munmap(chunk->pages, kPagesOfChunk * sizeof(PageState));
  }
  owner.chunks.clear();
  owner.slots = {};
  ++version_;
}

}  // namespace penumbra
