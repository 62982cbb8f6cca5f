// Where the machine waits for gdb: -gdb.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace penumbra {

// I8086 is I386 to all but gdb, which disassembles it as 16-bit code.
enum class GdbArch : uint8_t { I8086, I386, X86_64 };

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
