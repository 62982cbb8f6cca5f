#include "frontend/terminal.h"

#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>

namespace penumbra::terminal {

namespace {

constexpr int kCrashSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP};

termios saved;
std::atomic<bool> raw{false};
void (*report_crash)(int signal) = nullptr;

void on_crash(int signal) {
  restore();
  ::signal(signal, SIG_DFL);
  if (report_crash) report_crash(signal);
  // A fault repeats when this handler returns, an abort() goes on; raise() is for signals that were sent.
  ::raise(signal);
}

// A process in the background is stopped by SIGTTOU when it changes the terminal, even to put it right.
class BlockTtou {
 public:
  BlockTtou() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &set, &previous_);
  }
  ~BlockTtou() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }
  BlockTtou(const BlockTtou&) = delete;
  BlockTtou& operator=(const BlockTtou&) = delete;

 private:
  sigset_t previous_;
};

}  // namespace

void guard_crashes(void (*report)(int signal)) {
  report_crash = report;
  struct sigaction action = {};
  action.sa_handler = on_crash;
  // On the alternate stack: guest code runs with the guest's stack pointer.
  action.sa_flags = SA_ONSTACK;
  sigfillset(&action.sa_mask);
  for (const int signal : kCrashSignals) sigaction(signal, &action, nullptr);
}

void make_raw() {
  // A terminal that is not the controlling one has no foreground (-1), and nobody who would mind.
  const pid_t foreground = tcgetpgrp(STDIN_FILENO);
  if (!isatty(STDIN_FILENO) || (foreground != -1 && foreground != getpgrp())) return;
  // Raw already: a shell may have changed the mode while the process was stopped.
  if (!raw.load() && tcgetattr(STDIN_FILENO, &saved) != 0) return;
  static const bool at_exit = std::atexit(restore) == 0;
  (void)at_exit;
  termios mode = saved;
  mode.c_iflag &= ~static_cast<tcflag_t>(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  mode.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
  mode.c_cflag &= ~static_cast<tcflag_t>(CSIZE | PARENB);
  mode.c_cflag |= CS8;
  mode.c_cc[VMIN] = 1;
  mode.c_cc[VTIME] = 0;
  raw.store(true);
  tcsetattr(STDIN_FILENO, TCSANOW, &mode);
}

void restore() {
  const BlockTtou block;
  if (raw.exchange(false)) tcsetattr(STDIN_FILENO, TCSANOW, &saved);
}

bool takes_output(int fd) {
  pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
  return poll(&ready, 1, 0) == 1;
}

}  // namespace penumbra::terminal
