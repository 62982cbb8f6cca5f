// The AHCI controller: six ports for drives, registers in memory and behind an index and data port, MSI.
//
// Intel I/O Controller Hub 9 (316972), chapter 15; Serial ATA AHCI 1.3.1; QEMU's ich9-ahci. Not modelled: the
// legacy IDE mode, command completion coalescing, enclosure management, staggered spin-up.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "core/io_bus.h"
#include "devices/ahci_port.h"
#include "devices/pci_dma.h"
#include "devices/pci_function.h"
#include "devices/pci_msi.h"
#include "mmu/physical_map.h"

namespace penumbra {

class AhciIch9 : public PciFunction, public MmioHandler {
 public:
  static constexpr unsigned kPorts = 6;

  // `name`: of this function on the board.
  AhciIch9(std::string name, PhysicalMap& map, IoBus& io, LineOutput interrupt, MsiSink msi);

  void attach(unsigned port, std::unique_ptr<AtaDrive> drive) { ports_[port].attach(std::move(drive)); }
  AtaDrive* drive(unsigned port) { return ports_[port].drive(); }
  bool signals_nmi() const override { return msi_.signals_nmi(); }

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

  // The index and data port.
  std::string_view name() const override { return name_; }
  uint32_t read(uint16_t offset, unsigned size) override;
  void write(uint16_t offset, unsigned size, uint32_t value) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  uint32_t read_register(uint64_t offset) const;
  void write_register(uint64_t offset, uint32_t value);
  void changed(unsigned port, bool news);
  void collect(bool news);
  bool wants_line() const;
  void update(bool news);

  const std::string name_;
  LineOutput interrupt_;
  PciDma dma_;
  PciMsi msi_;
  std::array<AhciPort, kPorts> ports_;
  uint32_t control_ = 0, status_ = 0;  // GHC, IS
  uint32_t index_ = 0;
  bool line_ = false;
};

}  // namespace penumbra
