// What a 9p device sees of the server behind it: messages that are answered later, on the vCPU's thread.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace penumbra {

class FileServer {
 public:
  static constexpr size_t kMostMessage = 512 * 1024;  // bytes, of either direction

  virtual ~FileServer() = default;

  // Takes a message, and calls `done` once with its answer of up to `room` bytes; an empty one: there is no
  // answer. Messages are answered in their order.
  using Answer = std::function<void(const std::vector<std::byte>& answer)>;
  virtual void submit(std::vector<std::byte> request, size_t room, Answer done) = 0;
  // The guest has forgotten all of it. What was submitted before is answered all the same.
  virtual void reset() = 0;
};

}  // namespace penumbra
