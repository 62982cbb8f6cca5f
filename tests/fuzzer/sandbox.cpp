#include "tests/fuzzer/sandbox.h"

#include <algorithm>

#include "tests/fuzzer/values.h"

namespace penumbra::fuzz {

bool leaves_the_sandbox(std::span<const uint8_t> code) {
  for (size_t i = 0; i + 1 < code.size(); ++i) {
    const uint8_t a = code[i], b = code[i + 1];
    if (a == 0xcd && b == 0x80) return true;
    if (a == 0x0f && (b == 0x05 || b == 0x34)) return true;
    if (a == 0x0f && b == 0x01 && i + 2 < code.size() && (code[i + 2] == 0xc1 || code[i + 2] == 0xd9))
      return true;
  }
  return false;
}

const Memory& pristine_memory() {
  static const Memory memory = [] {
    Memory made(area::kBytes);
    Random random(1);
    for (size_t at = 0; at < made.size(); at += 32) {
      fill_operand(random, std::span(reinterpret_cast<uint8_t*>(made.data()) + at, 32));
    }
    std::fill(made.begin() + area::kCode, made.begin() + area::kCodeEnd, std::byte{0xf4});
    return made;
  }();
  return memory;
}

}  // namespace penumbra::fuzz
