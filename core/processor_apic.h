// What instructions reach of the processor's local APIC: MSRs and CR8. The rest is memory-mapped.
#pragma once

#include <cstdint>

#include "core/virtual_clock.h"

namespace penumbra {

class ProcessorApic {
 public:
  virtual ~ProcessorApic() = default;
  virtual uint64_t base() const = 0;          // IA32_APIC_BASE
  virtual bool enabled() const = 0;           // by that register, which CPUID follows
  virtual bool set_base(uint64_t value) = 0;  // false: a reserved bit or a mode that is not there
  virtual uint8_t task_priority() const = 0;  // TPR, whose upper half is CR8
  virtual void set_task_priority(uint8_t value) = 0;
  virtual uint64_t tsc_deadline() const = 0;  // IA32_TSC_DEADLINE; 0: none
  // `from_now`: until the TSC reaches `tsc`.
  virtual void set_tsc_deadline(uint64_t tsc, Nanoseconds from_now) = 0;
};

}  // namespace penumbra
