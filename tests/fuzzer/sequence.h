// Random sequences: 5 to 30 instructions with jumps, calls, loops and stores into their own code.
#pragma once

#include <vector>

#include "tests/fuzzer/form_table.h"
#include "tests/fuzzer/generator.h"

namespace penumbra::fuzz {

class SequenceGenerator {
 public:
  SequenceGenerator(unsigned bits, const FormTable& forms);

  // False when the attempt came to nothing.
  bool make(uint64_t seed, Case& out) const;

 private:
  unsigned bits_;
  const FormTable& forms_;
  jit::Decoder decoder_;
  std::vector<ZydisMnemonic> mnemonics_;
};

}  // namespace penumbra::fuzz
