// The PC: which chips there are, and how ports, interrupt lines, the A20 gate and the reset line connect
// them.
//
// As QEMU's pc machine: 440FX host bridge, PIIX3 ISA bridge and IDE controller, PIIX4 power management; two
// 8259A with ELCR, 8254, MC146818, 8042, up to four 16550A, 8237A, and the system control ports.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/board.h"
#include "core/io_bus.h"
#include "core/machine_control.h"
#include "core/virtual_clock.h"
#include "devices/acpi_pm_piix4.h"
#include "devices/acpi_tables.h"
#include "devices/ahci_ich9.h"
#include "devices/debug_console.h"
#include "devices/debug_exit.h"
#include "devices/dma_8237.h"
#include "devices/ethernet_82540em.h"
#include "devices/fdc_82077aa.h"
#include "devices/file_server.h"
#include "devices/flash_28f128j3.h"
#include "devices/fw_cfg.h"
#include "devices/host_bridge_440fx.h"
#include "devices/hpet.h"
#include "devices/ide_piix3.h"
#include "devices/io_apic.h"
#include "devices/isa_bridge_piix3.h"
#include "devices/keyboard_8042.h"
#include "devices/local_apic.h"
#include "devices/parallel_port.h"
#include "devices/pc_testdev.h"
#include "devices/pci_bus.h"
#include "devices/pic_pair.h"
#include "devices/pit_8254.h"
#include "devices/port_61.h"
#include "devices/port_92.h"
#include "devices/post_port.h"
#include "devices/ps2_keyboard.h"
#include "devices/ps2_mouse.h"
#include "devices/reset_control.h"
#include "devices/rtc_mc146818.h"
#include "devices/smbios_tables.h"
#include "devices/uart_16550a.h"
#include "devices/vga_std.h"
#include "devices/virtio_balloon.h"
#include "devices/virtio_input.h"
#include "devices/virtio_pci.h"
#include "devices/virtio_serial.h"
#include "mmu/physical_map.h"

namespace penumbra {

struct PcBoardOptions {
  // A drive's or card's boot_index: firmware tries the lowest one first, then what has none.

  // COM1 to COM4: ports 3F8h, 2F8h, 3E8h, 2E8h, IRQ 4, 3, 4, 3. An empty one has no chip.
  ByteSink serial_out[4];
  struct DebugConsole {
    uint16_t port;
    ByteSink sink;
  };
  std::vector<DebugConsole> debug_consoles;
  std::optional<uint16_t> debug_exit_port;  // first port of the debug exit; none: no chip
  uint16_t debug_exit_ports = 4;
  struct AtaDrive {
    BlockDevice* medium = nullptr;  // null: no drive; else it outlives the board's last access
    bool cdrom = false;
    std::string serial;  // of a disk
    BlockSizes sizes{};  // the same
    std::optional<unsigned> boot_index{};
  };
  AtaDrive ide[2][2];  // by channel and number
  struct AhciController {
    AtaDrive drives[AhciIch9::kPorts];
  };
  std::vector<AhciController> ahci;
  std::array<BlockDevice*, Fdc82077aa::kDrives>
      floppies{};  // as an ATA drive's; without any, there is no controller
  std::array<std::optional<unsigned>, Fdc82077aa::kDrives> floppy_boot_index{};
  struct VirtioDisk {
    BlockDevice* medium = nullptr;  // as an ATA drive's
    std::string serial;
    BlockSizes sizes{};
    std::optional<unsigned> boot_index{};
  };
  std::vector<VirtioDisk> virtio_disks;
  bool virtio_keyboard = false, virtio_tablet = false;
  struct NetworkCard {
    enum class Model : uint8_t { E1000, VirtioNet };
    Model model = Model::E1000;
    NetworkBackend* network = nullptr;  // outlives the board's last access
    MacAddress address{};
    std::optional<unsigned> place;  // device number on the PCI bus; none: the first that is free
    std::vector<std::byte> rom{};   // that boots from the network; empty: none
    std::optional<unsigned> boot_index{};
  };
  std::vector<NetworkCard> network_cards;
  struct SharedFolder {
    FileServer* server = nullptr;  // outlives the board's last access
    std::string tag;
  };
  std::vector<SharedFolder> shared_folders;
  bool vga = true;
  std::vector<std::byte> vga_rom;  // empty: none
  bool serial_console = true;      // firmware talks to COM1, too
  // Where the random numbers of a virtio entropy device come from; empty: no such device.
  std::function<void(std::span<std::byte>)> entropy;
  bool balloon = false;
  // Ports of a virtio console device; none: no such device.
  std::optional<std::vector<VirtioSerial::Port>> virtio_ports;
  // Firmware's choice of what to boot: QEMU's letters, a floppy, c hard disk, d CD-ROM, n network.
  std::string boot_order = "cad";
  bool boot_strict = false;  // nothing but what has a boot_index
  bool boot_menu = false;
  std::optional<uint16_t> boot_menu_wait;  // milliseconds
  std::optional<uint32_t> boot_fail_wait;  // milliseconds until a reset when nothing boots; all ones: never
  ByteSink parallel_out;                   // empty: no parallel port
  bool testdev = false;                    // QEMU's pc-testdev
  // Firmware in flash chips: the first ends at 4 GiB, the other below it. None: the firmware is a ROM.
  struct Flash {
    std::vector<std::byte> contents;  // whole blocks
    Flash28F128J3::Store store;       // empty: write-protected
  };
  std::vector<Flash> flashes;
  SmbiosOptions smbios;
  int64_t start_time = 0;                  // Unix seconds when the clock reads 0
  uint64_t apic_timer_hz = 1'000'000'000;  // what CPUID says of it, if anything
};

class PcBoard final : public Board {
 public:
  // `interrupt` is the CPU's INTR. Throws std::invalid_argument when ports of the options overlap others.
  PcBoard(MachineControl& control, VirtualClock& clock, IoBus& io, PhysicalMap& map, LineOutput interrupt,
          PcBoardOptions options);
  PcBoard(const PcBoard&) = delete;
  PcBoard& operator=(const PcBoard&) = delete;

