#include "core/event_queue.h"

namespace penumbra {

bool EventQueue::post(Event event) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= kLimit) return false;
    waiting_.push_back(std::move(event));
    any_.store(true, std::memory_order_release);
  }
  if (listener_) listener_();
  return true;
}

void EventQueue::drain() {
  if (!any_.load(std::memory_order_acquire)) return;
  {
    const std::lock_guard lock(mutex_);
    running_.swap(waiting_);
    any_.store(false, std::memory_order_relaxed);
  }
  for (Event& event : running_) event();
  running_.clear();
}

}  // namespace penumbra
