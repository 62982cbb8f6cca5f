// Message-signalled interrupts (MSI) of a PCI function: one message, a 64-bit address, no masking.
//
// PCI Local Bus Specification 3.0, 6.8.1.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "devices/apic_message.h"
#include "devices/pci_config.h"

namespace penumbra {

// A write of `data` to an address in FEExxxxxh.
using MsiSink = std::function<void(uint64_t address, uint32_t data)>;

class PciMsi {
 public:
  PciMsi(PciConfig& config, uint8_t capability, MsiSink send)
      : config_(config), capability_(capability), send_(std::move(send)) {
    constexpr uint16_t kWideAddress = 0x0080, kMessagesMask = 0x0070;
    config.add_capability(0x05, capability);
    config.define(at(kControl), 2, kWideAddress, kEnable | kMessagesMask);
    config.define(at(kAddress), 4, 0, 0xffff'fffc);
    config.define(at(kUpperAddress), 4, 0, 0xffff'ffff);
    config.define(at(kData), 2, 0, 0xffff);
  }

  bool enabled() const { return config_.word(at(kControl)) & kEnable; }
  // A message is a bus-master write, which needs the enable of those.
  bool sends() const { return enabled() && config_.bus_master(); }
  bool signals_nmi() const { return sends() && ApicMessage::is_nmi(address(), config_.word(at(kData))); }
  void notify() {
    if (sends()) send_(address(), config_.word(at(kData)));
  }

 private:
  static constexpr uint8_t kControl = 2, kAddress = 4, kUpperAddress = 8, kData = 12;  // in the capability
  static constexpr uint16_t kEnable = 0x0001;
  uint8_t at(uint8_t offset) const { return static_cast<uint8_t>(capability_ + offset); }
  uint64_t address() const {
    return uint64_t{config_.dword(at(kUpperAddress))} << 32 | config_.dword(at(kAddress));
  }

  PciConfig& config_;
  const uint8_t capability_;
  MsiSink send_;
};

}  // namespace penumbra
