#include "frontend/options.h"

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <bit>
#include <charconv>
#include <map>

#include "core/trace_log.h"
#include "devices/ahci_ich9.h"
#include "devices/fdc_82077aa.h"
#include "frontend/network_options.h"
#include "frontend/option_properties.h"
#include "frontend/share_options.h"
#include "frontend/user_error.h"

namespace penumbra {

namespace {

constexpr std::string_view kVersion = "penumbra 0.1";
constexpr unsigned kMaxSerials = 4;
constexpr unsigned kCdromIndex = 2;
constexpr uint32_t kMostBlock = uint32_t{2} << 20;  // bytes, as QEMU has it

CharacterTarget file_target(std::string_view option, std::string_view path) {
  if (path.empty()) refuse("{}: file: needs a path", option);
  return {.kind = CharacterTarget::Kind::File, .path = std::string(path)};
}

// Options as strings, before they depend on one another.
struct RunWords {
  std::string memory, processors, rtc, display, vga, monitor, qmp, debug_console, topics, switches, mmu, gdb,
      triple_fault, perf_symbols;
  std::string boot, uuid, machine, accelerator;
  std::vector<std::string> parallels, smbios, pflashes;
  std::vector<std::string> serials, devices, chardevs, drives, cdroms, disks[4], floppies[2], nics, netdevs,
      nets, objects, virtfs, fsdevs;
  bool snapshot = false;
  bool no_defaults = false, no_reboot = false, nographic = false, gdb_here = false, singlestep = false,
       perf_map = false;
};

class RunReader {
 public:
  RunOptions read(const RunWords& words, RunOptions options) {
    options.reboot = !words.no_reboot;
    if (set_.contains("m")) options.ram_bytes = parse_memory_size(words.memory);
    if (set_.contains("smp")) check_processors(words.processors);
    if (set_.contains("rtc")) options.local_time = rtc_is_local(words.rtc);
    if (set_.contains("display")) options.display = display_named(words.display);
    options.vga = set_.contains("vga") ? vga_is_there(words.vga) : !words.no_defaults;
    if (options.display.kind != DisplayOptions::Kind::None && !options.vga)
      refuse("-display {}: there is no VGA", words.display);
    options.serial_console = words.nographic || !set_.contains("display");
    if (set_.contains("monitor")) options.monitor = monitor_endpoint("-monitor", words.monitor);
    if (set_.contains("qmp")) options.qmp = monitor_endpoint("-qmp", words.qmp);
    for (const std::string& chardev : words.chardevs) add_chardev(chardev);
    if (!words.serials.empty() || words.no_defaults) options.serials.clear();
    for (const std::string& serial : words.serials) {
      if (options.serials.size() == kMaxSerials)
        refuse("-serial {}: there are {} serial ports", serial, kMaxSerials);
      options.serials.push_back(target("-serial", serial));
    }
    const CharacterTarget terminal{.kind = CharacterTarget::Kind::Stdio, .path = {}};
    if (std::ranges::count(options.serials, terminal) > 1)
      refuse("-serial stdio: only one serial port can have the terminal");
    if (words.parallels.size() > 1) refuse("-parallel {}: there is one parallel port", words.parallels[1]);
    for (const std::string& parallel : words.parallels) {
      if (parallel != "none") options.parallel = target("-parallel", parallel);
    }
    if (set_.contains("machine")) check_machine(options, words.machine);
    if (set_.contains("accel")) check_accelerator(words.accelerator);
    if (set_.contains("uuid")) options.smbios.uuid = parse_uuid("-uuid", words.uuid);
    for (const std::string& smbios : words.smbios) read_smbios(options.smbios, smbios);
    if (set_.contains("debugcon")) {
      constexpr uint16_t kDebugConsolePort = 0xe9;
      options.debug_consoles.push_back(
          {.port = kDebugConsolePort, .target = target("-debugcon", words.debug_console)});
    }
    if (words.gdb_here) options.gdb = gdb_endpoint("tcp::1234");
    if (set_.contains("gdb")) options.gdb = gdb_endpoint(words.gdb);
    if (options.paused && !options.gdb && !options.monitor && !options.qmp)
      refuse("-S waits for gdb or a monitor's cont: give -gdb, -s, -monitor or -qmp, too");
    if (options.monitor && options.monitor->stdio && std::ranges::count(options.serials, terminal) > 0)
      refuse("-monitor stdio: a serial port has the terminal (-serial null; or there, Ctrl-A C)");
    if (set_.contains("d")) options.trace_topics = parse_topics(words.topics);
    options.translator.trace_guest_code = options.trace_topics & TraceLog::kGuestCode;
    options.translator.trace_host_code = options.trace_topics & TraceLog::kHostCode;
    options.translator.trace_execution = options.trace_topics & (TraceLog::kExecution | TraceLog::kRegisters);
    // Registers are shown with their flags.
    if (options.trace_topics & (TraceLog::kInterrupts | TraceLog::kRealInterrupts))
      options.translator.flag_liveness = false;
    if (words.singlestep) options.translator.long_blocks = false;
    if (set_.contains("on-triple-fault")) options.triple_fault = parse_triple_fault(words.triple_fault);
    // Who asks to be told of triple faults wants all of the dump.
    options.translator.record_blocks = options.triple_fault.has_value();
    try {
      jit::apply_switches(options.translator, words.switches);
      if (words.perf_map) options.translator.perf_map = words.perf_symbols;
      if (set_.contains("mmu")) options.translator.mmu = jit::mmu_named(words.mmu);
    } catch (const std::invalid_argument& error) {
      refuse("{}", error.what());
    }
    add_drives(options, words);
    NetworkReader networks(options.networks, options.network_cards, options.packet_dumps);
    for (const std::string& netdev : words.netdevs) networks.add_netdev(netdev);
    for (const std::string& nic : words.nics) networks.add_nic(nic);
    for (const std::string& net : words.nets) networks.add_net(net);
    if (words.netdevs.empty() && words.nics.empty() && words.nets.empty() && !words.no_defaults)
      networks.add_default_nic();
    ShareReader shares(options.shares);
    for (const std::string& folder : words.virtfs) shares.add_virtfs(folder);
    for (const std::string& folder : words.fsdevs) shares.add_fsdev(folder);
    for (const std::string& device : words.devices) add_device(options, networks, shares, device);
    if (!words.no_defaults) add_empty_drives(options);
    for (const DriveOptions& drive : options.drives) check_errors(drive);
    for (const std::string& object : words.objects) networks.add_object(object);
    networks.finish();
    check_boot_indices(options);
    if (set_.contains("boot")) read_boot(options, words.boot);
    if (options.kernel.empty() && !options.initrds.empty()) refuse("-initrd needs -kernel");
    if (options.kernel.empty() && !options.append.empty()) refuse("-append needs -kernel");
    return options;
  }

  std::map<std::string, bool, std::less<>> set_;  // options that were given

