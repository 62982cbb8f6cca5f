// The vCPU's state as text, for a person: registers, segments, control registers, what happened last.
#pragma once

#include <string>

#include "core/vcpu.h"

namespace penumbra {

// Ends with a newline. Changes nothing in the guest (the walk for the code's bytes sets no accessed bits).
std::string state_dump(const Vcpu& vcpu, PhysicalMap& map);

// The registers alone, without memory allocation: for signal handlers. Returns the bytes written.
size_t format_registers(const VcpuState& state, char* to, size_t limit);

// One line of -d int, in QEMU's format without its register dump. `number` counts lines.
std::string event_line(const EventRecord& event, const VcpuState& state, uint64_t number);

// "#PF" or "vector 20"; for exceptions only.
std::string exception_name(unsigned vector);

// A line for each model-specific register that the guest tried and the vCPU does not have.
std::string unknown_msr_lines(const VcpuStats& stats);

}  // namespace penumbra
