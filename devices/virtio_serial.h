// A virtio console device: serial ports without a line, for consoles and for programs of the guest (by name).
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS), 5.3, with VIRTIO_CONSOLE_F_MULTIPORT. Not modelled: the console's
// size, ports that come and go.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "devices/chip.h"
#include "devices/virtio_device.h"

namespace penumbra {

class VirtioSerial : public VirtioDevice {
 public:
  static constexpr unsigned kMostPorts = 31;

  struct Port {
    unsigned number =
        0;  // below kMostPorts, each once; number 0 is the one that a driver without many ports knows
    bool console = false;  // else for programs, which find it by its name
    std::string name;
    ByteSink out;
  };
  VirtioSerial(PhysicalMap& map, std::vector<Port> ports);

  // vCPU thread: a byte for the guest. False: there is no room, or nobody has opened the port; the room
  // listener tells when to try again.
  [[nodiscard]] bool receive(unsigned number, uint8_t byte);
  void set_room_listener(std::function<void()> listener) { room_listener_ = std::move(listener); }

  std::string_view name() const override { return "virtio_serial"; }
  Kind kind() const override { return {.type = 3, .transitional_pci_id = 0x1003, .pci_class = 0x07'80'00}; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override;
  uint8_t read_configuration(unsigned offset) const override;
  void write_configuration(unsigned offset, uint8_t value) override;
  void start(uint64_t features) override;
  void notified(unsigned queue) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  unsigned most_ports() const;
  const Port* port(unsigned number) const;
  void transmit(unsigned queue);
  void take_control();
  void control(uint32_t number, uint16_t event, uint16_t value);
  void tell(uint32_t number, uint16_t event, uint16_t value, std::string_view text = {});
  void flush_control();

  PhysicalMap& map_;
  const std::vector<Port> ports_;
  std::function<void()> room_listener_;
  bool running_ = false, multiport_ = false;
  uint32_t open_ = 0;                 // by the guest: a bit for each number
  std::deque<std::string> messages_;  // for the guest's control queue
};

}  // namespace penumbra
