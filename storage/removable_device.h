// A drive whose medium can be taken out and changed, by a person and by the guest.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "core/event_queue.h"
#include "devices/block_device.h"

namespace penumbra {

// All of it on the vCPU's thread.
class RemovableDevice final : public BlockDevice {
 public:
  // Null: no medium.
  RemovableDevice(std::unique_ptr<BlockDevice> medium, EventQueue& events) : events_(events) {
    medium_.device = std::move(medium);
  }

  // Told when the tray has moved, whoever moved it.
  void set_tray_listener(std::function<void(bool open)> listener) { tray_listener_ = std::move(listener); }
  // The old medium lives until what was asked of it has ended.
  void change(std::unique_ptr<BlockDevice> medium);
  // Of a person whom the lock keeps from it.
  void request_eject() { eject_requested_ = true; }

  uint64_t bytes() const override { return there() ? medium_.device->bytes() : 0; }
  bool read_only() const override { return !there() || medium_.device->read_only(); }
  unsigned generation() const override { return generation_; }
  void move_tray(bool open) override;
  bool tray_open() const override { return open_; }
  void lock_tray(bool locked) override { locked_ = locked; }
  bool tray_locked() const override { return locked_; }
  bool take_eject_request() override { return std::exchange(eject_requested_, false); }
  void submit(std::unique_ptr<BlockRequest> request) override;

 private:
  struct Medium {
    std::unique_ptr<BlockDevice> device;
    std::shared_ptr<unsigned> under_way = std::make_shared<unsigned>(0);
  };
  bool there() const { return medium_.device && !open_; }
  void forget_idle();

  EventQueue& events_;
  std::function<void(bool open)> tray_listener_;
  Medium medium_;
  std::vector<Medium> leaving_;
  unsigned generation_ = 0;
  bool open_ = false, locked_ = false, eject_requested_ = false;
};

}  // namespace penumbra
