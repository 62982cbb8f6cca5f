// Bytes that leave the machine through a file descriptor: gathered to lines and never lost. Whoever puts them
// does not wait: what is no regular file can block its writer for ever (a terminal that nobody reads), so a
// thread of its own writes there.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace penumbra {

// Used by the vCPU's thread, but for what is marked "any thread".
class Output {
 public:
  // How much waits for a reader that is slower than the guest. Slow: a chip that can tell the guest to wait
  // should. Full: the guest must not run on, if nothing is to be lost.
  enum class Pressure : uint8_t { None, Slow, Full };
  static constexpr size_t kSlow = 16 * 1024, kFull = 256 * 1024;

  // Creates or truncates `path`. Throws UserError naming it.
  explicit Output(const std::string& path);
  // A descriptor that stays open, standard output. `name` is for messages.
  Output(int fd, std::string name);
  // Waits until all is written, unless abandon() was called.
  ~Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  // Line ends and a full buffer leave at once; the rest waits for flush().
  void put(uint8_t byte);
  void flush();
  // Any thread: text of the program itself, behind what has left.
  void say(std::string_view text);

  bool empty() const { return buffer_.empty(); }
  // Bytes that left but are not written yet.
  size_t unwritten() const;
  // Waits until all that left is written (or refused), at most that long. False: not all is.
  [[nodiscard]] bool wait_written(std::chrono::milliseconds longest);
  // What is not written yet never will be; what comes later is dropped.
  void abandon();

  Pressure pressure() const { return pressure_; }
  // Called when the pressure changes.
  void set_pressure_listener(std::function<void()> listener) { pressure_listener_ = std::move(listener); }
  // Called when there is something to flush() that was not there before.
  void set_waiting_listener(std::function<void()> listener) { waiting_listener_ = std::move(listener); }
  // Called once, when the host refuses a write; from then on bytes are dropped.
  void set_failure_listener(std::function<void(const Output&, int error)> listener) {
    failure_listener_ = std::move(listener);
  }
  // `listener` is called by the writing thread when attend() should be. False when it could not pass that on:
  // it is called again.
  void set_news_listener(std::function<bool()> listener);
  // Looks at what the writing thread did: pressure and failure.
  void attend();

  const std::string& name() const { return name_; }
  bool is_standard() const { return !owned_; }

 private:
  static constexpr size_t kLimit = 4096;
  struct Channel;
  void open_channel(int fd);

  const bool owned_;
  bool failed_ = false;
  bool abandoned_ = false;
  Pressure pressure_ = Pressure::None;
  std::string name_;
  std::vector<uint8_t> buffer_;
  // Shared with the writing thread, which a blocked write may keep beyond this object's life.
  std::shared_ptr<Channel> channel_;
  std::function<void()> waiting_listener_, pressure_listener_;
  std::function<void(const Output&, int error)> failure_listener_;
};

}  // namespace penumbra
