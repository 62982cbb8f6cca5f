// Building the physical map: host memory for RAM and ROM, regions, and what of them is seen.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "mmu/physical_map.h"

namespace penumbra {

namespace {

constexpr uint64_t kMinRam = uint64_t{1} << 20;
constexpr uint64_t k4g = uint64_t{1} << 32;
constexpr uint64_t kPhysicalEnd = uint64_t{1} << 52;  // SDM vol. 3, 4.1.4

}  // namespace

PhysicalMap::PhysicalMap(uint64_t ram_bytes) : ram_bytes_(ram_bytes) {
  if (ram_bytes < kMinRam || ram_bytes % kPageSize != 0 || ram_bytes > uint64_t{1} << 46) {
    throw std::runtime_error("RAM of " + std::to_string(ram_bytes) +
                             " bytes: not 1 MiB to 64 TiB in whole pages");
  }
  ram_fd_ = memfd_create("guest-ram", MFD_CLOEXEC);
  if (ram_fd_ >= 0 && ftruncate(ram_fd_, static_cast<off_t>(ram_bytes)) != 0) {
    ram_fd_error_ = errno;
    close(ram_fd_);
    ram_fd_ = -1;
  } else if (ram_fd_ < 0) {
    ram_fd_error_ = errno;
  }
  // Without a file there is RAM, but no shadow windows (shadow_windows_setup.cpp).
  const int kind = ram_fd_ >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  // The room behind it keeps a chip's memory at the same distance from its place in the file as RAM
  // (ram_offset()).
  void* memory = mmap(nullptr, ram_bytes + kDeviceRamLimit, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  // SAFETY: MAP_FIXED within the reservation just made.
  if (memory != MAP_FAILED && mmap(memory, ram_bytes, PROT_READ | PROT_WRITE,
                                   kind | MAP_NORESERVE | MAP_FIXED, ram_fd_, 0) == MAP_FAILED) {
    const int error = errno;
    munmap(memory, ram_bytes + kDeviceRamLimit);
    memory = MAP_FAILED;
    errno = error;
  }
  if (memory == MAP_FAILED) {
    const std::string reason = std::strerror(errno);
    if (ram_fd_ >= 0) close(ram_fd_);
    throw std::runtime_error("the host refuses " + std::to_string(ram_bytes >> 20) +
                             " MiB of guest RAM (mmap: " + reason + ")");
  }
  ram_ = static_cast<HostPtr>(memory);
  const uint64_t end = ram_above_4g() ? k4g + ram_above_4g() : ram_below_4g();
  tracker_.resize(end >> kPageShift);
  const auto add_ram = [this](uint64_t start, uint64_t bytes, uint64_t offset) {
    if (bytes == 0) return;
    add({.layer = Layer::Ram,
         .start = start,
         .bytes = bytes,
         .host = ram_ + offset,
         .name = "ram",
         .visibility = Visibility::Writable});
  };
  add_ram(0, ram_below_4g(), 0);
  add_ram(k4g, ram_above_4g(), ram_below_4g());
}

PhysicalMap::~PhysicalMap() {
  for (const Region& region : regions_) {
    if (region.owns_host) munmap(region.host, region.bytes);
  }
  munmap(ram_, ram_bytes_ + kDeviceRamLimit);
  if (ram_fd_ >= 0) close(ram_fd_);
}

PhysicalMap::RegionId PhysicalMap::add(Region region) {
  const auto text = [](const Region& r) {
    return r.name + " at " + std::to_string(r.start) + ", " + std::to_string(r.bytes) + " bytes";
  };
  if (region.bytes == 0 || (region.start | region.bytes) & kPageOffsetMask || region.bytes > kPhysicalEnd ||
      region.start > kPhysicalEnd - region.bytes) {
    throw std::invalid_argument("region " + text(region) + ": not whole pages");
  }
  for (const Region& other : regions_) {
    if (region.layer == Layer::Board && other.layer == Layer::Board &&
        other.start < region.start + region.bytes && region.start < other.start + other.bytes) {
      throw std::invalid_argument("region " + text(region) + " overlaps " + text(other));
    }
  }
  regions_.push_back(std::move(region));
  changed();
  return {static_cast<unsigned>(regions_.size() - 1)};
}

PhysicalMap::RegionId PhysicalMap::add_rom(PhysAddr start, std::span<const std::byte> image) {
  return add_image({.start = start.value, .bytes = image.size(), .name = "rom", .owns_host = true}, image);
}

PhysicalMap::RegionId PhysicalMap::add_flash(PhysAddr start, std::span<const std::byte> contents,
                                             MmioHandler& handler, std::string name) {
  return add_image({.start = start.value,
                    .bytes = contents.size(),
                    .handler = &handler,
                    .name = std::move(name),
                    .owns_host = true},
                   contents);
}

PhysicalMap::RegionId PhysicalMap::add_pci_rom(std::span<const std::byte> image) {
  return add_image(
      {.layer = Layer::Pci, .bytes = image.size(), .name = "rom", .placed = false, .owns_host = true}, image);
}

PhysicalMap::RegionId PhysicalMap::add_image(Region region, std::span<const std::byte> image) {
  void* memory = mmap(nullptr, std::max<size_t>(image.size(), 1), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("the host refuses memory for a ROM image");
  std::memcpy(memory, image.data(), image.size());
  // Flash is programmed through device_ram().
  if (!region.handler) mprotect(memory, image.size(), PROT_READ);
  region.host = static_cast<HostPtr>(memory);
  try {
    return add(std::move(region));
  } catch (...) {
    munmap(memory, image.size());
    throw;
  }
}

PhysicalMap::RegionId PhysicalMap::add_mmio(PhysAddr start, uint64_t size, MmioHandler& handler,
                                            std::string name) {
  return add({.start = start.value, .bytes = size, .handler = &handler, .name = std::move(name)});
}

void PhysicalMap::add_hole(PhysAddr start, uint64_t size) {
  add({.layer = Layer::Hole, .start = start.value, .bytes = size, .name = "hole"});
}

PhysicalMap::RegionId PhysicalMap::add_pci_mmio(uint64_t size, MmioHandler& handler, std::string name) {
  return add(
      {.layer = Layer::Pci, .bytes = size, .handler = &handler, .name = std::move(name), .placed = false});
}

PhysicalMap::RegionId PhysicalMap::add_pci_ram(uint64_t size, std::atomic<bool>& written, std::string name) {
  if (size > kDeviceRamLimit - device_ram_bytes_)
    throw std::runtime_error(name + ": too much memory on PCI devices");
  const uint64_t offset = ram_bytes_ + device_ram_bytes_;
  const HostPtr host = ram_ + offset;
  // SAFETY: MAP_FIXED within the room that the constructor reserved behind RAM.
  const bool good = ram_fd_ >= 0
                        ? ftruncate(ram_fd_, static_cast<off_t>(offset + size)) == 0 &&
                              mmap(host, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
                                   ram_fd_, static_cast<off_t>(offset)) != MAP_FAILED
                        : mprotect(host, size, PROT_READ | PROT_WRITE) == 0;
  if (!good) throw std::runtime_error("the host refuses memory for " + name + ": " + std::strerror(errno));
  const RegionId id = add({.layer = Layer::Pci,
                           .bytes = size,
                           .host = host,
                           .name = std::move(name),
                           .visibility = Visibility::Writable,
                           .placed = false,
                           .written = &written});
  device_ram_bytes_ += size;
  return id;
}

std::span<std::byte> PhysicalMap::device_ram(RegionId id) {
  const Region& region = regions_.at(id.index);
  return {region.host, region.bytes};
}

// The flag goes down first: a write through an entry that is still there is one before this call.
void PhysicalMap::watch_writes(RegionId id) {
  const Region& region = regions_.at(id.index);
  region.written->store(false);
  if (region.placed && watch_listener_)
    watch_listener_(PhysAddr{region.start}.frame(), region.bytes >> kPageShift);
}

PhysicalMap::RegionId PhysicalMap::add_shadow(PhysAddr start, uint64_t size) {
  if (start.value > ram_below_4g() || size > ram_below_4g() - start.value) {
    throw std::invalid_argument("shadow RAM beyond the end of RAM");
  }
  return add({.layer = Layer::Shadow,
              .start = start.value,
              .bytes = size,
              .host = ram_ + start.value,
              .name = "shadow RAM",
              .visibility = Visibility::Hidden});
}

void PhysicalMap::place(RegionId id, std::optional<PhysAddr> start) {
  Region& region = regions_.at(id.index);
  const bool placed = start && start->page_offset() == 0 && start->value < kPhysicalEnd &&
                      region.bytes <= kPhysicalEnd - start->value;
  if (placed == region.placed && (!placed || start->value == region.start)) return;
  region.placed = placed;
  if (placed) region.start = start->value;
  changed();
}

void PhysicalMap::set_direct_reads(RegionId id, bool direct) {
  Region& region = regions_.at(id.index);
  if (region.direct_reads == direct) return;
  region.direct_reads = direct;
  changed();
}

void PhysicalMap::show(RegionId id, Visibility visibility) {
  Region& region = regions_.at(id.index);
  if (region.visibility == visibility) return;
  region.visibility = visibility;
  changed();
}

void PhysicalMap::changed() {
  std::vector<Range> before = std::move(ranges_);
  compute_ranges();
  announce_changes(before);
}

// Between two neighbouring edges of regions, one region is seen everywhere.
void PhysicalMap::compute_ranges() {
  std::vector<uint64_t> edges;
  for (const Region& region : regions_) {
    edges.push_back(region.start);
    edges.push_back(region.start + region.bytes);
  }
  std::ranges::sort(edges);
  ranges_.clear();
  for (size_t i = 1; i < edges.size(); ++i) {
    const uint64_t start = edges[i - 1], end = edges[i];
    if (start == end) continue;
    const Region* seen = nullptr;
    for (const Region& region : regions_) {
      if (!region.placed || region.visibility == Visibility::Hidden || start - region.start >= region.bytes)
        continue;
      if (!seen || region.layer > seen->layer) seen = &region;
    }
    if (!seen || (!seen->host && !seen->handler)) continue;
    const uint64_t offset = start - seen->start;
    ranges_.push_back({.start = start,
                       .end = end,
                       .host = seen->host && seen->direct_reads ? seen->host + offset : nullptr,
                       .handler = seen->handler,
                       .region_offset = offset,
                       .writable = seen->visibility == Visibility::Writable,
                       .written = seen->written});
  }
}

// Code that was translated from pages that show something else now is gone, as if it had been written over.
void PhysicalMap::announce_changes(const std::vector<Range>& before) {
  std::vector<uint64_t> edges;
  const auto add_edges = [&edges](const std::vector<Range>& ranges) {
    for (const Range& range : ranges) {
      edges.push_back(range.start);
      edges.push_back(range.end);
    }
  };
  add_edges(before);
  add_edges(ranges_);
  std::ranges::sort(edges);
  // What is seen there: a byte's address in the host, if it has one; chips and nothing are null.
  const auto host_at = [](const Range* range, uint64_t physical) {
    return range && range->host ? range->host + (physical - range->start) : nullptr;
  };
  bool untracked_code = false;
  for (size_t i = 1; i < edges.size(); ++i) {
    const uint64_t start = edges[i - 1], end = edges[i];
    if (start == end) continue;
    const HostPtr was = host_at(find(before, start), start);
    if (was == host_at(find(ranges_, start), start)) continue;
    const uint64_t tracked_end = std::min(end >> kPageShift, tracker_.frame_count());
    for (uint64_t frame = start >> kPageShift; frame < tracked_end; ++frame) {
      tracker_.before_write({frame}, 0, kPageSize);
    }
    untracked_code |= was && end >> kPageShift > tracker_.frame_count() && tracker_.holds_untracked_code();
  }
  if (change_listener_) change_listener_(untracked_code);
}

}  // namespace penumbra
