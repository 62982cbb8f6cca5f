// Frames on their way from a network's thread to a card, which takes them on the vCPU's thread.
#pragma once

#include <cstddef>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "core/event_queue.h"
#include "devices/network_backend.h"

namespace penumbra {

class IncomingFrames {
 public:
  // What waits for the card at most; more is dropped, which is what networks do.
  static constexpr size_t kMostFrames = 4096;
  // How soon to call tell() again where told() is false.
  static constexpr int kRetryMilliseconds = 1;

  explicit IncomingFrames(EventQueue& events) : events_(events) {}

  // --- The network's thread
  void add(std::span<const std::byte> frame);
  // Whether the vCPU's thread was told of all frames. It was not when the event queue was full of other
  // things.
  bool told() const { return !untold_; }
  void tell();

  // --- The vCPU's thread: NetworkBackend's
  void set_receiver(NetworkBackend::Receiver receiver) { receiver_ = std::move(receiver); }
  void ready();

 private:
  using Frame = std::vector<std::byte>;
  void take();
  void deliver();

  EventQueue& events_;
  std::mutex mutex_;
  std::deque<Frame> frames_;   // guarded by mutex_
  bool event_posted_ = false;  // guarded by mutex_: an event for `frames_` is in the queue

  // The network's thread
  bool untold_ = false;

  // The vCPU's thread
  NetworkBackend::Receiver receiver_;
  std::deque<Frame> waiting_;  // for room in the card
  bool delivering_ = false;
};

}  // namespace penumbra
