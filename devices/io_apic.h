// The I/O APIC: 24 interrupt inputs, each turned into a message to local APICs.
//
// Intel 82093AA (290566), with the EOI register of later ones (version 20h), as QEMU's pc machine has it.
// Inputs are told as asserted or not: the polarity bit of an entry is stored, and the wiring is taken to
// agree with it.
#pragma once

#include <array>
#include <cstdint>

#include "devices/apic_message.h"
#include "devices/chip.h"
#include "mmu/physical_map.h"

namespace penumbra {

class IoApic : public Device, public MmioHandler {
 public:
  static constexpr uint64_t kBase = 0xfec0'0000, kBytes = 0x1000;
  static constexpr unsigned kInputs = 24;

  IoApic(PhysicalMap& map, ApicMessageSink send);

  void set_input(unsigned input, bool asserted);
  // A local APIC ended a level-triggered interrupt.
  void end_of_interrupt(uint8_t vector);
  // Whether some input arrives as an NMI.
  bool routes_nmi() const;

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

  // Device: the registers by their offsets, as through memory.
  std::string_view name() const override { return "io_apic"; }
  uint32_t read(uint16_t offset, unsigned size) override {
    return static_cast<uint32_t>(mmio_read(offset, size));
  }
  void write(uint16_t offset, unsigned size, uint32_t value) override { mmio_write(offset, size, value); }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  uint32_t read_register() const;
  void write_register(uint32_t value);
  void write_entry(unsigned input, bool high, uint32_t value);
  void deliver(unsigned input);
  void deliver_level(unsigned input);

  ApicMessageSink send_;
  uint8_t id_ = 0, select_ = 0;
  std::array<uint64_t, kInputs> entries_;
  uint32_t inputs_ = 0;  // asserted ones
};

}  // namespace penumbra
