// A virtio entropy device.
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS), 5.4.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "devices/virtio_device.h"

namespace penumbra {

class VirtioRng : public VirtioDevice {
 public:
  // `entropy` fills its argument, without waiting.
  using Entropy = std::function<void(std::span<std::byte>)>;
  VirtioRng(PhysicalMap& map, Entropy entropy) : map_(map), entropy_(std::move(entropy)) {}

  std::string_view name() const override { return "virtio_rng"; }
  Kind kind() const override { return {.type = 4, .transitional_pci_id = 0x1005, .pci_class = 0x00'ff'00}; }
  uint64_t features() const override { return 0; }
  std::vector<uint16_t> queue_sizes() const override { return {8}; }
  uint8_t read_configuration(unsigned) const override { return 0; }
  void notified(unsigned queue) override;
  void reset() override {}
  DeviceState save() const override { return DeviceState::object(); }
  void load(const DeviceState&) override {}

 private:
  PhysicalMap& map_;
  Entropy entropy_;
};

}  // namespace penumbra
