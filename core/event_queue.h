// The one way into the machine for what happens outside (design, 5.4): other threads post, the vCPU's thread
// runs what was posted between two runs of guest code.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <mutex>
#include <vector>

namespace penumbra {

class EventQueue {
 public:
  using Event = std::function<void()>;
  static constexpr size_t kLimit = 1024;

  // Any thread. False, and nothing posted, when kLimit events wait already: the caller holds its input back.
  [[nodiscard]] bool post(Event event);

  // vCPU thread. Runs what was posted before the call; events posted meanwhile wait for the next one.
  void drain();

  // Called on the posting thread after every post. Set before the first post.
  void set_listener(std::function<void()> listener) { listener_ = std::move(listener); }

 private:
  std::mutex mutex_;
  std::vector<Event> waiting_;
  std::vector<Event> running_;  // vCPU thread only
  std::atomic<bool> any_{false};
  std::function<void()> listener_;
};

}  // namespace penumbra
