// Numbers as people give them in options and commands.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace penumbra {

// Hexadecimal with 0x, decimal without; nothing else before, behind or in it.
inline std::optional<uint64_t> parse_number(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    base = 16;
    text.remove_prefix(2);
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace penumbra
