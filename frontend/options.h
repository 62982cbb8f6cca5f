// The command line: QEMU's option names, with one dash or two.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/machine.h"
#include "devices/smbios_tables.h"
#include "frontend/gdb_endpoint.h"
#include "frontend/network_options.h"
#include "frontend/share_options.h"
#include "jit/options.h"
#include "storage/disk_image.h"
#include "storage/image_device.h"

namespace penumbra {

// Where the bytes of a serial port or debug console go. Input comes from the terminal only.
struct CharacterTarget {
  enum class Kind : uint8_t { Null, Stdio, File };
  Kind kind = Kind::Null;
  std::string path;  // File
  bool operator==(const CharacterTarget&) const = default;
};

// Where commands come from: -monitor, -qmp.
struct MonitorEndpoint {
  bool stdio = false;
  StreamEndpoint socket;
};

// -display
struct DisplayOptions {
  enum class Kind : uint8_t { None, Sdl, Vnc };
  Kind kind = Kind::None;
  std::string host;     // Vnc: an address; empty for the loopback interface
  unsigned number = 0;  // Vnc: of the display; its port is 5900 + number
};

struct DriveOptions {
  enum class Interface : uint8_t { Ide, Ahci, Virtio, Floppy, Flash, None };
  Interface interface = Interface::Ide;
  unsigned index = 0;  // IDE: 2 * channel + number; AHCI: port; floppy: 0 is A; flash: 0 has the reset vector
  unsigned controller = 0;  // AHCI
  bool cdrom = false;
  std::string id = {}, serial = {};
  std::string device_id = {};  // of a -device that names the drive
  std::optional<unsigned> boot_index = {};
  BlockSizes sizes = {};
  ImageOptions image;  // an empty path: no medium
  ErrorPolicy errors = {};
};

// Flash chips of the board.
constexpr unsigned kMostFlashes = 2;

struct RunOptions {
  uint64_t ram_bytes = uint64_t{512} << 20;
  std::string cpu = "max";
  std::string kernel, append, bios;  // empty: not given
  std::vector<std::string> initrds;
  std::vector<DriveOptions> drives;
  unsigned ahci_controllers = 0;
  std::vector<NetworkOptions> networks;
  std::vector<NetworkCardOptions> network_cards;
  std::vector<PacketDumpOptions> packet_dumps;
  std::vector<ShareOptions> shares;
  bool entropy = false;  // a virtio entropy device
  bool balloon = false;  // a virtio memory balloon
  std::string balloon_id;
  struct VirtioPort {
    unsigned number = 0;
    bool console = false;
    std::string name;
    CharacterTarget target;
  };
  bool virtio_serial = false;  // a virtio console device
  std::vector<VirtioPort> virtio_ports;
  std::string boot_order = "cad";
  bool boot_strict = false;
  bool boot_menu = false;
  std::optional<uint16_t> boot_menu_wait;  // milliseconds
  std::optional<uint32_t> boot_fail_wait;  // milliseconds; all ones: for ever
  SmbiosOptions smbios;
  bool reboot = true;
  std::optional<MachineOptions::TripleFault> triple_fault;  // --on-triple-fault
  bool local_time = false;                                  // -rtc base=localtime

  std::vector<CharacterTarget> serials{{.kind = CharacterTarget::Kind::Stdio, .path = {}}};  // COM1 to COM4
  std::optional<CharacterTarget> parallel;
  struct DebugConsole {
    uint16_t port = 0;
    CharacterTarget target;
  };
  std::vector<DebugConsole> debug_consoles;
  struct DebugExit {
    uint16_t port = 0, ports = 0;
  };
  std::optional<DebugExit> debug_exit;
  bool testdev = false;  // QEMU's pc-testdev
  bool virtio_keyboard = false, virtio_tablet = false;

  bool vga = true;
  DisplayOptions display;
  bool serial_console = true;  // firmware talks to COM1, too
  std::optional<MonitorEndpoint> monitor, qmp;
  std::optional<GdbEndpoint> gdb;
  bool paused = false;  // -S: waits for gdb before the first instruction

  uint32_t trace_topics = 0;  // TraceLog's
  std::string trace_file;     // empty: standard error
  jit::TranslatorOptions translator;
  bool stats = false;
};

struct ExplainOptions {
  std::string path;
  unsigned mode = 0;
  uint64_t base = 0;
};

// Asked for with help, --version and the like: shown on standard output.
struct ShowText {
  std::string text;
};

using Command = std::variant<RunOptions, ExplainOptions, ShowText>;

// `arguments` does not hold the program's name. Throws UserError.
Command parse_command_line(std::span<const char* const> arguments);
// The same for a program that is called by QEMU's name: all arguments are options of `run`.
bool is_qemu_name(std::string_view program);
Command parse_qemu_command_line(std::span<const char* const> arguments);

// "1G", "512M", "4096" (MiB): see -m of QEMU. Throws UserError.
uint64_t parse_memory_size(std::string_view text);

}  // namespace penumbra
