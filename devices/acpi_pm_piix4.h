// ACPI power management: PM timer, power button, sleep states, SCI, and the port that switches between ACPI
// and firmware.
//
// Intel 82371AB (PIIX4), 290562, function 3; ACPI 6.4, 4.8 (fixed hardware). As QEMU's pc machine has it:
// general purpose events are at ports AFE0h (the PIIX4's own are in the PM block), and what is written to
// port B2h, which would raise an SMI whose handler switches to ACPI, switches at once. Not modelled: SMM,
// device monitors, clock throttling, and the SMBus host, on which nothing would answer.
#pragma once

#include <cstdint>
#include <functional>

#include "core/io_bus.h"
#include "core/virtual_clock.h"
#include "devices/pci_function.h"

namespace penumbra {

class AcpiPmPiix4 : public PciFunction {
 public:
  static constexpr uint8_t kEnableAcpi = 0xf1, kDisableAcpi = 0xf0;  // for the FADT
  static constexpr uint16_t kBlockPorts = 64, kGpePorts = 4, kApmPorts = 2;
  // Device offsets of the ports: the PM block moves with PMBA, the others stand where the board puts them.
  static constexpr uint16_t kBlock = 0, kGpe = 0x40, kApm = 0x50;
  // SLP_TYP values, for the DSDT.
  static constexpr uint8_t kSoftOff = 0, kHibernate = 2;

  // `sci`: IRQ 9. `power_off`: the machine is to end.
  AcpiPmPiix4(VirtualClock& clock, IoBus& io, LineOutput sci, std::function<void()> power_off);

  // Someone pressed the power button.
  void press_power_button();
  // Where PMBA and PMREGMISC put the PM block; nothing: nowhere.
  std::optional<uint16_t> block() const;
  // What firmware does before it starts an operating system.
  void set_up(uint16_t block, uint8_t interrupt);

  std::string_view name() const override { return "acpi_pm_piix4"; }
  uint32_t read(uint16_t offset, unsigned size) override;
  void write(uint16_t offset, unsigned size, uint32_t value) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  uint8_t read_byte(uint16_t offset);
  void write_byte(uint16_t offset, uint8_t value);
  void write_control(uint16_t value);
  uint64_t ticks() const;
  void note_timer();
  void update();
  bool sci_level() const;

  VirtualClock& clock_;
  IoBus& io_;
  LineOutput sci_;
  std::function<void()> power_off_;
  IoBus::WindowId window_;
  Timer timer_;

  uint16_t status_ = 0, enable_ = 0, control_ = 0;
  uint8_t gpe_status_[2] = {}, gpe_enable_[2] = {};
  uint8_t apm_control_ = 0, apm_status_ = 0;
  uint64_t overflow_seen_ = 0;  // half periods of the timer that TMROF_STS has been set for
  bool sci_driven_ = false;
};

}  // namespace penumbra
