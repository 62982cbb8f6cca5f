// Message-signalled interrupts with a table (MSI-X) of a PCI function.
//
// PCI Local Bus Specification 3.0, 6.8.2 and 6.8.3.
#pragma once

#include <cstdint>
#include <vector>

#include "core/device.h"
#include "devices/pci_config.h"
#include "devices/pci_msi.h"
#include "mmu/physical_map.h"

namespace penumbra {

class PciMsix : public MmioHandler {
 public:
  static constexpr uint64_t kBytes = 0x1000;  // of memory: the table, and the pending bits from 800h on
  static constexpr unsigned kMostVectors = 0x800 / 16;

  // `base`: the base address register whose memory is this object's.
  PciMsix(PciConfig& config, uint8_t capability, unsigned base, unsigned vectors, MsiSink send);

  unsigned vectors() const { return static_cast<unsigned>(entries_.size()); }
  bool enabled() const;
  bool signals_nmi() const;
  // Sends the vector's message now, or when it is unmasked.
  void notify(unsigned vector);
  // After a write to the configuration space.
  void config_written();

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

  void reset();
  DeviceState save() const;
  void load(const DeviceState& state);

 private:
  struct Entry {
    uint32_t words[4] = {0, 0, 0, kMasked};  // address, its upper half, data, control
    bool pending = false;
    uint64_t address() const { return uint64_t{words[1]} << 32 | words[0]; }
  };
  static constexpr uint32_t kMasked = 1;
  bool masked(const Entry& entry) const;
  bool sends(const Entry& entry) const;
  void send_pending();
  uint32_t read_dword(uint64_t offset) const;

  PciConfig& config_;
  const uint8_t capability_;
  MsiSink send_;
  std::vector<Entry> entries_;
};

}  // namespace penumbra
