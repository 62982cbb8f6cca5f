// What a board asks of the machine it sits in.
#pragma once

#include <cstdint>

namespace penumbra {

class MachineControl {
 public:
  virtual ~MachineControl() = default;
  virtual void request_reset() = 0;              // 8042, port 92, CF9
  virtual void request_exit(int exit_code) = 0;  // debug exit, power off
  virtual void request_nmi() = 0;
  virtual void set_a20(bool open) = 0;
};

}  // namespace penumbra
