// One exception or interrupt on its way through the IDT.
#pragma once

#include <cstdint>

#include "core/vcpu.h"

namespace penumbra {

struct Vcpu::Event {
  // Software: INT n, INT3 and INTO, whose gate must be reachable from the current privilege.
  // Int1 is INT1 (ICEBP), which counts as external and needs no gate privilege.
  enum class Kind : uint8_t { Exception, Interrupt, Nmi, Software, Int1 };

  Kind kind = Kind::Exception;
  uint8_t vector = 0;
  bool has_error_code = false;
  uint32_t error_code = 0;
  uint64_t return_rip = 0;
  uint64_t flags = 0;  // image to push

  uint32_t external() const { return kind == Kind::Software ? 0 : 1; }
  // Error code of a fault that the IDT entry caused (SDM vol. 3, 6.13: IDT bit, EXT bit).
  uint32_t idt_error() const { return vector * 8u + 2 + external(); }
};

}  // namespace penumbra
