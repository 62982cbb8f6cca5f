// The thread that listens to the world while the machine runs: the keyboard and signals.
#pragma once

#include <atomic>
#include <csignal>
#include <functional>
#include <string_view>
#include <thread>

#include "core/machine.h"
#include "frontend/console_monitor.h"
#include "frontend/escape_keys.h"
#include "frontend/serial_input.h"

namespace penumbra {

// Blocks the signals that the control thread takes; threads made later inherit that. Restores at destruction.
class BlockedSignals {
 public:
  BlockedSignals();
  ~BlockedSignals();
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;
  const sigset_t& set() const { return set_; }

 private:
  sigset_t set_, previous_;
};

class ControlThread {
 public:
  // `input`: where standard input goes, but for what is typed at `monitor` after Ctrl-A C; null: all of it
  // goes to `monitor`, and if that is null, too, it is not read. With `input`, and standard input a terminal,
  // the terminal is raw while this object lives. `say` writes to the terminal.
  ControlThread(Machine& machine, const BlockedSignals& signals, SerialInput* input, ConsoleMonitor* monitor,
                std::function<void(std::string_view)> say);
  ~ControlThread();
  ControlThread(const ControlThread&) = delete;
  ControlThread& operator=(const ControlThread&) = delete;

  // The signal that ended the machine, or 0.
  int ending_signal() const { return ending_signal_.load(); }

 private:
  void run();
  void read_input();
  void handle_signals();
  void end(int exit_code);
  void suspend();
  void wake();

  Machine& machine_;
  SerialInput* input_;
  ConsoleMonitor* monitor_;
  const std::function<void(std::string_view)> say_;
  bool at_monitor_ = false;
  const bool terminal_;
  int signal_fd_, wake_fd_;
  bool input_open_;
  bool ending_ = false;
  std::chrono::steady_clock::time_point force_time_;
  EscapeKeys keys_;
  std::atomic<int> ending_signal_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace penumbra
