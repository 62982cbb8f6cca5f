#include "tests/fuzzer/encoding.h"

#include <utility>
#include <vector>

namespace penumbra::fuzz {

EncodedBytes encode(const Form& form, unsigned bits, Random& random, const Addressing* addressing) {
  std::vector<uint8_t> prefixes;
  if (form.prefix && !form.vex) prefixes.push_back(form.prefix);
  if (!addressing) {
    static constexpr uint8_t kSegments[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    if (random.percent(10)) prefixes.push_back(0x67);
    if (random.percent(12)) prefixes.push_back(kSegments[random.below(6)]);
    if (!form.vex) {
      if (form.memory && random.percent(15)) prefixes.push_back(0xf0);
      if (random.percent(2)) prefixes.push_back(0xf0);
      if (form.prefix != 0x66 && random.percent(4)) prefixes.push_back(0x66);
      if (random.percent(2)) prefixes.push_back(0xf2 + static_cast<uint8_t>(random.below(2)));
    }
    for (size_t i = prefixes.size(); i > 1; --i) std::swap(prefixes[i - 1], prefixes[random.below(i)]);
  }
  EncodedBytes bytes;
  uint8_t* at = bytes.data();
  for (const uint8_t prefix : prefixes) *at++ = prefix;

  unsigned reg = 0, rm = 0;
  if (form.modrm) {
    do reg = static_cast<unsigned>(random.below(8));
    while (form.rm_of_reg[reg] == 0);
    do rm = static_cast<unsigned>(random.below(8));
    while (!(form.rm_of_reg[reg] >> rm & 1));
  }
  auto extension = static_cast<uint8_t>(random.below(8));  // R, X, B
  bool rex = form.w || random.percent(60);
  if (form.memory && addressing) {
    const unsigned x = addressing->index >= 8, b = addressing->base >= 8;
    extension = static_cast<uint8_t>((extension & 4) | x << 1 | b);
    rex |= x || b;
  }
  if (form.vex) {
    const unsigned pp = form.prefix == 0x66 ? 1 : form.prefix == 0xf3 ? 2 : form.prefix == 0xf2 ? 3 : 0;
    const auto inverted = static_cast<uint8_t>(bits == 64 ? (~extension & 7) << 5 : 7 << 5);
    auto vvvv = static_cast<uint8_t>(random.below(16));
    // Whether the instruction uses vvvv is not known here: all ones half of the time.
    if (random.percent(50)) vvvv = 15;
    const bool short_prefix = form.map == 1 && !form.w && (inverted & 0x60) == 0x60;
    if (short_prefix && random.percent(50)) {
      *at++ = 0xc5;
      *at++ = static_cast<uint8_t>((inverted & 0x80) | vvvv << 3 | form.l << 2 | pp);
    } else {
      *at++ = 0xc4;
      *at++ = static_cast<uint8_t>(inverted | form.map);
      *at++ = static_cast<uint8_t>(form.w << 7 | vvvv << 3 | form.l << 2 | pp);
    }
  } else {
    if (bits == 64 && rex) *at++ = static_cast<uint8_t>(0x40 | form.w << 3 | extension);
    if (form.map) *at++ = 0x0f;
    if (form.map == 2) *at++ = 0x38;
    if (form.map == 3) *at++ = 0x3a;
  }
  *at++ = form.opcode;
  if (form.modrm && form.memory && addressing) {
    const unsigned mod = addressing->wide ? 2 : 1;
    if (bits == 16) {  // SDM vol. 2, table 2-1: [BX or BP + SI or DI] or one of them
      constexpr unsigned kSi = 6, kBx = 3;
      const unsigned pointer = addressing->base == kSi ? 0 : 1;
      const unsigned rm16 = addressing->index < 0      ? 4 + pointer
                            : addressing->index == kBx ? pointer
                                                       : 2 + pointer;
      *at++ = static_cast<uint8_t>(mod << 6 | reg << 3 | rm16);
      while (at < bytes.data() + bytes.size()) *at++ = static_cast<uint8_t>(random.next());
      return bytes;
    }
    const bool sib = addressing->index >= 0 || (addressing->base & 7) == 4;
    *at++ = static_cast<uint8_t>(mod << 6 | reg << 3 | (sib ? 4 : addressing->base & 7));
    const unsigned index = addressing->index >= 0 ? addressing->index & 7 : 4;
    if (sib) *at++ = static_cast<uint8_t>(addressing->shift << 6 | index << 3 | (addressing->base & 7));
  } else if (form.modrm) {
    const uint64_t mod = form.memory ? random.below(3) : 3;
    *at++ = static_cast<uint8_t>(mod << 6 | reg << 3 | rm);
  }
  while (at < bytes.data() + bytes.size()) *at++ = static_cast<uint8_t>(random.next());
  return bytes;
}

}  // namespace penumbra::fuzz
