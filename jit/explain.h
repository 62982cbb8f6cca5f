// Shows what the translator makes of code: guest instructions, their classes, and the host code beside them.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace penumbra::jit {

// Text for every block reachable by direct jumps (and falling through) from the first byte of `code`, which
// lies at linear address `base`. `bits`: 16, 32 or 64, else throws std::invalid_argument.
std::string explain_code(std::span<const uint8_t> code, unsigned bits, uint64_t base);

}  // namespace penumbra::jit
