#include "devices/vga_renderer.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace penumbra {

namespace {

using R = VgaRegisters;

// What is shown while nothing sensible is programmed.
constexpr unsigned kIdleWidth = 640, kIdleHeight = 480, kLeastWidth = 64, kLeastHeight = 64;

using Palette = std::array<uint32_t, 256>;

constexpr uint32_t rgb(uint32_t red, uint32_t green, uint32_t blue) {
  return red << 16 | green << 8 | blue;
}
constexpr uint32_t widen(uint32_t value, unsigned bits) {
  return value << (8 - bits) | value >> (2 * bits - 8);
}

// The colour of each value that reaches the DAC.
Palette dac_colors(const R& registers) {
  const bool wide = registers.dispi[R::kEnable] & R::kDispiDac8;
  Palette colors;
  for (unsigned i = 0; i < 256; ++i) {
    const uint8_t* entry = &registers.dac[(i & registers.pel_mask) * 3];
    const auto level = [wide](uint8_t value) { return wide ? value : widen(value & 0x3f, 6); };
    colors[i] = rgb(level(entry[0]), level(entry[1]), level(entry[2]));
  }
  return colors;
}

// The colour of each attribute, through the attribute controller's palette.
std::array<uint32_t, 16> attribute_colors(const R& registers, const Palette& dac) {
  std::array<uint32_t, 16> colors;
  const uint8_t select = registers.attribute[R::kColorSelect];
  const bool select_low = registers.attribute[R::kAttributeMode] & R::kColorSelectLow;
  for (unsigned i = 0; i < 16; ++i) {
    unsigned value = registers.attribute[i & registers.attribute[R::kPlaneEnable]] & 0x3f;
    if (select_low) value = (value & 0x0f) | (select & 3u) << 4;
    colors[i] = dac[value | (select & 0x0cu) << 4];
  }
  return colors;
}

class Renderer {
 public:
  Renderer(const R& registers, std::span<const std::byte> memory, VgaBlink blink, VgaImage& image)
      : registers_(registers),
        memory_(memory),
        blink_(blink),
        image_(image),
        dac_(dac_colors(registers)),
        attributes_(attribute_colors(registers, dac_)) {}

  void render() {
    const R& r = registers_;
    const bool dispi = r.dispi_enabled();
    if (dispi) {
      size(r.dispi[R::kXResolution], r.dispi[R::kYResolution]);
    } else {
      const unsigned characters = r.crtc[R::kHorizontalEnd] + 1u;
      const bool nine = !(r.graphics[R::kMiscellaneous] & R::kGraphicsNotText) &&
                        !(r.sequencer[R::kClockingMode] & R::kEightDots);
      size(characters * (nine ? 9 : 8) * repeat(), r.lines());
      if (image_.width < kLeastWidth || image_.height < kLeastHeight) {
        size(kIdleWidth, kIdleHeight);
        return clear();
      }
    }
    if (!r.palette_address_source || (!dispi && r.sequencer[R::kClockingMode] & R::kScreenOff))
      return clear();
    dispi ? linear() : scan();
  }

 private:
  unsigned repeat() const { return registers_.sequencer[R::kClockingMode] & R::kHalfDotClock ? 2 : 1; }
  void size(unsigned width, unsigned height) {
    image_.width = width;
    image_.height = height;
    image_.pixels.resize(size_t{width} * height);
  }
  void clear() { std::ranges::fill(image_.pixels, 0u); }
  uint32_t* line(unsigned y) { return &image_.pixels[size_t{image_.width} * y]; }

  uint8_t byte(uint64_t address) const { return static_cast<uint8_t>(memory_[address % memory_.size()]); }
  // Four planes, plane 0 in the low byte.
  uint32_t cell(uint64_t counter) const {
    uint32_t value;
    std::memcpy(&value, &memory_[counter * 4 % memory_.size()], 4);
    return value;
  }

  // --- the display interface's modes

