#include "frontend/control_thread.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "frontend/terminal.h"

namespace penumbra {

namespace {

constexpr int kEndingSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
// A machine that was told to end and does not (the host blocks a disk, say) is ended by force after this
// time.
constexpr std::chrono::seconds kGrace{3};

bool ends(int signal) {
  for (const int ending : kEndingSignals) {
    if (ending == signal) return true;
  }
  return false;
}

[[noreturn]] void end_by_force() {
  terminal::restore();
  static constexpr std::string_view kText = "penumbra: the machine did not stop and was ended by force\n";
  // Perhaps it is this very terminal that takes no more.
  if (terminal::takes_output(STDERR_FILENO)) {
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText.data(), kText.size());
  }
  _exit(1);
}

}  // namespace

BlockedSignals::BlockedSignals() {
  sigemptyset(&set_);
  for (const int signal : kEndingSignals) {
    // nohup and the like: an ignored signal stays ignored.
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) continue;
    sigaddset(&set_, signal);
  }
  sigaddset(&set_, SIGTSTP);
  sigaddset(&set_, SIGCONT);
  pthread_sigmask(SIG_BLOCK, &set_, &previous_);
}

BlockedSignals::~BlockedSignals() {
  pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
}

ControlThread::ControlThread(Machine& machine, const BlockedSignals& signals, SerialInput* input,
                             ConsoleMonitor* monitor, std::function<void(std::string_view)> say)
    : machine_(machine),
      input_(input),
      monitor_(monitor),
      say_(std::move(say)),
      terminal_(input && isatty(STDIN_FILENO)),
      signal_fd_(signalfd(-1, &signals.set(), SFD_CLOEXEC | SFD_NONBLOCK)),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      input_open_(input || monitor) {
  if (signal_fd_ < 0 || wake_fd_ < 0) throw std::runtime_error("no signalfd or eventfd");
  if (input_) input_->set_room_listener([this] { wake(); });
  if (terminal_) terminal::make_raw();
  at_monitor_ = monitor_ && !input_;
  if (at_monitor_) monitor_->open();
  thread_ = std::thread([this] { run(); });
}

ControlThread::~ControlThread() {
  stop_.store(true);
  wake();
  thread_.join();
  terminal::restore();
  if (input_) input_->set_room_listener({});
  close(signal_fd_);
  close(wake_fd_);
}

void ControlThread::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

void ControlThread::run() {
  while (!stop_.load()) {
    // A terminal is read even when the guest takes nothing, else Ctrl-A X would be lost; a pipe waits.
    const bool reads = input_open_ && (terminal_ || !input_ || input_->room() > 0);
    pollfd fds[] = {
        {.fd = signal_fd_, .events = POLLIN, .revents = 0},
        {.fd = wake_fd_, .events = POLLIN, .revents = 0},
        {.fd = reads ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0},
    };
    int timeout = -1;
    if (ending_) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(force_time_ - std::chrono::steady_clock::now());
      if (left.count() <= 0) end_by_force();
      timeout = static_cast<int>(left.count());
    }
    if (poll(fds, std::size(fds), timeout) <= 0) continue;
    if (fds[0].revents) handle_signals();
    if (fds[1].revents) {
      uint64_t count;
      [[maybe_unused]] const ssize_t got = read(wake_fd_, &count, sizeof(count));
    }
    if (fds[2].revents) read_input();
  }
}

void ControlThread::read_input() {
  uint8_t buffer[256];
  const size_t room = input_ ? input_->room() : sizeof(buffer);
  const ssize_t count =
      read(STDIN_FILENO, buffer, terminal_ ? sizeof(buffer) : std::min(room, sizeof(buffer)));
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (count <= 0) {
    input_open_ = false;  // the machine goes on without a keyboard
    return;
  }
  if (!input_) {
    for (ssize_t i = 0; i < count; ++i) monitor_->feed(buffer[i]);
    return;
  }
  std::vector<uint8_t> for_guest;
  for (ssize_t i = 0; i < count; ++i) {
    const auto [action, byte] = keys_.feed(buffer[i]);
    switch (action) {
      case EscapeKeys::Action::Send:
        if (at_monitor_) {
          monitor_->feed(byte);
        } else if (for_guest.size() < room) {
          for_guest.push_back(byte);
        }
        break;
      case EscapeKeys::Action::Quit:
        end(0);
        break;
      case EscapeKeys::Action::Help:
        say_(EscapeKeys::kHelp);
        break;
      case EscapeKeys::Action::Monitor:
        if (!monitor_) break;
        at_monitor_ = !at_monitor_;
        at_monitor_ ? monitor_->open() : say_("\n");
        break;
      case EscapeKeys::Action::None:
        break;
    }
  }
  input_->push(for_guest);
}

void ControlThread::handle_signals() {
  signalfd_siginfo info;
  while (read(signal_fd_, &info, sizeof(info)) == sizeof(info)) {
    const int signal = static_cast<int>(info.ssi_signo);
    if (ends(signal)) {
      if (ending_) end_by_force();
      ending_signal_.store(signal);
      end(128 + signal);
    } else if (signal == SIGTSTP) {
      suspend();
    } else if (signal == SIGCONT && terminal_) {
      terminal::make_raw();
    }
  }
}

void ControlThread::end(int exit_code) {
  if (ending_) return;
  ending_ = true;
  force_time_ = std::chrono::steady_clock::now() + kGrace;
  machine_.request_quit(exit_code);
}

void ControlThread::suspend() {
  terminal::restore();
  ::raise(SIGSTOP);  // unlike kill(), stops before it returns
  if (terminal_) terminal::make_raw();
}

}  // namespace penumbra
