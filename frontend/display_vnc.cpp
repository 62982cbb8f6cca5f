// -display vnc=:N: a VNC server by libvncserver, on a thread of its own.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <rfb/keysym.h>
#include <rfb/rfb.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "frontend/display.h"
#include "frontend/host_library.h"
#include "frontend/user_error.h"

namespace penumbra {

namespace {

constexpr unsigned kFirstPort = 5900;

// The key of a US keyboard that makes the symbol; 0: none does.
KeyCode key_of(rfbKeySym symbol) {
  // Codes of the keys of the four rows, as their symbols with and without shift.
  static constexpr struct {
    KeyCode first;
    std::string_view plain, shifted;
  } kRows[] = {{0x02, "1234567890-=", "!@#$%^&*()_+"},
               {0x10, "qwertyuiop[]", "QWERTYUIOP{}"},
               {0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~"},
               {0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?"}};
  static constexpr struct {
    rfbKeySym symbol;
    KeyCode code;
  } kOthers[] = {{XK_Escape, 0x01},      {XK_BackSpace, 0x0e},   {XK_Tab, 0x0f},
                 {XK_Return, 0x1c},      {XK_Control_L, 0x1d},   {XK_Shift_L, 0x2a},
                 {XK_Shift_R, 0x36},     {XK_KP_Multiply, 0x37}, {XK_Alt_L, 0x38},
                 {XK_space, 0x39},       {XK_Caps_Lock, 0x3a},   {XK_Num_Lock, 0x45},
                 {XK_Scroll_Lock, 0x46}, {XK_F11, 0x57},         {XK_F12, 0x58},
                 {XK_KP_Enter, 0x9c},    {XK_Control_R, 0x9d},   {XK_KP_Divide, 0xb5},
                 {XK_Print, kKeyPrint},  {XK_Alt_R, 0xb8},       {XK_ISO_Level3_Shift, 0xb8},
                 {XK_Pause, kKeyPause},  {XK_Home, 0xc7},        {XK_Up, 0xc8},
                 {XK_Page_Up, 0xc9},     {XK_Left, 0xcb},        {XK_Right, 0xcd},
                 {XK_End, 0xcf},         {XK_Down, 0xd0},        {XK_Page_Down, 0xd1},
                 {XK_Insert, 0xd2},      {XK_Delete, 0xd3},      {XK_Super_L, 0xdb},
                 {XK_Super_R, 0xdc},     {XK_Menu, 0xdd},        {XK_Meta_L, 0x38},
                 {XK_KP_Subtract, 0x4a}, {XK_KP_Add, 0x4e},      {XK_KP_Decimal, 0x53},
                 {XK_KP_0, 0x52},        {XK_KP_1, 0x4f},        {XK_KP_2, 0x50},
                 {XK_KP_3, 0x51},        {XK_KP_4, 0x4b},        {XK_KP_5, 0x4c},
                 {XK_KP_6, 0x4d},        {XK_KP_7, 0x47},        {XK_KP_8, 0x48},
                 {XK_KP_9, 0x49}};
  if (symbol > ' ' && symbol < 0x7f) {
    for (const auto& row : kRows) {
      for (const std::string_view symbols : {row.plain, row.shifted}) {
        const size_t at = symbols.find(static_cast<char>(symbol));
        if (at != std::string_view::npos) return static_cast<KeyCode>(row.first + at);
      }
    }
  }
  if (symbol >= XK_F1 && symbol <= XK_F10) return static_cast<KeyCode>(0x3b + (symbol - XK_F1));
  const auto known = std::ranges::find(kOthers, symbol, [](const auto& row) { return row.symbol; });
  return known == std::end(kOthers) ? 0 : known->code;
}

class VncDisplay final : public Display {
 public:
  VncDisplay(Machine& machine, PcBoard& board, const std::string& host, unsigned number)
      : option_(fmt::format("-display vnc={}:{}", host, number)),
        library_(option_, "libvncserver.so.1"),
        input_(machine, board),
        feed_(machine.events(), *board.vga()) {
    library_.find(get_screen_, "rfbGetScreen");
    library_.find(init_server_, "rfbInitServerWithPthreadsAndZRLE");
    library_.find(process_events_, "rfbProcessEvents");
    library_.find(mark_, "rfbMarkRectAsModified");
    library_.find(new_frame_buffer_, "rfbNewFramebuffer");
    library_.find(shut_down_, "rfbShutdownServer");
    library_.find(clean_up_, "rfbScreenCleanup");
    library_.find(log_, "rfbLogEnable");
    log_(0);
    listen(host, number);
    thread_ = std::thread([this] { run(); });
  }

  ~VncDisplay() override {
    stop_.store(true);
    thread_.join();
    shut_down_(screen_, TRUE);
    clean_up_(screen_);
  }

 private:
  void listen(const std::string& host, unsigned number) {
    resize(640, 480);
    screen_ = get_screen_(nullptr, nullptr, static_cast<int>(width_), static_cast<int>(height_), 8, 3, 4);
    if (!screen_) throw UserError(option_ + ": out of memory");
    screen_->frameBuffer =
        reinterpret_cast<char*>(pixels_.data());  // SAFETY: four bytes a pixel, as was asked for
    set_format();
    screen_->desktopName = "Penumbra";
    screen_->screenData = this;
    screen_->alwaysShared = TRUE;
    screen_->kbdAddEvent = [](rfbBool down, rfbKeySym symbol, rfbClientPtr client) {
      self(client).key(down, symbol);
    };
    screen_->ptrAddEvent = [](int buttons, int x, int y, rfbClientPtr client) {
      self(client).pointer(buttons, x, y);
    };
    screen_->port = static_cast<int>(kFirstPort + number);
    screen_->ipv6port = -1;
    screen_->autoPort = FALSE;
    // Without a host this is the loopback interface: whoever connects owns the guest.
    in_addr address{.s_addr = htonl(INADDR_LOOPBACK)};
    if (!host.empty() && host != "localhost" && inet_pton(AF_INET, host.c_str(), &address) != 1)
      throw UserError(fmt::format("{}: '{}' is no IPv4 address", option_, host));
    screen_->listenInterface = address.s_addr;
    init_server_(screen_);
    if (screen_->listenSock < 0)
      throw UserError(fmt::format("{}: port {} is not to be had", option_, kFirstPort + number));
  }

  // 00RRGGBB, as the renderer makes them.
  void set_format() {
    screen_->serverFormat.redShift = 16;
    screen_->serverFormat.greenShift = 8;
    screen_->serverFormat.blueShift = 0;
  }

  void resize(unsigned width, unsigned height) {
    width_ = width;
    height_ = height;
    pixels_.assign(size_t{width} * height, 0);
  }

  static VncDisplay& self(rfbClientPtr client) {
    return *static_cast<VncDisplay*>(client->screen->screenData);
  }

  void key(bool down, rfbKeySym symbol) {
    if (const KeyCode code = key_of(symbol)) input_.key(code, down);
  }

  // A PS/2 mouse knows movements only; viewers send places.
  void pointer(int buttons, int x, int y) {
    const auto bits =
        static_cast<uint8_t>((buttons & 1 ? Ps2Mouse::kLeft : 0) | (buttons & 2 ? Ps2Mouse::kMiddle : 0) |
                             (buttons & 4 ? Ps2Mouse::kRight : 0));
    const int rolled = (buttons & ~last_buttons_ & 16 ? 1 : 0) - (buttons & ~last_buttons_ & 8 ? 1 : 0);
    if (input_.places()) {
      input_.place(x, y, width_, height_, rolled, bits);
    } else {
      input_.mouse(x - last_x_, y - last_y_, rolled, bits);
    }
    last_x_ = x;
    last_y_ = y;
    last_buttons_ = buttons;
  }

  void run() {
    constexpr std::chrono::microseconds kWait = kDisplayInterval;
    while (!stop_.load()) {
      process_events_(screen_, static_cast<long>(kWait.count()));
      // Without a viewer nobody looks, and the guest writes freely.
      if (!screen_->clientHead || !feed_.update(image_)) continue;
      if (image_.width != width_ || image_.height != height_) {
        std::vector<uint32_t> old = std::move(pixels_);  // in use until the next line but one
        resize(image_.width, image_.height);
        new_frame_buffer_(screen_, reinterpret_cast<char*>(pixels_.data()), static_cast<int>(width_),
                          static_cast<int>(height_), 8, 3, 4);
        set_format();
      }
      show();
    }
  }

  // Lines that are as they were are not sent.
  void show() {
    const auto differs = [this](unsigned y) {
      const size_t line = size_t{y} * width_;
      return std::memcmp(&pixels_[line], &image_.pixels[line], size_t{width_} * 4) != 0;
    };
    for (unsigned y = 0; y < height_; ++y) {
      if (!differs(y)) continue;
      const unsigned first = y;
      while (y < height_ && differs(y)) {
        std::memcpy(&pixels_[size_t{y} * width_], &image_.pixels[size_t{y} * width_], size_t{width_} * 4);
        ++y;
      }
      mark_(screen_, 0, static_cast<int>(first), static_cast<int>(width_), static_cast<int>(y));
    }
  }

  const std::string option_;
  const HostLibrary library_;
  decltype(&rfbGetScreen) get_screen_;
  decltype(&rfbInitServerWithPthreadsAndZRLE) init_server_;
  decltype(&rfbProcessEvents) process_events_;
  decltype(&rfbMarkRectAsModified) mark_;
  decltype(&rfbNewFramebuffer) new_frame_buffer_;
  decltype(&rfbShutdownServer) shut_down_;
  decltype(&rfbScreenCleanup) clean_up_;
  decltype(&rfbLogEnable) log_;

  DisplayInput input_;
  ScreenFeed feed_;
  rfbScreenInfoPtr screen_ = nullptr;
  VgaImage image_;
  unsigned width_ = 0, height_ = 0;
  std::vector<uint32_t> pixels_;  // what the viewers have
  int last_x_ = 0, last_y_ = 0, last_buttons_ = 0;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Display> make_vnc_display(Machine& machine, PcBoard& board, const std::string& host,
                                          unsigned number) {
  return std::make_unique<VncDisplay>(machine, board, host, number);
}

}  // namespace penumbra
