#include "frontend/stream_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <utility>

namespace penumbra {

namespace {

constexpr std::chrono::milliseconds kFarewell{500};
// A client that sends much and reads nothing must not fill the host's memory.
constexpr size_t kMostWaiting = size_t{16} << 20;

}  // namespace

StreamServer::StreamServer(EventQueue& events, const StreamEndpoint& endpoint, std::string_view option,
                           std::string_view who)
    : events_(events), unix_path_(endpoint.path), listen_fd_(listen_on(endpoint, option, who)) {
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) {
    close(listen_fd_);
    throw std::runtime_error("no eventfd");
  }
}

StreamServer::~StreamServer() {
  if (thread_.joinable()) {
    stop_.store(true);
    wake();
    thread_.join();
  }
  if (client_fd_ >= 0) close(client_fd_);
  close(listen_fd_);
  close(wake_fd_);
  if (!unix_path_.empty()) unlink(unix_path_.c_str());
}

void StreamServer::start(StreamSession& session) {
  session_ = &session;
  thread_ = std::thread([this] { serve(); });
}

void StreamServer::send(std::string_view bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (!connected_) return;
    outgoing_ += bytes;
  }
  wake();
}

void StreamServer::finish() {
  const auto deadline = std::chrono::steady_clock::now() + kFarewell;
  while (std::chrono::steady_clock::now() < deadline) {
    {
      const std::lock_guard lock(mutex_);
      if (outgoing_.empty()) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void StreamServer::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

// --- the server's thread

void StreamServer::serve() {
  while (!stop_.load()) {
    bool sends, reads, free;
    {
      const std::lock_guard lock(mutex_);
      sends = !outgoing_.empty();
      reads = incoming_.size() + outgoing_.size() < kMostWaiting;
      free = client_fd_ < 0 && !closing_;
    }
    const bool connected = client_fd_ >= 0;
    const auto wanted = static_cast<short>((reads ? POLLIN : 0) | (sends ? POLLOUT : 0));
    pollfd fds[] = {
        {.fd = wake_fd_, .events = POLLIN, .revents = 0},
        // One client at a time: the next one waits in the queue of the socket.
        {.fd = free ? listen_fd_ : -1, .events = POLLIN, .revents = 0},
        {.fd = client_fd_, .events = wanted, .revents = 0},
    };
    if (poll(fds, std::size(fds), -1) <= 0) continue;
    if (fds[0].revents) {
      uint64_t count;
      [[maybe_unused]] const ssize_t got = read(wake_fd_, &count, sizeof(count));
    }
    if (fds[1].revents) accept_client();
    if (connected && fds[2].revents & ~POLLOUT) read_client();
    if (client_fd_ >= 0) write_client();
  }
}

void StreamServer::accept_client() {
  client_fd_ = accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (client_fd_ < 0) return;
  const int on = 1;
  setsockopt(client_fd_, IPPROTO_TCP, TCP_NODELAY, &on,
             sizeof(on));  // fails for Unix sockets, which need it not
  {
    const std::lock_guard lock(mutex_);
    incoming_.clear();
    outgoing_.clear();
    connected_ = true;
    greeted_ = false;
  }
  post();
}

void StreamServer::close_client() {
  close(client_fd_);
  client_fd_ = -1;
  {
    const std::lock_guard lock(mutex_);
    connected_ = false;
    closing_ = true;
    outgoing_.clear();
  }
  post();
}

void StreamServer::read_client() {
  std::array<char, 4096> buffer;
  const ssize_t count = read(client_fd_, buffer.data(), buffer.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) return close_client();
  {
    const std::lock_guard lock(mutex_);
    incoming_.append(buffer.data(), static_cast<size_t>(count));
  }
  post();
}

void StreamServer::write_client() {
  bool broken = false;
  {
    const std::lock_guard lock(mutex_);
    while (!outgoing_.empty()) {
      const ssize_t count = ::send(client_fd_, outgoing_.data(), outgoing_.size(), MSG_NOSIGNAL);
      if (count < 0) {
        broken = errno != EAGAIN && errno != EINTR;
        break;
      }
      outgoing_.erase(0, static_cast<size_t>(count));
    }
  }
  if (broken) close_client();
}

void StreamServer::post() {
  {
    const std::lock_guard lock(mutex_);
    if (posted_) return;
    posted_ = true;
  }
  while (!events_.post([this] { deliver(); })) {
    // The queue is full of other events: they are run soon.
    if (stop_.load()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// What a client sent before it went away is done all the same, as with a script's "echo quit | nc".
void StreamServer::deliver() {
  std::string bytes;
  bool greet, close;
  {
    const std::lock_guard lock(mutex_);
    posted_ = false;
    greet = !std::exchange(greeted_, true);
    close = closing_;
    bytes.swap(incoming_);
  }
  if (greet) session_->connected();
  if (!bytes.empty()) session_->received(bytes);
  if (!close) return;
  session_->closed();
  {
    const std::lock_guard lock(mutex_);
    closing_ = false;
  }
  wake();
}

}  // namespace penumbra
