// What threads have ended, on its way to the vCPU's thread.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/event_queue.h"

namespace penumbra {

template <class Item>
class Completions {
 public:
  // `deliver`: on the vCPU's thread, an item after the other in their order.
  Completions(EventQueue& events, std::function<void(Item item)> deliver)
      : events_(events), deliver_(std::move(deliver)) {}

  // Any thread but the vCPU's.
  void push(Item item) {
    std::unique_lock lock(mutex_);
    ended_.push_back(std::move(item));
    // One event is enough for all that ended until it runs.
    if (std::exchange(told_, true)) return;
    while (!stops_ && !events_.post([this] { finish(); })) {
      // The queue is full of other events, which the vCPU is about to take.
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      lock.lock();
    }
  }
  // push() waits for nobody any more.
  void stop() {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }

 private:
  void finish() {
    std::vector<Item> ended;
    {
      const std::lock_guard lock(mutex_);
      ended.swap(ended_);
      told_ = false;
    }
    for (Item& item : ended) deliver_(std::move(item));
  }

  EventQueue& events_;
  const std::function<void(Item item)> deliver_;
  std::mutex mutex_;
  std::vector<Item> ended_;  // guarded by mutex_
  bool told_ = false;        // guarded by mutex_: an event for `ended_` is in the queue
  bool stops_ = false;       // guarded by mutex_
};

}  // namespace penumbra
