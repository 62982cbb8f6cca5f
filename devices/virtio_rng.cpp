#include "devices/virtio_rng.h"

#include <algorithm>

namespace penumbra {

// 5.4.6: a buffer may be given back with less than it has room for.
void VirtioRng::notified(unsigned number) {
  constexpr size_t kMostBytes = 65'536;
  while (auto buffer = queue(number).take()) {
    std::vector<std::byte> bytes(std::min(buffer->writable_bytes(), kMostBytes));
    entropy_(bytes);
    give_back(number, *buffer, static_cast<uint32_t>(buffer->write(map_, 0, bytes)));
  }
}

}  // namespace penumbra
