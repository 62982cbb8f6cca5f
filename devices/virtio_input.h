// virtio keyboard and tablet: a pointer by its place on the screen.
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS), 5.8; codes of events are those of Linux
// (include/uapi/linux/input-event-codes.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "devices/ps2_keyboard.h"
#include "devices/virtio_device.h"

namespace penumbra {

class VirtioInput : public VirtioDevice {
 public:
  explicit VirtioInput(PhysicalMap& map) : map_(map) {}

  // A driver listens. Any thread.
  bool ready() const { return ready_.load(); }

  Kind kind() const override { return {.type = 18, .transitional_pci_id = 0x1052, .pci_class = 0x09'80'00}; }
  uint64_t features() const override { return 0; }
  std::vector<uint16_t> queue_sizes() const override { return {64, 64}; }
  uint8_t read_configuration(unsigned offset) const override;
  void write_configuration(unsigned offset, uint8_t value) override;
  void start(uint64_t) override { ready_ = true; }
  void notified(unsigned queue) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 protected:
  struct Event {
    uint16_t type, code;
    uint32_t value;
  };
  // Selectors of the configuration (5.8.2).
  enum Select : uint8_t {
    kName = 0x01,
    kDeviceIds = 0x03,
    kProperties = 0x10,
    kEventBits = 0x11,
    kAxis = 0x12
  };
  static constexpr uint16_t kKey = 1, kRelative = 2, kAbsolute = 3, kLights = 0x11;
  using Answer = std::vector<uint8_t>;
  virtual Answer answer(uint8_t select, uint8_t subselect) const = 0;
  static Answer bits(std::span<const uint16_t> numbers);
  // With what ends them; false, and none, while no driver listens or too many wait for it.
  bool send(std::span<const Event> events);

 private:
  static constexpr uint8_t kEvents = 0, kStatus = 1;
  static constexpr size_t kMostWaiting = 1024, kEventBytes = 8;
  void deliver();

  PhysicalMap& map_;
  std::atomic<bool> ready_{false};
  uint8_t select_ = 0, subselect_ = 0;
  std::deque<Event> waiting_;
};

class VirtioKeyboard final : public VirtioInput {
 public:
  using VirtioInput::VirtioInput;
  std::string_view name() const override { return "virtio_keyboard"; }
  void key(KeyCode code, bool down);

 private:
  Answer answer(uint8_t select, uint8_t subselect) const override;
};

class VirtioTablet final : public VirtioInput {
 public:
  static constexpr uint32_t kMost = 0x7fff;  // coordinates of the right and the lower edge

  using VirtioInput::VirtioInput;
  std::string_view name() const override { return "virtio_tablet"; }
  // The pointer is there, `wheel` is rolled towards the user, and these buttons of Ps2Mouse are down.
  void place(uint32_t x, uint32_t y, int wheel, uint8_t buttons);
  void reset() override;

 private:
  Answer answer(uint8_t select, uint8_t subselect) const override;
  uint8_t buttons_ = 0;  // as last told
};

}  // namespace penumbra
