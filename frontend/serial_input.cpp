#include "frontend/serial_input.h"

namespace penumbra {

size_t SerialInput::room() const {
  const std::lock_guard lock(mutex_);
  return kLimit - waiting_.size();
}

void SerialInput::push(std::span<const uint8_t> bytes) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
    if (posted_ || waiting_.empty()) return;
    posted_ = true;
  }
  const bool accepted = events_.post([this] {
    {
      const std::lock_guard lock(mutex_);
      posted_ = false;
    }
    pump();
  });
  // With a full event queue the bytes go with the next ones.
  if (!accepted) {
    const std::lock_guard lock(mutex_);
    posted_ = false;
  }
}

void SerialInput::pump() {
  if (pumping_) return;
  pumping_ = true;
  bool had_none = false, has_some = false;
  while (true) {
    uint8_t byte;
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.empty()) break;
      byte = waiting_.front();
      had_none |= waiting_.size() >= kLimit;
    }
    if (!receive_(byte)) break;
    const std::lock_guard lock(mutex_);
    waiting_.pop_front();
    has_some = true;
  }
  pumping_ = false;
  if (had_none && has_some && room_listener_) room_listener_();
}

}  // namespace penumbra
