#include "frontend/text_console.h"

#include <algorithm>
#include <utility>

namespace penumbra {

namespace {
// The first two characters of the font that all VGA BIOSes have: nothing, and a face.
constexpr std::array<uint8_t, 32> kBeginning = {0,    0,    0,    0,    0,    0,    0, 0,    0,    0,    0,
                                                0,    0,    0,    0,    0,    0,    0, 0x7e, 0x81, 0xa5, 0x81,
                                                0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e, 0, 0,    0,    0};
constexpr uint32_t kForeground = 0xaaaaaa, kBackground = 0x000000;
}  // namespace

std::optional<TextConsole::Font> TextConsole::find_font(std::span<const std::byte> rom) {
  const auto at = std::ranges::search(rom, std::as_bytes(std::span(kBeginning))).begin();
  Font font;
  if (rom.end() - at < static_cast<ptrdiff_t>(font.size())) return std::nullopt;
  std::ranges::transform(rom.subspan(static_cast<size_t>(at - rom.begin()), font.size()), font.begin(),
                         [](std::byte line) { return static_cast<uint8_t>(line); });
  return font;
}

void TextConsole::write(std::string_view text) {
  const std::lock_guard lock(mutex_);
  for (const char c : text) put(c);
  changed_ = true;
}

void TextConsole::put(char c) {
  if (c == '\n') return new_line();
  if (c == '\b') {
    if (column_ > 0) column_--;
    return;
  }
  if (static_cast<unsigned char>(c) < ' ') return;
  if (column_ == kColumns) new_line();
  cells_[row_][column_++] = c;
}

void TextConsole::new_line() {
  column_ = 0;
  if (row_ + 1 < kRows) {
    row_++;
  } else {
    std::ranges::rotate(cells_, cells_.begin() + 1);
  }
  clear_row(row_);
}

bool TextConsole::draw(VgaImage& image) {
  const std::lock_guard lock(mutex_);
  if (!std::exchange(changed_, false)) return false;
  image.width = kColumns * kGlyphWidth;
  image.height = kRows * kGlyphHeight;
  image.pixels.assign(size_t{image.width} * image.height, kBackground);
  for (unsigned row = 0; row <= row_; ++row) {
    for (unsigned column = 0; column < kColumns; ++column) {
      const bool cursor = row == row_ && column == column_;
      const auto glyph =
          std::span(font_).subspan(static_cast<unsigned char>(cells_[row][column]) * size_t{kGlyphHeight});
      for (unsigned y = 0; y < kGlyphHeight; ++y) {
        const uint8_t line = cursor ? static_cast<uint8_t>(~glyph[y]) : glyph[y];
        uint32_t* const to =
            &image.pixels[(size_t{row} * kGlyphHeight + y) * image.width + size_t{column} * kGlyphWidth];
        for (unsigned x = 0; x < kGlyphWidth; ++x) {
          if (line & 0x80 >> x) to[x] = kForeground;
        }
      }
    }
  }
  return true;
}

}  // namespace penumbra
