#include "network/packet_dump.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace penumbra {

PacketDump::PacketDump(std::unique_ptr<NetworkBackend> network, const std::string& path, uint32_t limit)
    : path_(path), limit_(limit), file_(std::fopen(path.c_str(), "wbe")), network_(std::move(network)) {
  if (!file_) throw std::runtime_error(path + ": " + std::strerror(errno));
  constexpr uint32_t kMagic = 0xa1b2'c3d4, kVersion = 2 | 4 << 16, kEthernet = 1;
  const std::array<uint32_t, 6> header = {kMagic, kVersion, 0, 0, limit_, kEthernet};
  check(std::fwrite(header.data(), sizeof header, 1, file_.get()) == 1);
}

void PacketDump::send(std::span<const std::byte> frame) {
  record(frame);
  network_->send(frame);
}

void PacketDump::set_receiver(Receiver receiver) {
  network_->set_receiver([this, to = std::move(receiver)](std::span<const std::byte> frame) {
    if (!to(frame)) return false;
    record(frame);
    return true;
  });
}

void PacketDump::record(std::span<const std::byte> frame) {
  if (!file_) return;
  const auto now = std::chrono::duration_cast<std::chrono::microseconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  const auto kept = frame.first(std::min<size_t>(frame.size(), limit_));
  const std::array<uint32_t, 4> header = {
      static_cast<uint32_t>(now / 1'000'000), static_cast<uint32_t>(now % 1'000'000),
      static_cast<uint32_t>(kept.size()), static_cast<uint32_t>(frame.size())};
  check(std::fwrite(header.data(), sizeof header, 1, file_.get()) == 1 &&
        std::fwrite(kept.data(), 1, kept.size(), file_.get()) == kept.size());
}

void PacketDump::flush() {
  if (file_) check(std::fflush(file_.get()) == 0);
}

void PacketDump::check(bool written) {
  if (written) return;
  const int error = errno;
  file_.reset();
  if (failure_listener_) failure_listener_(path_, error);
}

}  // namespace penumbra
