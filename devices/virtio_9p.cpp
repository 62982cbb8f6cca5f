#include "devices/virtio_9p.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace penumbra {

namespace {
constexpr uint64_t kMountTag = 1u << 0;
constexpr uint16_t kQueueSize = 128;
constexpr unsigned kTagLengthBytes = 2;
}  // namespace

uint64_t Virtio9p::features() const {
  return kMountTag;
}

std::vector<uint16_t> Virtio9p::queue_sizes() const {
  return {kQueueSize};
}

uint8_t Virtio9p::read_configuration(unsigned offset) const {
  if (offset < kTagLengthBytes) return static_cast<uint8_t>(tag_.size() >> 8 * offset);
  return offset - kTagLengthBytes < tag_.size() ? static_cast<uint8_t>(tag_[offset - kTagLengthBytes]) : 0;
}

// A driver may offer the same buffers again before they are given back: what is beyond waits in its queue.
bool Virtio9p::full() const {
  return under_way_ >= kQueueSize;
}

void Virtio9p::notified(unsigned number) {
  while (!full()) {
    auto buffer = queue(number).take();
    if (!buffer) return;
    run(std::move(*buffer));
  }
}

void Virtio9p::run(VirtqueueBuffer buffer) {
  const size_t bytes = buffer.readable_bytes();
  if (bytes == 0 || bytes > FileServer::kMostMessage) return give_back(0, buffer, 0);
  std::vector<std::byte> request(bytes);
  buffer.read(map_, 0, request);
  const size_t room = std::min(buffer.writable_bytes(), FileServer::kMostMessage);
  under_way_++;
  used_ = true;
  server_.submit(std::move(request), room,
                 [this, round = round_, buffer = std::move(buffer)](const std::vector<std::byte>& answer) {
                   const bool was_full = full();
                   under_way_--;
                   if (round != round_) return;
                   give_back(0, buffer, static_cast<uint32_t>(buffer.write(map_, 0, answer)));
                   if (was_full) notified(0);
                 });
}

void Virtio9p::reset() {
  round_++;
  if (std::exchange(used_, false)) server_.reset();
}

// Open files and what the guest calls them are the server's, which keeps them as long as it lives.
DeviceState Virtio9p::save() const {
  if (used_) throw std::logic_error("virtio_9p: saved with a folder that the guest uses");
  return DeviceState::object();
}

void Virtio9p::load(const DeviceState& state) {
  if (!state.is_object()) throw std::invalid_argument("virtio_9p: no saved state");
  reset();
}

}  // namespace penumbra
