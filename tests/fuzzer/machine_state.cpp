#include "tests/fuzzer/machine_state.h"

namespace penumbra::fuzz {

namespace {
// SDM vol. 1, 10.5.1 and 13.4.
constexpr size_t kTag = 4, kMxcsr = 24, kSt = 32, kXmm = 160, kXstateBv = 512, kYmmHigh = 576;
}  // namespace

void store_vector_state(const VectorState& state, std::byte* image) {
  std::memset(image, 0, kXsaveBytes);
  std::memcpy(image, &state.fcw, 2);
  std::memcpy(image + 2, &state.fsw, 2);
  std::memcpy(image + kTag, &state.tags, 1);
  std::memcpy(image + kMxcsr, &state.mxcsr, 4);
  for (unsigned i = 0; i < 8; ++i) std::memcpy(image + kSt + i * 16, state.st[i].data(), 10);
  for (unsigned i = 0; i < 16; ++i) {
    std::memcpy(image + kXmm + i * 16, state.ymm[i].data(), 16);
    std::memcpy(image + kYmmHigh + i * 16, state.ymm[i].data() + 2, 16);
  }
  image[kXstateBv] = std::byte{7};
}

VectorState load_vector_state(const std::byte* image) {
  VectorState state;
  const auto present = static_cast<unsigned>(image[kXstateBv]);
  if (present & 1) {
    std::memcpy(&state.fcw, image, 2);
    std::memcpy(&state.fsw, image + 2, 2);
    std::memcpy(&state.tags, image + kTag, 1);
    for (unsigned i = 0; i < 8; ++i) std::memcpy(state.st[i].data(), image + kSt + i * 16, 10);
  }
  std::memcpy(&state.mxcsr, image + kMxcsr, 4);
  for (unsigned i = 0; i < 16; ++i) {
    if (present & 2) std::memcpy(state.ymm[i].data(), image + kXmm + i * 16, 16);
    if (present & 4) std::memcpy(state.ymm[i].data() + 2, image + kYmmHigh + i * 16, 16);
  }
  return state;
}

}  // namespace penumbra::fuzz
