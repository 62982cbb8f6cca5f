#include "devices/pci_bus.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "devices/chip.h"

namespace penumbra {

void PciBus::add(uint8_t address, PciFunction& function) {
  if (functions_[address]) {
    throw std::invalid_argument(std::string(function.name()) + ": its PCI address has " +
                                std::string(functions_[address]->name()));
  }
  functions_[address] = &function;
}

unsigned PciBus::free_device(unsigned from) const {
  for (unsigned device = from; device < kFunctions / 8; device++) {
    if (!functions_[address(device, 0)]) return device;
  }
  throw std::invalid_argument("the PCI bus has no place for another device");
}

LineOutput PciBus::interrupt_line(uint8_t address) {
  return [this, address](bool level) { drive(address, level); };
}

void PciBus::drive(uint8_t address, bool level) {
  if (asserted_[address] == level) return;
  asserted_[address] = level;
  const unsigned pirq = pirq_of(address >> 3, 0);
  unsigned& count = assertions_[pirq];
  const bool was = count != 0;
  level ? count++ : count--;
  if (was != (count != 0)) pirq_(pirq, level);
}

uint32_t PciBus::read_config(uint8_t address, unsigned offset, unsigned size) const {
  const PciFunction* function = functions_[address];
  return function ? function->config().read(offset, size) : 0xffff'ffff;
}

void PciBus::write_config(uint8_t address, unsigned offset, unsigned size, uint32_t value) {
  if (PciFunction* function = functions_[address]) function->config().write(offset, size, value);
}

bool PciBus::signals_nmi() const {
  return std::ranges::any_of(functions_,
                             [](const PciFunction* function) { return function && function->signals_nmi(); });
}

void PciBus::reset() {
  for (unsigned address = 0; address < kFunctions; address++) drive(static_cast<uint8_t>(address), false);
}

DeviceState PciBus::save() const {
  DeviceState asserted = DeviceState::array();
  for (unsigned address = 0; address < kFunctions; address++) {
    if (asserted_[address]) asserted.push_back(address);
  }
  return {{"version", 1}, {"asserted", asserted}};
}

// Who receives the PIRQs has a state of its own.
void PciBus::load(const DeviceState& state) {
  require_version(state, 1, "pci_bus");
  std::array<bool, kFunctions> asserted{};
  for (const DeviceState& address : state.at("asserted")) {
    const auto number = address.get<unsigned>();
    if (number >= kFunctions) throw std::invalid_argument("pci_bus: saved state: no such function");
    asserted[number] = true;
  }
  asserted_ = asserted;
  assertions_ = {};
  for (unsigned address = 0; address < kFunctions; address++)
    assertions_[pirq_of(address >> 3, 0)] += asserted_[address];
}

}  // namespace penumbra
