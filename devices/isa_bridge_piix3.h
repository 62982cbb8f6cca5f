// The ISA bridge's PCI side: routing of the PIRQ lines to ISA interrupts.
//
// Intel 82371SB (PIIX3), 290550, function 0. Its ISA chips are devices of their own. Not modelled: X-bus chip
// select, positive decode of ISA memory and DMA through the TOM register (all stored), motherboard interrupt
// and APIC base routing.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "devices/pci_bus.h"
#include "devices/pci_function.h"

namespace penumbra {

class IsaBridgePiix3 : public PciFunction {
 public:
  // `irq`: the level that the bridge drives ISA interrupt line `irq` to.
  explicit IsaBridgePiix3(std::function<void(unsigned irq, bool level)> irq);

  void set_pirq(unsigned pirq, bool level);
  // What firmware writes into PIRQRC.
  void route(unsigned pirq, uint8_t irq);

  // No ports.
  std::string_view name() const override { return "isa_bridge_piix3"; }
  uint32_t read(uint16_t offset, unsigned size) override { return 0xffff'ffff; }
  void write(uint16_t offset, unsigned size, uint32_t value) override {}
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  uint16_t irqs() const;
  void update();
  std::function<void(unsigned irq, bool level)> irq_;
  uint8_t pirqs_ = 0;    // levels
  uint16_t driven_ = 0;  // the lines that are high
};

}  // namespace penumbra
