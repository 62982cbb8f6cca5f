// What every program starts from, and what none may contain.
#pragma once

#include <span>

#include "tests/fuzzer/machine_state.h"

namespace penumbra::fuzz {

// System calls and hypercalls would reach the host's kernel or hypervisor.
bool leaves_the_sandbox(std::span<const uint8_t> code);

// HLT in the code pages, edge values elsewhere.
const Memory& pristine_memory();

}  // namespace penumbra::fuzz
