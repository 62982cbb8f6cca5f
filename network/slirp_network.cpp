#include "network/slirp_network.h"

#include <poll.h>
#include <slirp/libslirp.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace penumbra {

namespace {

// What waits for the network at most; more is dropped, which is what networks do.
constexpr size_t kMostFrames = 4096;

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

in6_addr ipv6_address(uint8_t last) {  // fec0::last, as QEMU's
  in6_addr address{};
  address.s6_addr[0] = 0xfe;
  address.s6_addr[1] = 0xc0;
  address.s6_addr[15] = last;
  return address;
}

const char* or_null(const std::string& text) {
  return text.empty() ? nullptr : text.c_str();
}

}  // namespace

struct SlirpNetwork::Alarm {
  SlirpTimerId id;
  void* argument;
  int64_t milliseconds = -1;  // when, in libslirp's clock; negative: not set
};

// What libslirp asks of us; all of it on the network's thread.
struct SlirpNetwork::Callbacks {
  static SlirpNetwork& self(void* network) { return *static_cast<SlirpNetwork*>(network); }

  static ssize_t send_packet(const void* bytes, size_t size, void* network) {
    self(network).incoming_.add({static_cast<const std::byte*>(bytes), size});
    return static_cast<ssize_t>(size);
  }
  static void guest_error(const char*, void*) {}
  static int64_t clock_get_ns(void*) { return now_ns(); }
  static void* timer_new(SlirpTimerId id, void* argument, void* network) {
    auto* alarm = new Alarm{.id = id, .argument = argument};
    self(network).alarms_.push_back(alarm);
    return alarm;
  }
  static void timer_free(void* alarm, void* network) {
    std::erase(self(network).alarms_, static_cast<Alarm*>(alarm));
    delete static_cast<Alarm*>(alarm);
  }
  static void timer_mod(void* alarm, int64_t milliseconds, void*) {
    static_cast<Alarm*>(alarm)->milliseconds = milliseconds;
  }
  static void poll_fd(int, void*) {}
  static void notify(void* network) { self(network).wake(); }

  static constexpr SlirpCb table() {
    SlirpCb callbacks{};
    callbacks.send_packet = send_packet;
    callbacks.guest_error = guest_error;
    callbacks.clock_get_ns = clock_get_ns;
    callbacks.timer_free = timer_free;
    callbacks.timer_mod = timer_mod;
    callbacks.register_poll_fd = poll_fd;
    callbacks.unregister_poll_fd = poll_fd;
    callbacks.notify = notify;
    callbacks.timer_new_opaque = timer_new;
    return callbacks;
  }

  static int add_poll(int fd, int events, void* polled) {
    auto& fds = *static_cast<std::vector<pollfd>*>(polled);
    short wanted = 0;
    if (events & SLIRP_POLL_IN) wanted |= POLLIN;
    if (events & SLIRP_POLL_OUT) wanted |= POLLOUT;
    if (events & SLIRP_POLL_PRI) wanted |= POLLPRI;
    fds.push_back({.fd = fd, .events = wanted, .revents = 0});
    return static_cast<int>(fds.size() - 1);
  }
  static int get_revents(int index, void* polled) {
    const short seen = (*static_cast<std::vector<pollfd>*>(polled))[static_cast<size_t>(index)].revents;
    int events = 0;
    if (seen & POLLIN) events |= SLIRP_POLL_IN;
    if (seen & POLLOUT) events |= SLIRP_POLL_OUT;
    if (seen & POLLPRI) events |= SLIRP_POLL_PRI;
    if (seen & POLLERR) events |= SLIRP_POLL_ERR;
    if (seen & POLLHUP) events |= SLIRP_POLL_HUP;
    return events;
  }
};

