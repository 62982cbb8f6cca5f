// High precision event timer: a 100 MHz counter and three comparators.
//
// IA-PC HPET Specification 1.0a (Intel, 2004), as QEMU's pc machine has it. Not modelled: front side bus
// (MSI) delivery.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "core/virtual_clock.h"
#include "devices/chip.h"
#include "mmu/physical_map.h"

namespace penumbra {

class Hpet : public Device, public MmioHandler {
 public:
  static constexpr uint64_t kBase = 0xfed0'0000, kBytes = 0x1000;
  static constexpr unsigned kTimers = 3;
  static constexpr uint32_t kBlockId = 0x8086'a201;  // of the ACPI table, too: three comparators, 64 bits

  struct Pins {
    std::function<void(unsigned input, bool level)> interrupt;  // an I/O APIC input
    // Timers 0 and 1 in place of the 8254 and the clock (IRQ 0 and 8); and whether they are.
    std::function<void(unsigned irq, bool level)> legacy_interrupt;
    LineOutput legacy;
  };
  Hpet(VirtualClock& clock, PhysicalMap& map, Pins pins);

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

  // Device: the registers by their offsets, as through memory.
  std::string_view name() const override { return "hpet"; }
  uint32_t read(uint16_t offset, unsigned size) override {
    return static_cast<uint32_t>(mmio_read(offset, size));
  }
  void write(uint16_t offset, unsigned size, uint32_t value) override { mmio_write(offset, size, value); }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  struct Comparator {
    uint64_t configuration = 0, comparator = ~uint64_t{0}, period = 0;
    bool level = false;  // of its interrupt line
    std::unique_ptr<Timer> timer;
  };
  uint64_t counter() const;
  uint64_t read_register(uint64_t offset) const;
  void write_register(uint64_t offset, uint64_t value);
  void write_configuration(uint64_t value);
  void write_timer(unsigned number, unsigned which, uint64_t value);
  void write_comparator(Comparator& timer, uint64_t value);
  bool enabled() const;
  bool legacy() const;
  void arm(unsigned number);
  void expired(unsigned number);
  void drive(unsigned number, bool level);
  void interrupt(unsigned number);

  VirtualClock& clock_;
  Pins pins_;
  uint64_t configuration_ = 0;
  uint64_t counter_ = 0;  // when `counter_time_` was, or as it stands still
  Nanoseconds counter_time_ = 0;
  uint32_t status_ = 0;  // of level-triggered timers
  std::array<Comparator, kTimers> timers_;
};

}  // namespace penumbra
