// Telling image formats apart by their first bytes.
#pragma once

#include <array>
#include <cstddef>
#include <span>

namespace penumbra {

inline constexpr size_t kMagicBytes = 8;

bool looks_like_qcow2(std::span<const std::byte, kMagicBytes> first);
// As any format that programs on the host open without being told.
bool looks_formatted(std::span<const std::byte, kMagicBytes> first);

}  // namespace penumbra
