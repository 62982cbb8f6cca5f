// A virtio 9p transport: a folder that is shared with the guest, by the messages of the 9P protocol.
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS) has its number (5), QEMU its registers (hw/9pfs/virtio-9p.h): the
// mount tag. One queue: a message in the readable part of a buffer, its answer in the writable part.
#pragma once

#include <cstddef>
#include <string>

#include "devices/file_server.h"
#include "devices/virtio_device.h"

namespace penumbra {

class Virtio9p : public VirtioDevice {
 public:
  static constexpr size_t kLongestTag = 32;

  // `tag`: by which the guest mounts it. The server outlives the device's last access.
  Virtio9p(PhysicalMap& map, FileServer& server, std::string tag)
      : map_(map), server_(server), tag_(std::move(tag)) {}

  std::string_view name() const override { return "virtio_9p"; }
  Kind kind() const override { return {.type = 9, .transitional_pci_id = 0x1009, .pci_class = 0x00'02'00}; }
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

  PhysicalMap& map_;
  FileServer& server_;
  const std::string tag_;
  unsigned round_ = 0;  // answers to an earlier one are dropped
  unsigned under_way_ = 0;
  bool used_ = false;  // the server may have something to forget
};

}  // namespace penumbra
