// Building the physical map: host memory for RAM and ROM, regions. Runs before the guest does.
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

}  // namespace

PhysicalMap::PhysicalMap(uint64_t ram_bytes) : ram_bytes_(ram_bytes) {
  if (ram_bytes < kMinRam || ram_bytes % kPageSize != 0 || ram_bytes > uint64_t{1} << 46) {
    throw std::runtime_error("RAM of " + std::to_string(ram_bytes) + " bytes: not 1 MiB to 64 TiB in whole pages");
  }
  const auto refused = [&](const char* what) {
    const std::string reason = std::strerror(errno);
    if (ram_fd_ >= 0) close(ram_fd_);
    return std::runtime_error("the host refuses " + std::to_string(ram_bytes >> 20) + " MiB of guest RAM (" + what +
                              ": " + reason + ")");
  };
  ram_fd_ = memfd_create("guest-ram", MFD_CLOEXEC);
  if (ram_fd_ < 0) throw refused("memfd_create");
  if (ftruncate(ram_fd_, static_cast<off_t>(ram_bytes)) != 0) throw refused("ftruncate");
  void* memory = mmap(nullptr, ram_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram_fd_, 0);
  if (memory == MAP_FAILED) throw refused("mmap");
  ram_ = static_cast<HostPtr>(memory);
  const uint64_t end = ram_above_4g() ? k4g + ram_above_4g() : ram_below_4g();
  tracker_.resize(end >> kPageShift);
}

PhysicalMap::~PhysicalMap() {
  for (const Region& region : regions_) {
    if (region.host) munmap(region.host, region.bytes);
  }
  munmap(ram_, ram_bytes_);
  close(ram_fd_);
}

void PhysicalMap::add(Region region) {
  const auto text = [](const Region& r) {
    return r.name + " at " + std::to_string(r.start) + ", " + std::to_string(r.bytes) + " bytes";
  };
  if (region.bytes == 0 || (region.start | region.bytes) & kPageOffsetMask ||
      region.start + region.bytes < region.start) {
    throw std::invalid_argument("region " + text(region) + ": not whole pages");
  }
  const auto next = std::ranges::lower_bound(regions_, region.start, {}, &Region::start);
  const bool hits_next = next != regions_.end() && next->start < region.start + region.bytes;
  const bool hits_previous =
      next != regions_.begin() && std::prev(next)->start + std::prev(next)->bytes > region.start;
  if (hits_next || hits_previous) {
    throw std::invalid_argument("region " + text(region) + " overlaps " + text(hits_next ? *next : *std::prev(next)));
  }
  regions_.insert(next, std::move(region));
}

void PhysicalMap::add_rom(PhysAddr start, std::span<const std::byte> image) {
  Region region{.start = start.value, .bytes = image.size(), .name = "rom"};
  void* memory = mmap(nullptr, std::max<size_t>(image.size(), 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("the host refuses memory for a ROM image");
  std::memcpy(memory, image.data(), image.size());
  mprotect(memory, image.size(), PROT_READ);
  region.host = static_cast<HostPtr>(memory);
  try {
    add(std::move(region));
  } catch (...) {
    munmap(memory, image.size());
    throw;
  }
}

void PhysicalMap::add_mmio(PhysAddr start, uint64_t size, MmioHandler& handler, std::string name) {
  add({.start = start.value, .bytes = size, .handler = &handler, .name = std::move(name)});
}

}  // namespace penumbra
