// Commands of a person to the machine, as QEMU's monitor has them: "info registers", "x/8gx 0x1000" and so
// on. Consoles, sockets and gdb's "monitor" command bring them here. vCPU thread.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/machine.h"
#include "frontend/guest_memory.h"

namespace penumbra {

class BalloonWatch;
class KeyTyper;
class MediaDrives;
class Screen;

// What is done to the machine beside its vCPU. Lives as long as the machine.
struct MonitorActions {
  Screen* screen = nullptr;  // null: there is none
  KeyTyper* keys = nullptr;
  BalloonWatch* balloon = nullptr;  // null: there is none
  std::string balloon_id;           // of its -device
  MediaDrives* drives = nullptr;
  std::function<void()> press_power_button;
  bool io_error = false;  // a drive has paused the machine
  // Told with QMP's names of events, and what they say; nothing: what goes with the name.
  std::function<void(std::string_view name, const nlohmann::json& data)> event;
};

class Monitor {
 public:
  Monitor(Machine& machine, const MonitorActions& actions)
      : machine_(machine), actions_(actions), memory_(machine.vcpu()) {}

  // What the command says; ends with a newline unless it is empty.
  std::string execute(std::string_view line);
  // The names that `line` could become when its last word is completed; the words before it are kept. Any
  // thread.
  std::vector<std::string> completions(std::string_view line) const;

 private:
  struct Command;
  static const std::span<const Command> kCommands;
  std::string help(std::string_view arguments);
  std::string stop(std::string_view arguments);
  std::string resume(std::string_view arguments);
  std::string reset(std::string_view arguments);
  std::string power_down(std::string_view arguments);
  std::string quit(std::string_view arguments);
  std::string screendump(std::string_view arguments);
  std::string send_keys(std::string_view arguments);
  std::string set_balloon(std::string_view arguments);
  std::string eject(std::string_view arguments);
  std::string change(std::string_view arguments);
  std::string info(std::string_view arguments);
  std::string examine(std::string_view arguments, GuestMemory::Space space);
  std::string disassemble(GuestMemory::Space space, uint64_t address, unsigned count);
  std::string translate(std::string_view arguments);
  void tell(std::string_view event);

  Machine& machine_;
  const MonitorActions& actions_;
  GuestMemory memory_;
  // What the last x or xp did, for one without a format.
  struct Format {
    unsigned count = 1;
    char letter = 'x';
    unsigned bytes = 4;
  };
  Format last_;
};

}  // namespace penumbra
