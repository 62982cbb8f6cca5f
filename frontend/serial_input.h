// Bytes on their way from the outside to a UART: a bounded queue between the thread that reads them and the
// vCPU's thread, which hands them over as the UART has room.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>

#include "core/event_queue.h"

namespace penumbra {

class SerialInput {
 public:
  static constexpr size_t kLimit = 4096;

  // `receive`: gives the UART a byte; false when it has no room. Called on the vCPU's thread.
  SerialInput(EventQueue& events, std::function<bool(uint8_t)> receive)
      : events_(events), receive_(std::move(receive)) {}

  // Reading thread: how many bytes push() takes.
  size_t room();
  void push(std::span<const uint8_t> bytes);
  // Called on the vCPU's thread when there is room again after room() said that there is none.
  void set_room_listener(std::function<void()> listener) { room_listener_ = std::move(listener); }

  // vCPU thread: the UART has room again.
  void pump();

 private:
  EventQueue& events_;
  std::function<bool(uint8_t)> receive_;
  std::function<void()> room_listener_;
  std::mutex mutex_;
  std::deque<uint8_t> waiting_;
  bool told_full_ = false;  // the reader waits for the room listener
  bool posted_ = false;     // an event that pumps is on its way
  bool pumping_ = false;    // vCPU thread: the UART calls its room listener out of receive()
};

}  // namespace penumbra
