// A chip that is a PCI function: registers on the I/O bus as every chip, and a configuration space.
#pragma once

#include <cstddef>
#include <span>

#include "core/device.h"
#include "devices/pci_config.h"
#include "mmu/physical_map.h"

namespace penumbra {

class PciFunction : public Device {
 public:
  explicit PciFunction(const PciConfig::Identity& identity) : config_(identity) {}
  PciFunction(const PciFunction&) = delete;
  PciFunction& operator=(const PciFunction&) = delete;

  PciConfig& config() { return config_; }
  const PciConfig& config() const { return config_; }

  // Whether one of its messages (MSI) is an NMI.
  virtual bool signals_nmi() const { return false; }

  // Firmware's code for the function (PCI Local Bus Specification 3.0, 6.2.5.2 and 6.3); nothing where there
  // is none.
  void add_rom(PhysicalMap& map, std::span<const std::byte> rom);

 protected:
  PciConfig config_;
};

}  // namespace penumbra
