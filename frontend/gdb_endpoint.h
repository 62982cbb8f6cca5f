// Where the machine waits for gdb: -gdb.
#pragma once

#include <cstdint>
#include <optional>

#include "frontend/stream_socket.h"

namespace penumbra {

// I8086 is I386 to all but gdb, which disassembles it as 16-bit code.
enum class GdbArch : uint8_t { I8086, I386, X86_64 };

struct GdbEndpoint {
  StreamEndpoint socket;
  std::optional<GdbArch> arch;  // nothing: by the mode in which the vCPU is when gdb connects
  bool operator==(const GdbEndpoint&) const = default;
};

}  // namespace penumbra