  InterruptSource& interrupts() override { return local_apic_; }
  LocalApic& local_apic() { return local_apic_; }
  // Whether an interrupt line or a function's message ends in an NMI, so that a halt with interrupts off may
  // have an end.
  bool routes_nmi() const { return local_apic_.routes_nmi() || io_apic_.routes_nmi() || pci_.signals_nmi(); }
  PicPair& pics() { return pics_; }
  PciBus& pci() { return pci_; }
  HostBridge440fx& host_bridge() { return host_bridge_; }
  IdePiix3& ide() { return ide_; }
  AcpiPmPiix4& power_management() { return acpi_pm_; }
  IsaBridgePiix3& isa_bridge() { return isa_bridge_; }
  VirtioBalloon* balloon() { return balloon_; }             // null: there is none
  VirtioSerial* virtio_serial() { return virtio_serial_; }  // null: there is none
  // Describe this board, with the PIIX4's ports where firmware puts them; not yet linked.
  AcpiTables acpi_tables() const;
  void reset() override;

  // Has what the board knows (memory, CPUs, no display); kernels and tables are the caller's.
  FwCfg& fw_cfg() { return fw_cfg_; }
  // `number` 0 is COM1. Null when it has no chip.
  Uart16550a* serial(unsigned number) { return number < 4 ? serials_[number].get() : nullptr; }

  // A key for the keyboard that the guest listens to.
  void key(KeyCode code, bool down);
  // Null when there is none.
  VirtioTablet* tablet() { return tablet_; }
  Ps2Mouse& mouse() { return ps2_mouse_; }
  // Null when there is none.
  VgaStd* vga() { return vga_.get(); }

  // The end of a firmware image, where the first megabyte has it.
  static void add_low_firmware(PhysicalMap& map, std::span<const std::byte> image);

  // All of them, each with a name of its own.
  std::span<Device* const> chips() const { return chips_; }

  // The state of all chips by their names, and of the lines between them. load() throws what the chips throw,
  // and std::invalid_argument when the state is one of a board with other chips; the board must be reset or
  // thrown away then.
  DeviceState save() const;
  void load(const DeviceState& state);

 private:
  // A line that several outputs drive: high when one of them is.
  class SharedLine {
   public:
    explicit SharedLine(LineOutput out) : out_(std::move(out)) {}
    LineOutput input(unsigned number);
    void drive(unsigned number, bool level);
    uint8_t levels() const { return levels_; }  // of the inputs
    void restore(uint8_t levels) { levels_ = levels; }

   private:
    LineOutput out_;
    uint8_t levels_ = 0;
  };