  void linear() {
    const R& r = registers_;
    const unsigned bits = r.dispi_bits();
    const uint64_t pitch = r.dispi_line_bytes();
    const uint64_t start = r.dispi[R::kYOffset] * pitch + uint64_t{r.dispi[R::kXOffset]} * bits / 8;
    for (unsigned y = 0; y < image_.height; ++y) {
      const uint64_t from = start + y * pitch;
      uint32_t* to = line(y);
      if (r.dispi[R::kBitsPerPixel] == 4) {
        // Planes: a line has its width / 8 cells.
        const uint64_t counter =
            r.dispi[R::kYOffset] * pitch / 4 + r.dispi[R::kXOffset] / 8 + y * (pitch / 4);
        planar_line(to, image_.width / 8, counter, 0, 1);
      } else {
        linear_line(to, from, r.dispi[R::kBitsPerPixel]);
      }
    }
  }

  void linear_line(uint32_t* to, uint64_t from, unsigned bits) {
    const unsigned bytes = (bits + 7) / 8;
    const uint64_t wanted = uint64_t{image_.width} * bytes;
    const uint64_t at = from % memory_.size();
    std::vector<std::byte> wrapped;
    const std::byte* source = &memory_[at];
    if (memory_.size() - at < wanted) {  // the end of memory lies within the line
      wrapped.resize(wanted);
      for (uint64_t i = 0; i < wanted; ++i) wrapped[i] = memory_[(at + i) % memory_.size()];
      source = wrapped.data();
    }
    const auto at_byte = [source](uint64_t i) { return static_cast<uint8_t>(source[i]); };
    for (unsigned x = 0; x < image_.width; ++x) {
      switch (bits) {
        case 15: {
          const unsigned value = at_byte(2 * x) | at_byte(2 * x + 1) << 8;
          to[x] = rgb(widen(value >> 10 & 31, 5), widen(value >> 5 & 31, 5), widen(value & 31, 5));
          break;
        }
        case 16: {
          const unsigned value = at_byte(2 * x) | at_byte(2 * x + 1) << 8;
          to[x] = rgb(widen(value >> 11, 5), widen(value >> 5 & 63, 6), widen(value & 31, 5));
          break;
        }
        case 24:
          to[x] = rgb(at_byte(3 * x + 2), at_byte(3 * x + 1), at_byte(3 * x));
          break;
        case 32: {
          uint32_t value;
          std::memcpy(&value, source + 4 * x, 4);
          to[x] = value & 0xff'ffff;
          break;
        }
        default:
          to[x] = dac_[at_byte(x)];
      }
    }
  }

  // --- the VGA's: what the CRTC does, scan line by scan line

  void scan() {
    const R& r = registers_;
    const bool graphics = r.graphics[R::kMiscellaneous] & R::kGraphicsNotText;
    const unsigned last_scan = r.crtc[R::kMaximumScan] & 0x1f;
    const unsigned doubled = r.crtc[R::kMaximumScan] & R::kDoubleScan ? 2 : 1;
    const unsigned row_cells = r.crtc[R::kOffset] * 2u;
    unsigned counter = r.start_address() + (r.crtc[R::kPresetRowScan] >> 5 & 3);
    unsigned row_scan = r.crtc[R::kPresetRowScan] & 0x1f, copies = 0;
    uint8_t panning = r.attribute[R::kPanning] & 0x0f;
    for (unsigned y = 0; y < image_.height; ++y) {
      graphics ? graphics_line(line(y), scanned(counter, row_scan), panning)
               : text_line(line(y), counter, row_scan, panning);
      if (++copies >= doubled) {
        copies = 0;
        if (row_scan == last_scan) {
          row_scan = 0;
          counter += row_cells;
        } else {
          row_scan = (row_scan + 1) & 0x1f;
        }
      }
      if (y == r.line_compare()) {  // the lower part of a split screen
        counter = row_scan = copies = 0;
        if (r.attribute[R::kAttributeMode] & R::kPanUpperOnly) panning = 0;
      }
    }
  }

