// PCI bus 0: which function is at which address, and how the functions' interrupt pins are wired to the four
// PIRQ lines.
//
// PCI Local Bus Specification 3.0, 2.2.6 (a line may be shared) and 3.2.2.3.2. The wiring is the one of
// QEMU's pc machine, which firmware and the ACPI tables count on: PIRQ = (device + pin - 1) modulo 4, pins
// from 0.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "devices/pci_function.h"

namespace penumbra {

class PciBus {
 public:
  static constexpr unsigned kFunctions = 256, kPirqs = 4;
  static constexpr uint8_t address(unsigned device, unsigned function) {
    return static_cast<uint8_t>(device << 3 | function);
  }
  static constexpr unsigned pirq_of(unsigned device, unsigned pin) { return (device + pin + 3) % kPirqs; }

  // `pirq` is told the level of each PIRQ line.
  explicit PciBus(std::function<void(unsigned pirq, bool level)> pirq) : pirq_(std::move(pirq)) {}

  // Throws std::invalid_argument when the place is taken.
  void add(uint8_t address, PciFunction& function);
  PciFunction* at(uint8_t address) const { return functions_[address]; }
  // The first device number from `from` on whose function 0 is free; throws std::invalid_argument when all
  // are taken.
  unsigned free_device(unsigned from) const;

  // The INTA# of a function, high when it is asserted.
  LineOutput interrupt_line(uint8_t address);

  // Functions that are not there read as ones.
  uint32_t read_config(uint8_t address, unsigned offset, unsigned size) const;
  void write_config(uint8_t address, unsigned offset, unsigned size, uint32_t value);

  // Whether some function's message is an NMI.
  bool signals_nmi() const;

  void reset();
  // The levels of the interrupt pins, by function address.
  DeviceState save() const;
  void load(const DeviceState& state);

 private:
  void drive(uint8_t address, bool level);
  std::function<void(unsigned pirq, bool level)> pirq_;
  std::array<PciFunction*, kFunctions> functions_{};
  std::array<bool, kFunctions> asserted_{};
  std::array<unsigned, kPirqs> assertions_{};
};

}  // namespace penumbra
