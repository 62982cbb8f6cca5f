#include "devices/pc_board.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <string>
#include <utility>

#include "devices/ata_disk.h"
#include "devices/atapi_cdrom.h"
#include "devices/virtio_9p.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_net.h"
#include "devices/virtio_rng.h"

namespace penumbra {

namespace {
constexpr unsigned kPitIrq = 0, kKeyboardIrq = 1, kFloppyIrq = 6, kRtcIrq = 8, kSciIrq = 9, kMouseIrq = 12,
                   kParallelIrq = 7, kPrimaryIdeIrq = 14, kSecondaryIdeIrq = 15;

// Where the functions of the chip set are on the PCI bus.
constexpr uint8_t kHostBridge = PciBus::address(0, 0), kIsaBridge = PciBus::address(1, 0),
                  kIde = PciBus::address(1, 1), kPowerManagement = PciBus::address(1, 3),
                  kVga = PciBus::address(2, 0);
constexpr unsigned kFirstCard = 3;  // 2 is the display's, as in QEMU's pc machine

// Inputs of the shared lines.
constexpr unsigned kA20Keyboard = 0, kA20Port92 = 1;

constexpr struct {
  const char* name;
  uint16_t port;
} kSerials[4] = {{"com1", 0x3f8}, {"com2", 0x2f8}, {"com3", 0x3e8}, {"com4", 0x2e8}};

// CMOS bytes that QEMU's firmware reads.
constexpr uint8_t kBootOrderThird = 0x38, kBootOrder = 0x3d, kDiskTranslation = 0x39, kFloppyTypes = 0x10,
                  kEquipment = 0x14;
constexpr uint8_t kFpuAndMouse = 0x06;

constexpr uint64_t kKib = 1024, kMib = 1024 * kKib;

std::string debug_console_name(uint16_t port) {
  char digits[4];
  return "debug_console_" + std::string(digits, std::to_chars(digits, digits + sizeof digits, port, 16).ptr);
}
}  // namespace

LineOutput PcBoard::SharedLine::input(unsigned number) {
  return [this, number](bool level) { drive(number, level); };
}

void PcBoard::SharedLine::drive(unsigned number, bool level) {
  const bool before = levels_ != 0;
  levels_ = static_cast<uint8_t>(level ? levels_ | bit(number) : levels_ & ~bit(number));
  if (before != (levels_ != 0)) out_(!before);
}

LineOutput PcBoard::TimerLine::chip() {
  return [this](bool driven) {
    const bool before = level();
    chip_ = driven;
    update(before);
  };
}

void PcBoard::TimerLine::drive_hpet(bool driven) {
  const bool before = level();
  hpet_ = driven;
  update(before);
}

void PcBoard::TimerLine::select_hpet(bool selected) {
  const bool before = level();
  selected_ = selected;
  update(before);
}

void PcBoard::TimerLine::update(bool before) {
  if (level() != before) out_(level());
}

void PcBoard::TimerLine::restore(uint8_t state) {
  chip_ = state & 1;
  hpet_ = state & 2;
  selected_ = state & 4;
}

void PcBoard::set_irq(unsigned irq, bool level) {
  constexpr unsigned kPitInput = 2;
  pics_.set_irq(irq, level);
  io_apic_.set_input(irq == kPitIrq ? kPitInput : irq, level);
}

LineOutput PcBoard::irq_line(unsigned irq) {
  return [this, irq](bool level) { set_irq(irq, level); };
}

PcBoard::PcBoard(MachineControl& control, VirtualClock& clock, IoBus& io, PhysicalMap& map,
                 LineOutput interrupt, PcBoardOptions options)
    : control_(control),
      map_(map),
      local_apic_(clock, map, 0, true, options.apic_timer_hz,
                  {.interrupt = std::move(interrupt),
                   .nmi = [this] { control_.request_nmi(); },
                   .acknowledge_external = [this] { return pics_.acknowledge(); },
                   .end_of_interrupt = [this](uint8_t vector) { io_apic_.end_of_interrupt(vector); },
                   .send = {}}),
      io_apic_(map, [this](const ApicMessage& message) { local_apic_.receive(message); }),
      a20_([this](bool open) { control_.set_a20(open); }),
      irq3_(irq_line(3)),
      irq4_(irq_line(4)),
      irq0_(irq_line(kPitIrq)),
      irq8_(irq_line(kRtcIrq)),
      hpet_(clock, map,
            {.interrupt = [this](unsigned input, bool level) { io_apic_.set_input(input, level); },
             .legacy_interrupt = [this](unsigned irq,
                                        bool level) { (irq == kPitIrq ? irq0_ : irq8_).drive_hpet(level); },
             .legacy =
                 [this](bool selected) {
                   irq0_.select_hpet(selected);
                   irq8_.select_hpet(selected);
                 }}),
      pit_(clock, irq0_.chip()),
      port_61_(
          clock, [this](bool level) { pit_.set_gate(2, level); }, [this] { return pit_.output(2); }),
      rtc_(clock, options.start_time, irq8_.chip()),
      ps2_keyboard_(clock),
      keyboard_(
          irq_line(kKeyboardIrq), irq_line(kMouseIrq), [this] { control_.request_reset(); },
          a20_.input(kA20Keyboard)),
      dma_1_("dma_8237_1", 0, map, dma_pages_),
      dma_2_("dma_8237_2", 4, map, dma_pages_),
      port_92_([this] { control_.request_reset(); }, a20_.input(kA20Port92)),
      reset_control_([this] { control_.request_reset(); }),
      isa_bridge_([this](unsigned irq, bool level) { set_irq(irq, level); }),
      pci_([this](unsigned pirq, bool level) { isa_bridge_.set_pirq(pirq, level); }),
      host_bridge_(map, pci_, reset_control_),
      ide_(map, io, irq_line(kPrimaryIdeIrq), irq_line(kSecondaryIdeIrq)),
      acpi_pm_(clock, io, irq_line(kSciIrq), [this] { control_.request_exit(0); }),
      fw_cfg_(map) {
  keyboard_.plug(&ps2_keyboard_, &ps2_mouse_);
  a20_.drive(kA20Keyboard, true);  // as the 8042 comes out of reset
  pics_.set_interrupt_listener([this](bool level) { local_apic_.set_lint0(level); });
  chips_ = {&local_apic_, &io_apic_};

  add(io, 0x20, 2, pics_.master());
  add(io, 0xa0, 2, pics_.slave());
  io.add(0x4d0, 1, pics_.master(), Pic8259a::kElcrOffset);
  io.add(0x4d1, 1, pics_.slave(), Pic8259a::kElcrOffset);
  chips_.push_back(&hpet_);
  add(io, 0x40, 4, pit_);
  add(io, 0x61, 1, port_61_);
  add(io, 0x70, 2, rtc_);
  add(io, 0x60, 1, keyboard_);
  io.add(0x64, 1, keyboard_, 4);
  for (unsigned i = 0; i < 4; i++) {
    if (!options.serial_out[i]) continue;
    SharedLine& irq = i % 2 ? irq3_ : irq4_;
    serials_[i] = std::make_unique<Uart16550a>(kSerials[i].name, clock, irq.input(i / 2),
                                               std::move(options.serial_out[i]));
    add(io, kSerials[i].port, 8, *serials_[i]);
  }
  if (options.parallel_out) {
    parallel_ = std::make_unique<ParallelPort>(irq_line(kParallelIrq), std::move(options.parallel_out));
    add(io, 0x378, 3, *parallel_);
  }
  add(io, 0x00, 16, dma_1_);
  add(io, 0xc0, 32, dma_2_);
  add(io, 0x80, 1, post_port_);
  add(io, 0x81, 15, dma_pages_);
  add(io, 0x92, 1, port_92_);
  chips_.push_back(&reset_control_);
  add(io, 0xcf8, 8, host_bridge_);
  chips_.push_back(&isa_bridge_);
  add(io, 0x1f0, IdePiix3::kCommandPorts, ide_, IdePiix3::kCommandBlocks[0]);
  io.add(0x3f6, IdePiix3::kControlPorts, ide_, IdePiix3::kControlBlocks[0]);
  io.add(0x170, IdePiix3::kCommandPorts, ide_, IdePiix3::kCommandBlocks[1]);
  io.add(0x376, IdePiix3::kControlPorts, ide_, IdePiix3::kControlBlocks[1]);
  add(io, 0xafe0, AcpiPmPiix4::kGpePorts, acpi_pm_, AcpiPmPiix4::kGpe);
  io.add(0xb2, AcpiPmPiix4::kApmPorts, acpi_pm_, AcpiPmPiix4::kApm);
  pci_.add(kHostBridge, host_bridge_);
  pci_.add(kIsaBridge, isa_bridge_);
  pci_.add(kIde, ide_);
  pci_.add(kPowerManagement, acpi_pm_);
  if (options.vga) add_vga(clock, io, map, options.vga_rom);
  add(io, 0x510, 12, fw_cfg_);
  for (auto& console : options.debug_consoles) {
    debug_consoles_.push_back(
        std::make_unique<DebugConsole>(debug_console_name(console.port), std::move(console.sink)));
    add(io, console.port, 1, *debug_consoles_.back());
  }
  if (options.debug_exit_port) {
    debug_exit_ = std::make_unique<DebugExit>([this](int exit_code) { control_.request_exit(exit_code); });
    add(io, *options.debug_exit_port, options.debug_exit_ports, *debug_exit_);
  }
  if (options.testdev) {
    testdev_ = std::make_unique<PcTestdev>(map, [this](unsigned line, bool level) {
      constexpr unsigned kIsaLines = 16;
      line < kIsaLines ? set_irq(line, level) : io_apic_.set_input(line, level);
    });
    add(io, 0x2000, PcTestdev::kLineCount, *testdev_, PcTestdev::kLines);
    io.add(0xe0, PcTestdev::kLatchPorts, *testdev_, PcTestdev::kLatch);
    // Behind a debug console, which is at E9h as a rule.
    io.place(io.add_window(PcTestdev::kLatchPorts, *testdev_, PcTestdev::kByteLatch), 0xe8);
  }
  add_flashes(map, std::move(options.flashes));
  attach_drives(options);
  add_network_cards(clock, io, map, options);
  for (size_t i = 0; i < options.ahci.size(); i++)
    add_ahci(io, map, "ahci_ich9_" + std::to_string(i), options.ahci[i]);
  for (size_t i = 0; i < options.virtio_disks.size(); i++) {
    const PcBoardOptions::VirtioDisk& disk = options.virtio_disks[i];
    boots(disk.boot_index, PciBus::address(pci_.free_device(kFirstCard), 0), "scsi", "/disk@0,0");
    add_virtio(io, map, "virtio_blk_" + std::to_string(i),
               std::make_unique<VirtioBlk>(map, *disk.medium, disk.serial, disk.sizes));
  }
  if (options.entropy)
    add_virtio(io, map, "virtio_rng", std::make_unique<VirtioRng>(map, std::move(options.entropy)));
  if (options.virtio_keyboard) {
    auto keyboard = std::make_unique<VirtioKeyboard>(map);
    virtio_keyboard_ = keyboard.get();
    add_virtio(io, map, "virtio_keyboard", std::move(keyboard));
  }
  if (options.virtio_tablet) {
    auto tablet = std::make_unique<VirtioTablet>(map);
    tablet_ = tablet.get();
    add_virtio(io, map, "virtio_tablet", std::move(tablet));
  }
  if (options.virtio_ports) {
    auto serial = std::make_unique<VirtioSerial>(map, std::move(*options.virtio_ports));
    virtio_serial_ = serial.get();
    add_virtio(io, map, "virtio_serial", std::move(serial));
  }
  if (options.balloon) {
    auto balloon = std::make_unique<VirtioBalloon>(map);
    balloon_ = balloon.get();
    add_virtio(io, map, "virtio_balloon", std::move(balloon));
  }
  for (size_t i = 0; i < options.shared_folders.size(); i++) {
    const PcBoardOptions::SharedFolder& folder = options.shared_folders[i];
    add_virtio(io, map, "virtio_9p_" + std::to_string(i),
               std::make_unique<Virtio9p>(map, *folder.server, folder.tag));
  }
  write_memory_sizes(map);
  add_floppies(io, options);
  write_boot_order(options.boot_order);
  list_boot_order(options.boot_strict);
  describe_machine(map, options);
}

// A chip with its ports, or the first range of them.
void PcBoard::add(IoBus& io, uint16_t first, uint16_t count, Device& chip, uint16_t device_offset) {
  io.add(first, count, chip, device_offset);
  chips_.push_back(&chip);
}

VirtioPci& PcBoard::add_virtio(IoBus& io, PhysicalMap& map, std::string name,
                               std::unique_ptr<VirtioDevice> device, std::optional<unsigned> place) {
  const uint8_t address = PciBus::address(place ? *place : pci_.free_device(kFirstCard), 0);
  virtio_.push_back(
      std::make_unique<VirtioPci>(std::move(name), std::move(device), map, io, pci_.interrupt_line(address),
                                  [this, &map](uint64_t to, uint32_t data) { send_msi(map, to, data); }));
  pci_.add(address, *virtio_.back());
  chips_.push_back(virtio_.back().get());
  return *virtio_.back();
}

void PcBoard::key(KeyCode code, bool down) {
  if (virtio_keyboard_ && virtio_keyboard_->ready()) return virtio_keyboard_->key(code, down);
  ps2_keyboard_.key(code, down);
}

// A message is a write like any other; those to FEExxxxxh are interrupts (SDM vol. 3, 10.11.1).
void PcBoard::send_msi(PhysicalMap& map, uint64_t address, uint32_t data) {
  if (ApicMessage::is_at(address)) return local_apic_.receive(ApicMessage::from_msi(address, data));
  if (map.is_ram(PhysAddr{address}, sizeof data))
    map.write_bytes(PhysAddr{address}, std::as_bytes(std::span(&data, 1)));
}

void PcBoard::add_low_firmware(PhysicalMap& map, std::span<const std::byte> image) {
  constexpr uint64_t kLowCopy = 128 * kKib;
  const uint64_t low = std::min<uint64_t>(kLowCopy, image.size());
  map.add_rom(PhysAddr{kMib - low}, image.last(low));
}

void PcBoard::add_flashes(PhysicalMap& map, std::vector<PcBoardOptions::Flash> flashes) {
  if (!flashes.empty()) add_low_firmware(map, flashes[0].contents);
  uint64_t start = uint64_t{1} << 32;
  for (PcBoardOptions::Flash& flash : flashes) {
    start -= flash.contents.size();
    flashes_.push_back(std::make_unique<Flash28F128J3>("flash_" + std::to_string(flashes_.size()), map,
                                                       PhysAddr{start}, flash.contents,
                                                       std::move(flash.store)));
    chips_.push_back(flashes_.back().get());
  }
}

void PcBoard::add_vga(VirtualClock& clock, IoBus& io, PhysicalMap& map, std::span<const std::byte> rom) {
  vga_ = std::make_unique<VgaStd>(clock, map, rom);
  add(io, 0x3b4, 2, *vga_, 0x3b4 - VgaStd::kFirstPort);
  for (const auto& [port, count] :
       {std::pair<uint16_t, uint16_t>{0x3ba, 1}, {0x3c0, 16}, {0x3d4, 2}, {0x3da, 1}}) {
    io.add(port, count, *vga_, static_cast<uint16_t>(port - VgaStd::kFirstPort));
  }
  io.add(0x1ce, VgaStd::kDispiPorts, *vga_, VgaStd::kDispiIndex);
  pci_.add(kVga, *vga_);
}

namespace {
std::unique_ptr<AtaDrive> make_drive(const PcBoardOptions::AtaDrive& drive, std::string name,
                                     AtaDrive::Cable cable) {
  if (drive.cdrom) return std::make_unique<AtapiCdrom>(std::move(name), *drive.medium, cable);
  return std::make_unique<AtaDisk>(std::move(name), *drive.medium, cable, drive.serial, drive.sizes);
}
}  // namespace

void PcBoard::add_ahci(IoBus& io, PhysicalMap& map, const std::string& name,
                       const PcBoardOptions::AhciController& controller) {
  const uint8_t address = PciBus::address(pci_.free_device(kFirstCard), 0);
  auto chip =
      std::make_unique<AhciIch9>(name, map, io, pci_.interrupt_line(address),
                                 [this, &map](uint64_t to, uint32_t data) { send_msi(map, to, data); });
  for (unsigned port = 0; port < AhciIch9::kPorts; port++) {
    const PcBoardOptions::AtaDrive& drive = controller.drives[port];
    if (!drive.medium) continue;
    chip->attach(port, make_drive(drive, name + "." + std::to_string(port), AtaDrive::Cable::Serial));
    boots(drive.boot_index, address, "pci8086,2922", "/drive@" + std::to_string(port) + "/disk@0");
  }
  pci_.add(address, *chip);
  chips_.push_back(chip.get());
  cards_.push_back(std::move(chip));
}

void PcBoard::attach_drives(const PcBoardOptions& options) {
  uint8_t translations = 0;
  for (unsigned channel = 0; channel < 2; channel++) {
    for (unsigned number = 0; number < 2; number++) {
      const PcBoardOptions::AtaDrive& drive = options.ide[channel][number];
      if (!drive.medium) continue;
      boots(drive.boot_index, kIde, "ide",
            "/drive@" + std::to_string(channel) + "/disk@" + std::to_string(number));
      ide_.attach(channel, number,
                  make_drive(drive, "ide" + std::to_string(channel) + "." + std::to_string(number),
                             number == 1                      ? AtaDrive::Cable::SecondParallel
                             : options.ide[channel][1].medium ? AtaDrive::Cable::FirstParallel
                                                              : AtaDrive::Cable::OnlyParallel));
      if (drive.cdrom) continue;
      // What firmware says of cylinders to programs that ask: the disk's own numbers (0) while they fit, else
      // LBA's (1).
      const bool fits = AtaDisk::default_geometry(drive.medium->bytes()).cylinders <= 1024;
      if (!fits) translations |= static_cast<uint8_t>(1u << 2 * (2 * channel + number));
    }
  }
  rtc_.set_memory(kDiskTranslation, translations);
}

void PcBoard::add_network_cards(VirtualClock& clock, IoBus& io, PhysicalMap& map,
                                const PcBoardOptions& options) {
  unsigned number = 0;
  for (const PcBoardOptions::NetworkCard& card : options.network_cards) {
    const std::string suffix = "_" + std::to_string(number++);
    const uint8_t place = PciBus::address(card.place ? *card.place : pci_.free_device(kFirstCard), 0);
    boots(card.boot_index, place, "ethernet", "/ethernet-phy@0");
    if (card.model == PcBoardOptions::NetworkCard::Model::VirtioNet) {
      add_virtio(io, map, "virtio_net" + suffix,
                 std::make_unique<VirtioNet>(map, *card.network, card.address), card.place)
          .add_rom(map, card.rom);
      continue;
    }
    cards_.push_back(std::make_unique<Ethernet82540em>("ethernet_82540em" + suffix, map, io, clock,
                                                       pci_.interrupt_line(place), *card.network,
                                                       card.address));
    cards_.back()->add_rom(map, card.rom);
    pci_.add(place, *cards_.back());
    chips_.push_back(cards_.back().get());
  }
}

void PcBoard::add_floppies(IoBus& io, const PcBoardOptions& options) {
  const auto& drives = options.floppies;
  if (!drives[0] && !drives[1]) return;
  for (unsigned i = 0; i < drives.size(); i++)
    boots(options.floppy_boot_index[i], kIsaBridge, "isa", "/fdc@03f0/floppy@" + std::to_string(i));
  floppy_ = std::make_unique<Fdc82077aa>(dma_1_, irq_line(kFloppyIrq), drives);
  dma_1_.set_listener([this] { floppy_->dma_ready(); });
  add(io, 0x3f0, Fdc82077aa::kPorts, *floppy_);
  io.add(0x3f0 + Fdc82077aa::kDirectionPort, 1, *floppy_, Fdc82077aa::kDirectionPort);
  // An empty drive is one for 1.44 MB.
  constexpr uint64_t kUsual = 1'474'560;
  for (unsigned i = 0; i < drives.size(); i++) {
    if (const BlockDevice* const drive = drives[i])
      floppy_types_[i] = Fdc82077aa::format_of(drive->bytes() ? drive->bytes() : kUsual).drive_type;
  }
  constexpr uint8_t kHasFloppy = 0x01, kSecondFloppy = 0x40;
  rtc_.set_memory(kFloppyTypes, static_cast<uint8_t>(floppy_types_[0] << 4 | floppy_types_[1]));
  const uint8_t floppies = kHasFloppy | (drives[0] && drives[1] ? kSecondFloppy : 0);
  rtc_.set_memory(kEquipment, static_cast<uint8_t>(kFpuAndMouse | floppies));
}

// The CMOS bytes that firmware and operating systems read, as QEMU's pc machine sets them.
void PcBoard::write_memory_sizes(const PhysicalMap& map) {
  const auto set16 = [this](uint8_t index, uint64_t value) {
    rtc_.set_memory(index, static_cast<uint8_t>(value));
    rtc_.set_memory(static_cast<uint8_t>(index + 1), static_cast<uint8_t>(value >> 8));
  };
  constexpr uint64_t kMost = 65'535;
  const uint64_t low = map.ram_below_4g(), high = map.ram_above_4g();
  rtc_.set_memory(kEquipment, kFpuAndMouse);  // no floppy drive yet, a display with its own firmware
  set16(0x15, 640);                           // KiB of base memory
  const uint64_t extended = low > kMib ? std::min((low - kMib) / kKib, kMost) : 0;
  set16(0x17, extended);  // KiB above 1 MiB
  set16(0x30, extended);
  set16(0x34, low > 16 * kMib ? std::min((low - 16 * kMib) / (64 * kKib), kMost) : 0);  // 64 KiB units
  set16(0x5b, high / (64 * kKib));                                                      // above 4 GiB
  rtc_.set_memory(0x5d, static_cast<uint8_t>(high / (64 * kKib) >> 16));
}

void PcBoard::write_boot_order(const std::string& letters) {
  uint8_t codes[3] = {};
  for (size_t i = 0; i < std::min<size_t>(letters.size(), 3); i++) {
    const char letter = letters[i];
    codes[i] = letter == 'a' || letter == 'b' ? 1
               : letter == 'c'                ? 2
               : letter == 'd'                ? 3
               : letter == 'n'                ? 4
                                              : 0;
  }
  constexpr uint8_t kNoFloppySignatureCheck = 0x01;
  rtc_.set_memory(kBootOrder, static_cast<uint8_t>(codes[1] << 4 | codes[0]));
  rtc_.set_memory(kBootOrderThird, static_cast<uint8_t>(codes[2] << 4 | kNoFloppySignatureCheck));
}

// What has a place in the boot order, by QEMU's names (Open Firmware's paths).
void PcBoard::boots(std::optional<unsigned> index, uint8_t pci_address, std::string_view kind,
                    std::string_view below) {
  if (!index) return;
  const unsigned device = pci_address >> 3, function = pci_address & 7;
  char hex[2 + 1 + 1];
  char* end = std::to_chars(hex, hex + 2, device, 16).ptr;
  if (function) {
    *end++ = ',';
    *end++ = static_cast<char>('0' + function);
  }
  std::string path = "/pci@i0cf8/";
  path.append(kind).append("@").append(hex, end).append(below);
  boot_paths_.emplace_back(*index, std::move(path));
}

// QEMU's file "bootorder": a path a line; HALT: nothing else is tried.
void PcBoard::list_boot_order(bool strict) {
  std::ranges::stable_sort(boot_paths_, {}, [](const auto& entry) { return entry.first; });
  if (boot_paths_.empty() && !strict) return;
  std::string list = "/rom@genroms/linuxboot.bin\n";  // a kernel comes before them, when there is one
  for (const auto& [index, path] : boot_paths_) list += path + '\n';
  if (strict) list += "HALT\n";
  list.back() = '\0';
  fw_cfg_.add_file("bootorder", {list.begin(), list.end()});
}

// The fw_cfg items that don't depend on what is booted, as QEMU's pc machine has them.
void PcBoard::describe_machine(const PhysicalMap& map, const PcBoardOptions& options) {
  constexpr uint16_t kCpus = 1;
  fw_cfg_.add_bytes(FwCfg::kUuid, FwCfg::Bytes(options.smbios.uuid.begin(), options.smbios.uuid.end()));
  fw_cfg_.add_u64(FwCfg::kRamSize, map.ram_bytes());
  fw_cfg_.add_u16(FwCfg::kNoGraphic, options.serial_console);
  fw_cfg_.add_u16(FwCfg::kCpuCount, kCpus);
  fw_cfg_.add_u16(FwCfg::kMaxCpuCount, kCpus);
  fw_cfg_.add_u16(FwCfg::kBootMenu, options.boot_menu);
  fw_cfg_.add_bytes(FwCfg::kNumaData, FwCfg::Bytes(8 * (1 + kCpus)));  // no nodes; the node of each CPU

  // Entries of E820's layout: address, length, type; RAM only.
  FwCfg::Bytes e820;
  const auto append = [&e820](uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++) e820.push_back(static_cast<uint8_t>(value >> 8 * i));
  };
  const auto add_ram = [&append](uint64_t start, uint64_t bytes) {
    constexpr uint32_t kRam = 1;
    if (bytes == 0) return;
    append(start, 8);
    append(bytes, 8);
    append(kRam, 4);
  };
  add_ram(0, map.ram_below_4g());
  add_ram(uint64_t{1} << 32, map.ram_above_4g());
  fw_cfg_.add_file("etc/e820", std::move(e820));

