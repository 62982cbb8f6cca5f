// Commands of a person to the machine, as QEMU's monitor has them: "info registers", "x/8gx 0x1000" and so
// on. gdb's "monitor" command brings them here. vCPU thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "core/machine.h"
#include "frontend/guest_memory.h"

namespace penumbra {

class Monitor {
 public:
  explicit Monitor(Machine& machine) : machine_(machine), memory_(machine.vcpu()) {}

  // What the command says; ends with a newline unless it is empty.
  std::string execute(std::string_view line);

 private:
  std::string info(std::string_view what);
  std::string examine(std::string_view arguments, GuestMemory::Space space);
  std::string disassemble(GuestMemory::Space space, uint64_t address, unsigned count);
  std::string translate(std::string_view argument);

  Machine& machine_;
  GuestMemory memory_;
  // What the last x or xp did, for one without a format.
  struct Format {
    unsigned count = 1;
    char letter = 'x';
    unsigned bytes = 4;
  };
  Format last_;
};

}  // namespace penumbra
