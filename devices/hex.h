// Bytes as hexadecimal text: in saved states, where thousands of numbers would be slow, and in gdb's packets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace penumbra {

// Its value; below 0: it is none.
int hex_digit(char digit);

std::string to_hex(std::span<const std::byte> bytes);
std::string to_hex(std::span<const uint8_t> bytes);
std::string to_hex(std::string_view bytes);
// Nothing unless all of it is pairs of hexadecimal digits.
std::optional<std::string> from_hex(std::string_view text);

}  // namespace penumbra
