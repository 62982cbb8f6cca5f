#include "network/tap_network.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace penumbra {

namespace {

constexpr const char* kDevice = "/dev/net/tun";
constexpr size_t kMostFrame = 65'550;

[[noreturn]] void fail(const std::string& what, int error) {
  throw std::runtime_error(what + ": " + std::strerror(error));
}

int open_interface(const std::string& name) {
  ifreq request{};
  if (name.size() >= sizeof request.ifr_name)
    throw std::runtime_error("ifname=" + name + ": too long for an interface");
  const int fd = open(kDevice, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail(kDevice, errno);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  name.copy(request.ifr_name, name.size());
  if (ioctl(fd, TUNSETIFF, &request) < 0) {
    const int error = errno;
    close(fd);
    fail(name.empty() ? kDevice : "ifname=" + name, error);
  }
  return fd;
}

int take_over(int fd) {
  // Anything but a TAP interface would give no frames, or frames with something else before them.
  ifreq request{};
  if (ioctl(fd, TUNGETIFF, &request) < 0 ||
      (request.ifr_flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)) != (IFF_TAP | IFF_NO_PI))
    throw std::runtime_error("fd=" + std::to_string(fd) +
                             ": not a TAP interface's descriptor with IFF_NO_PI");
  if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
    fail("fd=" + std::to_string(fd), errno);
  return fd;
}

}  // namespace

TapNetwork::TapNetwork(const TapNetworkOptions& options, EventQueue& events)
    : incoming_(events),
      fd_(options.fd >= 0 ? take_over(options.fd) : open_interface(options.interface)),
      stop_fd_(eventfd(0, EFD_CLOEXEC)) {
  if (stop_fd_ < 0) {
    const int error = errno;
    close(fd_);
    fail("eventfd", error);
  }
  // Signals are for the threads that handle them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TapNetwork::~TapNetwork() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_fd_, &one, sizeof one);
  thread_.join();
  close(stop_fd_);
  close(fd_);
}

// What the host does not take at once, or not at all (the interface is down), is lost, which is what networks
// do.
void TapNetwork::send(std::span<const std::byte> frame) {
  [[maybe_unused]] const ssize_t written = write(fd_, frame.data(), frame.size());
}

void TapNetwork::run() {
  std::vector<std::byte> frame(kMostFrame);
  std::array<pollfd, 2> fds{
      {{.fd = stop_fd_, .events = POLLIN, .revents = 0}, {.fd = fd_, .events = POLLIN, .revents = 0}}};
  while (true) {
    const int timeout = incoming_.told() ? -1 : IncomingFrames::kRetryMilliseconds;
    if (poll(fds.data(), fds.size(), timeout) < 0 && errno != EINTR) return;
    if (fds[0].revents) return;
    if (!incoming_.told()) incoming_.tell();
    ssize_t got;
    while ((got = read(fd_, frame.data(), frame.size())) > 0)
      incoming_.add(std::span(frame).first(static_cast<size_t>(got)));
    // An interface that was taken away says so for ever.
    if (got < 0 && errno != EAGAIN && errno != EINTR) fds[1].fd = -1;
  }
}

}  // namespace penumbra