  // CGA and Hercules compatibility: bits of the row scan counter in place of address bits 13 and 14.
  unsigned scanned(unsigned counter, unsigned row_scan) const {
    const uint8_t mode = registers_.crtc[R::kCrtcMode];
    const unsigned word = mode & 0x40 ? 0 : 1;  // word addressing: address bit n is counter bit n - 1
    const auto replace = [&counter](unsigned bit, unsigned value) {
      counter = (counter & ~(1u << bit)) | value << bit;
    };
    if (!(mode & 1)) replace(13 - word, row_scan & 1);
    if (!(mode & 2)) replace(14 - word, row_scan >> 1 & 1);
    return counter;
  }

  void graphics_line(uint32_t* to, unsigned counter, unsigned panning) {
    const unsigned cells = registers_.crtc[R::kHorizontalEnd] + 1u;
    const uint8_t mode = registers_.graphics[R::kGraphicsMode];
    if (mode & R::kShift256) {
      byte_line(to, cells, counter, panning / 2);
    } else if (mode & R::kShiftPairs) {
      pair_line(to, cells, counter, panning & 7, repeat());
    } else {
      planar_line(to, cells, counter, panning & 7, repeat());
    }
  }

  // Pixels of a line, `skip` of them off the left edge, each `repeat` dots wide.
  struct Cursor {
    uint32_t* at;
    uint32_t* const end;
    unsigned skip;
    const unsigned repeat;
    void put(uint32_t color) {
      if (skip > 0) {
        --skip;
        return;
      }
      for (unsigned i = 0; i < repeat && at != end; ++i) *at++ = color;
    }
  };

  // A pixel is a bit of each plane.
  void planar_line(uint32_t* to, unsigned cells, uint64_t counter, unsigned skip, unsigned repeat) {
    Cursor out{to, to + image_.width, skip, repeat};
    for (unsigned x = 0; x < cells + (skip > 0); ++x) {
      const uint32_t planes = cell(counter + x);
      for (unsigned bit = 8; bit-- > 0;) {
        const uint32_t bits = planes >> bit & 0x0101'0101;
        out.put(attributes_[(bits | bits >> 7 | bits >> 14 | bits >> 21) & 15]);
      }
    }
  }

  // CGA: pairs of bits, from plane 0 and then plane 1, with the upper halves from planes 2 and 3.
  void pair_line(uint32_t* to, unsigned cells, unsigned counter, unsigned skip, unsigned repeat) {
    Cursor out{to, to + image_.width, skip, repeat};
    for (unsigned x = 0; x < cells + (skip > 0); ++x) {
      const uint32_t planes = cell(counter + x);
      for (unsigned half = 0; half < 2; ++half) {
        for (unsigned shift = 8; shift > 0;) {
          shift -= 2;
          out.put(
              attributes_[(planes >> (8 * half + shift) & 3) | (planes >> (16 + 8 * half + shift) & 3) << 2]);
        }
      }
    }
  }

  // 256 colours: a byte of each plane in turn; a pixel takes two dots.
  void byte_line(uint32_t* to, unsigned cells, unsigned counter, unsigned skip) {
    Cursor out{to, to + image_.width, skip, 2 * repeat()};
    for (unsigned x = 0; x < cells + (skip > 0); ++x) {
      const uint32_t planes = cell(counter + x);
      for (unsigned plane = 0; plane < 4; ++plane) out.put(dac_[planes >> 8 * plane & 0xff]);
    }
  }

