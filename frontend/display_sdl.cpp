// -display sdl: a window, on a thread of its own, which makes all calls of SDL.
#include <SDL2/SDL.h>
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <future>
#include <optional>
#include <stdexcept>
#include <thread>

#include "frontend/console_monitor.h"
#include "frontend/display.h"
#include "frontend/host_library.h"
#include "frontend/screen.h"
#include "frontend/text_console.h"
#include "frontend/user_error.h"

namespace penumbra {

namespace {

// Keys by their place on the keyboard, whatever is printed on them: SDL's scan codes are USB's usages.
constexpr std::array<KeyCode, 256> kKeys = [] {
  std::array<KeyCode, 256> keys{};
  // Letters A to Z, digits 1 to 0, then from Return on.
  constexpr KeyCode kRun[] = {
      0x1e, 0x30, 0x2e, 0x20, 0x12, 0x21, 0x22, 0x23, 0x17, 0x24, 0x25, 0x26, 0x32, 0x31, 0x18, 0x19, 0x10,
      0x13, 0x1f, 0x14, 0x16, 0x2f, 0x11, 0x2d, 0x15, 0x2c, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09,
      0x0a, 0x0b, 0x1c, 0x01, 0x0e, 0x0f, 0x39, 0x0c, 0x0d, 0x1a, 0x1b, 0x2b, 0x2b, 0x27, 0x28, 0x29, 0x33,
      0x34, 0x35, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x40, 0x41, 0x42, 0x43, 0x44, 0x57, 0x58, 0xb7, 0x46,
      0xc6, 0xd2, 0xc7, 0xc9, 0xd3, 0xcf, 0xd1, 0xcd, 0xcb, 0xd0, 0xc8, 0x45, 0xb5, 0x37, 0x4a, 0x4e, 0x9c,
      0x4f, 0x50, 0x51, 0x4b, 0x4c, 0x4d, 0x47, 0x48, 0x49, 0x52, 0x53, 0x56, 0xdd};
  for (size_t i = 0; i < std::size(kRun); ++i) keys[SDL_SCANCODE_A + i] = kRun[i];
  keys[SDL_SCANCODE_LCTRL] = 0x1d;
  keys[SDL_SCANCODE_LSHIFT] = 0x2a;
  keys[SDL_SCANCODE_LALT] = 0x38;
  keys[SDL_SCANCODE_LGUI] = 0xdb;
  keys[SDL_SCANCODE_RCTRL] = 0x9d;
  keys[SDL_SCANCODE_RSHIFT] = 0x36;
  keys[SDL_SCANCODE_RALT] = 0xb8;
  keys[SDL_SCANCODE_RGUI] = 0xdc;
  return keys;
}();
static_assert(kKeys[SDL_SCANCODE_A] == 0x1e && kKeys[SDL_SCANCODE_RETURN] == 0x1c &&
              kKeys[SDL_SCANCODE_F12] == 0x58 && kKeys[SDL_SCANCODE_UP] == 0xc8 &&
              kKeys[SDL_SCANCODE_KP_PERIOD] == 0x53 && kKeys[SDL_SCANCODE_APPLICATION] == 0xdd);

// The functions of SDL that the window calls.
struct Sdl {
// clang-format off
#define PENUMBRA_SDL_FUNCTIONS(X)                                                                                  \
  X(Init) X(Quit) X(GetError) X(CreateWindow) X(DestroyWindow) X(CreateRenderer) X(DestroyRenderer) X(CreateTexture) \
  X(DestroyTexture) X(UpdateTexture) X(RenderClear) X(RenderCopy) X(RenderPresent) X(RenderSetLogicalSize)         \
  X(SetWindowSize) X(SetWindowTitle) X(SetWindowFullscreen) X(SetRelativeMouseMode) X(SetWindowGrab)               \
  X(WaitEventTimeout) X(PollEvent) X(SetHint) X(GetModState)
// clang-format on
#define PENUMBRA_DECLARE(name) decltype(&SDL_##name) name;
  PENUMBRA_SDL_FUNCTIONS(PENUMBRA_DECLARE)
#undef PENUMBRA_DECLARE
  explicit Sdl(const HostLibrary& library) {
#define PENUMBRA_FIND(name) library.find(name, "SDL_" #name);
    PENUMBRA_SDL_FUNCTIONS(PENUMBRA_FIND)
#undef PENUMBRA_FIND
  }
#undef PENUMBRA_SDL_FUNCTIONS
};

class SdlDisplay final : public Display {
 public:
  SdlDisplay(Machine& machine, PcBoard& board, const MonitorActions& actions,
             std::span<const std::byte> vga_rom)
      : library_("-display sdl", "libSDL2-2.0.so.0"),
        sdl_(library_),
        machine_(machine),
        input_(machine, board),
        feed_(machine.events(), *board.vga()),
        monitor_(machine, actions) {
    if (const auto font = TextConsole::find_font(vga_rom)) {
      console_.emplace(*font);
      console_monitor_.emplace(machine.events(), monitor_, true,
                               [this](std::string_view text) { console_->write(text); });
    }
    std::promise<std::string> opened;
    auto failure = opened.get_future();
    thread_ = std::thread([this, &opened] {
      std::string error = open();
      const bool good = error.empty();
      opened.set_value(std::move(error));
      if (good) run();
      close();
    });
    if (const std::string error = failure.get(); !error.empty()) {
      thread_.join();
      throw UserError("-display sdl: " + error);
    }
  }