 private:
  // "1", "cpus=1", "1,cores=1,threads=1": all counts must be 1.
  static void check_processors(const std::string& text) {
    Properties properties("-smp", text);
    if (!properties.head.empty()) properties.values.emplace("cpus", properties.head);
    for (const char* key : {"cpus", "maxcpus", "sockets", "dies", "cores", "threads"}) {
      const auto value = properties.take(key);
      if (!value) continue;
      const auto number = parse_number(*value);
      if (!number || *number == 0) refuse("-smp {}: not a number of processors", text);
      if (*number > 1) refuse("-smp {}: one processor is all there is for now", text);
    }
    properties.done();
  }

  // --- drives

  static ImageOptions::Cache cache_mode(std::string_view option, std::string_view name) {
    using enum ImageOptions::Cache;
    static constexpr std::pair<std::string_view, ImageOptions::Cache> kModes[] = {
        {"writeback", Writeback},
        {"none", None},
        {"writethrough", Writethrough},
        {"directsync", Directsync},
        {"unsafe", Unsafe}};
    const auto mode =
        std::ranges::find(kModes, name, &std::pair<std::string_view, ImageOptions::Cache>::first);
    if (mode == std::end(kModes))
      refuse("{}: cache={}: not one of writeback, none, writethrough, directsync, unsafe", option, name);
    return mode->second;
  }

  static ErrorPolicy::Action error_action(const std::string& text, const char* key, const std::string& name) {
    using enum ErrorPolicy::Action;
    if (name == "report") return Report;
    if (name == "ignore") return Ignore;
    if (name == "stop") return Stop;
    if (name == "enospc" && std::string_view(key) == "werror") return NoSpace;
    refuse("-drive {}: {}={}: not one of report, ignore, stop{}", text, key, name,
           std::string_view(key) == "werror" ? ", enospc" : "");
  }

  void add_drives(RunOptions& options, const RunWords& words) {
    for (unsigned i = 0; i < 4; ++i) {
      const std::string name = std::string("-hd") + static_cast<char>('a' + i);
      for (const std::string& path : words.disks[i])
        add_drive(options, {.index = i, .image = {.path = path}}, name);
    }
    for (unsigned i = 0; i < 2; ++i) {
      for (const std::string& path : words.floppies[i]) {
        DriveOptions drive{.interface = DriveOptions::Interface::Floppy, .index = i, .image = {.path = path}};
        add_drive(options, std::move(drive), std::string("-fd") + static_cast<char>('a' + i));
      }
    }
    for (const std::string& path : words.cdroms) {
      add_drive(options, {.index = kCdromIndex, .cdrom = true, .image = {.path = path, .read_only = true}},
                "-cdrom");
    }
    for (const std::string& drive : words.drives) read_drive(options, drive);
    for (const std::string& path : words.pflashes) {
      using enum DriveOptions::Interface;
      const unsigned unit =
          free_index(options, Flash, kMostFlashes, "-pflash " + path + ": there are two flash chips");
      const ImageOptions image{.path = path, .format = ImageOptions::Format::Raw};
      add_drive(options, {.interface = Flash, .index = unit, .image = image}, "-pflash " + path);
    }
    check_flashes(options);
    for (DriveOptions& drive : options.drives) drive.image.snapshot |= words.snapshot && !drive.cdrom;
  }

  // Drives that wait for a medium, as QEMU has them; of a kind of which a -device names one, that is all
  // there is.
  void add_empty_drives(RunOptions& options) const {
    using enum DriveOptions::Interface;
    const auto taken = [&options](DriveOptions::Interface interface, unsigned index) {
      return std::ranges::any_of(options.drives, [=](const DriveOptions& drive) {
        return drive.interface == interface && drive.index == index;
      });
    };
    if (!ide_device_ && !taken(Ide, kCdromIndex))
      options.drives.push_back(
          {.index = kCdromIndex, .cdrom = true, .image = {.path = {}, .read_only = true}});
    if (!floppy_device_ && !taken(Floppy, 0)) options.drives.push_back({.interface = Floppy, .image = {}});
  }

  static void add_drive(RunOptions& options, DriveOptions drive, std::string_view option) {
    for (const DriveOptions& other : options.drives) {
      using enum DriveOptions::Interface;
      const char* const place = drive.interface == Ide      ? "IDE drive"
                                : drive.interface == Floppy ? "floppy drive"
                                : drive.interface == Flash  ? "flash chip"
                                                            : nullptr;
      if (place && drive.interface == other.interface && drive.index == other.index)
        refuse("{}: {} {} is there already", option, place, drive.index);
      if (!drive.id.empty() && drive.id == other.id) refuse("{}: the id '{}' is taken", option, drive.id);
    }
    options.drives.push_back(std::move(drive));
  }

  static unsigned free_index(const RunOptions& options, DriveOptions::Interface interface, unsigned count,
                             const std::string& why_none) {
    for (unsigned index = 0; index < count; ++index) {
      if (std::ranges::none_of(options.drives, [=](const DriveOptions& drive) {
            return drive.interface == interface && drive.index == index;
          }))
        return index;
    }
    refuse("{}", why_none);
  }

  static unsigned free_ide_index(const RunOptions& options) {
    return free_index(options, DriveOptions::Interface::Ide, 4, "-drive: an IDE controller has four drives");
  }

  static void check_flashes(const RunOptions& options) {
    const auto has = [&options](unsigned unit) {
      return std::ranges::any_of(options.drives, [unit](const DriveOptions& drive) {
        return drive.interface == DriveOptions::Interface::Flash && drive.index == unit;
      });
    };
    if (has(1) && !has(0)) refuse("-drive if=pflash,unit=1: there is no unit=0, which has the firmware");
    if (has(0) && !options.bios.empty())
      refuse("-bios {}: the firmware is in flash (if=pflash)", options.bios);
  }

