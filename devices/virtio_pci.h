// A virtio device on the PCI bus, for drivers of today and for those from before the standard (transitional).
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS), 4.1. Base addresses as QEMU has them: 0 the legacy registers, 1
// the MSI-X table, 4 the registers of today. Not modelled: packed virtqueues, notification data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/io_bus.h"
#include "devices/pci_function.h"
#include "devices/pci_msix.h"
#include "devices/virtio_device.h"
#include "mmu/physical_map.h"

namespace penumbra {

class VirtioPci : public PciFunction, public MmioHandler {
 public:
  // `name`: of this function on the board.
  VirtioPci(std::string name, std::unique_ptr<VirtioDevice> device, PhysicalMap& map, IoBus& io,
            LineOutput interrupt, MsiSink msi);

  VirtioDevice& device() { return *device_; }
  bool signals_nmi() const override { return msix_ && msix_->signals_nmi(); }

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

  // The legacy registers.
  std::string_view name() const override { return name_; }
  uint32_t read(uint16_t offset, unsigned size) override;
  void write(uint16_t offset, unsigned size, uint32_t value) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  uint64_t offered_features() const;
  uint64_t read_common(uint64_t offset, unsigned size);
  void write_common(uint64_t offset, uint64_t value);
  uint64_t read_device(uint64_t offset, unsigned size) const;
  void write_device(uint64_t offset, unsigned size, uint64_t value);
  void write_status(uint8_t value);
  void features_accepted();
  void notify(unsigned queue);
  void interrupt(unsigned queue);
  void configuration_changed();
  void raise(uint8_t cause, uint16_t vector);
  uint8_t take_isr();
  void update_line();
  void reset_device();
  void check_queues();
  uint16_t checked_vector(uint16_t vector) const;
  unsigned legacy_configuration() const;
  Virtqueue* selected() { return queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr; }
  void access_window(unsigned offset, unsigned size);

  const std::string name_;
  std::unique_ptr<VirtioDevice> device_;
  LineOutput interrupt_;
  std::unique_ptr<PciMsix> msix_;
  std::vector<Virtqueue> queues_;

  uint8_t status_ = 0, isr_ = 0, generation_ = 0;
  uint32_t offered_select_ = 0, accepted_select_ = 0;
  uint64_t accepted_ = 0;
  uint16_t configuration_vector_ = 0xffff, queue_select_ = 0;
  bool line_ = false;
};

}  // namespace penumbra
