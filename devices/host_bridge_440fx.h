// The host bridge: configuration mechanism #1, shadow RAM, and the holes in RAM below 1 MiB.
//
// Intel 82441FX PCI and Memory Controller (PMC), 290549, as QEMU's pc machine has it. Not modelled: DRAM
// timing and row registers (stored), SMM (SMRAM stays closed), an attribute "write only" of a PAM segment,
// which shows the board as QEMU does.
#pragma once

#include <array>
#include <cstdint>

#include "devices/pci_bus.h"
#include "devices/pci_function.h"
#include "mmu/physical_map.h"

namespace penumbra {

class HostBridge440fx : public PciFunction {
 public:
  // `isa`: gets what is no access to CONFADD at ports CF8h to CFBh, with its offset from CF8h.
  HostBridge440fx(PhysicalMap& map, PciBus& bus, Device& isa);

  // What system firmware does with the PAM registers when its tables are in shadow RAM: C0000h to FFFFFh are
  // RAM.
  void open_shadow_ram();

  // Offsets from port CF8h: 0 CONFADD, 4 CONFDATA.
  std::string_view name() const override { return "host_bridge_440fx"; }
  uint32_t read(uint16_t offset, unsigned size) override;
  void write(uint16_t offset, unsigned size, uint32_t value) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  static constexpr unsigned kSegments = 13;  // twelve of 16 KiB from C0000h, and F0000h to FFFFFh
  void show_segments();
  bool selected() const;

  PhysicalMap& map_;
  PciBus& bus_;
  Device& isa_;
  uint32_t address_ = 0;
  std::array<PhysicalMap::RegionId, kSegments> segments_;
};

}  // namespace penumbra
