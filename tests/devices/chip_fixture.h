// What the chips' tests share: a clock that the test moves, and recorders for a chip's outputs.
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"
#include "core/virtual_clock.h"

namespace penumbra {

class TestClock {
 public:
  VirtualClock& clock() { return clock_; }
  Nanoseconds now() const { return clock_.now(); }

  // Lets every timer expire at its deadline on the way.
  void advance_to(Nanoseconds time) {
    while (clock_.next_deadline() && *clock_.next_deadline() <= time) {
      if (*clock_.next_deadline() > time_) time_ = *clock_.next_deadline();
      clock_.run_expired();
    }
    if (time > time_) time_ = time;
  }
  void advance(Nanoseconds by) { advance_to(time_ + by); }

  // As a host that was busy: timers expire only now.
  void jump(Nanoseconds by) {
    time_ += by;
    clock_.run_expired();
  }

 private:
  Nanoseconds time_ = 0;
  VirtualClock clock_{[this] { return time_; }};
};

// The far end of a LineOutput.
class TestLine {
 public:
  LineOutput input() {
    return [this](bool level) {
      if (level && !level_) rising_edges_++;
      if (!level && level_) falling_edges_++;
      level_ = level;
    };
  }
  bool level() const { return level_; }
  unsigned rising_edges() const { return rising_edges_; }
  unsigned falling_edges() const { return falling_edges_; }

 private:
  bool level_ = false;
  unsigned rising_edges_ = 0, falling_edges_ = 0;
};

inline uint8_t in(Device& chip, uint16_t offset) {
  return static_cast<uint8_t>(chip.read(offset, 1));
}
inline void out(Device& chip, uint16_t offset, uint8_t value) {
  chip.write(offset, 1, value);
}

}  // namespace penumbra