  // The 8254's or the clock's interrupt line, in whose place the HPET can be (legacy replacement).
  class TimerLine {
   public:
    explicit TimerLine(LineOutput out) : out_(std::move(out)) {}
    LineOutput chip();
    void drive_hpet(bool level);
    void select_hpet(bool selected);
    uint8_t save() const { return static_cast<uint8_t>(chip_ | hpet_ << 1 | selected_ << 2); }
    void restore(uint8_t state);

   private:
    void update(bool before);
    bool level() const { return selected_ ? hpet_ : chip_; }
    LineOutput out_;
    bool chip_ = false, hpet_ = false, selected_ = false;
  };

  // ISA interrupt lines go to both kinds of controllers, line 0 to input 2 of the I/O APIC.
  void set_irq(unsigned irq, bool level);
  LineOutput irq_line(unsigned irq);
  void add(IoBus& io, uint16_t first, uint16_t count, Device& chip, uint16_t device_offset = 0);
  VirtioPci& add_virtio(IoBus& io, PhysicalMap& map, std::string name, std::unique_ptr<VirtioDevice> device,
                        std::optional<unsigned> place = {});
  void send_msi(PhysicalMap& map, uint64_t address, uint32_t data);
  void add_flashes(PhysicalMap& map, std::vector<PcBoardOptions::Flash> flashes);
  void add_vga(VirtualClock& clock, IoBus& io, PhysicalMap& map, std::span<const std::byte> rom);
  void attach_drives(const PcBoardOptions& options);
  void add_ahci(IoBus& io, PhysicalMap& map, const std::string& name,
                const PcBoardOptions::AhciController& controller);
  void add_network_cards(VirtualClock& clock, IoBus& io, PhysicalMap& map, const PcBoardOptions& options);
  void add_floppies(IoBus& io, const PcBoardOptions& options);
  void write_memory_sizes(const PhysicalMap& map);
  void write_boot_order(const std::string& letters);
  void boots(std::optional<unsigned> index, uint8_t pci_address, std::string_view kind,
             std::string_view below);
  void list_boot_order(bool strict);
  void describe_machine(const PhysicalMap& map, const PcBoardOptions& options);

  MachineControl& control_;
  const PhysicalMap& map_;
  LocalApic local_apic_;
  IoApic io_apic_;
  PicPair pics_;
  SharedLine a20_, irq3_, irq4_;
  TimerLine irq0_, irq8_;
  Hpet hpet_;
  Pit8254 pit_;
  Port61 port_61_;
  RtcMc146818 rtc_;
  Ps2Keyboard ps2_keyboard_;
  Ps2Mouse ps2_mouse_;
  Keyboard8042 keyboard_;
  std::unique_ptr<Uart16550a> serials_[4];
  std::unique_ptr<ParallelPort> parallel_;
  DmaPageRegisters dma_pages_;
  Dma8237 dma_1_, dma_2_;
  std::unique_ptr<Fdc82077aa> floppy_;
  std::array<uint8_t, Fdc82077aa::kDrives> floppy_types_{};  // as CMOS has them, 0: no drive
  PostPort post_port_;
  Port92 port_92_;
  ResetControl reset_control_;
  IsaBridgePiix3 isa_bridge_;
  PciBus pci_;
  HostBridge440fx host_bridge_;
  IdePiix3 ide_;
  AcpiPmPiix4 acpi_pm_;
  std::unique_ptr<VgaStd> vga_;
  FwCfg fw_cfg_;
  std::vector<std::unique_ptr<VirtioPci>> virtio_;
  VirtioKeyboard* virtio_keyboard_ = nullptr;  // in virtio_, as the tablet
  VirtioTablet* tablet_ = nullptr;
  VirtioBalloon* balloon_ = nullptr;       // in virtio_
  VirtioSerial* virtio_serial_ = nullptr;  // in virtio_
  std::vector<std::unique_ptr<PciFunction>> cards_;
  std::vector<std::unique_ptr<DebugConsole>> debug_consoles_;
  std::unique_ptr<DebugExit> debug_exit_;
  std::unique_ptr<PcTestdev> testdev_;
  std::vector<std::unique_ptr<Flash28F128J3>> flashes_;
  std::vector<Device*> chips_;
  std::vector<std::pair<unsigned, std::string>> boot_paths_;  // by boot_index
};

}  // namespace penumbra
