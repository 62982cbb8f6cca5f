// A chip that is a PCI function: registers on the I/O bus as every chip, and a configuration space.
#pragma once

#include "core/device.h"
#include "devices/pci_config.h"

namespace penumbra {

class PciFunction : public Device {
 public:
  explicit PciFunction(const PciConfig::Identity& identity) : config_(identity) {}
  PciFunction(const PciFunction&) = delete;
  PciFunction& operator=(const PciFunction&) = delete;

  PciConfig& config() { return config_; }
  const PciConfig& config() const { return config_; }

 protected:
  PciConfig config_;
};

}  // namespace penumbra
