// Instructions and sequences that went wrong once: tests/fuzzer/known.txt.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/fuzzer/kind.h"

namespace penumbra::fuzz {

struct KnownCase {
  std::string name;  // the symptom
  Kind kind = Kind::Bits64;
  bool sequence = false;
  std::vector<uint8_t> bytes;
};

// Throws std::runtime_error for a file or a line that cannot be read.
std::vector<KnownCase> read_known_cases(const std::string& path);

}  // namespace penumbra::fuzz
