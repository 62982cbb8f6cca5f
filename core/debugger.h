// Somebody outside the machine who controls its vCPU: see Machine::pause().
#pragma once

#include "core/debug_unit.h"

namespace penumbra {

class Debugger {
 public:
  virtual ~Debugger() = default;
  // vCPU thread: the machine is paused, at a breakpoint, after an access to a watchpoint, or since a step
  // ended (DebugStop::Kind::None).
  virtual void stopped(const DebugStop& stop) = 0;
};

}  // namespace penumbra
