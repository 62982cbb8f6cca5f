// Bytes of an instruction of a given form.
#pragma once

#include <array>
#include <cstdint>

#include "tests/fuzzer/form_table.h"
#include "tests/fuzzer/random.h"

namespace penumbra::fuzz {

inline constexpr unsigned kEncodedBytes = 16;
using EncodedBytes = std::array<uint8_t, kEncodedBytes>;

// [base + index << shift + displacement]
struct Addressing {
  unsigned base = 0;
  int index = -1;
  unsigned shift = 0;
  bool wide = false;  // displacement of 32 bits
};

// Random registers, displacement and immediate. `addressing`: the memory operand is this one, and there are
// no superfluous prefixes; null: any, with prefixes that may make it another instruction or none.
EncodedBytes encode(const Form& form, unsigned bits, Random& random, const Addressing* addressing);

}  // namespace penumbra::fuzz
