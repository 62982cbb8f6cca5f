// What differs between two outcomes, in one line.
#pragma once

#include <string>

#include "tests/fuzzer/generator.h"

namespace penumbra::fuzz {

struct Exactness {
  bool fault_flags = true;  // arithmetic flags of a fault's frame
};

// Empty when nothing does.
std::string difference(const Case& made, const Outcome& native, std::span<const std::byte> native_memory,
                       const Outcome& engine, std::span<const std::byte> engine_memory, Exactness exactness);

std::string hex_bytes(std::span<const std::byte> bytes);

}  // namespace penumbra::fuzz