  static void read_drive(RunOptions& options, const std::string& text) {
    Properties properties("-drive", text);
    if (!properties.head.empty()) refuse("-drive {}: '{}' has no value", text, properties.head);
    DriveOptions drive;
    const std::string interface = properties.take("if").value_or("ide");
    if (interface == "none") {
      drive.interface = DriveOptions::Interface::None;
    } else if (interface == "virtio") {
      drive.interface = DriveOptions::Interface::Virtio;
    } else if (interface == "floppy") {
      drive.interface = DriveOptions::Interface::Floppy;
    } else if (interface == "pflash") {
      drive.interface = DriveOptions::Interface::Flash;
    } else if (interface != "ide") {
      refuse("-drive {}: if={}: not one of ide, floppy, virtio, pflash, none", text, interface);
    }
    const bool floppy = drive.interface == DriveOptions::Interface::Floppy;
    const std::string media = properties.take("media").value_or("disk");
    if (media != "disk" && media != "cdrom")
      refuse("-drive {}: media={}: neither disk nor cdrom", text, media);
    drive.cdrom = media == "cdrom";
    if (drive.cdrom && drive.interface != DriveOptions::Interface::Ide &&
        drive.interface != DriveOptions::Interface::None)
      refuse("-drive {}: an if={} drive is no CD-ROM", text, interface);
    drive.image.path = properties.take("file").value_or("");
    if (drive.image.path.empty() && !drive.cdrom && !floppy) refuse("-drive {}: file= is missing", text);
    if (const auto format = properties.take("format")) {
      if (*format != "raw" && *format != "qcow2")
        refuse("-drive {}: format={}: neither raw nor qcow2", text, *format);
      drive.image.format = *format == "raw" ? ImageOptions::Format::Raw : ImageOptions::Format::Qcow2;
    }
    if (const auto cache = properties.take("cache")) drive.image.cache = cache_mode("-drive " + text, *cache);
    drive.image.read_only = drive.cdrom;
    for (const char* key : {"readonly", "read-only"}) {
      if (const auto value = properties.take(key))
        drive.image.read_only |= on_off("-drive " + text, key, *value);
    }
    if (const auto value = properties.take("snapshot"))
      drive.image.snapshot = on_off("-drive " + text, "snapshot", *value);
    if (const auto discard = properties.take("discard")) {
      drive.image.discard = *discard == "unmap" || *discard == "on";
      if (!drive.image.discard && *discard != "ignore" && *discard != "off")
        refuse("-drive {}: discard={}: neither unmap nor ignore", text, *discard);
    }
    if (const auto action = properties.take("werror"))
      drive.errors.write = error_action(text, "werror", *action);
    if (const auto action = properties.take("rerror"))
      drive.errors.read = error_action(text, "rerror", *action);
    drive.id = properties.take("id").value_or("");
    drive.serial = properties.take("serial").value_or("");
    const auto number = [&](const char* key, unsigned limit) -> std::optional<unsigned> {
      const auto value = properties.take(key);
      if (!value) return std::nullopt;
      const auto parsed = parse_number(*value);
      if (!parsed || *parsed >= limit) refuse("-drive {}: {}={}: not below {}", text, key, *value, limit);
      return static_cast<unsigned>(*parsed);
    };
    const auto index = number("index", 4), bus = number("bus", 2), unit = number("unit", 2);
    properties.done();
    if (floppy) {
      drive.index = index ? *index : unit.value_or(0);
      if (drive.index >= Fdc82077aa::kDrives) refuse("-drive {}: a floppy controller has two drives", text);
    }
    const auto place = index ? index : unit;
    if (drive.interface == DriveOptions::Interface::Flash) {
      const std::string full = "-drive " + text + ": there are two flash chips";
      drive.index = place ? *place : free_index(options, DriveOptions::Interface::Flash, kMostFlashes, full);
      if (drive.index >= kMostFlashes) refuse("{}", full);
    }
    if (drive.interface == DriveOptions::Interface::Ide) {
      drive.index = index         ? *index
                    : bus || unit ? bus.value_or(0) * 2 + unit.value_or(0)
                                  : free_ide_index(options);
    }
    add_drive(options, std::move(drive), "-drive " + text);
  }

  // A request that is kept would be one of a medium that may be gone.
  static void check_errors(const DriveOptions& drive) {
    using enum ErrorPolicy::Action;
    const bool removable = drive.cdrom || drive.interface == DriveOptions::Interface::Floppy;
    if (removable &&
        (drive.errors.read != Report || (drive.errors.write != Report && drive.errors.write != NoSpace)))
      refuse("-drive file={}: rerror=, werror=: a drive whose medium can be taken out only reports",
             drive.image.path);
  }

  // "c", "order=dc,menu=on"
  static void read_boot(RunOptions& options, const std::string& text) {
    Properties properties("-boot", text);
    options.boot_order =
        properties.take("order").value_or(properties.head.empty() ? options.boot_order : properties.head);
    for (const char letter : options.boot_order) {
      if (!std::string_view("abcdn").contains(letter))
        refuse("-boot {}: '{}' is none of a, b, c, d, n", text, letter);
    }
    if (const auto menu = properties.take("menu")) options.boot_menu = on_off("-boot " + text, "menu", *menu);
    if (const auto wait = properties.take("splash-time")) {
      const auto number = parse_number(*wait);
      if (!number || *number > 0xffff)
        refuse("-boot {}: splash-time={}: not up to 65535 milliseconds", text, *wait);
      options.boot_menu_wait = static_cast<uint16_t>(*number);
    }
    if (const auto wait = properties.take("reboot-timeout")) {
      const auto number = *wait == "-1" ? std::optional<uint64_t>(UINT32_MAX) : parse_number(*wait);
      if (!number || (*number > 0xffff && *number != UINT32_MAX))
        refuse("-boot {}: reboot-timeout={}: not up to 65535 milliseconds, nor -1", text, *wait);
      options.boot_fail_wait = static_cast<uint32_t>(*number);
    }
    if (const auto strict = properties.take("strict"))
      options.boot_strict = on_off("-boot " + text, "strict", *strict);
    properties.done();
  }

  static void check_boot_indices(const RunOptions& options) {
    std::vector<unsigned> taken;
    const auto take = [&taken](const std::optional<unsigned>& index) {
      if (!index) return;
      if (std::ranges::find(taken, *index) != taken.end())
        refuse("-device: bootindex={}: another device has it", *index);
      taken.push_back(*index);
    };
    for (const DriveOptions& drive : options.drives) take(drive.boot_index);
    for (const NetworkCardOptions& card : options.network_cards) take(card.boot_index);
  }

  // But for graphics=off, which lets firmware talk to COM1, only what is so anyway.
  static void check_machine(RunOptions& options, const std::string& text) {
    Properties properties("-machine", text);
    if (properties.head.empty()) properties.head = properties.take("type").value_or("pc");
    if (properties.head != "pc" && !properties.head.starts_with("pc-i440fx"))
      refuse("-machine {}: the machine is QEMU's pc", text);
    if (const auto accelerator = properties.take("accel")) check_accelerator(*accelerator);
    if (const auto graphics = properties.take("graphics"))
      options.serial_console |= !on_off("-machine " + text, "graphics", *graphics);
    properties.done();
  }

  static void check_accelerator(const std::string& text) {
    if (text != "tcg") refuse("-accel {}: guest code is translated, as with tcg", text);
  }

  static std::array<uint8_t, 16> parse_uuid(std::string_view option, std::string_view text) {
    std::array<uint8_t, 16> uuid{};
    std::string digits;
    for (const char c : text) {
      if (c != '-') digits += c;
    }
    bool good = digits.size() == 2 * uuid.size() && text.size() == 36;
    for (size_t i = 0; good && i < uuid.size(); ++i) {
      const auto [end, error] =
          std::from_chars(digits.data() + 2 * i, digits.data() + 2 * i + 2, uuid[i], 16);
      good = error == std::errc() && end == digits.data() + 2 * i + 2;
    }
    if (!good) refuse("{} {}: not a UUID such as 01234567-89ab-cdef-0123-456789abcdef", option, text);
    return uuid;
  }

