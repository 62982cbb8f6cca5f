// What passes between a card and its network, as a capture file: libpcap's format, version 2.4, link type
// Ethernet.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>

#include "devices/network_backend.h"

namespace penumbra {

class PacketDump final : public NetworkBackend {
 public:
  static constexpr uint32_t kDefaultLimit = 65'536;

  // Frames are cut at `limit` bytes. Throws std::runtime_error when the file cannot be made.
  PacketDump(std::unique_ptr<NetworkBackend> network, const std::string& path, uint32_t limit);

  void send(std::span<const std::byte> frame) override;
  void set_receiver(Receiver receiver) override;
  void ready() override { network_->ready(); }

  // Writes out what waits. A file that cannot grow is told of once, and ends there.
  void flush();
  void set_failure_listener(std::function<void(const std::string& path, int error)> listener) {
    failure_listener_ = std::move(listener);
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void record(std::span<const std::byte> frame);
  void check(bool written);

  const std::string path_;
  const uint32_t limit_;
  std::unique_ptr<std::FILE, Close> file_;  // null: it failed
  std::function<void(const std::string& path, int error)> failure_listener_;
  std::unique_ptr<NetworkBackend> network_;
};

}  // namespace penumbra
