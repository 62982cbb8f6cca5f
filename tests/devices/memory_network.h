// The network behind a card under test: keeps what the card sends, and hands it frames when the test says so.
#pragma once

#include <deque>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "devices/network_backend.h"

namespace penumbra {

class MemoryNetwork : public NetworkBackend {
 public:
  using Frame = std::vector<std::byte>;
  std::vector<Frame> sent;

  void send(std::span<const std::byte> frame) override { sent.emplace_back(frame.begin(), frame.end()); }
  void set_receiver(Receiver receiver) override { receiver_ = std::move(receiver); }
  void ready() override {
    if (delivering_) return;
    delivering_ = true;
    while (!waiting_.empty() && receiver_(waiting_.front())) waiting_.pop_front();
    delivering_ = false;
  }

  void deliver(Frame frame) {
    waiting_.push_back(std::move(frame));
    ready();
  }
  void take_waiting(const MemoryNetwork& from) { waiting_ = from.waiting_; }
  size_t waiting() const { return waiting_.size(); }

 private:
  Receiver receiver_;
  std::deque<Frame> waiting_;
  bool delivering_ = false;
};

}  // namespace penumbra