  static void read_smbios(SmbiosOptions& options, const std::string& text) {
    Properties properties("-smbios", text);
    properties.head = "type=" + properties.need("type");
    const auto take = [&properties](const char* key, std::string& to) {
      if (auto value = properties.take(key)) to = *std::move(value);
    };
    const auto take_part = [&](SmbiosOptions::Part& part, std::initializer_list<const char*> keys) {
      for (const char* key : keys) {
        const std::string_view name = key;
        take(key, name == "manufacturer"                ? part.manufacturer
                  : name == "product" || name == "part" ? part.product
                  : name == "version" || name == "bank" ? part.version
                  : name == "serial"                    ? part.serial
                  : name == "asset"                     ? part.asset
                  : name == "sku"                       ? part.sku
                  : name == "family"                    ? part.family
                                                        : part.location);
      }
    };
    if (properties.head == "type=0") {
      SmbiosOptions::Firmware& firmware =
          options.firmware ? *options.firmware : options.firmware.emplace(SmbiosOptions::Firmware{});
      take("vendor", firmware.vendor);
      take("version", firmware.version);
      take("date", firmware.date);
      take("release", firmware.release);
      if (const auto uefi = properties.take("uefi")) firmware.uefi = on_off("-smbios " + text, "uefi", *uefi);
    } else if (properties.head == "type=1") {
      take_part(options.system, {"manufacturer", "product", "version", "serial", "sku", "family"});
      if (const auto uuid = properties.take("uuid")) options.uuid = parse_uuid("-smbios uuid=", *uuid);
    } else if (properties.head == "type=2") {
      take_part(options.board, {"manufacturer", "product", "version", "serial", "asset", "location"});
    } else if (properties.head == "type=3") {
      take_part(options.chassis, {"manufacturer", "version", "serial", "asset", "sku"});
    } else if (properties.head == "type=4") {
      take_part(options.processor, {"sock_pfx", "manufacturer", "version", "serial", "asset", "part"});
    } else if (properties.head == "type=11") {
      for (std::string& value : properties.take_all("value")) options.oem_strings.push_back(std::move(value));
      constexpr size_t kMost = 255;
      if (options.oem_strings.size() > kMost) refuse("-smbios type=11: more than {} strings", kMost);
    } else if (properties.head == "type=17") {
      take_part(options.memory, {"loc_pfx", "bank", "manufacturer", "serial", "asset", "part"});
    } else {
      refuse("-smbios {}: the types are 0, 1, 2, 3, 4, 11, 17", text);
    }
    properties.done();
  }

  // "none", "sdl", "vnc=HOST:N", as QEMU spells it.
  static DisplayOptions display_named(const std::string& text) {
    using enum DisplayOptions::Kind;
    DisplayOptions display;
    if (text == "none") return display;
    if (text == "sdl") {
      display.kind = Sdl;
      return display;
    }
    const size_t colon = text.rfind(':');
    if (!text.starts_with("vnc=") || colon == std::string::npos)
      refuse("-display {}: not one of none, sdl, vnc=:N", text);
    display.kind = Vnc;
    display.host = text.substr(4, colon - 4);
    const auto number = parse_number(std::string_view(text).substr(colon + 1));
    constexpr unsigned kMostDisplays = 59636;  // 65535 - 5900 and 0
    if (colon + 1 == text.size() || !number || *number >= kMostDisplays)
      refuse("-display {}: no such display number", text);
    display.number = static_cast<unsigned>(*number);
    return display;
  }

  static bool vga_is_there(std::string_view name) {
    if (name != "std" && name != "none") refuse("-vga {}: neither std nor none", name);
    return name == "std";
  }

  static bool rtc_is_local(const std::string& text) {
    Properties properties("-rtc", text);
    const std::string base = properties.take("base").value_or("utc");
    if (!properties.head.empty() || (base != "utc" && base != "localtime"))
      refuse("-rtc {}: base=utc and base=localtime are known", text);
    properties.done();
    return base == "localtime";
  }

  // "tcp:HOST:PORT" or "unix:PATH"; `others` names what else the option takes.
  static StreamEndpoint stream_endpoint(std::string_view option, const std::string& text,
                                        std::string_view where, std::string_view others) {
    StreamEndpoint endpoint;
    if (where.starts_with("unix:")) {
      endpoint.kind = StreamEndpoint::Kind::Unix;
      endpoint.path = where.substr(5);
      if (endpoint.path.empty()) refuse("{} {}: unix: needs a path", option, text);
    } else if (const size_t colon = where.rfind(':'); where.starts_with("tcp:") && colon >= 4) {
      endpoint.host = where.substr(4, colon - 4);
      endpoint.port = where.substr(colon + 1);
      if (endpoint.host.starts_with('[') && endpoint.host.ends_with(']'))
        endpoint.host = endpoint.host.substr(1, endpoint.host.size() - 2);
      const auto port = parse_number(endpoint.port);
      if (!port || *port > 0xffff) refuse("{} {}: '{}' is no port number", option, text, endpoint.port);
    } else {
      refuse("{} {}: not one of tcp::PORT, tcp:HOST:PORT, unix:PATH, {}", option, text, others);
    }
    return endpoint;
  }

  // QEMU's server=on,wait=off says what is so anyway.
  static void only_server(std::string_view option, const std::string& text, Properties& properties) {
    for (const auto& [key, good] : {std::pair{"server", "on"}, {"wait", "off"}}) {
      const auto value = properties.take(key);
      if (value && *value != good) refuse("{} {}: only {}={} is there", option, text, key, good);
    }
  }

  // The older spelling, "unix:PATH,server,nowait", as well. Nothing: "none".
  static std::optional<MonitorEndpoint> monitor_endpoint(std::string_view option, std::string text) {
    if (text == "none") return std::nullopt;
    if (text == "stdio" && option == "-monitor") return MonitorEndpoint{.stdio = true, .socket = {}};
    for (const auto& [flag, property] : {std::pair{",server", ",server=on"}, {",nowait", ",wait=off"}}) {
      const size_t at = text.find(flag), end = at + std::string_view(flag).size();
      if (at != std::string::npos && (end == text.size() || text[end] == ','))
        text.replace(at, end - at, property);
    }
    Properties properties(option, text);
    MonitorEndpoint endpoint{.stdio = false,
                             .socket = stream_endpoint(option, text, properties.head,
                                                       option == "-monitor" ? "stdio, none" : "none")};
    only_server(option, text, properties);
    properties.done();
    return endpoint;
  }

  // "tcp:HOST:PORT" or "unix:PATH", then properties; "none".
  static std::optional<GdbEndpoint> gdb_endpoint(const std::string& text) {
    Properties properties("-gdb", text);
    GdbEndpoint endpoint;
    if (properties.head == "none") {
      properties.done();
      return std::nullopt;
    }
    endpoint.socket = stream_endpoint("-gdb", text, properties.head, "none");
    if (const auto arch = properties.take("arch")) {
      if (*arch == "i8086") {
        endpoint.arch = GdbArch::I8086;
      } else if (*arch == "i386") {
        endpoint.arch = GdbArch::I386;
      } else if (*arch == "x86-64") {
        endpoint.arch = GdbArch::X86_64;
      } else if (*arch != "auto") {
        refuse("-gdb {}: arch is one of i8086, i386, x86-64, auto", text);
      }
    }
    only_server("-gdb", text, properties);
    properties.done();
    return endpoint;
  }