  const auto add_number = [this](const char* name, uint64_t value, unsigned size) {
    FwCfg::Bytes bytes;
    for (unsigned i = 0; i < size; i++) bytes.push_back(static_cast<uint8_t>(value >> 8 * i));
    fw_cfg_.add_file(name, std::move(bytes));
  };
  if (options.boot_menu_wait) add_number("etc/boot-menu-wait", *options.boot_menu_wait, 2);
  if (options.boot_fail_wait) add_number("etc/boot-fail-wait", *options.boot_fail_wait, 4);

  SmbiosTables smbios = make_smbios_tables(options.smbios, map.ram_below_4g(), map.ram_above_4g());
  fw_cfg_.add_file(SmbiosTables::kAnchorFile, std::move(smbios.anchor));
  fw_cfg_.add_file(SmbiosTables::kTablesFile, std::move(smbios.tables));

  AcpiTables acpi = acpi_tables();
  fw_cfg_.add_file(AcpiTables::kLoaderFile, acpi.loader_script());
  fw_cfg_.add_file(AcpiTables::kTablesFile, std::move(acpi.tables));
  fw_cfg_.add_file(AcpiTables::kRsdpFile, std::move(acpi.rsdp));
}

AcpiTables PcBoard::acpi_tables() const {
  AcpiBoard board{.ram_below_4g = map_.ram_below_4g()};
  for (unsigned i = 0; i < 4; i++) board.serial[i] = serials_[i] != nullptr;
  board.parallel = parallel_ != nullptr;
  board.floppies = floppy_types_;
  return make_acpi_tables(board);
}

