#include "frontend/stream_socket.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "frontend/user_error.h"

namespace penumbra {

namespace {

[[noreturn]] void refuse(std::string_view option, const std::string& where, const char* why) {
  throw UserError(fmt::format("{} {}: {}", option, where, why));
}

int listen_unix(const std::string& path, std::string_view option) {
  const std::string where = "unix:" + path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    refuse(option, where, "the path is empty or too long");
  path.copy(address.sun_path, path.size());
  // What an earlier run left behind; nothing else is taken away.
  struct stat status;
  if (lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) unlink(path.c_str());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  // SAFETY: the socket interface's own way to name an address.
  if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(fd, 1) != 0) {
    const int error = errno;
    if (fd >= 0) close(fd);
    refuse(option, where, std::strerror(error));
  }
  return fd;
}

uint16_t port_of(int fd) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof(address);
  // SAFETY: as above.
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return 0;
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
  return ntohs(address.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
}

int listen_tcp(const std::string& host, const std::string& port, std::string_view option,
               std::string_view who) {
  const std::string where = fmt::format("tcp:{}:{}", host, port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_family = host.empty() ? AF_INET : AF_UNSPEC;
  addrinfo* found = nullptr;
  // Without a host this is the loopback interface: whoever connects owns the guest.
  const int failed = getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found);
  if (failed != 0) refuse(option, where, gai_strerror(failed));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  int error = EADDRNOTAVAIL;
  for (const addrinfo* address = found; address; address = address->ai_next) {
    const int fd =
        socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
    if (fd < 0) {
      error = errno;
      continue;
    }
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, 1) == 0) {
      if (port == "0") fmt::print(stderr, "penumbra: {} can connect to port {}\n", who, port_of(fd));
      return fd;
    }
    error = errno;
    close(fd);
  }
  refuse(option, where, std::strerror(error));
}

}  // namespace

int listen_on(const StreamEndpoint& endpoint, std::string_view option, std::string_view who) {
  return endpoint.kind == StreamEndpoint::Kind::Unix ? listen_unix(endpoint.path, option)
                                                     : listen_tcp(endpoint.host, endpoint.port, option, who);
}

}  // namespace penumbra
