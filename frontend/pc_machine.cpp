#include "frontend/pc_machine.h"

#include <fmt/format.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <ctime>
#include <new>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <system_error>

#include "frontend/board_setup.h"
#include "frontend/host_file.h"
#include "frontend/option_properties.h"
#include "frontend/state_dump.h"
#include "frontend/terminal.h"
#include "frontend/trace_format.h"
#include "frontend/user_error.h"

namespace penumbra {

namespace {

// Output that ends no line is shown after this time at the latest.
constexpr Nanoseconds kOutputDelay = 5'000'000;
// How long it is waited for, before text on standard error, and when a person ends the machine: less than the
// control thread's patience.
constexpr std::chrono::milliseconds kOutputPatience{200}, kQuitPatience{1000};

// Debian's package "seabios". Machines that start a kernel go without it.
constexpr const char* kVgaBios = "/usr/share/seabios/vgabios-stdvga.bin";
constexpr uint64_t kVgaBiosLimit = 64 * 1024;

// Debian's package "ipxe-qemu".
constexpr const char *kE1000Rom = "/usr/lib/ipxe/qemu/efi-e1000.rom",
                     *kVirtioRom = "/usr/lib/ipxe/qemu/efi-virtio.rom";
constexpr uint64_t kNetworkRomLimit = uint64_t{16} << 20;

std::unique_ptr<Machine> make_machine(const RunOptions& options) {
  try {
    MachineOptions machine;
    machine.ram_bytes = options.ram_bytes;
    machine.cpu = options.cpu;
    machine.reboot = options.reboot;
    machine.triple_fault = options.triple_fault;
    return std::make_unique<Machine>(machine);
  } catch (const std::invalid_argument& error) {
    throw UserError(fmt::format("-cpu: {}", error.what()));
  } catch (const std::runtime_error& error) {
    throw UserError(fmt::format("-m: {}", error.what()));
  } catch (const std::bad_alloc&) {
    throw UserError("-m: the host has no memory for that much RAM");
  }
}

// QEMU's list of multiboot modules, "FILE WORDS,FILE WORDS"; a comma in a file's name is written twice. For a
// name that exists as it stands, such as Linux's one initrd, nothing is split.
std::vector<std::string> modules(const std::vector<std::string>& initrds) {
  std::vector<std::string> result;
  for (const std::string& initrd : initrds) {
    if (access(initrd.c_str(), F_OK) == 0) {
      result.push_back(initrd);
    } else {
      for (std::string& piece : split_at_commas(initrd)) result.push_back(std::move(piece));
    }
  }
  return result;
}

std::unique_ptr<Boot> read_images(const RunOptions& options, PhysicalMap& map) {
  try {
    return make_boot({.kernel = options.kernel,
                      .initrds = modules(options.initrds),
                      .append = options.append,
                      .bios = options.bios,
                      .flash = std::ranges::any_of(options.drives,
                                                   [](const DriveOptions& drive) {
                                                     return drive.interface == DriveOptions::Interface::Flash;
                                                   })},
                     map);
  } catch (const std::runtime_error& error) {
    throw UserError(error.what());
  }
}

// QEMU's names of drives that have no id; `disks` counts virtio ones before it.
std::string drive_name(const DriveOptions& drive, unsigned disks) {
  if (!drive.id.empty()) return drive.id;
  const char* const kind = drive.cdrom ? "cd" : "hd";
  using enum DriveOptions::Interface;
  switch (drive.interface) {
    case Floppy:
      return fmt::format("floppy{}", drive.index);
    case Virtio:
      return fmt::format("virtio{}", disks);
    case Ahci:
      return fmt::format("ahci{}-{}{}", drive.controller, kind, drive.index);
    default:
      return fmt::format("ide{}-{}{}", drive.index / 2, kind, drive.index % 2);
  }
}

std::unique_ptr<NetworkBackend> make_network(const NetworkOptions& options, EventQueue& events) {
  if (const auto* tap = std::get_if<TapNetworkOptions>(&options.kind))
    return std::make_unique<TapNetwork>(*tap, events);
  return std::make_unique<SlirpNetwork>(std::get<UserNetworkOptions>(options.kind), events);
}

// Empty: the package is not there.
std::vector<std::byte> vga_bios() {
  if (access(kVgaBios, F_OK) != 0) return {};
  return read_host_file(kVgaBios, kVgaBiosLimit, "a VGA BIOS");
}

// What boots from the network behind a card.
std::vector<std::byte> network_rom(const NetworkCardOptions& card) {
  const bool virtio = card.model == PcBoardOptions::NetworkCard::Model::VirtioNet;
  const std::string path = card.rom_file.value_or(virtio ? kVirtioRom : kE1000Rom);
  if (path.empty() || (!card.rom_file && access(path.c_str(), F_OK) != 0)) return {};
  try {
    return read_host_file(path, kNetworkRomLimit, "a card's ROM");
  } catch (const std::runtime_error& error) {
    throw UserError(error.what());
  }
}

// From the host's generator. False where there is none.
bool fill_with_entropy(std::span<std::byte> to) {
  while (!to.empty()) {
    const ssize_t got = getrandom(to.data(), to.size(), 0);
    if (got < 0 && errno != EINTR) return false;
    if (got > 0) to = to.subspan(static_cast<size_t>(got));
  }
  return true;
}

// What the guest's battery-backed clock shows.
int64_t rtc_time(bool local) {
  const std::time_t now = std::time(nullptr);
  std::tm broken_down{};
  if (!local || !localtime_r(&now, &broken_down)) return now;
  return now + broken_down.tm_gmtoff;
}

}  // namespace

PcMachine::PcMachine(const RunOptions& options)
    : options_(options),
      machine_(make_machine(options)),
      media_([this](const ImageOptions& image) { return open_medium(image); }),
      boot_(read_images(options, machine_->map())),
      flush_timer_(machine_->clock(), [this] { flush(); }) {
  open_trace();
  standard_output_ = &output({.kind = CharacterTarget::Kind::Stdio, .path = ""});
  open_drives();
  open_networks();
  open_shares();
  make_board();
  make_engine();
  machine_->set_boot([this] {
    // Without firmware to do it.
    if (!boot_->through_firmware()) set_up_board(*board_, machine_->map());
    boot_->start(*machine_);
  });
  machine_->set_resume_listener([this] {
    actions_.io_error = false;
    for (ImageDevice* image : images_) image->retry();
  });
  machine_->set_idle_listener([this] { idle(); });
  machine_->set_triple_fault_listener([this] { triple_fault(); });
  if (trace_.has(TraceLog::kInterrupts | TraceLog::kRealInterrupts))
    machine_->vcpu().set_event_listener(this);
}

PcMachine::~PcMachine() {
  if (trace_.has(TraceLog::kGuestErrors)) trace_.write(unknown_msr_lines(machine_->vcpu().stats()));
  flush();
  machine_->set_resume_listener({});
  // Their threads post events to the machine.
  outputs_.clear();
  drives_.clear();
  networks_.clear();
  shares_.clear();
}

void PcMachine::open_networks() {
  for (const NetworkOptions& network : options_.networks) {
    try {
      networks_.push_back(make_network(network, machine_->events()));
    } catch (const std::system_error&) {
      throw;  // no thread: nothing that the option is about
    } catch (const std::runtime_error& error) {
      throw UserError(fmt::format("{}: {}", network.option, error.what()));
    }
  }
  for (const PacketDumpOptions& dump : options_.packet_dumps) {
    std::unique_ptr<NetworkBackend>& network = networks_[dump.network];
    try {
      auto made = std::make_unique<PacketDump>(std::move(network), dump.path, dump.limit);
      made->set_failure_listener([](const std::string& path, int error) {
        fmt::print(stderr, "penumbra: {}: {}\n", path, std::strerror(error));
      });
      packet_dumps_.push_back(made.get());
      network = std::move(made);
    } catch (const std::runtime_error& error) {
      throw UserError(error.what());
    }
  }
}

// What can be taken out reports its errors: a request that is kept would be one of a medium that is gone.
MediaDrives::Medium PcMachine::open_medium(const ImageOptions& image) {
  constexpr ErrorPolicy kReport{.read = ErrorPolicy::Action::Report, .write = ErrorPolicy::Action::Report};
  auto device = std::make_unique<ImageDevice>(open_image(image), machine_->events(), kReport);
  const std::string_view format = device->format();
  return {.device = std::move(device), .format = format};
}

void PcMachine::open_drives() {
  unsigned virtio_disks = 0;
  for (const DriveOptions& options : options_.drives) {
    if (options.interface == DriveOptions::Interface::Flash) {
      drives_.push_back(nullptr);  // open_flashes() opens it
      continue;
    }
    MediaDrives::Drive drive{.name = drive_name(options, virtio_disks),
                             .id = options.device_id,
                             .image = options.image,
                             .format = {},
                             .cdrom = options.cdrom};
    if (options.interface == DriveOptions::Interface::Virtio) virtio_disks++;
    try {
      if (options.cdrom || options.interface == DriveOptions::Interface::Floppy) {
        MediaDrives::Medium medium;
        if (!drive.image.path.empty()) medium = open_medium(drive.image);
        auto made = std::make_unique<RemovableDevice>(std::move(medium.device), machine_->events());
        made->set_tray_listener([this, name = drive.name, id = drive.id](bool open) {
          if (actions_.event)
            actions_.event("DEVICE_TRAY_MOVED", {{"device", name}, {"id", id}, {"tray-open", open}});
        });
        drive.format = medium.format;
        drive.removable = made.get();
        drives_.push_back(std::move(made));
      } else {
        auto made =
            std::make_unique<ImageDevice>(open_image(drive.image), machine_->events(), options.errors);
        made->set_stop_listener(
            [this, drive](const BlockRequest& request) { drive_stopped(drive, request); });
        drive.format = made->format();
        images_.push_back(made.get());
        drives_.push_back(std::move(made));
      }
    } catch (const std::runtime_error& error) {
      throw UserError(error.what());
    }
    media_.add(std::move(drive));
  }
  actions_.drives = &media_;
}

// A chip is read as a whole, and what is programmed goes to the image at once.
std::vector<PcBoardOptions::Flash> PcMachine::open_flashes() {
  constexpr uint64_t kMostBytes = uint64_t{8} << 20;  // as QEMU's pc machine has room for
  std::vector<PcBoardOptions::Flash> flashes(kMostFlashes);
  uint64_t total = 0;
  for (const DriveOptions& drive : options_.drives) {
    if (drive.interface != DriveOptions::Interface::Flash) continue;
    const std::string& path = drive.image.path;
    try {
      const std::shared_ptr<DiskImage> image = open_image(drive.image);
      total += image->bytes();
      if (image->bytes() == 0 || image->bytes() % Flash28F128J3::kBlockBytes != 0 || total > kMostBytes)
        throw std::runtime_error(
            fmt::format("{}: has {} bytes; flash images are multiples of {} bytes, and {} MiB in all at most",
                        path, image->bytes(), Flash28F128J3::kBlockBytes, kMostBytes >> 20));
      PcBoardOptions::Flash& flash = flashes[drive.index];
      flash.contents.resize(image->bytes());
      if (const int error = image->read(0, flash.contents))
        throw std::runtime_error(fmt::format("{}: {}", path, std::strerror(error)));
      if (image->read_only()) continue;
      flash.store = [image, path](uint64_t offset, std::span<const std::byte> bytes) {
        const int error = image->write(offset, bytes);
        if (error) fmt::print(stderr, "penumbra: {}: {}\n", path, std::strerror(error));
        return error == 0;
      };
    } catch (const std::runtime_error& error) {
      throw UserError(error.what());
    }
  }
  std::erase_if(flashes, [](const PcBoardOptions::Flash& flash) { return flash.contents.empty(); });
  return flashes;
}

// Other requests may fail before the pause ends; the first one tells.
void PcMachine::drive_stopped(const MediaDrives::Drive& drive, const BlockRequest& request) {
  if (std::exchange(actions_.io_error, true)) return;
  const bool reads = request.kind == BlockRequest::Kind::Read;
  fmt::print(stderr,
             "penumbra: {}: a {} failed ({}); the machine is paused, the monitor's cont tries again\n",
             drive.image.path, reads ? "read" : "write", std::strerror(request.error));
  if (machine_->paused()) return;
  machine_->pause();
  if (!actions_.event) return;
  actions_.event("BLOCK_IO_ERROR", {{"device", drive.name},
                                    {"operation", reads ? "read" : "write"},
                                    {"action", "stop"},
                                    {"nospace", request.error == ENOSPC},
                                    {"reason", std::strerror(request.error)}});
  actions_.event("STOP", nullptr);
}

void PcMachine::open_shares() {
  if (options_.shares.empty()) return;
  // Guests that open files without end must not keep the machine from what it needs itself.
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  const auto most_open =
      static_cast<unsigned>(std::min<rlim_t>(files.rlim_cur / 2 / options_.shares.size(), INT_MAX));
  for (const ShareOptions& share : options_.shares) {
    try {
      shares_.push_back(std::make_unique<FolderShare>(share.folder, most_open, machine_->events()));
    } catch (const std::system_error&) {
      throw;  // no thread: nothing that the option is about
    } catch (const std::runtime_error& error) {
      throw UserError(fmt::format("-virtfs, -fsdev: {}", error.what()));
    }
  }
}

std::unique_ptr<Display> PcMachine::make_display() {
  const DisplayOptions& display = options_.display;
  switch (display.kind) {
    case DisplayOptions::Kind::Sdl:
      return make_sdl_display(*machine_, *board_, actions_, vga_bios());
    case DisplayOptions::Kind::Vnc:
      return make_vnc_display(*machine_, *board_, display.host, display.number);
    case DisplayOptions::Kind::None:
      break;
  }
  return nullptr;
}

void PcMachine::open_trace() {
  if (options_.trace_topics == 0) return;
  std::FILE* file = stderr;
  if (!options_.trace_file.empty()) {
    file = std::fopen(options_.trace_file.c_str(), "we");
    if (!file) throw UserError(fmt::format("-D {}: {}", options_.trace_file, std::strerror(errno)));
  }
  trace_file_.reset(file);
  // What was logged last is wanted most when the program crashes. Only the log of every block would be too
  // slow.
  if (!(options_.trace_topics & (TraceLog::kExecution | TraceLog::kRegisters)))
    std::setvbuf(file, nullptr, _IONBF, 0);
  trace_ = TraceLog(file, options_.trace_topics);
}

void PcMachine::make_board() {
  PcBoardOptions board;
  board.start_time = rtc_time(options_.local_time);
  board.apic_timer_hz = machine_->cpu_model().crystal_hz();
  board.boot_order = options_.boot_order;
  board.boot_strict = options_.boot_strict;
  board.boot_menu = options_.boot_menu;
  board.boot_menu_wait = options_.boot_menu_wait;
  board.boot_fail_wait = options_.boot_fail_wait;
  board.smbios = options_.smbios;
  board.testdev = options_.testdev;
  board.virtio_keyboard = options_.virtio_keyboard;
  board.virtio_tablet = options_.virtio_tablet;
  board.flashes = open_flashes();
  if (options_.parallel) board.parallel_out = sink(*options_.parallel);
  board.vga = options_.vga;
  if (options_.vga) board.vga_rom = vga_bios();
  board.serial_console = options_.serial_console;
  board.ahci.resize(options_.ahci_controllers);
  for (size_t i = 0; i < options_.drives.size(); ++i) {
    const DriveOptions& drive = options_.drives[i];
    const std::string serial = drive.serial.empty() ? fmt::format("PD{:05}", i + 1) : drive.serial;
    const PcBoardOptions::AtaDrive ata = {.medium = drives_[i].get(),
                                          .cdrom = drive.cdrom,
                                          .serial = serial,
                                          .sizes = drive.sizes,
                                          .boot_index = drive.boot_index};
    switch (drive.interface) {
      case DriveOptions::Interface::Ide:
        board.ide[drive.index / 2][drive.index % 2] = ata;
        break;
      case DriveOptions::Interface::Ahci:
        board.ahci[drive.controller].drives[drive.index] = ata;
        break;
      case DriveOptions::Interface::Virtio:
        board.virtio_disks.push_back({.medium = drives_[i].get(),
                                      .serial = serial,
                                      .sizes = drive.sizes,
                                      .boot_index = drive.boot_index});
        break;
      case DriveOptions::Interface::Floppy:
        board.floppies[drive.index] = drives_[i].get();
        board.floppy_boot_index[drive.index] = drive.boot_index;
        break;
      case DriveOptions::Interface::Flash:
      case DriveOptions::Interface::None:
        break;
    }
  }
  for (const NetworkCardOptions& card : options_.network_cards) {
    board.network_cards.push_back({.model = card.model,
                                   .network = networks_[card.network].get(),
                                   .address = card.address,
                                   .place = card.place,
                                   .rom = network_rom(card),
                                   .boot_index = card.boot_index});
  }
  if (options_.entropy) {
    std::byte first;
    if (!fill_with_entropy(std::span(&first, 1)))
      throw UserError(fmt::format("-device virtio-rng-pci: getrandom: {}", std::strerror(errno)));
    board.entropy = [](std::span<std::byte> to) { fill_with_entropy(to); };
  }
  for (size_t i = 0; i < shares_.size(); ++i)
    board.shared_folders.push_back({.server = shares_[i].get(), .tag = options_.shares[i].tag});
  board.balloon = options_.balloon;
  if (options_.virtio_serial) {
    std::vector<VirtioSerial::Port>& ports = board.virtio_ports.emplace();
    for (const RunOptions::VirtioPort& port : options_.virtio_ports)
      ports.push_back(
          {.number = port.number, .console = port.console, .name = port.name, .out = sink(port.target)});
  }
  for (size_t i = 0; i < options_.serials.size(); ++i) board.serial_out[i] = sink(options_.serials[i]);
  for (const auto& [port, target] : options_.debug_consoles)
    board.debug_consoles.push_back({.port = port, .sink = sink(target)});
  if (options_.debug_exit) {
    board.debug_exit_port = options_.debug_exit->port;
    board.debug_exit_ports = options_.debug_exit->ports;
  }
  std::unique_ptr<PcBoard> made;
  try {
    made = std::make_unique<PcBoard>(*machine_, machine_->clock(), machine_->io(), machine_->map(),
                                     machine_->interrupt_line(), std::move(board));
  } catch (const std::invalid_argument& error) {
    // Ports that another chip has.
    throw UserError(fmt::format("-device: {}", error.what()));
  }
  board_ = made.get();
  boot_->describe(board_->fw_cfg());
  machine_->set_board(std::move(made));
  if (board_->vga()) actions_.screen = &screen_.emplace(*board_->vga());
  actions_.keys =
      &keys_.emplace(machine_->clock(), [this](KeyCode code, bool down) { board_->key(code, down); });
  if (VirtioBalloon* const balloon = board_->balloon()) {
    actions_.balloon = &balloon_.emplace(machine_->clock(), *balloon, [this, balloon] {
      const uint64_t ram = machine_->map().ram_bytes();
      if (actions_.event)
        actions_.event("BALLOON_CHANGE", {{"actual", ram - std::min(ram, balloon->held())}});
    });
    actions_.balloon_id = options_.balloon_id;
  }
  actions_.press_power_button = [this] { board_->power_management().press_power_button(); };

  for (size_t i = 0; i < options_.serials.size(); ++i) {
    Uart16550a* uart = board_->serial(static_cast<unsigned>(i));
    if (!uart || options_.serials[i].kind != CharacterTarget::Kind::Stdio) continue;
    input_ = std::make_unique<SerialInput>(machine_->events(),
                                           [uart](uint8_t byte) { return uart->receive(byte); });
    uart->set_room_listener([this] { input_->pump(); });
  }
  for (const RunOptions::VirtioPort& port : options_.virtio_ports) {
    if (input_ || port.target.kind != CharacterTarget::Kind::Stdio) continue;
    VirtioSerial* const serial = board_->virtio_serial();
    input_ = std::make_unique<SerialInput>(machine_->events(), [serial, number = port.number](uint8_t byte) {
      return serial->receive(number, byte);
    });
    serial->set_room_listener([this] { input_->pump(); });
  }
}

void PcMachine::make_engine() {
  jit::Translator::TraceSink trace;
  if (trace_.has(TraceLog::kGuestCode | TraceLog::kHostCode))
    trace.translated = [this](std::string_view text) { trace_.write(text); };
  if (trace_.has(TraceLog::kExecution | TraceLog::kRegisters))
    trace.entered = [this](const jit::Block& block) { trace_entry(block); };
  auto made = std::make_unique<jit::Translator>(machine_->vcpu(), options_.translator, std::move(trace));
  if (!made->warning().empty()) fmt::print(stderr, "penumbra: note: {}\n", made->warning());
  translator_ = made.get();
  machine_->set_engine(std::move(made));
}

Output& PcMachine::output(const CharacterTarget& target) {
  std::unique_ptr<Output>& output = outputs_[target.path];
  if (!output) {
    output = target.kind == CharacterTarget::Kind::Stdio
                 ? std::make_unique<Output>(STDOUT_FILENO, "standard output")
                 : std::make_unique<Output>(target.path);
    output->set_waiting_listener([this] {
      if (!flush_timer_.armed()) flush_timer_.arm(machine_->clock().now() + kOutputDelay);
    });
    output->set_failure_listener([this](const Output& failed, int error) { output_failed(failed, error); });
    output->set_pressure_listener([this] { relieve(); });
    output->set_news_listener(
        [this, made = output.get()] { return machine_->events().post([made] { made->attend(); }); });
  }
  return *output;
}

ByteSink PcMachine::sink(const CharacterTarget& target) {
  if (target.kind == CharacterTarget::Kind::Null) return [](uint8_t) {};
  return [to = &output(target)](uint8_t byte) { to->put(byte); };
}

// A guest that is faster than its readers is told by the serial port. One that does not look there, or has no
// serial port for it (the debug console), is held.
void PcMachine::relieve() {
  const bool full = std::ranges::any_of(
      outputs_, [](const auto& output) { return output.second->pressure() == Output::Pressure::Full; });
  for (size_t i = 0; i < options_.serials.size(); ++i) {
    const CharacterTarget& target = options_.serials[i];
    Uart16550a* uart = board_->serial(static_cast<unsigned>(i));
    if (!uart || target.kind == CharacterTarget::Kind::Null) continue;
    uart->set_transmitter_blocked(output(target).pressure() != Output::Pressure::None);
  }
  machine_->hold(full);
}

// Without its standard output the machine ends (silently for a closed pipe, as others do); that a file cannot
// grow is only told.
void PcMachine::output_failed(const Output& output, int error) {
  pipe_closed_ = error == EPIPE;
  if (!pipe_closed_) fmt::print(stderr, "penumbra: {}: {}\n", output.name(), std::strerror(error));
  if (output.is_standard()) machine_->request_exit(1);
}

void PcMachine::flush() {
  flush_timer_.cancel();
  for (const auto& [path, output] : outputs_) output->flush();
  for (PacketDump* dump : packet_dumps_) dump->flush();
  trace_.flush();
}

void PcMachine::show_output() {
  flush();
  for (const auto& [path, output] : outputs_)
    [[maybe_unused]] const bool written = output->wait_written(kOutputPatience);
}

bool PcMachine::finish_output() {
  flush();
  bool complete = true;
  constexpr std::chrono::milliseconds kLook{20};
  std::optional<std::chrono::steady_clock::time_point> limit;
  for (const auto& [path, output] : outputs_) {
    while (!output->wait_written(kLook)) {
      if (!machine_->quit_requested()) continue;
      const auto now = std::chrono::steady_clock::now();
      if (!limit) limit = now + kQuitPatience;
      if (now < *limit) continue;
      if (terminal::takes_output(STDERR_FILENO)) {
        fmt::print(stderr, "penumbra: {}: nobody took the last {} bytes\n", output->name(),
                   output->unwritten());
      }
      output->abandon();
      complete = false;
      break;
    }
    output->attend();
  }
  return complete;
}

void PcMachine::idle() {
  flush();
  // Nothing makes an NMI or a reset by itself, so that this halt has no end. It is how kernels without ACPI
  // power off.
  if (machine_->vcpu().state().rflags & flag::kIf || board_->routes_nmi()) return;
  show_output();
  fmt::print(stderr, "penumbra: the guest halted for good (HLT with interrupts off)\n");
  machine_->request_exit(0);
}

void PcMachine::triple_fault() {
  if (trace_.has(TraceLog::kInterrupts)) trace_.write("Triple fault\n");
  if (options_.reboot && !options_.triple_fault) return;
  show_output();
  using Action = MachineOptions::TripleFault;
  const Action action = options_.triple_fault.value_or(Action::Exit);
  const char* next = action == Action::Reset ? "starts anew" : action == Action::Stop ? "is paused" : "stops";
  fmt::print(stderr, "penumbra: triple fault, the machine {}\n{}{}", next,
             state_dump(machine_->vcpu(), machine_->map()),
             recent_blocks_dump(*translator_, machine_->map(), options_.translator.record_blocks));
}

void PcMachine::trace_entry(const jit::Block& block) {
  const VcpuState& state = machine_->vcpu().state();
  if (trace_.has(TraceLog::kExecution))
    trace_.write(trace_format::block_entry(block, state, options_.translator.long_blocks));
  if (trace_.has(TraceLog::kRegisters)) trace_.write(trace_format::registers(state, machine_->map().a20()));
}

void PcMachine::event_delivered(const EventRecord& event) {
  trace_.write(trace_format::event(event, machine_->vcpu().state(), machine_->map().a20(),
                                   trace_.has(TraceLog::kRealInterrupts), traced_events_));
}

}  // namespace penumbra
