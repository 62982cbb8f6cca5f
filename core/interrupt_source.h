// The CPU's side of the INTR/INTA handshake.
#pragma once

#include <cstdint>

#include "core/processor_apic.h"

namespace penumbra {

class InterruptSource {
 public:
  virtual ~InterruptSource() = default;
  virtual bool pending() const = 0;   // level of INTR
  virtual uint8_t acknowledge() = 0;  // INTA: the vector; a spurious one when nothing is pending any more
  virtual ProcessorApic* apic() { return nullptr; }  // null: CPUID says that there is none
};

}  // namespace penumbra
