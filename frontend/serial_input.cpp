#include "frontend/serial_input.h"

#include <utility>

namespace penumbra {

size_t SerialInput::room() {
  const std::lock_guard lock(mutex_);
  told_full_ = waiting_.size() == kLimit;
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
  bool reader_waits = false;
  while (true) {
    uint8_t byte;
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.empty()) break;
      byte = waiting_.front();
    }
    if (!receive_(byte)) break;
    const std::lock_guard lock(mutex_);
    waiting_.pop_front();
    reader_waits |= std::exchange(told_full_, false);
  }
  pumping_ = false;
  if (reader_waits && room_listener_) room_listener_();
}

}  // namespace penumbra
