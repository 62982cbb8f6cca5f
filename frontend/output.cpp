#include "frontend/output.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "frontend/user_error.h"

namespace penumbra {

Output::Output(const std::string& path)
    : fd_(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666)),
      owned_(true),
      name_(path) {
  if (fd_ < 0) throw UserError(path + ": " + std::strerror(errno));
  buffer_.reserve(kLimit);
}

Output::Output(int fd, std::string name) : fd_(fd), owned_(false), name_(std::move(name)) {
  buffer_.reserve(kLimit);
}

Output::~Output() {
  flush();
  if (owned_) close(fd_);
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
  size_t written = 0;
  while (written < buffer_.size()) {
    const ssize_t count = write(fd_, buffer_.data() + written, buffer_.size() - written);
    if (count >= 0) {
      written += static_cast<size_t>(count);
    } else if (errno == EAGAIN) {
      // Another process made the open file non-blocking.
      pollfd ready{.fd = fd_, .events = POLLOUT, .revents = 0};
      poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      failed_ = true;
      if (failure_listener_) failure_listener_(*this, errno);
      break;
    }
  }
  buffer_.clear();
}

}  // namespace penumbra
