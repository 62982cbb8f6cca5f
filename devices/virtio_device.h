// What makes a virtio device of a kind (disk, network card, ...), apart from how it is attached.
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS), chapter 5.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "core/device.h"
#include "devices/virtqueue.h"

namespace penumbra {

class VirtioDevice {
 public:
  // Feature bits of all kinds (chapter 6)
  static constexpr uint64_t kIndirectDescriptors = uint64_t{1} << 28, kEventIndex = uint64_t{1} << 29,
                            kVersion1 = uint64_t{1} << 32, kAnyLayout = uint64_t{1} << 27;

  struct Kind {
    uint16_t type;                 // device ID (chapter 5)
    uint16_t transitional_pci_id;  // 4.1.2.1
    uint32_t pci_class;
  };

  // The transport's services. `interrupt`: buffers of a queue were given back.
  struct Transport {
    std::function<void(unsigned queue)> interrupt;
    std::function<void()> configuration_changed;
  };

  virtual ~VirtioDevice() = default;
  virtual std::string_view name() const = 0;
  virtual Kind kind() const = 0;
  virtual uint64_t features() const = 0;  // of the kind; the transport adds its own
  virtual std::vector<uint16_t> queue_sizes() const = 0;

  virtual uint8_t read_configuration(unsigned offset) const = 0;  // beyond the end: 0
  virtual void write_configuration(unsigned offset, uint8_t value) {}

  // Before anything else; `queues` are the transport's.
  void attach(std::vector<Virtqueue>& queues, Transport transport) {
    queues_ = &queues;
    transport_ = std::move(transport);
  }
  // The driver has agreed to these features and is ready.
  virtual void start(uint64_t features) {}
  virtual void notified(unsigned queue) = 0;
  // What is under way is forgotten.
  virtual void reset() = 0;

  virtual DeviceState save() const = 0;
  virtual void load(const DeviceState& state) = 0;

 protected:
  Virtqueue& queue(unsigned number) { return (*queues_)[number]; }
  void give_back(unsigned number, const VirtqueueBuffer& buffer, uint32_t written) {
    if (queue(number).give_back(buffer, written)) transport_.interrupt(number);
  }
  Transport transport_;

 private:
  std::vector<Virtqueue>* queues_ = nullptr;
};

}  // namespace penumbra
