// A TAP interface of the host: the guest's frames appear there, and what the host sends to it reaches the
// guest.
//
// Linux, Documentation/networking/tuntap.rst. Who may not make interfaces is given one (`ip tuntap add user`)
// or its descriptor.
#pragma once

#include <atomic>
#include <string>
#include <thread>

#include "core/event_queue.h"
#include "devices/network_backend.h"
#include "network/incoming_frames.h"

namespace penumbra {

struct TapNetworkOptions {
  std::string interface;  // empty: the host names a new one
  int fd = -1;            // an open one's descriptor, which this takes over; negative: none
};

class TapNetwork final : public NetworkBackend {
 public:
  // Throws std::runtime_error when the host refuses.
  TapNetwork(const TapNetworkOptions& options, EventQueue& events);
  ~TapNetwork() override;

  void send(std::span<const std::byte> frame) override;
  void set_receiver(Receiver receiver) override { incoming_.set_receiver(std::move(receiver)); }
  void ready() override { incoming_.ready(); }

 private:
  void run();

  IncomingFrames incoming_;
  const int fd_, stop_fd_;
  std::thread thread_;
};

}  // namespace penumbra
