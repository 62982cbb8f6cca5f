// Kinds of code that cases are made of.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace penumbra::fuzz {

enum class Kind : uint8_t {
  Bits64,
  Bits32,
  Bits16,  // protected mode
  Real,    // real-address mode, where Unicorn stands in for the bare CPU
};
inline constexpr std::array kKinds = {Kind::Bits64, Kind::Bits32, Kind::Bits16, Kind::Real};

constexpr unsigned index_of(Kind kind) {
  return static_cast<unsigned>(kind);
}
constexpr unsigned bits_of(Kind kind) {
  return kind == Kind::Bits64 ? 64 : kind == Kind::Bits32 ? 32 : 16;
}
constexpr std::string_view name_of(Kind kind) {
  constexpr std::string_view kNames[] = {"64", "32", "16", "real"};
  return kNames[index_of(kind)];
}
constexpr std::optional<Kind> kind_named(std::string_view name) {
  for (const Kind kind : kKinds) {
    if (name_of(kind) == name) return kind;
  }
  return std::nullopt;
}

}  // namespace penumbra::fuzz
