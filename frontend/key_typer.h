// Keys that commands press: sendkey. vCPU thread.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "core/virtual_clock.h"
#include "devices/ps2_keyboard.h"

namespace penumbra {

// QEMU's name of a key: "a", "ret", "ctrl", "f1"; or its number, "0x1c".
std::optional<KeyCode> key_named(std::string_view name);

class KeyTyper {
 public:
  KeyTyper(VirtualClock& clock, std::function<void(KeyCode, bool down)> key)
      : clock_(clock), key_(std::move(key)), timer_(clock, [this] { next(); }) {}

  static constexpr Nanoseconds kUsualHold = 100'000'000;
  // Presses the keys, holds them, and releases them, after what was typed before. False when too much waits.
  bool type(const std::vector<KeyCode>& keys, Nanoseconds hold);

 private:
  struct Step {
    KeyCode code;
    bool down;
    Nanoseconds wait;  // until the next one
  };
  static constexpr size_t kMostSteps = 4096;
  void next();

  VirtualClock& clock_;
  std::function<void(KeyCode, bool down)> key_;
  Timer timer_;
  std::deque<Step> steps_;
};

}  // namespace penumbra
