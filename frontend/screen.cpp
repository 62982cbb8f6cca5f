#include "frontend/screen.h"

#include <png.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>

namespace penumbra {

namespace {

// Code page 437, what has no ASCII: 01h to 1Fh, 7Fh to FFh.
constexpr const char* kLowCharacters[] = {" ", "☺", "☻", "♥", "♦", "♣", "♠", "•", "◘", "○", "◙",
                                          "♂", "♀", "♪", "♫", "☼", "►", "◄", "↕", "‼", "¶", "§",
                                          "▬", "↨", "↑", "↓", "→", "←", "∟", "↔", "▲", "▼"};
constexpr const char* kHighCharacters[] = {
    "⌂", "Ç", "ü", "é", "â", "ä", "à", "å", "ç", "ê", "ë", "è", "ï", "î", "ì", "Ä", "Å", "É", "æ",
    "Æ", "ô", "ö", "ò", "û", "ù", "ÿ", "Ö", "Ü", "¢", "£", "¥", "₧", "ƒ", "á", "í", "ó", "ú", "ñ",
    "Ñ", "ª", "º", "¿", "⌐", "¬", "½", "¼", "¡", "«", "»", "░", "▒", "▓", "│", "┤", "╡", "╢", "╖",
    "╕", "╣", "║", "╗", "╝", "╜", "╛", "┐", "└", "┴", "┬", "├", "─", "┼", "╞", "╟", "╚", "╔", "╩",
    "╦", "╠", "═", "╬", "╧", "╨", "╤", "╥", "╙", "╘", "╒", "╓", "╫", "╪", "┘", "┌", "█", "▄", "▌",
    "▐", "▀", "α", "ß", "Γ", "π", "Σ", "σ", "µ", "τ", "Φ", "Θ", "Ω", "δ", "∞", "φ", "ε", "∩", "≡",
    "±", "≥", "≤", "⌠", "⌡", "÷", "≈", "°", "∙", "·", "√", "ⁿ", "²", "■", " "};
static_assert(std::size(kLowCharacters) == 0x20 && std::size(kHighCharacters) == 0x81);

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

std::vector<uint8_t> rgb_bytes(const VgaImage& image) {
  std::vector<uint8_t> bytes;
  bytes.reserve(image.pixels.size() * 3);
  for (const uint32_t pixel : image.pixels) {
    for (const unsigned shift : {16, 8, 0}) bytes.push_back(static_cast<uint8_t>(pixel >> shift));
  }
  return bytes;
}

}  // namespace

VgaImage Screen::image() const {
  VgaImage image;
  render_vga(vga_.registers(), vga_.memory(), {}, image);
  return image;
}

std::string Screen::text() const {
  std::string text;
  for (const auto& row : vga_text(vga_.registers(), vga_.memory())) {
    std::string line;
    for (const uint8_t code : row) {
      if (code < 0x20) {
        line += kLowCharacters[code];
      } else if (code >= 0x7f) {
        line += kHighCharacters[code - 0x7f];
      } else {
        line += static_cast<char>(code);
      }
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

void write_image(const VgaImage& image, const std::string& path) {
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "we"));
  if (!file) throw std::runtime_error(path + ": " + std::strerror(errno));
  const std::vector<uint8_t> bytes = rgb_bytes(image);
  bool good;
  if (path.ends_with(".ppm")) {
    good = std::fprintf(file.get(), "P6\n%u %u\n255\n", image.width, image.height) > 0 &&
           std::fwrite(bytes.data(), 1, bytes.size(), file.get()) == bytes.size();
  } else {
    png_image png{};
    png.version = PNG_IMAGE_VERSION;
    png.width = image.width;
    png.height = image.height;
    png.format = PNG_FORMAT_RGB;
    good = png_image_write_to_stdio(&png, file.get(), 0, bytes.data(), 0, nullptr);
  }
  if (!good || std::fflush(file.get()) != 0) throw std::runtime_error(path + ": " + std::strerror(errno));
}

}  // namespace penumbra
