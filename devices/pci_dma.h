// How a PCI function reaches memory: RAM only, and only while its bus-master enable is set.
//
// Another chip's registers are no target: a chain of chips that write to one another has no end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/pci_config.h"
#include "mmu/physical_map.h"

namespace penumbra {

class PciDma {
 public:
  PciDma(PhysicalMap& map, const PciConfig& config) : map_(map), config_(config) {}

  // False, and nothing moved, when the range is not RAM all over or the function is no bus master now.
  [[nodiscard]] bool read(uint64_t address, std::span<std::byte> to) const {
    if (!allowed(address, to.size())) return false;
    map_.read_bytes(PhysAddr{address}, to);
    return true;
  }
  [[nodiscard]] bool write(uint64_t address, std::span<const std::byte> from) const {
    if (!allowed(address, from.size())) return false;
    map_.write_bytes(PhysAddr{address}, from);
    return true;
  }

 private:
  bool allowed(uint64_t address, size_t bytes) const {
    return config_.bus_master() && map_.is_ram(PhysAddr{address}, bytes);
  }
  PhysicalMap& map_;
  const PciConfig& config_;
};

}  // namespace penumbra
