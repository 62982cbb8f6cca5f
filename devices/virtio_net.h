// A virtio network card.
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS), 5.1. One pair of queues; the card takes every frame (there is no
// control queue to ask for less). Not modelled: segmentation offload, multiqueue, the control queue.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "devices/network_backend.h"
#include "devices/virtio_device.h"

namespace penumbra {

class VirtioNet : public VirtioDevice {
 public:
  VirtioNet(PhysicalMap& map, NetworkBackend& network, const MacAddress& address);

  std::string_view name() const override { return "virtio_net"; }
  Kind kind() const override { return {.type = 1, .transitional_pci_id = 0x1000, .pci_class = 0x02'00'00}; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override;
  uint8_t read_configuration(unsigned offset) const override;
  void start(uint64_t features) override;
  void notified(unsigned queue) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  bool receive(std::span<const std::byte> frame);
  void transmit();
  void send(const VirtqueueBuffer& buffer);
  size_t header_bytes() const;

  PhysicalMap& map_;
  NetworkBackend& network_;
  const MacAddress address_;
  std::optional<uint64_t> agreed_;      // features; none: the driver is not ready
  std::vector<VirtqueueBuffer> spare_;  // taken for a frame that needs more of them
  std::vector<std::byte> frame_;
};

}  // namespace penumbra
