// What a window or a viewer needs of the machine: its picture as it changes, and the way for keys and the
// mouse.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/machine.h"
#include "devices/pc_board.h"
#include "devices/vga_renderer.h"
#include "devices/vga_std.h"
#include "frontend/monitor.h"

namespace penumbra {

// For one thread, the display's, which is not the vCPU's. An unchanged screen costs the vCPU nothing.
class ScreenFeed {
 public:
  ScreenFeed(EventQueue& events, VgaStd& vga) : events_(events), vga_(vga) {}

  // Draws `image` anew when it changed; false: it is as it was. What the guest changes now comes with a later
  // call.
  bool update(VgaImage& image);

 private:
  void copy();  // vCPU thread
  EventQueue& events_;
  VgaStd& vga_;
  std::atomic<bool> requested_{false};
  std::mutex mutex_;
  bool fresh_ = false;             // guarded by mutex_: the two below were copied since the last drawing
  VgaRegisters registers_;         // guarded
  std::vector<std::byte> memory_;  // guarded
  VgaBlink blink_;
  bool blinks_ = false;
};

// Any thread: input becomes events. What does not fit into the queue is lost, as with a keyboard that nobody
// reads.
class DisplayInput {
 public:
  DisplayInput(Machine& machine, PcBoard& board) : machine_(machine), board_(board) {}
  void key(KeyCode code, bool down);
  void mouse(int x, int y, int wheel, uint8_t buttons);
  // Whether the guest listens to a tablet, which is told a place on a screen of that size, not a movement.
  bool places() const;
  void place(int x, int y, unsigned width, unsigned height, int wheel, uint8_t buttons);
  void quit() { machine_.request_quit(0); }

 private:
  Machine& machine_;
  PcBoard& board_;
};

// How often displays look, while somebody watches.
inline constexpr std::chrono::milliseconds kDisplayInterval{33};

class Display {
 public:
  virtual ~Display() = default;
};

// Both throw UserError when the host cannot. `number`: of the VNC display; 0 is port 5900.
// `vga_rom`: whose font the monitor in the window is shown in; without one there is none.
std::unique_ptr<Display> make_sdl_display(Machine& machine, PcBoard& board, const MonitorActions& actions,
                                          std::span<const std::byte> vga_rom);
std::unique_ptr<Display> make_vnc_display(Machine& machine, PcBoard& board, const std::string& host,
                                          unsigned number);

}  // namespace penumbra
