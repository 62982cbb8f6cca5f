#include "frontend/output.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <mutex>
#include <thread>

#include "frontend/user_error.h"

namespace penumbra {

struct Output::Channel {
  Channel(int file, bool closes);
  ~Channel() {
    if (owned) close(fd);
  }
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  void send(const uint8_t* data, size_t bytes);
  void work();
  void tell(std::unique_lock<std::mutex>& lock);
  // Writes some of `data`; bytes written. Nothing on an error, which it keeps.
  size_t write_some(const uint8_t* data, size_t bytes, int& failure) const;

  const int fd;
  const bool owned;
  bool threaded;
  std::thread thread;
  std::mutex mutex;
  std::condition_variable work_condition, written_condition;
  // All guarded by `mutex`.
  std::vector<uint8_t> waiting;
  size_t unwritten = 0;    // of `waiting`, and of what the thread has taken from it
  bool stops = false;      // nothing more comes
  bool abandoned = false;  // nobody is interested any more
  bool watched = false;    // `news` is wanted when there is room again
  int error = 0;
  std::function<bool()> news;
};

Output::Channel::Channel(int file, bool closes) : fd(file), owned(closes) {
  // A regular file keeps nobody waiting.
  struct stat status;
  threaded = fstat(fd, &status) != 0 || !S_ISREG(status.st_mode);
}

size_t Output::Channel::write_some(const uint8_t* data, size_t bytes, int& failure) const {
  const ssize_t count = write(fd, data, std::min<size_t>(bytes, kLimit));
  if (count >= 0) return static_cast<size_t>(count);
  if (errno == EAGAIN) {
    // Another process made the open file non-blocking.
    pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
    poll(&ready, 1, -1);
  } else if (errno != EINTR) {
    failure = errno;
  }
  return 0;
}

void Output::Channel::send(const uint8_t* data, size_t bytes) {
  const std::lock_guard lock(mutex);
  if (error || abandoned) return;
  if (!threaded) {
    for (size_t at = 0; at < bytes && !error;) at += write_some(data + at, bytes - at, error);
    return;
  }
  waiting.insert(waiting.end(), data, data + bytes);
  unwritten += bytes;
  work_condition.notify_one();
}

void Output::Channel::tell(std::unique_lock<std::mutex>& lock) {
  while (watched && news && !abandoned && !stops) {
    if (news()) {
      watched = false;
      break;
    }
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    lock.lock();
  }
}

void Output::Channel::work() {
  std::vector<uint8_t> piece;
  std::unique_lock lock(mutex);
  while (!abandoned) {
    work_condition.wait(lock, [this] { return !waiting.empty() || stops || abandoned; });
    if (waiting.empty()) return;
    piece.clear();
    piece.swap(waiting);
    for (size_t at = 0; at < piece.size() && !abandoned && !error;) {
      int failure = 0;
      lock.unlock();
      const size_t count = write_some(piece.data() + at, piece.size() - at, failure);
      lock.lock();
      at += count;
      unwritten -= count;
      error = failure;
      if (error) {
        waiting.clear();
        unwritten = 0;
        watched = true;
      }
      if (unwritten <= kSlow / 2) tell(lock);
      if (unwritten == 0) written_condition.notify_all();
    }
  }
}

Output::Output(const std::string& path) : owned_(true), name_(path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
  if (fd < 0) throw UserError(path + ": " + std::strerror(errno));
  open_channel(fd);
}

Output::Output(int fd, std::string name) : owned_(false), name_(std::move(name)) {
  open_channel(fd);
}

void Output::open_channel(int fd) {
  buffer_.reserve(kLimit);
  channel_ = std::make_shared<Channel>(fd, owned_);
  if (!channel_->threaded) return;
  // Signals are for the threads that handle them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  channel_->thread = std::thread([channel = channel_] { channel->work(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Output::~Output() {
  flush();
  if (!channel_->threaded) return;
  {
    const std::lock_guard lock(channel_->mutex);
    channel_->stops = true;
    channel_->news = {};
  }
  channel_->work_condition.notify_one();
  if (abandoned_) {
    channel_->thread.detach();
  } else {
    channel_->thread.join();
  }
}

void Output::put(uint8_t byte) {
  if (failed_) return;
  buffer_.push_back(byte);
  if (byte == '\n' || buffer_.size() == kLimit) {
    flush();
  } else if (buffer_.size() == 1 && waiting_listener_) {
    waiting_listener_();
  }
}

void Output::flush() {
  if (!buffer_.empty()) {
    channel_->send(buffer_.data(), buffer_.size());
    buffer_.clear();
  }
  attend();
}

void Output::say(std::string_view text) {
  // SAFETY: char and uint8_t alias anything.
  channel_->send(reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

size_t Output::unwritten() const {
  const std::lock_guard lock(channel_->mutex);
  return channel_->unwritten;
}

bool Output::wait_written(std::chrono::milliseconds longest) {
  std::unique_lock lock(channel_->mutex);
  return channel_->written_condition.wait_for(lock, longest, [this] { return channel_->unwritten == 0; });
}

void Output::abandon() {
  abandoned_ = true;
  const std::lock_guard lock(channel_->mutex);
  channel_->abandoned = true;
  channel_->news = {};
  channel_->work_condition.notify_one();
}

void Output::set_news_listener(std::function<bool()> listener) {
  const std::lock_guard lock(channel_->mutex);
  channel_->news = std::move(listener);
}

void Output::attend() {
  size_t unwritten;
  int error;
  {
    const std::lock_guard lock(channel_->mutex);
    unwritten = channel_->unwritten;
    error = channel_->error;
    channel_->watched = unwritten >= kSlow || (pressure_ != Pressure::None && unwritten > kSlow / 2);
  }
  // A reader that takes bytes one by one does not make the guest stop and go at each of them.
  const Pressure pressure = unwritten >= kFull   ? Pressure::Full
                            : unwritten >= kSlow ? std::max(pressure_, Pressure::Slow)
                            : pressure_ == Pressure::None || unwritten <= kSlow / 2 ? Pressure::None
                                                                                    : pressure_;
  if (pressure != pressure_) {
    pressure_ = pressure;
    if (pressure_listener_) pressure_listener_();
  }
  if (error && !failed_) {
    failed_ = true;
    buffer_.clear();
    if (failure_listener_) failure_listener_(*this, error);
  }
}

}  // namespace penumbra
