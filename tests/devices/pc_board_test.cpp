// The wiring of a PC. Expected values: IBM PC AT Technical Reference for ports and interrupt lines; QEMU's pc
// machine for the configuration bytes in CMOS memory and fw_cfg.
#include "devices/pc_board.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "tests/devices/chip_fixture.h"
#include "tests/devices/memory_disk.h"
#include "tests/devices/memory_network.h"

namespace penumbra {
namespace {

class Control : public MachineControl {
 public:
  unsigned resets = 0;
  std::optional<int> exit_code;
  bool a20 = true;
  void request_reset() override { resets++; }
  void request_exit(int code) override { exit_code = code; }
  void request_nmi() override {}
  void set_a20(bool open) override { a20 = open; }
};

class PcBoardTest : public testing::Test {
 protected:
  TestClock time_;
  Control control_;
  IoBus io_;
  PhysicalMap map_{uint64_t{64} << 20};
  TestLine intr_;
  std::string com1_, com3_, console_;
  std::unique_ptr<PcBoard> board_ = make(io_, map_);

  std::unique_ptr<PcBoard> make(IoBus& io, PhysicalMap& map) {
    PcBoardOptions options;
    options.serial_out[0] = [this](uint8_t byte) { com1_ += static_cast<char>(byte); };
    options.serial_out[2] = [this](uint8_t byte) { com3_ += static_cast<char>(byte); };
    options.debug_consoles.push_back(
        {.port = 0xe9, .sink = [this](uint8_t byte) { console_ += static_cast<char>(byte); }});
    options.debug_exit_port = 0xf4;
    return std::make_unique<PcBoard>(control_, time_.clock(), io, map, intr_.input(), std::move(options));
  }
  uint8_t inb(uint16_t port) { return static_cast<uint8_t>(io_.read(port, 1)); }
  void outb(uint16_t port, uint8_t value) { io_.write(port, 1, value); }
  uint8_t cmos(uint8_t index) {
    outb(0x70, index);
    return inb(0x71);
  }
  void set_cmos(uint8_t index, uint8_t value) {
    outb(0x70, index);
    outb(0x71, value);
  }
  // By the directory (QEMU, docs/specs/fw_cfg): entries of 64 bytes, integers big-endian.
  std::string fw_cfg_file(const std::string& name) { return fw_cfg_file(io_, name); }
  static std::string fw_cfg_file(IoBus& io, const std::string& name) {
    constexpr uint16_t kDirectory = 0x19;
    const auto byte = [&io] { return io.read(0x511, 1); };
    const auto big = [&byte](unsigned size) {
      uint32_t value = 0;
      for (unsigned i = 0; i < size; i++) value = value << 8 | byte();
      return value;
    };
    io.write(0x510, 2, kDirectory);
    for (uint32_t left = big(4); left > 0; left--) {
      const uint32_t bytes = big(4), key = big(2);
      big(2);
      std::string entry;
      for (unsigned i = 0; i < 56; i++) entry += static_cast<char>(byte());
      if (entry.c_str() != name) continue;
      io.write(0x510, 2, key);
      std::string content;
      for (uint32_t i = 0; i < bytes; i++) content += static_cast<char>(byte());
      return content;
    }
    return {};
  }
  // Vectors from 20h and 28h, nothing masked.
  void initialise_pics() {
    for (const uint16_t port : {0x20, 0xa0}) {
      const bool slave = port == 0xa0;
      outb(port, 0x11);
      outb(port + 1, slave ? 0x28 : 0x20);
      outb(port + 1, slave ? 2 : 4);
      outb(port + 1, 1);
    }
  }
  int next_vector() { return board_->interrupts().pending() ? board_->interrupts().acknowledge() : -1; }
};

TEST_F(PcBoardTest, TimerIsIrq0) {
  initialise_pics();
  outb(0x43, 0x30);
  outb(0x40, 0x10);
  outb(0x40, 0x00);
  EXPECT_EQ(next_vector(), -1);
  time_.advance(20'000);
  EXPECT_TRUE(intr_.level());
  EXPECT_EQ(next_vector(), 0x20);
}

TEST_F(PcBoardTest, ClockIsIrq8) {
  initialise_pics();
  set_cmos(0x0b, 0x12);
  time_.advance(1'000'000'000);
  EXPECT_EQ(next_vector(), 0x28);
}

TEST_F(PcBoardTest, KeyboardControllerIsIrq1AndIrq12) {
  initialise_pics();
  outb(0x64, 0x60);
  outb(0x60, 0x03);  // both interrupts on
  outb(0x64, 0xd2);  // write keyboard output buffer
  outb(0x60, 0x55);
  EXPECT_EQ(next_vector(), 0x21);
  outb(0x20, 0x20);
  EXPECT_EQ(inb(0x60), 0x55);
  outb(0x64, 0xd3);  // write mouse output buffer
  outb(0x60, 0xaa);
  EXPECT_EQ(next_vector(), 0x2c);
}

TEST_F(PcBoardTest, SerialPortsPrintAndShareIrq4) {
  outb(0x3f8, 'a');
  outb(0x3e8, 'b');
  EXPECT_EQ(com1_, "a");
  EXPECT_EQ(com3_, "b");
  EXPECT_EQ(inb(0x2f8), 0xff) << "no COM2";
  EXPECT_EQ(board_->serial(1), nullptr);
  EXPECT_EQ(board_->serial(4), nullptr);

  initialise_pics();
  for (const uint16_t port : {0x3f8, 0x3e8}) {
    outb(port + 4, 0x08);  // OUT2
    outb(port + 1, 0x01);  // received data
  }
  ASSERT_NE(board_->serial(0), nullptr);
  ASSERT_TRUE(board_->serial(0)->receive('x'));
  ASSERT_TRUE(board_->serial(2)->receive('y'));
  EXPECT_EQ(next_vector(), 0x24);
  EXPECT_EQ(inb(0x3f8), 'x');
  outb(0x20, 0x0a);
  outb(0x4d0, 0x10);  // level triggered: the input itself shows in the IRR
  EXPECT_EQ(inb(0x20) & 0x10, 0x10) << "COM3 holds the line";
  EXPECT_EQ(inb(0x3e8), 'y');
  EXPECT_EQ(inb(0x20) & 0x10, 0x00);
}

TEST_F(PcBoardTest, ElcrPorts) {
  io_.write(0x4d0, 2, 0xffff);
  EXPECT_EQ(io_.read(0x4d0, 2), 0xdef8u);
}

TEST_F(PcBoardTest, ResetsComeFromThreePlaces) {
  outb(0x64, 0xfe);
  EXPECT_EQ(control_.resets, 1u);
  outb(0x92, 0x01);
  EXPECT_EQ(control_.resets, 2u);
  outb(0xcf9, 0x06);
  EXPECT_EQ(control_.resets, 3u);
  io_.write(0xcf8, 4, 0x8000'0f00);
  EXPECT_EQ(control_.resets, 3u);
}

TEST_F(PcBoardTest, A20IsOpenWhenOneOfItsTwoGatesIs) {
  const auto keyboard_gate = [this](bool open) {
    outb(0x64, 0xd1);
    outb(0x60, open ? 0xdf : 0xdd);
  };
  keyboard_gate(false);
  EXPECT_FALSE(control_.a20);
  outb(0x92, 0x02);
  EXPECT_TRUE(control_.a20);
  keyboard_gate(true);
  outb(0x92, 0x00);
  EXPECT_TRUE(control_.a20);
  keyboard_gate(false);
  EXPECT_FALSE(control_.a20);
  board_->reset();
  EXPECT_TRUE(control_.a20);
}

TEST_F(PcBoardTest, Port61ControlsCounter2) {
  outb(0x61, 0x01);
  outb(0x43, 0xb0);
  outb(0x42, 0x01);
  outb(0x42, 0x00);
  EXPECT_EQ(inb(0x61) & 0x20, 0x00);
  time_.advance(10'000);
  EXPECT_EQ(inb(0x61) & 0x20, 0x20);
}

TEST_F(PcBoardTest, DebugPorts) {
  outb(0xe9, '!');
  EXPECT_EQ(console_, "!");
  EXPECT_EQ(inb(0xe9), 0xe9);
  io_.write(0xf4, 4, 0x10);
  EXPECT_EQ(control_.exit_code, 0x21);
  outb(0x80, 0x42);
  EXPECT_EQ(inb(0x80), 0x42);
}

TEST_F(PcBoardTest, PageRegistersAndDmaControllers) {
  outb(0x83, 0x12);
  outb(0x8f, 0x34);
  EXPECT_EQ(inb(0x83), 0x12);
  EXPECT_EQ(inb(0x8f), 0x34);
  outb(0x0c, 0);
  outb(0x02, 0x77);
  outb(0x0c, 0);
  EXPECT_EQ(inb(0x02), 0x77);
  outb(0xd8, 0);
  outb(0xc4, 0x66);
  outb(0xd8, 0);
  EXPECT_EQ(inb(0xc4), 0x66);
}

TEST_F(PcBoardTest, MemorySizesInCmos) {
  EXPECT_EQ(cmos(0x14), 0x06);
  EXPECT_EQ(cmos(0x15) | cmos(0x16) << 8, 640);
  EXPECT_EQ(cmos(0x17) | cmos(0x18) << 8, 63 * 1024);
  EXPECT_EQ(cmos(0x30) | cmos(0x31) << 8, 63 * 1024);
  EXPECT_EQ(cmos(0x34) | cmos(0x35) << 8, 48 * 16);
  EXPECT_EQ(cmos(0x5b) | cmos(0x5c) << 8 | cmos(0x5d) << 16, 0);
}

TEST_F(PcBoardTest, MemorySizesOfALargeMachine) {
  IoBus io;
  PhysicalMap map{uint64_t{8} << 30};
  const auto board = make(io, map);
  const auto read = [&io](uint8_t index) {
    io.write(0x70, 1, index);
    return io.read(0x71, 1);
  };
  EXPECT_EQ(read(0x17) | read(0x18) << 8, 65'535u);
  EXPECT_EQ(read(0x34) | read(0x35) << 8, (map.ram_below_4g() - (16 << 20)) / 65'536);
  EXPECT_EQ(read(0x5b) | read(0x5c) << 8 | read(0x5d) << 16, map.ram_above_4g() / 65'536);
}

TEST_F(PcBoardTest, FwCfgTellsTheMemory) {
  const auto read = [this](uint16_t key, unsigned size) {
    io_.write(0x510, 2, key);
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) value |= uint64_t{inb(0x511)} << 8 * i;
    return value;
  };
  EXPECT_EQ(read(0, 4), 0x554d4551u);  // "QEMU"
  EXPECT_EQ(read(FwCfg::kRamSize, 8), map_.ram_bytes());
  EXPECT_EQ(read(FwCfg::kCpuCount, 2), 1u);
  std::string e820 = fw_cfg_file("etc/e820");
  EXPECT_EQ(e820, std::string("\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\0\x01\0\0\0", 20))
      << "64 MiB of RAM, no more";
}

// A drive 0 that said that it answers for a drive 1 kept SeaBIOS from it.
TEST_F(PcBoardTest, SecondDriveOfAChannelIsToldByTheFirst) {
  for (const bool second : {false, true}) {
    MemoryDisk disk{64 * 512}, other{64 * 512};
    IoBus io;
    PhysicalMap map{uint64_t{64} << 20};
    PcBoardOptions options;
    options.ide[0][0] = {.medium = &disk, .serial = "1"};
    if (second) options.ide[0][1] = {.medium = &other, .serial = "2"};
    const PcBoard board(control_, time_.clock(), io, map, intr_.input(), std::move(options));
    io.write(0x1f6, 1, 0xa0);
    io.write(0x1f7, 1, 0xec);
    uint32_t reset_result = 0;
    for (unsigned word = 0; word <= 93; word++) reset_result = io.read(0x1f0, 2);
    EXPECT_EQ(reset_result & 0xdf41, second ? 0x4001u : 0x4041u) << "bit 6: drive 0 answers for drive 1";
  }
}

// The names are those that QEMU 7.2 writes for the same devices at the same places.
TEST_F(PcBoardTest, BootOrderNamesDevicesAsQemuDoes) {
  EXPECT_EQ(fw_cfg_file("bootorder"), "") << "nothing was said";
  MemoryDisk disk{64 * 512};
  MemoryNetwork first, second;
  IoBus io;
  PhysicalMap map{uint64_t{64} << 20};
  PcBoardOptions options;
  using Model = PcBoardOptions::NetworkCard::Model;
  options.ide[1][0] = {.medium = &disk, .cdrom = true, .serial = {}, .boot_index = 3};
  options.ide[0][1] = {.medium = &disk, .serial = "1", .boot_index = 70};
  options.ide[0][0] = {.medium = &disk, .serial = "2"};
  options.network_cards = {{.network = &first, .place = {}, .boot_index = 1},
                           {.model = Model::VirtioNet, .network = &second, .place = 0x1d, .boot_index = 9}};
  options.ahci.resize(1);
  options.ahci[0].drives[2] = {.medium = &disk, .serial = "3", .boot_index = 4};
  options.virtio_disks = {{.medium = &disk, .serial = "4", .boot_index = 2}};
  options.floppies[1] = &disk;
  options.floppy_boot_index[1] = 0;
  options.boot_strict = true;
  const PcBoard board(control_, time_.clock(), io, map, intr_.input(), std::move(options));
  const std::string list = fw_cfg_file(io, "bootorder");
  EXPECT_EQ(list, std::string("/rom@genroms/linuxboot.bin\n"
                              "/pci@i0cf8/isa@1/fdc@03f0/floppy@1\n"
                              "/pci@i0cf8/ethernet@3/ethernet-phy@0\n"
                              "/pci@i0cf8/scsi@5/disk@0,0\n"
                              "/pci@i0cf8/ide@1,1/drive@1/disk@0\n"
                              "/pci@i0cf8/pci8086,2922@4/drive@2/disk@0\n"
                              "/pci@i0cf8/ethernet@1d/ethernet-phy@0\n"
                              "/pci@i0cf8/ide@1,1/drive@0/disk@1\n"
                              "HALT") +
                      '\0');
}

constexpr Nanoseconds kMillisecond = 1'000'000;

// What an operating system does that uses the APICs: the 8259As masked, inputs of the I/O APIC as vectors.
class ApicBoardTest : public PcBoardTest {
 protected:
  static constexpr uint64_t kLocal = 0xfee0'0000, kIo = 0xfec0'0000;
  ApicBoardTest() {
    board_->reset();
    initialise_pics();
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    map_.write({kLocal + 0xf0}, 4, 0x1ff);
  }
  void set_entry(unsigned input, uint32_t low) {
    map_.write({kIo}, 4, 0x10 + 2 * input);
    map_.write({kIo + 0x10}, 4, low);
  }
  int take() { return board_->interrupts().pending() ? board_->interrupts().acknowledge() : -1; }
  void end() { map_.write({kLocal + 0xb0}, 4, 0); }
};

TEST_F(ApicBoardTest, PitIsInputTwo) {
  set_entry(2, 0x31);
  outb(0x43, 0x30);  // channel 0, mode 0
  outb(0x40, 100);
  outb(0x40, 0);
  time_.advance(kMillisecond);
  EXPECT_EQ(take(), 0x31);
  EXPECT_EQ(take(), -1);
}

TEST_F(ApicBoardTest, HpetTakesThePlaceOfThePit) {
  constexpr uint64_t kHpet = 0xfed0'0000;
  set_entry(2, 0x31);
  map_.write({kHpet + 0x100}, 4, 4);       // timer 0: interrupts
  map_.write({kHpet + 0x108}, 8, 50'000);  // 0.5 ms
  map_.write({kHpet + 0x10}, 4, 3);        // on, legacy replacement
  outb(0x43, 0x30);
  outb(0x40, 100);
  outb(0x40, 0);
  time_.advance(kMillisecond / 4);
  EXPECT_EQ(take(), -1) << "the PIT's has no line now";
  time_.advance(kMillisecond);
  EXPECT_EQ(take(), 0x31);
}

TEST_F(ApicBoardTest, LevelInputComesAgainUntilItFalls) {
  set_entry(9, 0x8059);  // the SCI's
  map_.write({kIo}, 4, 0x10 + 2 * 9 + 1);
  board_->power_management().set_up(0x600, 9);
  io_.write(0x602, 2, 0x100);  // PWRBTN_EN
  io_.write(0x604, 2, 1);      // SCI_EN
  board_->power_management().press_power_button();
  EXPECT_EQ(take(), 0x59);
  EXPECT_EQ(take(), -1);
  end();
  EXPECT_EQ(take(), 0x59);
  io_.write(0x600, 2, 0x100);
  end();
  EXPECT_EQ(take(), -1);
}

TEST_F(PcBoardTest, WithoutApicsTheEightyTwoFiftyNinesInterrupt) {
  board_->reset();
  initialise_pics();
  outb(0x43, 0x30);
  outb(0x40, 100);
  outb(0x40, 0);
  time_.advance(kMillisecond);
  EXPECT_TRUE(intr_.level());
  EXPECT_EQ(board_->interrupts().acknowledge(), 0x20);
}

TEST_F(PcBoardTest, AcpiTablesForFirmware) {
  EXPECT_EQ(fw_cfg_file("etc/acpi/rsdp").substr(0, 8), "RSD PTR ");
  EXPECT_NE(fw_cfg_file("etc/acpi/tables").find("FACP"), std::string::npos);
  const std::string script = fw_cfg_file("etc/table-loader");
  EXPECT_EQ(script.size() % 128, 0u);
  EXPECT_GE(script.size(), 128u * 4);
}

TEST_F(PcBoardTest, PortsThatOverlapAreRefused) {
  PcBoardOptions options;
  options.debug_exit_port = 0x61;
  IoBus io;
  EXPECT_THROW(PcBoard(control_, time_.clock(), io, map_, {}, std::move(options)), std::invalid_argument);
}

TEST_F(PcBoardTest, StateOfAnotherBoardIsRefused) {
  DeviceState state = board_->save();
  state["chips"].erase("com3");
  EXPECT_THROW(board_->load(state), std::invalid_argument);
  state = board_->save();
  state["chips"]["sound"] = DeviceState::object();
  EXPECT_THROW(board_->load(state), std::invalid_argument);
}

}  // namespace
}  // namespace penumbra
