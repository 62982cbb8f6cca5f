#include "network/incoming_frames.h"

#include <algorithm>
#include <iterator>

namespace penumbra {

// --- The network's thread

void IncomingFrames::add(std::span<const std::byte> frame) {
  {
    const std::lock_guard lock(mutex_);
    if (frames_.size() >= kMostFrames) return;
    frames_.emplace_back(frame.begin(), frame.end());
    if (event_posted_) return;
  }
  tell();
}

// One event is enough for all frames until it runs. A queue that is full of other events is tried again.
void IncomingFrames::tell() {
  {
    const std::lock_guard lock(mutex_);
    if (event_posted_ || frames_.empty()) {
      untold_ = false;
      return;
    }
    event_posted_ = true;
  }
  untold_ = !events_.post([this] { take(); });
  if (!untold_) return;
  const std::lock_guard lock(mutex_);
  event_posted_ = false;
}

// --- The vCPU's thread

void IncomingFrames::ready() {
  if (!waiting_.empty()) deliver();
}

void IncomingFrames::take() {
  {
    const std::lock_guard lock(mutex_);
    event_posted_ = false;
    // A card that takes nothing holds no more than the limit.
    const size_t room = kMostFrames - std::min(kMostFrames, waiting_.size());
    const auto end = frames_.begin() + static_cast<ptrdiff_t>(std::min(room, frames_.size()));
    waiting_.insert(waiting_.end(), std::make_move_iterator(frames_.begin()), std::make_move_iterator(end));
    frames_.clear();
  }
  deliver();
}

// The card calls ready() while it takes a frame, when the guest's descriptors loop frames back.
void IncomingFrames::deliver() {
  if (delivering_) return;
  delivering_ = true;
  while (!waiting_.empty() && (!receiver_ || receiver_(waiting_.front()))) waiting_.pop_front();
  delivering_ = false;
}

}  // namespace penumbra