  ~SdlDisplay() override {
    stop_.store(true);
    thread_.join();
  }

 private:
  std::string open() {
    sdl_.SetHint(SDL_HINT_NO_SIGNAL_HANDLERS, "1");
    sdl_.SetHint(SDL_HINT_VIDEO_X11_NET_WM_BYPASS_COMPOSITOR, "0");
    if (sdl_.Init(SDL_INIT_VIDEO) != 0) return sdl_.GetError();
    initialised_ = true;
    window_ = sdl_.CreateWindow("Penumbra", SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED, 720, 400,
                                SDL_WINDOW_RESIZABLE);
    if (window_) renderer_ = sdl_.CreateRenderer(window_, -1, 0);
    if (!renderer_) return sdl_.GetError();
    show_title();
    return "";
  }

  void close() {
    if (texture_) sdl_.DestroyTexture(texture_);
    if (renderer_) sdl_.DestroyRenderer(renderer_);
    if (window_) sdl_.DestroyWindow(window_);
    if (initialised_) sdl_.Quit();
  }

  void run() {
    while (!stop_.load()) {
      SDL_Event event;
      if (sdl_.WaitEventTimeout(&event, static_cast<int>(kDisplayInterval.count()))) {
        do {
          handle(event);
        } while (sdl_.PollEvent(&event));
      }
      if (const bool paused = machine_.paused(); paused != shown_paused_) {
        shown_paused_ = paused;
        show_title();
      }
      if (shows_console_ ? console_->draw(console_image_) : feed_.update(image_)) {
        draw(shows_console_ ? console_image_ : image_);
      } else if (exposed_) {
        present();
      }
      exposed_ = false;
    }
  }

  void show_title() {
    const std::string title = fmt::format("Penumbra{}{}", shown_paused_ ? " (paused)" : "",
                                          shows_console_ ? " - monitor, Ctrl-Alt-1 leaves it"
                                          : grabbed_     ? " - Ctrl-Alt-G frees the mouse"
                                                         : "");
    sdl_.SetWindowTitle(window_, title.c_str());
  }