  static MachineOptions::TripleFault parse_triple_fault(std::string_view text) {
    if (text == "reset") return MachineOptions::TripleFault::Reset;
    if (text == "exit") return MachineOptions::TripleFault::Exit;
    if (text == "stop") return MachineOptions::TripleFault::Stop;
    refuse("--on-triple-fault {}: not one of stop, reset, exit", text);
  }

  static uint32_t parse_topics(std::string_view list) {
    static constexpr std::pair<std::string_view, uint32_t> kTopics[] = {
        {"int", TraceLog::kInterrupts},           {"real_int", TraceLog::kRealInterrupts},
        {"in_asm", TraceLog::kGuestCode},         {"out_asm", TraceLog::kHostCode},
        {"exec", TraceLog::kExecution},           {"cpu", TraceLog::kRegisters},
        {"guest_errors", TraceLog::kGuestErrors}, {"nochain", 0},  // every entry is shown in any case
    };
    uint32_t topics = 0;
    while (true) {
      const size_t comma = list.find(',');
      const std::string_view word = list.substr(0, comma);
      const auto topic = std::ranges::find(kTopics, word, &std::pair<std::string_view, uint32_t>::first);
      if (topic == std::end(kTopics))
        refuse("-d: unknown topic '{}' (int, real_int, in_asm, out_asm, exec, cpu, nochain, guest_errors)",
               word);
      topics |= topic->second;
      if (comma == std::string_view::npos) return topics;
      list.remove_prefix(comma + 1);
    }
  }

  void add_chardev(const std::string& text) {
    Properties properties("-chardev", text);
    const std::string id = properties.need("id");
    CharacterTarget target;
    if (properties.head == "file") {
      target = file_target("-chardev", properties.need("path"));
    } else if (properties.head == "stdio") {
      target.kind = CharacterTarget::Kind::Stdio;
    } else if (properties.head != "null") {
      refuse("-chardev {}: unknown kind '{}' (file, stdio, null)", text, properties.head);
    }
    properties.done();
    if (!chardevs_.emplace(id, target).second) refuse("-chardev {}: the id '{}' is taken", text, id);
  }

  CharacterTarget chardev(std::string_view option, const std::string& id) const {
    const auto found = chardevs_.find(id);
    if (found == chardevs_.end()) refuse("{}: there is no -chardev with id '{}'", option, id);
    return found->second;
  }

  CharacterTarget target(std::string_view option, const std::string& text) const {
    if (text == "null") return {};
    if (text == "stdio" || text == "mon:stdio") return {.kind = CharacterTarget::Kind::Stdio, .path = {}};
    if (text.starts_with("file:")) return file_target(option, std::string_view(text).substr(5));
    if (text.starts_with("chardev:")) return chardev(option, text.substr(8));
    refuse("{} {}: not one of stdio, file:PATH, null, chardev:ID", option, text);
  }

  void add_device(RunOptions& options, NetworkReader& networks, ShareReader& shares,
                  const std::string& text) {
    Properties properties("-device", text);
    if (networks.add_device(text, properties.head, properties) ||
        shares.add_device(text, properties.head, properties)) {
      // A network card or a shared folder.
    } else if (properties.head == "isa-debug-exit") {
      if (options.debug_exit) refuse("-device {}: one is enough", text);
      // QEMU's defaults.
      RunOptions::DebugExit exit{.port = 0x501, .ports = 2};
      exit.port = properties.take_port("iobase").value_or(exit.port);
      exit.ports = properties.take_port("iosize").value_or(exit.ports);
      if (exit.ports == 0 || exit.port + exit.ports > 0x10000) refuse("-device {}: no such ports", text);
      options.debug_exit = exit;
    } else if (properties.head == "pc-testdev") {
      options.testdev = true;
    } else if (properties.head == "virtio-tablet-pci" || properties.head == "virtio-keyboard-pci") {
      bool& there = properties.head == "virtio-tablet-pci" ? options.virtio_tablet : options.virtio_keyboard;
      if (std::exchange(there, true)) refuse("-device {}: one is enough", text);
    } else if (properties.head == "isa-debugcon") {
      RunOptions::DebugConsole console{.port = 0xe9, .target = {}};
      console.port = properties.take_port("iobase").value_or(console.port);
      console.target = chardev("-device " + text, properties.need("chardev"));
      options.debug_consoles.push_back(console);
    } else if (properties.head == "virtio-rng-pci") {
      if (options.entropy) refuse("-device {}: one is enough", text);
      options.entropy = true;
      properties.take("id");
    } else if (properties.head == "virtio-balloon-pci" || properties.head == "virtio-balloon") {
      if (options.balloon) refuse("-device {}: one is enough", text);
      options.balloon = true;
      options.balloon_id = properties.take("id").value_or("");
    } else if (properties.head == "virtio-serial-pci" || properties.head == "virtio-serial") {
      if (options.virtio_serial) refuse("-device {}: one is enough", text);
      options.virtio_serial = true;
      serial_bus_ = properties.take("id").value_or("virtio-serial0") + ".0";
    } else if (properties.head == "virtconsole" || properties.head == "virtserialport") {
      add_virtio_port(options, text, properties);
    } else if (properties.head == "virtio-blk-pci") {
      const std::string id = properties.need("drive");
      DriveOptions& drive = unconnected_drive(options, text, id);
      if (drive.image.path.empty()) refuse("-device {}: the drive '{}' has no image", text, id);
      drive.interface = DriveOptions::Interface::Virtio;
      if (auto serial = properties.take("serial")) drive.serial = *std::move(serial);
      drive.device_id = properties.take("id").value_or("");
      drive.boot_index = properties.take_boot_index();
      drive.sizes = take_block_sizes(text, properties, true);
    } else if (properties.head == "floppy") {
      floppy_device_ = true;
      connect_floppy(options, text, properties);
    } else if (properties.head == "ich9-ahci" || properties.head == "ahci") {
      // QEMU names the bus of a controller without an id after no one, so that no drive can ask for it.
      ahci_ids_.push_back(properties.take("id").value_or(""));
      options.ahci_controllers++;
    } else if (properties.head == "ide-hd" || properties.head == "ide-cd") {
      ide_device_ = true;
      connect_drive(options, text, properties);
    } else {
      refuse(
          "-device {}: unknown device (isa-debug-exit, isa-debugcon, virtio-blk-pci, virtio-rng-pci, "
          "virtio-balloon-pci, "
          "virtio-serial-pci, virtconsole, virtserialport, ich9-ahci, ide-hd, ide-cd, floppy, e1000, "
          "virtio-net-pci, "
          "virtio-keyboard-pci, virtio-tablet-pci, virtio-9p-pci, pc-testdev)",
          text);
    }
    properties.done();
  }