  void text_line(uint32_t* to, unsigned counter, unsigned row_scan, unsigned panning) {
    const R& r = registers_;
    const bool nine = !(r.sequencer[R::kClockingMode] & R::kEightDots);
    const uint8_t mode = r.attribute[R::kAttributeMode];
    const unsigned cells = r.crtc[R::kHorizontalEnd] + 1u;
    const unsigned cursor_at = static_cast<unsigned>(r.crtc[R::kCursorHigh] << 8 | r.crtc[R::kCursorLow]);
    const bool cursor_line = blink_.cursor && !(r.crtc[R::kCursorStart] & 0x20) &&
                             row_scan >= (r.crtc[R::kCursorStart] & 0x1fu) &&
                             row_scan <= (r.crtc[R::kCursorEnd] & 0x1fu);
    // Two character sets, chosen by bit 3 of the attribute; their places in plane 2 are 16 KiB apart, or in
    // between.
    const uint8_t map = r.sequencer[R::kCharacterMap];
    const auto font_of = [](unsigned low, unsigned high) { return low * 0x4000u + high * 0x2000u; };
    const unsigned font_b = font_of(map & 3, map >> 4 & 1), font_a = font_of(map >> 2 & 3, map >> 5 & 1);
    // 8 in nine-dot modes is no panning, less is a dot more.
    const unsigned skip = nine ? (panning >= 8 ? 0 : panning + 1) : panning & 7;
    Cursor out{to, to + image_.width, skip, repeat()};
    for (unsigned x = 0; x < cells + (skip > 0); ++x) {
      const unsigned at = (counter + x) & 0xffff;
      const uint32_t planes = cell(at);
      const uint8_t code = planes & 0xff, attribute = planes >> 8 & 0xff;
      unsigned dots = cell((attribute & 8 ? font_a : font_b) + code * 32u + row_scan) >> 16 & 0xff;
      unsigned ninth = mode & R::kLineGraphics && code >= 0xc0 && code <= 0xdf ? dots & 1 : 0;
      unsigned foreground = attribute & 0x0f, background = attribute >> 4;
      if (mode & R::kBlink) {
        background &= 7;
        if (attribute & 0x80 && !blink_.text) dots = ninth = 0;
      }
      if (mode & R::kMonochrome && (attribute & 7) == 1 && row_scan == (r.crtc[R::kUnderline] & 0x1fu)) {
        dots = 0xff;
        ninth = 1;
      }
      if (cursor_line && at == cursor_at) {
        dots = 0xff;
        ninth = 1;
      }
      const uint32_t colors[2] = {attributes_[background], attributes_[foreground]};
      for (unsigned bit = 8; bit-- > 0;) out.put(colors[dots >> bit & 1]);
      if (nine) out.put(colors[ninth]);
    }
  }

  const R& registers_;
  const std::span<const std::byte> memory_;
  const VgaBlink blink_;
  VgaImage& image_;
  const Palette dac_;
  const std::array<uint32_t, 16> attributes_;
};

bool is_text(const R& r) {
  return !r.dispi_enabled() && !(r.graphics[R::kMiscellaneous] & R::kGraphicsNotText) &&
         r.palette_address_source;
}

}  // namespace

void render_vga(const VgaRegisters& registers, std::span<const std::byte> memory, VgaBlink blink,
                VgaImage& image) {
  Renderer(registers, memory, blink, image).render();
}

bool vga_blinks(const VgaRegisters& registers) {
  return is_text(registers);
}

std::vector<std::vector<uint8_t>> vga_text(const VgaRegisters& registers, std::span<const std::byte> memory) {
  std::vector<std::vector<uint8_t>> rows;
  if (!is_text(registers)) return rows;
  const unsigned scans = (registers.crtc[R::kMaximumScan] & 0x1fu) + 1;
  const unsigned doubled = registers.crtc[R::kMaximumScan] & R::kDoubleScan ? 2 : 1;
  const unsigned cells = registers.crtc[R::kHorizontalEnd] + 1u;
  for (unsigned row = 0; row < registers.lines() / (scans * doubled); ++row) {
    const unsigned counter = registers.start_address() + row * registers.crtc[R::kOffset] * 2u;
    std::vector<uint8_t>& text = rows.emplace_back();
    for (unsigned x = 0; x < cells; ++x) {
      text.push_back(static_cast<uint8_t>(memory[((counter + x) & 0xffff) * 4 % memory.size()]));
    }
  }
  return rows;
}

}  // namespace penumbra
