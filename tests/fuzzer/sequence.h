// Random sequences: 5 to 30 instructions with jumps, calls, loops and stores into their own code.
#pragma once

#include <span>
#include <vector>

#include "tests/fuzzer/form_table.h"
#include "tests/fuzzer/generator.h"

namespace penumbra::fuzz {

class SequenceGenerator {
 public:
  SequenceGenerator(Kind kind, const FormTable& forms);

  // False when the attempt came to nothing.
  bool make(uint64_t seed, Case& out) const;
  // `bytes` and a HLT, with another state for each seed.
  bool make_fixed(std::span<const uint8_t> bytes, uint64_t seed, Case& out) const;

 private:
  Kind kind_;
  const FormTable& forms_;
  jit::Decoder decoder_;
  std::vector<ZydisMnemonic> mnemonics_;
};

}  // namespace penumbra::fuzz
