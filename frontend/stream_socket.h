// Sockets that the program listens on: for gdb, monitors, viewers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace penumbra {

struct StreamEndpoint {
  enum class Kind : uint8_t { Tcp, Unix };
  Kind kind = Kind::Tcp;
  std::string host;  // Tcp: empty for the loopback interface
  std::string port;  // Tcp: 0 takes a free one and says which
  std::string path;  // Unix
  bool operator==(const StreamEndpoint&) const = default;
};

// A listening socket that does not block. Throws UserError that names `option` when the address cannot be
// had. `who` is told which port it is when the host chose one.
int listen_on(const StreamEndpoint& endpoint, std::string_view option, std::string_view who);

}  // namespace penumbra
