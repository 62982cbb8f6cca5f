// What a machine asks of the board it sits in: the mirror image of MachineControl.
#pragma once

#include "core/interrupt_source.h"

namespace penumbra {

class Board {
 public:
  virtual ~Board() = default;
  virtual InterruptSource& interrupts() = 0;  // the interrupt controller; lives as long as the board
  virtual void reset() = 0;                   // every chip, as the reset line does
};

}  // namespace penumbra