  // A disk's properties as QEMU's devices have them; an ATA disk tells only of its physical sectors.
  static BlockSizes take_block_sizes(const std::string& text, Properties& properties, bool virtio) {
    BlockSizes sizes;
    const auto take = [&](const char* key, uint32_t& to, uint32_t least, uint32_t most) {
      const auto value = properties.take(key);
      if (!value) return;
      const auto bytes = parse_number(*value);
      if (!bytes || *bytes > most ||
          ((*bytes != 0 || least != 0) && (*bytes < least || !std::has_single_bit(*bytes))))
        refuse("-device {}: {}={}: not a power of two from {} to {}", text, key, *value, least, most);
      to = static_cast<uint32_t>(*bytes);
    };
    constexpr uint32_t kMostRequest = uint32_t{1} << 31;
    take("logical_block_size", sizes.logical, sizes.logical, virtio ? kMostBlock : sizes.logical);
    sizes.physical = sizes.logical;
    take("physical_block_size", sizes.physical, sizes.logical, kMostBlock);
    if (!virtio) return sizes;
    take("min_io_size", sizes.least_request, 0, kMostBlock);
    take("opt_io_size", sizes.best_request, 0, kMostRequest);
    take("discard_granularity", sizes.discard, 0, kMostRequest);
    for (const uint32_t size : {sizes.least_request, sizes.best_request, sizes.discard}) {
      if (size % sizes.logical != 0)
        refuse("-device {}: {} is no multiple of logical_block_size={}", text, size, sizes.logical);
    }
    return sizes;
  }

  static DriveOptions& unconnected_drive(RunOptions& options, const std::string& text,
                                         const std::string& id) {
    const auto drive =
        std::ranges::find_if(options.drives, [&id](const DriveOptions& other) { return other.id == id; });
    if (drive == options.drives.end()) refuse("-device {}: no -drive has the id '{}'", text, id);
    if (drive->interface != DriveOptions::Interface::None)
      refuse("-device {}: the drive '{}' is not one with if=none", text, id);
    return *drive;
  }

  // ide-hd, ide-cd: bus=ide.CHANNEL,unit=NUMBER or bus=CONTROLLER.PORT, where the controller is an ich9-ahci;
  // on the IDE controller without.
  void connect_drive(RunOptions& options, const std::string& text, Properties& properties) const {
    const bool cdrom = properties.head == "ide-cd";
    const auto id = properties.take("drive");
    if (!id && !cdrom) refuse("-device {}: {} needs drive=", text, properties.head);
    if (!id)
      options.drives.push_back({.interface = DriveOptions::Interface::None, .cdrom = true, .image = {}});
    DriveOptions& drive = id ? unconnected_drive(options, text, *id) : options.drives.back();
    if (!cdrom && (drive.cdrom || drive.image.path.empty()))
      refuse("-device {}: the drive '{}' is not one of a disk with an image", text, *id);
    const auto bus = properties.take("bus");
    const auto number = [&](std::string_view value, unsigned limit) {
      const auto parsed = parse_number(value);
      if (!parsed || *parsed >= limit) refuse("-device {}: '{}' is not below {}", text, value, limit);
      return static_cast<unsigned>(*parsed);
    };
    const unsigned unit = number(properties.take("unit").value_or("0"), 2);
    using enum DriveOptions::Interface;
    if (!bus) {
      drive.index = free_ide_index(options);
      drive.interface = Ide;
    } else {
      const size_t dot = std::min(bus->rfind('.'), bus->size());
      const std::string controller = bus->substr(0, dot), place = bus->substr(std::min(dot + 1, bus->size()));
      const auto ahci = std::ranges::find(ahci_ids_, controller);
      if (controller == "ide") {
        drive.index = 2 * number(place, 2) + unit;
        drive.interface = Ide;
      } else if (!controller.empty() && ahci != ahci_ids_.end()) {
        drive.index = number(place, AhciIch9::kPorts);
        drive.controller = static_cast<unsigned>(ahci - ahci_ids_.begin());
        drive.interface = Ahci;
        if (unit != 0) refuse("-device {}: an AHCI port has one drive", text);
      } else {
        refuse("-device {}: no bus '{}' (ide.0, ide.1, or ID.0 to ID.{} of an ich9-ahci with id=ID)", text,
               *bus, AhciIch9::kPorts - 1);
      }
    }
    for (const DriveOptions& other : options.drives) {
      if (&other != &drive && other.interface == drive.interface && other.index == drive.index &&
          other.controller == drive.controller)
        refuse("-device {}: this place has a drive already", text);
    }
    drive.cdrom = cdrom;
    drive.device_id = properties.take("id").value_or("");
    drive.boot_index = properties.take_boot_index();
    drive.image.read_only |= cdrom;
    if (!cdrom) drive.sizes = take_block_sizes(text, properties, false);
    if (auto serial = properties.take("serial")) drive.serial = *std::move(serial);
  }

  static void connect_floppy(RunOptions& options, const std::string& text, Properties& properties) {
    const std::string id = properties.need("drive");
    const std::string unit = properties.take("unit").value_or("0");
    DriveOptions& drive = unconnected_drive(options, text, id);
    if (drive.cdrom) refuse("-device {}: the drive '{}' is a CD-ROM's", text, id);
    if (unit != "0" && unit != "1") refuse("-device {}: unit={}: neither 0 nor 1", text, unit);
    const unsigned index = unit == "1";
    for (const DriveOptions& other : options.drives) {
      if (other.interface == DriveOptions::Interface::Floppy && other.index == index)
        refuse("-device {}: this place has a drive already", text);
    }
    drive.interface = DriveOptions::Interface::Floppy;
    drive.index = index;
    drive.device_id = properties.take("id").value_or("");
    drive.boot_index = properties.take_boot_index();
  }

  // Consoles are given numbers from 0 on, other ports from 1 on, as by QEMU.
  void add_virtio_port(RunOptions& options, const std::string& text, Properties& properties) const {
    if (!options.virtio_serial) refuse("-device {}: there is no -device virtio-serial-pci before it", text);
    RunOptions::VirtioPort port{
        .number = 0, .console = properties.head == "virtconsole", .name = {}, .target = {}};
    port.target = chardev("-device " + text, properties.need("chardev"));
    port.name = properties.take("name").value_or("");
    if (const auto bus = properties.take("bus"); bus && *bus != serial_bus_)
      refuse("-device {}: bus={}: only {} is there", text, *bus, serial_bus_);
    properties.take("id");  // nothing refers to ports
    const auto taken = [&options](unsigned number) {
      return std::ranges::find(options.virtio_ports, number, &RunOptions::VirtioPort::number) !=
             options.virtio_ports.end();
    };
    port.number = port.console ? 0 : 1;
    if (const auto wanted = properties.take("nr")) {
      const auto number = parse_number(*wanted);
      if (!number || *number >= VirtioSerial::kMostPorts || taken(static_cast<unsigned>(*number)) ||
          (*number == 0 && !port.console))
        refuse("-device {}: nr={}: no number of a port that is free", text, *wanted);
      port.number = static_cast<unsigned>(*number);
    }
    while (taken(port.number)) port.number++;
    if (port.number >= VirtioSerial::kMostPorts)
      refuse("-device {}: {} ports are the most", text, VirtioSerial::kMostPorts);
    options.virtio_ports.push_back(std::move(port));
  }

