// The monitor on the terminal: Ctrl-A C, and -monitor stdio. A line editor, and the way of its lines to the
// vCPU's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "core/event_queue.h"
#include "frontend/monitor.h"

namespace penumbra {

class ConsoleMonitor {
 public:
  // `say` writes to the terminal; called by either thread. `edits`: the terminal is raw, so that what is
  // typed is shown here.
  ConsoleMonitor(EventQueue& events, Monitor& monitor, bool edits, std::function<void(std::string_view)> say)
      : events_(events), monitor_(monitor), edits_(edits), say_(std::move(say)) {}

  // The thread that reads the terminal. open() begins a session with a prompt.
  void open();
  void feed(uint8_t byte);

 private:
  static constexpr size_t kLongestLine = 4096;
  void show(std::string_view text) {
    if (edits_) say_(text);
  }
  void enter();
  void complete();

  EventQueue& events_;
  Monitor& monitor_;
  const bool edits_;
  std::function<void(std::string_view)> say_;
  std::string line_;
  unsigned escape_ = 0;  // bytes of an escape sequence that were seen
};

}  // namespace penumbra