  // The image keeps its proportions however large the window is made.
  void draw(const VgaImage& image) {
    if (!texture_ || image.width != width_ || image.height != height_) {
      if (texture_) sdl_.DestroyTexture(texture_);
      width_ = image.width;
      height_ = image.height;
      texture_ = sdl_.CreateTexture(renderer_, SDL_PIXELFORMAT_RGB888, SDL_TEXTUREACCESS_STREAMING,
                                    static_cast<int>(width_), static_cast<int>(height_));
      if (!texture_) return;
      sdl_.RenderSetLogicalSize(renderer_, static_cast<int>(width_), static_cast<int>(height_));
      if (!full_screen_) sdl_.SetWindowSize(window_, static_cast<int>(width_), static_cast<int>(height_));
    }
    sdl_.UpdateTexture(texture_, nullptr, image.pixels.data(), static_cast<int>(width_ * 4));
    present();
  }

  void present() {
    if (!texture_) return;
    sdl_.RenderClear(renderer_);
    sdl_.RenderCopy(renderer_, texture_, nullptr, nullptr);
    sdl_.RenderPresent(renderer_);
  }

  void handle(const SDL_Event& event) {
    switch (event.type) {
      case SDL_QUIT:
        return input_.quit();
      case SDL_WINDOWEVENT:
        exposed_ = true;
        if (event.window.event == SDL_WINDOWEVENT_FOCUS_LOST) {
          release_keys();
          grab(false);
        }
        return;
      case SDL_KEYDOWN:
      case SDL_KEYUP:
        return key(event.key);
      case SDL_TEXTINPUT:
        if (shows_console_ && !(sdl_.GetModState() & KMOD_CTRL)) {
          for (const char c : std::string_view(event.text.text))
            console_monitor_->feed(static_cast<uint8_t>(c));
        }
        return;
      case SDL_MOUSEMOTION:
        pointer_x_ = event.motion.x;
        pointer_y_ = event.motion.y;
        if (grabbed_) {
          input_.mouse(event.motion.xrel, event.motion.yrel, 0, buttons_);
        } else if (!shows_console_ && input_.places()) {
          place(0);
        }
        return;
      case SDL_MOUSEBUTTONDOWN:
      case SDL_MOUSEBUTTONUP:
        return button(event.button);
      case SDL_MOUSEWHEEL:
        if (grabbed_) {
          input_.mouse(0, 0, -event.wheel.y, buttons_);
        } else if (!shows_console_ && input_.places()) {
          place(-event.wheel.y);
        }
        return;
      default:
        return;
    }
  }

  // The keyboard of the machine repeats held keys by itself.
  void key(const SDL_KeyboardEvent& event) {
    if (shows_console_ && event.type == SDL_KEYDOWN) edit(event.keysym);
    if (event.repeat) return;
    const SDL_Scancode code = event.keysym.scancode;
    const bool down = event.type == SDL_KEYDOWN;
    if (down && event.keysym.mod & KMOD_CTRL && event.keysym.mod & KMOD_ALT) {
      if (code == SDL_SCANCODE_G) return grab(!grabbed_);
      if (code == SDL_SCANCODE_F) return toggle_full_screen();
      if (code == SDL_SCANCODE_S) return save_screenshot();
      if (code == SDL_SCANCODE_1) return show_console(false);
      if (code == SDL_SCANCODE_2) return show_console(true);
    }
    // A key whose press was not the guest's is not its when it goes up, either.
    if (code >= kKeys.size() || !kKeys[code] || shows_console_ || (!down && !pressed_[code])) return;
    pressed_[code] = down;
    input_.key(kKeys[code], down);
  }

  // The monitor's line: what is not text. Held keys repeat.
  void edit(const SDL_Keysym& key) {
    constexpr uint8_t kKillLine = 0x15;
    const bool control = key.mod & KMOD_CTRL;
    if (key.sym == SDLK_RETURN || key.sym == SDLK_KP_ENTER) console_monitor_->feed('\r');
    if (key.sym == SDLK_BACKSPACE) console_monitor_->feed('\b');
    if (key.sym == SDLK_TAB) console_monitor_->feed('\t');
    if (key.sym == SDLK_u && control) console_monitor_->feed(kKillLine);
  }