  std::map<std::string, CharacterTarget, std::less<>> chardevs_;
  std::vector<std::string> ahci_ids_;
  bool ide_device_ = false, floppy_device_ = false;
  std::string serial_bus_;  // QEMU's name for what ports are plugged into
};

// CLI11 knows "-m" and "--kernel", QEMU's users write "-kernel". Makes every option "--name=value", so that a
// value may begin with a dash. Options are looked up in `app`, which takes that many other arguments.
std::vector<std::string> normalize(const CLI::App& app, std::span<const char* const> arguments,
                                   unsigned others) {
  std::vector<std::string> result;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (!argument.starts_with('-')) {
      if (others-- == 0) refuse("unexpected argument '{}'", argument);
      result.emplace_back(argument);
      continue;
    }
    std::string_view name = argument.substr(argument.starts_with("--") ? 2 : 1);
    const size_t equals = name.find('=');
    std::optional<std::string> value;
    if (equals != std::string_view::npos) value = name.substr(equals + 1);
    name = name.substr(0, equals);
    if (name == "h") name = "help";
    const std::string option = (name.size() == 1 ? "-" : "--") + std::string(name);
    const CLI::Option* known = name.empty() ? nullptr : app.get_option_no_throw(option);
    if (!known) refuse("unknown option '{}' (see 'penumbra help')", argument);
    const bool takes_value = known->get_items_expected_max() > 0;
    if (!takes_value && value) refuse("{}: this option has no value", argument);
    if (takes_value && !value) {
      if (++i == arguments.size()) refuse("{}: the value is missing", argument);
      value = arguments[i];
    }
    result.push_back(option);
    if (value && (value->empty() || name.size() == 1)) {
      if (value->starts_with('-')) {
        result.back() += *value;  // "-m-5"
      } else {
        result.push_back(*value);
      }
    } else if (value) {
      result.back() += "=" + *value;
    }
  }
  return result;
}

void parse(CLI::App& app, std::span<const char* const> arguments, unsigned others) {
  std::vector<std::string> words = normalize(app, arguments, others);
  std::ranges::reverse(words);  // as CLI11 wants them
  try {
    app.parse(words);
  } catch (const CLI::CallForHelp&) {
    throw;
  } catch (const CLI::ParseError& error) {
    refuse("{}", error.what());
  }
}

constexpr std::string_view kRunHelp =
    R"(penumbra run: runs a machine. Options are QEMU's, with one dash or two.)";

Command parse_run(std::span<const char* const> arguments) {
  CLI::App app{std::string(kRunHelp), "penumbra run"};
  app.set_help_flag("--help", "this text");
  RunOptions options;
  RunWords words;
  RunReader reader;
  // As with QEMU, the last one counts.
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  const auto word = [&](const std::string& name, std::string& to, const std::string& help) {
    app.add_option((name.size() == 1 ? "-" : "--") + name, to, help)->type_name("");
  };
  const auto list = [&](const std::string& name, std::vector<std::string>& to, const std::string& help) {
    app.add_option("--" + name, to, help + "; may be repeated")
        ->type_name("")
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  };
  word("kernel", options.kernel, "Linux, multiboot or PVH kernel");
  list("initrd", options.initrds, "initial RAM disk; for multiboot and PVH modules: \"FILE WORDS,FILE\"");
  word("append", options.append, "the kernel's command line");
  word("bios", options.bios,
       "ROM image that ends at 4 GiB; starts at the reset vector (without -kernel: SeaBIOS)");
  list("drive", words.drives,
       "file=IMAGE,if=ide|floppy|virtio|pflash|none,index=N,media=disk|cdrom,format=raw|qcow2,cache=MODE,"
       "readonly=on,snapshot=on,discard=unmap,serial=S,werror=enospc|report|ignore|stop,rerror=report|ignore|"
       "stop");
  for (unsigned i = 0; i < 4; ++i) {
    const std::string name = std::string("hd") + static_cast<char>('a' + i);
    list(name, words.disks[i], "disk image, IDE drive " + std::to_string(i));
  }
  for (unsigned i = 0; i < 2; ++i) {
    const std::string letter(1, static_cast<char>('a' + i));
    list("fd" + letter, words.floppies[i], "floppy image, drive " + letter);
  }
  list("cdrom", words.cdroms, "CD-ROM image, IDE drive 2");
  app.add_flag("--snapshot", words.snapshot, "disks keep nothing of what is written to them");
  word("boot", words.boot,
       "order=LETTERS of a, c, d, n (cad); menu=on,splash-time=MS,reboot-timeout=MS,strict=on");
  word("m", words.memory, "memory: 512M, 1G; a plain number is MiB (512)");
  word("smp", words.processors, "number of processors: 1");
  word("cpu", options.cpu, "CPU model: max, base (max)");
  app.add_flag("--nographic", words.nographic,
               "no window, as without -display; firmware talks to COM1 in any case");
  list("serial", words.serials, "stdio, file:PATH, null or chardev:ID; first COM1, up to COM4 (stdio)");
  list("parallel", words.parallels, "what a printer gets: file:PATH, stdio, null, chardev:ID or none (none)");
  list("pflash", words.pflashes,
       "flash chip with firmware, then one with its variables: -drive if=pflash,format=raw,file=IMAGE");
  list("smbios", words.smbios,
       "type=1,manufacturer=,product=,version=,serial=,sku=,family=,uuid=; types 0, 2, 3, 4, 11, 17 with "
       "QEMU's names");
  word("uuid", words.uuid, "of the machine, for SMBIOS and fw_cfg");
  app.add_option("-M,--machine", words.machine, "pc, which it is")->type_name("");
  word("accel", words.accelerator, "tcg, as which it works");
  list("chardev", words.chardevs, "file,id=ID,path=PATH; stdio,id=ID; null,id=ID");
  list(
      "device", words.devices,
      "isa-debug-exit,iobase=P,iosize=N; isa-debugcon,iobase=P,chardev=ID; virtio-blk-pci,drive=ID,serial=S; "
      "ich9-ahci,id=ID; ide-hd|ide-cd,drive=ID,bus=ide.N|AHCI.N,unit=N,serial=S; "
      "logical_block_size=N,physical_block_size=N,min_io_size=N,opt_io_size=N,"
      "discard_granularity=N with a virtio disk, the first two with an ide-hd; floppy,drive=ID,unit=N; "
      "e1000|virtio-net-pci,netdev=ID,mac=M,romfile=F; bootindex=N with these; virtio-rng-pci; "
      "virtio-keyboard-pci; virtio-tablet-pci; pc-testdev; "
      "virtio-balloon-pci; virtio-serial-pci; virtconsole|virtserialport,chardev=ID,name=N; "
      "virtio-9p-pci,fsdev=ID,mount_tag=T");
  list("virtfs", words.virtfs,
       "local,path=DIR,mount_tag=T,security_model=none|passthrough|mapped-xattr,readonly=on: a folder for "
       "the guest to mount (9p)");
  list("fsdev", words.fsdevs,
       "local,id=ID,path=DIR,security_model=M,readonly=on: the same for -device virtio-9p-pci");
  list("nic", words.nics,
       "user,model=e1000|virtio-net-pci and -netdev's: a card and its network; none (user)");
  list("net", words.nets,
       "nic,model=M,macaddr=M and user|tap with -netdev's: the old spelling of one card and its network");
  list("netdev", words.netdevs,
       "user,id=ID,hostfwd=tcp::PORT-:PORT,restrict=on,net=A/"
       "N,host=A,dhcpstart=A,dns=A,hostname=H,tftp=DIR,bootfile=F,ipv6=off; "
       "tap,id=ID,ifname=I,fd=N,script=no");
  list("object", words.objects,
       "filter-dump,id=ID,netdev=ID,file=PATH,maxlen=N: the network's packets in libpcap's format");
  word("debugcon", words.debug_console, "debug console at port E9: file:PATH, stdio");
  app.add_flag("--nodefaults", words.no_defaults,
               "nothing that was not asked for: serial port, network, display adapter, empty drives");
  app.add_flag("--no-reboot", words.no_reboot, "a reset or triple fault ends the machine");
  word("rtc", words.rtc, "base=utc or base=localtime");
  word("display", words.display, "none, sdl, vnc=:N or vnc=ADDRESS:N (none)");
  word("vga", words.vga, "std or none (std)");
  word("monitor", words.monitor,
       "where to take commands: tcp::PORT, tcp:HOST:PORT, unix:PATH, stdio or none");
  word("qmp", words.qmp, "the same in JSON: tcp::PORT, tcp:HOST:PORT or unix:PATH");
  word("gdb", words.gdb,
       "where to wait for gdb: tcp::PORT, tcp:HOST:PORT or unix:PATH; then ,arch=i8086|i386|x86-64|auto");
  app.add_flag("-s", words.gdb_here, "the same as -gdb tcp::1234");
  app.add_flag("-S", options.paused, "waits for gdb or the monitor's cont before the first instruction");
  word("on-triple-fault", words.triple_fault, "stop, reset or exit, after a dump that tells what led to it");
  word("d", words.topics,
       "log: int,real_int,in_asm,out_asm,exec,cpu,guest_errors; as QEMU writes it, but out_asm");
  word("D", options.trace_file, "where -d logs to (standard error)");
  app.add_flag("--singlestep", words.singlestep, "one guest instruction a block, as --jit no-long-blocks");
  std::string switches = "translator switches, each as NAME or no-NAME:";
  for (const auto& known : jit::translator_switches()) switches += " " + std::string(known.name);
  word("jit", words.switches, switches);
  word("mmu", words.mmu, "how code reaches memory: tlb, windows, or auto (auto)");
  app.add_flag("--perf-map", words.perf_map, "names translated code in /tmp/perf-PID.map, for Linux perf");
  word("perf-symbols", words.perf_symbols, "with --perf-map: the System.map of the guest's kernel");
  app.add_flag("--stats", options.stats, "counters and times at exit, on standard error");
  try {
    parse(app, arguments, 0);
  } catch (const CLI::CallForHelp&) {
    return ShowText{app.help()};
  }
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() > 0) reader.set_[option->get_single_name()] = true;
  }
  return reader.read(words, std::move(options));
}

