// Where the machine waits for gdb: -gdb.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace penumbra {

enum class GdbArch : uint8_t { I386, X86_64 };

struct GdbEndpoint {
  enum class Kind : uint8_t { Tcp, Unix };
  Kind kind = Kind::Tcp;
  std::string host;             // Tcp: empty for the loopback interface
  std::string port;             // Tcp: 0 takes a free one and says which
  std::string path;             // Unix
  std::optional<GdbArch> arch;  // nothing: by the mode in which the vCPU is when gdb connects
  bool operator==(const GdbEndpoint&) const = default;
};

}  // namespace penumbra
