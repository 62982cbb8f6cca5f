#include "frontend/display.h"

#include <algorithm>

namespace penumbra {

// A VGA's cursor blinks every 16 frames, characters every 32.
bool ScreenFeed::update(VgaImage& image) {
  constexpr std::chrono::milliseconds kCursor{267}, kText{533};
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const VgaBlink blink{.cursor = now / kCursor % 2 == 0, .text = now / kText % 2 == 0};
  if (vga_.changed() && !requested_.exchange(true) && !events_.post([this] { copy(); }))
    requested_.store(false);
  const std::lock_guard lock(mutex_);
  const bool blinked = blinks_ && (blink.cursor != blink_.cursor || blink.text != blink_.text);
  if (memory_.empty() || (!fresh_ && !blinked)) return false;
  fresh_ = false;
  blink_ = blink;
  blinks_ = vga_blinks(registers_);
  VgaImage before = image;
  render_vga(registers_, memory_, blink, image);
  return image != before;
}

void ScreenFeed::copy() {
  const std::lock_guard lock(mutex_);
  vga_.watch();  // first: a write during the copy is one more change
  registers_ = vga_.registers();
  const auto memory = vga_.memory();
  memory_.resize(memory.size());
  size_t begin = 0, end = size_t{256} << 10;
  if (registers_.dispi_enabled()) {
    begin = registers_.dispi[VgaRegisters::kYOffset] * registers_.dispi_line_bytes();
    end = begin + (registers_.dispi[VgaRegisters::kYResolution] + 1u) * registers_.dispi_line_bytes();
  }
  begin = std::min(begin, memory.size());
  end = std::clamp(end, begin, memory.size());
  std::ranges::copy(memory.subspan(begin, end - begin), memory_.begin() + static_cast<ptrdiff_t>(begin));
  fresh_ = true;
  requested_.store(false);
}

void DisplayInput::key(KeyCode code, bool down) {
  [[maybe_unused]] const bool posted = machine_.events().post([this, code, down] { board_.key(code, down); });
}

void DisplayInput::mouse(int x, int y, int wheel, uint8_t buttons) {
  [[maybe_unused]] const bool posted =
      machine_.events().post([this, x, y, wheel, buttons] { board_.mouse().move(x, y, wheel, buttons); });
}

bool DisplayInput::places() const {
  return board_.tablet() && board_.tablet()->ready();
}

void DisplayInput::place(int x, int y, unsigned width, unsigned height, int wheel, uint8_t buttons) {
  const auto scale = [](int at, unsigned size) {
    const auto last = static_cast<int>(std::max(size, 2u)) - 1;
    return static_cast<uint32_t>(std::clamp(at, 0, last)) * VirtioTablet::kMost / static_cast<uint32_t>(last);
  };
  [[maybe_unused]] const bool posted =
      machine_.events().post([this, to_x = scale(x, width), to_y = scale(y, height), wheel, buttons] {
        board_.tablet()->place(to_x, to_y, wheel, buttons);
      });
}

}  // namespace penumbra
