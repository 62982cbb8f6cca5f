#include "tests/fuzzer/values.h"

#include <algorithm>

namespace penumbra::fuzz {

namespace {

uint32_t random_float(Random& random) {
  static constexpr uint32_t kEdges[] = {0,           1,           0x007f'ffff, 0x0080'0000, 0x3f80'0000,
                                        0x3f7f'ffff, 0x4f00'0000, 0x4eff'ffff, 0x5f00'0000, 0x7f7f'ffff,
                                        0x7f80'0000, 0x7f80'0001, 0x7fc0'0000, 0x7fff'ffff, 0x4b00'0001,
                                        0x3f00'0000, 0x4049'0fdb};
  const uint32_t sign = static_cast<uint32_t>(random.below(2)) << 31;
  if (random.percent(60)) return kEdges[random.below(std::size(kEdges))] | sign;
  if (random.percent(50)) return static_cast<uint32_t>(random.next());
  // Near one: results neither overflow nor vanish.
  return static_cast<uint32_t>((random.between(117, 137) << 23) | (random.next() & 0x7f'ffff)) | sign;
}

uint64_t random_double(Random& random) {
  static constexpr uint64_t kEdges[] = {0,
                                        1,
                                        0x000f'ffff'ffff'ffff,
                                        0x0010'0000'0000'0000,
                                        0x3ff0'0000'0000'0000,
                                        0x3fef'ffff'ffff'ffff,
                                        0x41e0'0000'0000'0000,
                                        0x41df'ffff'ffc0'0000,
                                        0x43e0'0000'0000'0000,
                                        0x47ef'ffff'e000'0000,
                                        0x3810'0000'0000'0000,
                                        0x7fef'ffff'ffff'ffff,
                                        0x7ff0'0000'0000'0000,
                                        0x7ff0'0000'0000'0001,
                                        0x7ff8'0000'0000'0000,
                                        0x7fff'ffff'ffff'ffff,
                                        0x4330'0000'0000'0001,
                                        0x3fe0'0000'0000'0000};
  const uint64_t sign = random.below(2) << 63;
  if (random.percent(60)) return kEdges[random.below(std::size(kEdges))] | sign;
  if (random.percent(50)) return random.next();
  return random.between(1013, 1033) << 52 | random.next() >> 12 | sign;
}

void random_extended(Random& random, uint8_t* out) {
  uint64_t mantissa = random.next();
  uint16_t exponent = static_cast<uint16_t>(random.next() & 0x7fff);
  switch (random.below(8)) {
    case 0:
      mantissa = exponent = 0;
      break;
    case 1:  // infinity
      exponent = 0x7fff, mantissa = uint64_t{1} << 63;
      break;
    case 2:  // NaN of some kind
      exponent = 0x7fff, mantissa |= uint64_t{1} << 63;
      break;
    case 3:  // denormal or pseudo-denormal
      exponent = 0;
      break;
    case 4:  // unsupported encodings
      break;
    case 5:  // an integer
      exponent = static_cast<uint16_t>(0x3fff + random.below(66)), mantissa = uint64_t{1} << 63;
      break;
    default:
      exponent = static_cast<uint16_t>(random.between(0x3fff - 70, 0x3fff + 70)),
      mantissa |= uint64_t{1} << 63;
      break;
  }
  if (random.percent(50)) exponent |= 0x8000;
  std::memcpy(out, &mantissa, 8);
  std::memcpy(out + 8, &exponent, 2);
}

}  // namespace

void fill_operand(Random& random, std::span<uint8_t> bytes) {
  const uint64_t kind = random.below(6);
  if (kind == 5 && bytes.size() >= 10) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
    random_extended(random, bytes.data());
    return;
  }
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint64_t value = 0;
    switch (kind) {
      case 0:
      case 5:
        value = random.edge();
        break;
      case 1:
        value = random_float(random) | static_cast<uint64_t>(random_float(random)) << 32;
        break;
      case 2:
        value = random_double(random);
        break;
      case 3:
        for (unsigned word = 0; word < 4; ++word) value |= (random.edge() & 0xffff) << word * 16;
        break;
      default:
        value = random.next();
        break;
    }
    std::memcpy(bytes.data() + at, &value, std::min<size_t>(8, bytes.size() - at));
  }
}

VectorState random_vector_state(Random& random) {
  VectorState state;
  for (unsigned i = 0; i < 16; ++i) {
    fill_operand(random, std::span(reinterpret_cast<uint8_t*>(state.ymm[i].data()), 32));
    if (i > 0 && random.percent(15)) state.ymm[i] = state.ymm[random.below(i)];
  }
  // SDM vol. 1, 10.2.3: exception flags 0 to 5, DAZ 6, masks 7 to 12, rounding 13 and 14, FTZ 15.
  uint32_t masks = 0x1f80;
  if (random.percent(10)) masks = static_cast<uint32_t>(random.next()) & 0x1f80;
  state.mxcsr = masks | (random.percent(40) ? static_cast<uint32_t>(random.next()) & 0xe07f : 0);

  for (auto& st : state.st) random_extended(random, st.data());
  state.fcw = 0x37f;
  if (random.percent(40)) state.fcw = static_cast<uint16_t>((random.next() & 0x0f00) | 0x7f);
  if (random.percent(10)) state.fcw = static_cast<uint16_t>((random.next() & 0x1f3f) | 0x40);
  state.fsw = static_cast<uint16_t>(random.next() & 0x7d7f);  // busy and summary follow below
  if (random.percent(70)) state.fsw &= static_cast<uint16_t>(0x7800 | 0x4700);
  if (state.fsw & ~state.fcw & 0x3f) state.fsw |= 0x8080;
  state.tags = random.percent(70) ? 0xff : static_cast<uint8_t>(random.next());
  if (random.percent(5)) state.tags = 0;
  return state;
}

}  // namespace penumbra::fuzz
