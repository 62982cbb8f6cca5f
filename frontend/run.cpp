#include "frontend/run.h"

#include <fmt/format.h>

#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string_view>

#include "frontend/console_monitor.h"
#include "frontend/control_thread.h"
#include "frontend/gdb_server.h"
#include "frontend/monitor_servers.h"
#include "frontend/pc_machine.h"
#include "frontend/state_dump.h"
#include "frontend/stats.h"
#include "frontend/terminal.h"

namespace penumbra {

namespace {

constexpr int kTripleFaultStatus = 1;

// For the crash report; a signal handler has no other way to it.
const VcpuState* crash_state = nullptr;

void say(const char* text, size_t bytes) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, bytes);
}

void report_crash(int signal) {
  static constexpr char kHead[] = "penumbra: internal error: ";
  static constexpr char kState[] = ". The guest's registers as last saved:\n";
  say(kHead, sizeof(kHead) - 1);
  const char* name = sigabbrev_np(signal);
  say("SIG", 3);
  if (name) say(name, std::strlen(name));
  if (!crash_state) return say(".\n", 2);
  say(kState, sizeof(kState) - 1);
  std::array<char, 4096> text;
  say(text.data(), format_registers(*crash_state, text.data(), text.size()));
}

// While the machine runs, there is nobody who could go on without.
[[noreturn]] void end_without_memory() {
  static constexpr char kText[] = "penumbra: the host has no more memory\n";
  terminal::restore();
  say(kText, sizeof(kText) - 1);
  _exit(1);
}

// Dies of the signal that ended the machine, so that a shell sees what happened.
[[noreturn]] void die_of(int signal) {
  std::fflush(nullptr);
  ::signal(signal, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  ::raise(signal);
  _exit(128 + signal);
}

int status_of(ExitReason reason, int exit_code) {
  switch (reason) {
    case ExitReason::Reset:
      return 0;
    case ExitReason::TripleFault:
      return kTripleFaultStatus;
    case ExitReason::Requested:
      break;
  }
  return exit_code;
}

}  // namespace

int run(const RunOptions& options, std::chrono::steady_clock::time_point began) {
  signal(SIGPIPE, SIG_IGN);  // a closed pipe is seen where it is written
  signal(SIGXFSZ, SIG_IGN);  // so is a file that may not grow
  int ending_signal = 0, status = 0;
  {
    PcMachine pc(options);
    // Not before: reading an image from a pipe may have to be interrupted.
    std::optional<BlockedSignals> signals(std::in_place);
    Machine& machine = pc.machine();
    crash_state = &machine.vcpu().state();
    terminal::guard_crashes(report_crash);
    std::set_new_handler(end_without_memory);
    std::unique_ptr<GdbServer> gdb;
    if (options.gdb) {
      gdb = std::make_unique<GdbServer>(machine, pc.monitor_actions(), *options.gdb, [&pc] { pc.flush(); });
    }
    MonitorServers monitors(machine, pc.monitor_actions(), options);
    Monitor console_monitor(machine, pc.monitor_actions());
    const bool takes_commands = pc.input() || (options.monitor && options.monitor->stdio);
    ConsoleMonitor console(machine.events(), console_monitor, pc.input() && isatty(STDIN_FILENO),
                           [&pc](std::string_view text) { pc.say(text); });
    RunTimes times;
    ExitReason reason;
    bool complete;
    {
      const ControlThread control(machine, *signals, pc.input(), takes_commands ? &console : nullptr,
                                  [&pc](std::string_view text) { pc.say(text); });
      const std::unique_ptr<Display> display = pc.make_display();
      machine.reset();
      if (options.paused) machine.pause();
      if (gdb) gdb->start();
      monitors.start();
      times.start = std::chrono::steady_clock::now() - began;
      reason = machine.run();
      complete = pc.finish_output();
      ending_signal = control.ending_signal();
    }
    // Nobody is left who would take them.
    signals.reset();
    status = status_of(reason, machine.exit_code());
    if (gdb) gdb->finish(status);
    gdb.reset();
    monitors.finish();
    times.total = std::chrono::steady_clock::now() - began;
    const bool heard = complete || terminal::takes_output(STDERR_FILENO);
    if (heard && pc.translator().window_refusals() > 0) {
      fmt::print(stderr,
                 "penumbra: note: the host refused to map memory; shadow windows shrank, the software TLB "
                 "served instead\n");
    }
    if (heard && options.stats) std::fputs(stats_text(machine, pc.translator(), times).c_str(), stderr);
    if (ending_signal == 0 && pc.pipe_closed()) ending_signal = SIGPIPE;
    std::set_new_handler(nullptr);
    crash_state = nullptr;
  }
  if (ending_signal != 0) die_of(ending_signal);
  return status;
}

}  // namespace penumbra