Command parse_explain(std::span<const char* const> arguments) {
  CLI::App app{"penumbra explain: shows a flat binary's basic blocks, guest code and host code side by side.",
               "penumbra explain"};
  app.set_help_flag("--help", "this text");
  ExplainOptions options;
  std::string mode, base = "0";
  app.add_option("FILE", options.path, "flat binary")->type_name("");
  app.add_option("--mode", mode, "16, 32 or 64")->type_name("");
  app.add_option("--base", base, "address of its first byte (0)")->type_name("");
  try {
    parse(app, arguments, 1);
  } catch (const CLI::CallForHelp&) {
    return ShowText{app.help()};
  }
  if (options.path.empty()) refuse("explain: the file is missing");
  if (mode.empty()) refuse("explain: --mode 16, 32 or 64 is missing");
  if (mode != "16" && mode != "32" && mode != "64") refuse("--mode {}: not 16, 32 or 64", mode);
  options.mode = static_cast<unsigned>(*parse_number(mode));
  const auto address = parse_number(base);
  if (!address) refuse("--base {}: not an address", base);
  options.base = *address;
  return options;
}

constexpr std::string_view kHelp = R"(Usage:
  penumbra run -kernel FILE [-initrd FILE] [-append TEXT] [-m SIZE] ...   a machine on this terminal
  penumbra run -hda IMAGE | -cdrom IMAGE ...                              the same from a disk, by SeaBIOS
  penumbra run -bios FILE ...                                             the same from a ROM image
  penumbra explain FILE --mode 16|32|64 [--base ADDRESS]                  what the translator makes of code
  penumbra run --help, penumbra explain --help                            their options
  penumbra --version

In the terminal, Ctrl-A X ends the machine and Ctrl-A H shows the other keys.
)";

}  // namespace

std::vector<std::string> split_at_commas(std::string_view text) {
  std::vector<std::string> pieces(1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      pieces.back() += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      pieces.back() += text[i++];
    } else {
      pieces.emplace_back();
    }
  }
  return pieces;
}

uint64_t parse_memory_size(std::string_view text) {
  constexpr uint64_t kMiB = 1 << 20;
  // Physical addresses have 40 bits, and some lie in the hole below 4 GiB (CpuModel::physical_bits()).
  constexpr uint64_t kMost = (uint64_t{1} << 40) - (uint64_t{4} << 30);
  const std::string_view whole = text;
  if (text.starts_with("size=")) text.remove_prefix(5);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view suffix = text.substr(static_cast<size_t>(end - text.data()));
  static constexpr std::string_view kSuffixes = "bkmgt";
  unsigned shift = 20;
  bool good = end != text.data() && suffix.size() <= 1;
  if (good && suffix.size() == 1) {
    const size_t at = kSuffixes.find(static_cast<char>(suffix[0] | 0x20));
    good = at != std::string_view::npos;
    shift = static_cast<unsigned>(at) * 10;
  }
  if (!good) refuse("-m {}: not a size such as 512M or 1G", whole);
  if (error == std::errc::result_out_of_range || value > kMost >> shift)
    refuse("-m {}: more than the machine's address space ({} GiB)", whole, kMost >> 30);
  value <<= shift;
  if (value < kMiB) refuse("-m {}: less than 1 MiB", whole);
  // RAM is made of whole pages.
  constexpr uint64_t kPage = 4096;
  return (value + kPage - 1) & ~(kPage - 1);
}

Command parse_command_line(std::span<const char* const> arguments) {
  if (arguments.empty()) return ShowText{std::string(kHelp)};
  std::string_view first = arguments[0];
  const auto rest = arguments.subspan(1);
  if (first == "run") return parse_run(rest);
  if (first == "explain") return parse_explain(rest);
  while (first.starts_with('-')) first.remove_prefix(1);
  if (first == "help" || first == "h") return ShowText{std::string(kHelp)};
  if (first == "version") return ShowText{std::string(kVersion) + "\n"};
  refuse("unknown command '{}' (run, explain, help)", arguments[0]);
}

bool is_qemu_name(std::string_view program) {
  const std::string_view name = program.substr(program.rfind('/') + 1);
  return name == "qemu-system-x86_64" || name == "qemu-system-i386";
}

Command parse_qemu_command_line(std::span<const char* const> arguments) {
  return parse_run(arguments);
}

}  // namespace penumbra
