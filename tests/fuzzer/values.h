// Random contents of registers and operands.
#pragma once

#include <span>

#include "tests/fuzzer/machine_state.h"
#include "tests/fuzzer/random.h"

namespace penumbra::fuzz {

// Integers, floats and doubles at their edges, and noise.
void fill_operand(Random& random, std::span<uint8_t> bytes);
VectorState random_vector_state(Random& random);

}  // namespace penumbra::fuzz
