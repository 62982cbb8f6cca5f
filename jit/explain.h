// Shows what the translator makes of code: guest instructions, their classes, and the host code beside them.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "jit/block.h"

namespace penumbra::jit {

// The block as `-d in_asm` of QEMU 7.2 shows one, by the same disassembler. `code`: the guest's bytes.
std::string guest_listing(ModeBits mode, LinearAddr linear, std::span<const uint8_t> code);

// Text for every block reachable by direct jumps (and falling through) from the first byte of `code`, which
// lies at linear address `base`. `bits`: 16, 32 or 64, else throws std::invalid_argument.
std::string explain_code(std::span<const uint8_t> code, unsigned bits, uint64_t base);

}  // namespace penumbra::jit
