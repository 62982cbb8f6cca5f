#include "frontend/gdb_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <vector>

#include "frontend/stream_socket.h"

namespace penumbra {

namespace {

// How long the last packets may take to leave when the machine has ended.
constexpr std::chrono::milliseconds kFarewell{500};

}  // namespace

GdbServer::GdbServer(Machine& machine, const MonitorActions& actions, const GdbEndpoint& endpoint,
                     std::function<void()> paused)
    : machine_(machine),
      monitor_(machine, actions),
      session_(machine, monitor_,
               {.send = [this](std::string body) { send(body); },
                .arch = endpoint.arch,
                .paused = std::move(paused)}),
      unix_path_(endpoint.socket.path) {
  listen_fd_ = listen_on(endpoint.socket, "-gdb", "gdb");
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) {
    close(listen_fd_);
    throw std::runtime_error("no eventfd");
  }
}

GdbServer::~GdbServer() {
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

void GdbServer::start() {
  thread_ = std::thread([this] { serve(); });
}

void GdbServer::finish(int exit_status) {
  session_.exited(exit_status);
  const auto deadline = std::chrono::steady_clock::now() + kFarewell;
  while (std::chrono::steady_clock::now() < deadline) {
    {
      const std::lock_guard lock(mutex_);
      if (outgoing_.empty()) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void GdbServer::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

// --- the server's thread

void GdbServer::serve() {
  while (!stop_.load()) {
    bool waiting;
    {
      const std::lock_guard lock(mutex_);
      waiting = !outgoing_.empty();
    }
    const bool connected = client_fd_ >= 0;
    pollfd fds[] = {
        {.fd = wake_fd_, .events = POLLIN, .revents = 0},
        // One gdb at a time: the next one waits in the queue of the socket.
        {.fd = connected ? -1 : listen_fd_, .events = POLLIN, .revents = 0},
        {.fd = client_fd_, .events = static_cast<short>(POLLIN | (waiting ? POLLOUT : 0)), .revents = 0},
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

void GdbServer::accept_client() {
  client_fd_ = accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (client_fd_ < 0) return;
  const int on = 1;
  setsockopt(client_fd_, IPPROTO_TCP, TCP_NODELAY, &on,
             sizeof(on));  // fails for Unix sockets, which need it not
  reader_ = {};
  acknowledges_ = true;
  {
    const std::lock_guard lock(mutex_);
    outgoing_.clear();
    last_frame_.clear();
  }
  post({Message::Kind::Connected, {}});
}

void GdbServer::close_client() {
  close(client_fd_);
  client_fd_ = -1;
  post({Message::Kind::Closed, {}});
}

void GdbServer::read_client() {
  std::vector<uint8_t> buffer(65536);
  const ssize_t count = read(client_fd_, buffer.data(), buffer.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) return close_client();
  reader_.feed(std::span(buffer).first(static_cast<size_t>(count)),
               [this](GdbPacketReader::Event event, std::string_view body) { handle(event, body); });
}

void GdbServer::handle(GdbPacketReader::Event event, std::string_view body) {
  switch (event) {
    case GdbPacketReader::Event::Packet:
      if (acknowledges_) send_raw("+");
      if (body == "QStartNoAckMode") {
        // Here, since what follows must not be acknowledged any more.
        acknowledges_ = false;
        send("OK");
      } else {
        post({Message::Kind::Packet, std::string(body)});
      }
      break;
    case GdbPacketReader::Event::Corrupt:
      if (acknowledges_) send_raw("-");
      break;
    case GdbPacketReader::Event::Interrupt:
      post({Message::Kind::Interrupt, {}});
      break;
    case GdbPacketReader::Event::Ack:
      break;
    case GdbPacketReader::Event::Resend: {
      std::string frame;
      {
        const std::lock_guard lock(mutex_);
        frame = last_frame_;
      }
      if (acknowledges_) send_raw(frame);
      break;
    }
  }
}

void GdbServer::write_client() {
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

void GdbServer::post(Message message) {
  {
    const std::lock_guard lock(mutex_);
    incoming_.push_back(std::move(message));
    if (posted_) return;
    posted_ = true;
  }
  while (!machine_.events().post([this] { deliver(); })) {
    // The queue is full of other events: they are run soon.
    if (stop_.load()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// --- answers

void GdbServer::deliver() {
  for (;;) {
    Message message;
    {
      const std::lock_guard lock(mutex_);
      if (incoming_.empty()) {
        posted_ = false;
        return;
      }
      message = std::move(incoming_.front());
      incoming_.pop_front();
    }
    switch (message.kind) {
      case Message::Kind::Connected:
        session_.connected();
        break;
      case Message::Kind::Closed:
        session_.closed();
        break;
      case Message::Kind::Packet:
        session_.packet(message.body);
        break;
      case Message::Kind::Interrupt:
        session_.interrupt();
        break;
    }
  }
}

void GdbServer::send(std::string_view body) {
  {
    const std::lock_guard lock(mutex_);
    last_frame_ = gdb_frame(body);
    outgoing_ += last_frame_;
  }
  wake();
}

void GdbServer::send_raw(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  outgoing_ += bytes;
}

}  // namespace penumbra
