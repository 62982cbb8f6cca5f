// What libFuzzer gives, taken apart: numbers until it is used up, zeros from then on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace penumbra {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(data, size) {}

  bool done() const { return rest_.empty(); }
  uint8_t byte() {
    if (rest_.empty()) return 0;
    const uint8_t value = rest_[0];
    rest_ = rest_.subspan(1);
    return value;
  }
  uint16_t word() {
    const uint8_t low = byte();
    return static_cast<uint16_t>(low | byte() << 8);
  }
  uint32_t dword() {
    const uint32_t low = word();
    return low | uint32_t{word()} << 16;
  }
  uint64_t qword() {
    const uint64_t low = dword();
    return low | uint64_t{dword()} << 32;
  }
  uint32_t below(uint32_t limit) {
    return (limit <= 0x100 ? byte() : limit <= 0x1'0000 ? word() : dword()) % limit;
  }
  std::span<const uint8_t> bytes(size_t most) {
    const auto taken = rest_.first(std::min(most, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  std::span<const uint8_t> rest() { return bytes(rest_.size()); }
  std::string text() {
    const auto all = rest();
    return {all.begin(), all.end()};
  }

 private:
  std::span<const uint8_t> rest_;
};

}  // namespace penumbra
