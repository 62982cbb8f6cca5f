// What a keyboard and a mouse on a PS/2 port have in common: bytes to the controller wait until it clocks
// them out.
//
// IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller".
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string_view>

#include "devices/chip.h"

namespace penumbra {

class Ps2Device {
 public:
  virtual ~Ps2Device() = default;

  // For the controller.
  virtual void receive(uint8_t byte) = 0;
  // The next byte, if there is one.
  virtual std::optional<uint8_t> take();
  // Called when a byte waits that did not before.
  void set_listener(std::function<void()> listener) { listener_ = std::move(listener); }

  virtual void reset();
  virtual DeviceState save() const;
  virtual void load(const DeviceState& state);

 protected:
  // Commands that both know.
  static constexpr uint8_t kReadId = 0xf2, kEnable = 0xf4, kDisable = 0xf5, kSetDefaults = 0xf6,
                           kResendCommand = 0xfe, kReset = 0xff;
  static constexpr uint8_t kAcknowledge = 0xfa, kSelfTestPassed = 0xaa, kResend = 0xfe;
  static constexpr size_t kRoom = 64;  // bytes: no answer or packet is ever cut

  void send(std::initializer_list<uint8_t> bytes);
  void forget_output() { output_.clear(); }
  size_t waiting() const { return output_.size(); }

 private:
  std::deque<uint8_t> output_;
  uint8_t last_ = 0;  // what was taken last
  std::function<void()> listener_;

 protected:
  void send_again() { send({last_}); }
};

}  // namespace penumbra
