// Reserving host address space for the shadow windows. Runs before the guest does, or in the signal handler.
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "mmu/shadow_windows.h"

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

}  // namespace

// Entries of canonical regions say kNoChunk; those between the halves are not readable, so that probing them
// costs a hostile guest no memory of the host's.
ShadowWindows::Table::Table() {
  void* const memory = reserve(kTableBytes, PROT_NONE);
  if (memory == MAP_FAILED) {
    throw std::runtime_error("shadow windows: no address space: " + std::string(std::strerror(errno)));
  }
  regions_ = static_cast<uint64_t*>(memory);
  slots_.fill(kNoChunk);
  constexpr uint64_t kHalfBytes = kRegionsOfHalf * sizeof(uint64_t);
  for (const uint64_t first : {uint64_t{0}, (uint64_t{1} << 32) - kRegionsOfHalf}) {
    mprotect(regions_ + first, kHalfBytes, PROT_READ | PROT_WRITE);
    for (uint64_t i = 0; i < kRegionsOfHalf; ++i) regions_[first + i] = kNoChunk;
  }
}

ShadowWindows::Table::~Table() { munmap(regions_, kTableBytes); }

ShadowWindows::ShadowWindows(PhysicalMap& map, unsigned spaces, uint64_t max_mappings)
    : map_(map), max_mappings_(max_mappings ? max_mappings : host_mapping_limit() / 2) {
  if (!__builtin_cpu_supports("bmi2")) throw std::runtime_error("shadow windows: the host has no BMI2");
  if (max_mappings_ < 4 * kRunPages) throw std::runtime_error("shadow windows: vm.max_map_count is too small");
  for (unsigned i = 0; i < spaces; ++i) spaces_.push_back(std::make_unique<Space>());
}

// Takes an empty chunk out of every table. Another chunk of its region claims the place at its next fill.
void ShadowWindows::forget(const Chunk& chunk) {
  const auto remove = [&](Table& table) {
    uint64_t& entry = table.entries(Width::Bits64)[chunk.region];
    if (entry == delta_of(chunk)) entry = kNoChunk;
    for (uint64_t i = 0; chunk.region == 0 && i < kSlots; ++i) {
      uint64_t& slot = table.entries(Width::Bits32)[i];
      if (slot == delta_of(chunk)) slot = kNoChunk;
    }
  };
  remove(supervisor_);
  for (auto& space : spaces_) {
    remove(space->user);
    remove(space->both);
  }
}

ShadowWindows::Chunk* ShadowWindows::make_chunk(ChunkList& chunks, uint64_t region) {
  constexpr size_t kMaxChunks = 64;  // of one address space: then those that are empty serve other regions
  if (chunks.size() >= kMaxChunks) {
    for (auto& chunk : chunks) {
      if (!chunk->runs.empty()) continue;
      forget(*chunk);
      chunk->region = region;
      return chunk.get();
    }
    return nullptr;
  }
  void* const base = reserve(kRegionBytes + kPageSize, PROT_NONE);
  if (base == MAP_FAILED) return nullptr;
  void* const pages = reserve(kPagesOfChunk * sizeof(PageState), PROT_READ | PROT_WRITE);
  if (pages == MAP_FAILED) {
    munmap(base, kRegionBytes + kPageSize);
    return nullptr;
  }
  chunks.push_back(std::make_unique<Chunk>());
  Chunk& chunk = *chunks.back();
  chunk.region = region;
  chunk.base = static_cast<HostPtr>(base);
  chunk.pages = static_cast<PageState*>(pages);
  return &chunk;
}

}  // namespace penumbra
