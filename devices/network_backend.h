// What a network card sees of its network: Ethernet frames both ways, on the vCPU's thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace penumbra {

using MacAddress = std::array<uint8_t, 6>;

class NetworkBackend {
 public:
  // Frames without preamble, padding and frame check sequence. False: the card has no room for it now.
  using Receiver = std::function<bool(std::span<const std::byte> frame)>;

  virtual ~NetworkBackend() = default;

  // A frame from the card; dropped when the network is behind.
  virtual void send(std::span<const std::byte> frame) = 0;

  // Where frames for the card go. One that it had no room for comes again, before all others, after ready().
  virtual void set_receiver(Receiver receiver) = 0;
  // The card has room again. May call the receiver.
  virtual void ready() = 0;
};

}  // namespace penumbra