SlirpNetwork::SlirpNetwork(const UserNetworkOptions& options, EventQueue& events)
    : incoming_(events), wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (wake_fd_ < 0) throw std::runtime_error(std::string("eventfd: ") + std::strerror(errno));
  try {
    start(options);
  } catch (...) {
    if (slirp_) slirp_cleanup(slirp_);
    close(wake_fd_);
    throw;
  }
  // Signals are for the threads that handle them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void SlirpNetwork::start(const UserNetworkOptions& options) {
  static constexpr SlirpCb kCallbacks = Callbacks::table();
  std::vector<const char*> search;
  for (const std::string& domain : options.search_domains) search.push_back(domain.c_str());
  search.push_back(nullptr);
  SlirpConfig config{};
  config.version = SLIRP_CONFIG_VERSION_MAX;
  config.restricted = options.restricted;
  config.in_enabled = options.ipv4;
  config.vnetwork = options.network;
  config.vnetmask = options.mask;
  config.vhost = options.host;
  config.vdhcp_start = options.first_lease;
  config.vnameserver = options.name_server;
  config.in6_enabled = options.ipv6;
  config.vprefix_addr6 = ipv6_address(0);
  config.vprefix_len = 64;
  config.vhost6 = ipv6_address(2);
  config.vnameserver6 = ipv6_address(3);
  config.vhostname = or_null(options.host_name);
  config.vdomainname = or_null(options.domain);
  config.vdnssearch = options.search_domains.empty() ? nullptr : search.data();
  config.tftp_path = or_null(options.tftp_folder);
  config.bootfile = or_null(options.boot_file);
  config.tftp_server_name = or_null(options.tftp_server_name);
  slirp_ = slirp_new(&config, &kCallbacks, this);
  if (!slirp_) throw std::runtime_error("libslirp does not start");
  for (const auto& forward : options.forwards) {
    if (slirp_add_hostfwd(slirp_, forward.udp, forward.host, forward.host_port, forward.guest,
                          forward.guest_port) < 0)
      throw std::runtime_error("hostfwd=" + forward.text + ": " + std::strerror(errno));
  }
}

SlirpNetwork::~SlirpNetwork() {
  stops_.store(true);
  wake();
  thread_.join();
  slirp_cleanup(slirp_);
  for (const Alarm* alarm : alarms_) delete alarm;
  close(wake_fd_);
}

void SlirpNetwork::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof one);
}

// --- The network's thread

void SlirpNetwork::run() {
  constexpr uint32_t kForEver = UINT32_MAX;
  std::vector<pollfd> fds;
  std::deque<Frame> frames;
  while (!stops_.load()) {
    fds.assign(1, {.fd = wake_fd_, .events = POLLIN, .revents = 0});
    uint32_t wait = kForEver;
    slirp_pollfds_fill(slirp_, &wait, Callbacks::add_poll, &fds);
    int timeout = wait > INT32_MAX ? -1 : static_cast<int>(wait);
    if (const int alarm = milliseconds_to_alarm(); alarm >= 0)
      timeout = timeout < 0 ? alarm : std::min(timeout, alarm);
    if (!incoming_.told()) timeout = IncomingFrames::kRetryMilliseconds;
    {
      const std::lock_guard lock(mutex_);
      sleeping_ = to_network_.empty();
      if (!sleeping_) timeout = 0;
    }
    const int result = poll(fds.data(), fds.size(), timeout);
    {
      const std::lock_guard lock(mutex_);
      sleeping_ = false;
      frames.swap(to_network_);
    }
    if (result > 0 && fds[0].revents) {
      uint64_t count;
      [[maybe_unused]] const ssize_t got = read(wake_fd_, &count, sizeof count);
    }
    slirp_pollfds_poll(slirp_, result < 0, Callbacks::get_revents, &fds);
    for (const Frame& frame : frames)
      slirp_input(slirp_, reinterpret_cast<const uint8_t*>(frame.data()), static_cast<int>(frame.size()));
    frames.clear();
    ring_alarms();
    if (!incoming_.told()) incoming_.tell();
  }
}

int SlirpNetwork::milliseconds_to_alarm() const {
  constexpr int64_t kNs = 1'000'000, kLongest = 1'000'000;
  int64_t least = -1;
  for (const Alarm* alarm : alarms_) {
    if (alarm->milliseconds < 0) continue;
    const int64_t left = std::clamp<int64_t>(alarm->milliseconds - now_ns() / kNs, 0, kLongest);
    least = least < 0 ? left : std::min(least, left);
  }
  return static_cast<int>(least);
}

void SlirpNetwork::ring_alarms() {
  const int64_t now = now_ns() / 1'000'000;
  for (size_t i = 0; i < alarms_.size(); ++i) {
    Alarm& alarm = *alarms_[i];
    if (alarm.milliseconds < 0 || alarm.milliseconds > now) continue;
    alarm.milliseconds = -1;
    slirp_handle_timer(slirp_, alarm.id, alarm.argument);
  }
}

// --- The vCPU's thread

void SlirpNetwork::send(std::span<const std::byte> frame) {
  bool wakes;
  {
    const std::lock_guard lock(mutex_);
    if (to_network_.size() >= kMostFrames) return;
    to_network_.emplace_back(frame.begin(), frame.end());
    wakes = std::exchange(sleeping_, false);
  }
  if (wakes) wake();
}

}  // namespace penumbra
