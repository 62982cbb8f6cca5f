// The vCPU's state as text, for a person: registers, segments, control registers, what happened last.
#pragma once

#include <string>

#include "core/vcpu.h"
#include "jit/translator.h"

namespace penumbra {

// Registers, the code at RIP, the page walks of RIP, RSP and CR2, and the last events. Ends with a newline.
// Changes nothing in the guest (the walks set no accessed bits).
std::string state_dump(const Vcpu& vcpu, PhysicalMap& map);

// The blocks entered last, and the code of the latest. `all`: TranslatorOptions::record_blocks is on.
std::string recent_blocks_dump(const jit::Translator& translator, PhysicalMap& map, bool all);

// The registers alone, without memory allocation: for signal handlers. Returns the bytes written.
size_t format_registers(const VcpuState& state, char* to, size_t limit);

// "#PF" or "vector 20"; for exceptions only.
std::string exception_name(unsigned vector);

// A line for each model-specific register that the guest tried and the vCPU does not have.
std::string unknown_msr_lines(const VcpuStats& stats);

}  // namespace penumbra