  void show_console(bool on) {
    if (!console_ || shows_console_ == on) return;
    release_keys();
    grab(false);
    shows_console_ = on;
    if (on && !std::exchange(console_opened_, true)) console_monitor_->open();
    if (on) console_->draw(console_image_);
    draw(on ? console_image_ : image_);
    show_title();
  }

  // The guest would see those held for ever whose release another window gets.
  void release_keys() {
    for (size_t code = 0; code < pressed_.size(); ++code) {
      if (std::exchange(pressed_[code], false)) input_.key(kKeys[code], false);
    }
  }

  void button(const SDL_MouseButtonEvent& event) {
    if (shows_console_) return;
    if (!grabbed_ && !input_.places()) {
      if (event.type == SDL_MOUSEBUTTONDOWN) grab(true);
      return;
    }
    const uint8_t bit = event.button == SDL_BUTTON_LEFT     ? Ps2Mouse::kLeft
                        : event.button == SDL_BUTTON_RIGHT  ? Ps2Mouse::kRight
                        : event.button == SDL_BUTTON_MIDDLE ? Ps2Mouse::kMiddle
                        : event.button == SDL_BUTTON_X1     ? Ps2Mouse::kSide
                                                            : Ps2Mouse::kExtra;
    buttons_ = static_cast<uint8_t>(event.type == SDL_MOUSEBUTTONDOWN ? buttons_ | bit : buttons_ & ~bit);
    grabbed_ ? input_.mouse(0, 0, 0, buttons_) : place(0);
  }

  void place(int wheel) { input_.place(pointer_x_, pointer_y_, width_, height_, wheel, buttons_); }

  void grab(bool on) {
    if (grabbed_ == on) return;
    grabbed_ = on;
    buttons_ = 0;
    sdl_.SetRelativeMouseMode(on ? SDL_TRUE : SDL_FALSE);
    sdl_.SetWindowGrab(window_, on ? SDL_TRUE : SDL_FALSE);
    show_title();
  }

  void toggle_full_screen() {
    full_screen_ = !full_screen_;
    sdl_.SetWindowFullscreen(window_, full_screen_ ? SDL_WINDOW_FULLSCREEN_DESKTOP : 0);
    exposed_ = true;
  }

  void save_screenshot() {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    localtime_r(&now, &local);
    const std::string path = fmt::format("penumbra-{:%Y%m%d-%H%M%S}.png", local);
    try {
      write_image(image_, path);
      fmt::print(stderr, "penumbra: the screen is in {}\n", path);
    } catch (const std::runtime_error& error) {
      fmt::print(stderr, "penumbra: {}\n", error.what());
    }
  }

  const HostLibrary library_;
  const Sdl sdl_;
  Machine& machine_;
  DisplayInput input_;
  ScreenFeed feed_;
  Monitor monitor_;                     // vCPU thread
  std::optional<TextConsole> console_;  // none: the font was not found
  std::optional<ConsoleMonitor> console_monitor_;

  // The thread's only.
  bool initialised_ = false;
  SDL_Window* window_ = nullptr;
  SDL_Renderer* renderer_ = nullptr;
  SDL_Texture* texture_ = nullptr;
  unsigned width_ = 0, height_ = 0;
  VgaImage image_, console_image_;
  bool shows_console_ = false, console_opened_ = false;
  bool grabbed_ = false, full_screen_ = false, exposed_ = false, shown_paused_ = false;
  int pointer_x_ = 0, pointer_y_ = 0;  // in the guest's picture
  uint8_t buttons_ = 0;
  std::array<bool, 256> pressed_{};

  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Display> make_sdl_display(Machine& machine, PcBoard& board, const MonitorActions& actions,
                                          std::span<const std::byte> vga_rom) {
  return std::make_unique<SdlDisplay>(machine, board, actions, vga_rom);
}

}  // namespace penumbra
