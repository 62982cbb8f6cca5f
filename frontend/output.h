// Bytes that leave the machine through a file descriptor: gathered to lines, never lost.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "frontend/options.h"

namespace penumbra {

// Used by the vCPU's thread only.
class Output {
 public:
  // Creates or truncates `path`. Throws UserError naming it.
  explicit Output(const std::string& path);
  // A descriptor that stays open, standard output. `name` is for messages.
  Output(int fd, std::string name);
  ~Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  // Line ends and a full buffer are written at once; the rest waits for flush().
  void put(uint8_t byte);
  void flush();

  bool empty() const { return buffer_.empty(); }
  // Called when there is something to flush() that was not there before.
  void set_waiting_listener(std::function<void()> listener) { waiting_listener_ = std::move(listener); }
  // Called once, when the host refuses a write; from then on bytes are dropped.
  void set_failure_listener(std::function<void(const Output&, int error)> listener) {
    failure_listener_ = std::move(listener);
  }
  const std::string& name() const { return name_; }
  bool is_standard() const { return !owned_; }

 private:
  static constexpr size_t kLimit = 4096;
  int fd_;
  bool owned_;
  bool failed_ = false;
  std::string name_;
  std::vector<uint8_t> buffer_;
  std::function<void()> waiting_listener_;
  std::function<void(const Output&, int error)> failure_listener_;
};

}  // namespace penumbra
