// A virtio memory balloon: pages that the driver puts into it are the host's again, until the guest touches
// them.
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS), 5.5. Not modelled: memory statistics, page poisoning, reporting of
// free pages.
#pragma once

#include <cstdint>

#include "devices/virtio_device.h"

namespace penumbra {

class VirtioBalloon : public VirtioDevice {
 public:
  static constexpr uint64_t kPageBytes = 4096;

  explicit VirtioBalloon(PhysicalMap& map) : map_(map) {}

  // How many bytes the guest is asked to put into it, in whole pages, and how many its driver says that it
  // holds.
  void set_wanted(uint64_t bytes);
  uint64_t held() const { return actual_ * kPageBytes; }

  std::string_view name() const override { return "virtio_balloon"; }
  Kind kind() const override { return {.type = 5, .transitional_pci_id = 0x1002, .pci_class = 0x00'ff'00}; }
  uint64_t features() const override { return 0; }
  std::vector<uint16_t> queue_sizes() const override;
  uint8_t read_configuration(unsigned offset) const override;
  void write_configuration(unsigned offset, uint8_t value) override;
  void notified(unsigned queue) override;
  void reset() override { actual_ = 0; }
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  void inflate(const VirtqueueBuffer& buffer);

  PhysicalMap& map_;
  uint32_t wanted_ = 0, actual_ = 0;  // pages
};

}  // namespace penumbra
