// A virtio disk.
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS), 5.2. One queue. Not modelled: SCSI passthrough, reading and
// writing of the write cache's mode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "devices/block_device.h"
#include "devices/virtio_device.h"

namespace penumbra {

class VirtioBlk : public VirtioDevice {
 public:
  VirtioBlk(PhysicalMap& map, BlockDevice& medium, std::string serial, BlockSizes sizes = {});

  std::string_view name() const override { return "virtio_blk"; }
  Kind kind() const override { return {.type = 2, .transitional_pci_id = 0x1001, .pci_class = 0x01'00'00}; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override;
  uint8_t read_configuration(unsigned offset) const override;
  void notified(unsigned queue) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  bool full() const;
  void run(VirtqueueBuffer buffer);
  void submit(VirtqueueBuffer buffer, std::unique_ptr<BlockRequest> request);
  void end(const VirtqueueBuffer& buffer, uint8_t status, uint32_t written);

  PhysicalMap& map_;
  BlockDevice& medium_;
  const std::string serial_;
  const BlockSizes sizes_;
  unsigned round_ = 0;  // requests of an earlier one are forgotten
  unsigned under_way_ = 0;
  size_t bytes_under_way_ = 0;
};

}  // namespace penumbra