// The interrupt controllers go first: the lines that fall when the others are reset leave no request behind.
void PcBoard::reset() {
  for (Device* chip : chips_) chip->reset();
  pci_.reset();
}

DeviceState PcBoard::save() const {
  DeviceState chips = DeviceState::object();
  for (const Device* chip : chips_) chips[std::string(chip->name())] = chip->save();
  return {{"version", 1},         {"chips", chips},       {"pci", pci_.save()},     {"a20", a20_.levels()},
          {"irq0", irq0_.save()}, {"irq8", irq8_.save()}, {"irq3", irq3_.levels()}, {"irq4", irq4_.levels()}};
}

void PcBoard::load(const DeviceState& state) {
  require_version(state, 1, "pc_board");
  const DeviceState& chips = state.at("chips");
  for (const Device* chip : chips_) {
    if (!chips.contains(chip->name())) {
      throw std::invalid_argument("the saved board has no chip " + std::string(chip->name()));
    }
  }
  if (chips.size() != chips_.size()) throw std::invalid_argument("the saved board has other chips");
  for (Device* chip : chips_) chip->load(chips.at(std::string(chip->name())));
  pci_.load(state.at("pci"));
  a20_.restore(static_cast<uint8_t>(bounded(state, "a20", 3)));
  irq0_.restore(static_cast<uint8_t>(bounded(state, "irq0", 7)));
  irq8_.restore(static_cast<uint8_t>(bounded(state, "irq8", 7)));
  irq3_.restore(static_cast<uint8_t>(bounded(state, "irq3", 3)));
  irq4_.restore(static_cast<uint8_t>(bounded(state, "irq4", 3)));
  control_.set_a20(a20_.levels() != 0);
  pics_.announce();
}

}  // namespace penumbra
