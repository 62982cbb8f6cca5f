// A screen of text for what the VMM itself has to say: 80 by 25 characters of code page 437. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>

#include "devices/vga_renderer.h"

namespace penumbra {

class TextConsole {
 public:
  static constexpr unsigned kColumns = 80, kRows = 25, kGlyphWidth = 8, kGlyphHeight = 16;
  using Font =
      std::array<uint8_t, size_t{256} * kGlyphHeight>;  // a byte a line, the leftmost pixel its bit 7

  // Of a VGA BIOS, which has it somewhere.
  static std::optional<Font> find_font(std::span<const std::byte> rom);

  explicit TextConsole(const Font& font) : font_(font) { clear_row(0); }

  // Newline and backspace move the cursor, other control characters nothing.
  void write(std::string_view text);
  // Draws what there is with a cursor behind it; false: nothing was written since the last call.
  bool draw(VgaImage& image);

 private:
  void put(char c);
  void new_line();
  void clear_row(unsigned row) { cells_[row].fill(' '); }

  const Font font_;
  std::mutex mutex_;
  std::array<std::array<char, kColumns>, kRows> cells_{};  // guarded by mutex_, and so is the rest
  unsigned row_ = 0, column_ = 0;
  bool changed_ = true;
};

}  // namespace penumbra
