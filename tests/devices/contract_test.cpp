// What every chip promises (core/device.h), tried on all chips of a PC board at once and each by itself.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/devices/full_board.h"

namespace penumbra {
namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;

using Rig = FullBoard;

// The same numbers make the same accesses to any board. Returns what was read, and every interrupt taken.
class RandomGuest {
 public:
  explicit RandomGuest(uint64_t seed) : random_(seed) {}

  std::vector<uint64_t> run(Rig& rig, unsigned steps) {
    std::vector<uint64_t> seen;
    for (unsigned i = 0; i < steps; i++) {
      step(rig, seen);
      if (rig.board.interrupts().pending() && below(2) == 0) {
        seen.push_back(0x100 | rig.board.interrupts().acknowledge());
      }
    }
    return seen;
  }

 private:
  uint64_t below(uint64_t limit) { return random_() % limit; }

  void step(Rig& rig, std::vector<uint64_t>& seen) {
    const unsigned size = 1u << below(3);
    const auto value = static_cast<uint32_t>(below(3) ? below(256) : random_());
    switch (below(8)) {
      case 0:
        rig.time.advance(below(3) ? below(2 * kMillisecond) : below(2000));
        break;
      case 1: {  // any port
        const auto port = static_cast<uint16_t>(below(0x1'0000));
        rig.io.write(port, size, value);
        seen.push_back(rig.io.read(port, size));
        break;
      }
      case 2: {  // a chip's pins, at any offset
        Device& chip = *rig.board.chips()[below(rig.board.chips().size())];
        const auto offset = static_cast<uint16_t>(below(4) ? below(32) : below(0x1'0000));
        if (below(2)) {
          chip.write(offset, size, value);
        } else {
          seen.push_back(chip.read(offset, size));
        }
        break;
      }
      case 3: {
        if (below(4) == 0) {
          MemoryNetwork::Frame frame(below(2000));
          for (std::byte& byte : frame) byte = static_cast<std::byte>(random_());
          if (rig.network.waiting() < 10) rig.network.deliver(std::move(frame));
          break;
        }
        if (below(3) == 0) {
          use_ahci(rig, seen);
          break;
        }
        if (below(2)) {
          PciFunction& card = *rig.board.pci().at(PciBus::address(3, 0));
          static constexpr uint32_t kRegisters[] = {0x0000, 0x0010, 0x0014, 0x0020, 0x00c0, 0x00c4, 0x00c8,
                                                    0x00d0, 0x00d8, 0x0100, 0x0400, 0x2800, 0x2808, 0x2810,
                                                    0x2818, 0x3800, 0x3808, 0x3810, 0x3818, 0x5000};
          card.config().write(PciConfig::kCommand, 2, PciConfig::kBusMaster);
          card.write(
              0, 4,
              below(8) ? kRegisters[below(std::size(kRegisters))] : static_cast<uint32_t>(below(0x6000)));
          if (below(3)) {
            card.write(4, 4, below(2) ? static_cast<uint32_t>(below(0x40'0000)) : value);
          } else {
            seen.push_back(card.read(4, 4));
          }
          break;
        }
        Uart16550a& uart = *rig.board.serial(static_cast<unsigned>(below(4)));
        seen.push_back(uart.receive(static_cast<uint8_t>(value)));
        break;
      }
      default: {  // where the chips are
        static constexpr struct {
          uint16_t first, count;
        } kPlaces[] = {{0x00, 16},  {0x20, 2},  {0x40, 4},  {0x60, 5},   {0x70, 2},   {0x80, 16},  {0x92, 1},
                       {0xa0, 2},   {0xc0, 32}, {0xe9, 1},  {0xf4, 4},   {0x2e8, 8},  {0x2f8, 8},  {0x3e8, 8},
                       {0x3f8, 8},  {0x402, 1}, {0x4d0, 2}, {0x510, 12}, {0xcf8, 8},  {0x1f0, 8},  {0x170, 8},
                       {0x3f6, 1},  {0x376, 1}, {0x3f0, 6}, {0x3f7, 1},  {0xafe0, 4}, {0xb2, 2},   {0x3b4, 7},
                       {0x3c0, 16}, {0x3d4, 7}, {0x1ce, 3}, {0x378, 3},  {0xe0, 12},  {0x2000, 24}};
        const auto& place = kPlaces[below(std::size(kPlaces))];
        const auto port = static_cast<uint16_t>(place.first + below(place.count));
        if (below(2)) {
          rig.io.write(port, size, value);
        } else {
          seen.push_back(rig.io.read(port, size));
        }
        break;
      }
    }
  }

  // A register of a port with a drive, or a command in one of its slots.
  void use_ahci(Rig& rig, std::vector<uint64_t>& seen) {
    auto& ahci = dynamic_cast<AhciIch9&>(rig.chip("ahci_ich9_0"));
    const uint64_t port = 0x100 + 0x100 * below(2), list = 0x4000, table = 0x5000;
    ahci.config().write(PciConfig::kCommand, 2, PciConfig::kBusMaster);
    const auto random_register = [this] { return 4 * below(0x44 / 4); };
    switch (below(4)) {
      case 0:
        ahci.mmio_write(port + random_register(), 4, below(2) ? below(64) : random_());
        break;
      case 1:
        seen.push_back(ahci.mmio_read(below(2) ? random_register() : port + random_register(), 4));
        break;
      default: {
        static constexpr uint8_t kCommands[] = {0xec, 0xa1, 0xa0, 0x25, 0x35, 0x60, 0x61, 0x60, 0x61,
                                                0x20, 0x30, 0xea, 0x2f, 0x06, 0xc6, 0xc4, 0x90, 0x08};
        const uint64_t slot = below(32), header = list + slot * 32;
        rig.map.write({header}, 4, 5 | below(4) << 16);
        rig.map.write({header + 8}, 8, table);
        for (unsigned i = 0; i < 0x100; i += 4)
          rig.map.write({table + i}, 4, below(2) ? below(0x2000) : random_());
        rig.map.write(
            {table}, 4,
            0x27 | (below(8) ? 0x8000 : 0) | kCommands[below(std::size(kCommands))] << 16 | below(6) << 24);
        rig.map.write({table + 4}, 4, below(70) | 0x4000'0000);
        rig.map.write({table + 8}, 8, below(6) << 32);
        for (unsigned i = 0; i < 3; i++) {
          if (below(8)) rig.map.write({table + 0x80 + 16 * i}, 8, 0x8000 + below(0x10'0000));
        }
        for (const auto& [offset, value] :
             {std::pair<uint64_t, uint64_t>{0x00, list}, {0x08, 0x6000}, {0x18, 0x11}})
          if (below(8)) ahci.mmio_write(port + offset, 4, value);
        ahci.mmio_write(port + 0x34, 4, below(2) << slot);
        ahci.mmio_write(port + 0x38, 4, uint64_t{1} << slot);
        break;
      }
    }
  }

  std::mt19937_64 random_;
};

class ContractTest : public testing::TestWithParam<uint64_t> {
 protected:
  RandomGuest guest_{GetParam()};
};

TEST_P(ContractTest, AnyAccessIsHarmless) {
  Rig rig;
  guest_.run(rig, 20'000);
}

TEST_P(ContractTest, SavedAndLoadedBoardIsEqualAndGoesOnTheSame) {
  Rig first, second;
  guest_.run(first, 5'000);
  const DeviceState saved = first.board.save();
  second.time.advance_to(first.time.now());
  // DMA of fw_cfg reads its descriptors from memory. All of it, seen or not: shadow RAM may be shown later.
  std::memcpy(second.map.page({0}).host, first.map.page({0}).host, first.map.ram_bytes());
  second.disk.contents = first.disk.contents;
  second.virtio_disk.contents = first.virtio_disk.contents;
  second.ahci_disk.contents = first.ahci_disk.contents;
  second.floppy.contents = first.floppy.contents;
  second.network.take_waiting(first.network);
  second.board.load(saved);
  EXPECT_EQ(second.board.save(), saved);
  EXPECT_EQ(second.control.a20, first.control.a20);
  EXPECT_EQ(second.board.interrupts().pending(), first.board.interrupts().pending());
  EXPECT_EQ(second.intr.level(), first.intr.level());

  RandomGuest again(GetParam() + 1), same(GetParam() + 1);
  EXPECT_EQ(again.run(first, 5'000), same.run(second, 5'000));
  EXPECT_EQ(second.board.save(), first.board.save());
  EXPECT_EQ(second.time.clock().next_deadline(), first.time.clock().next_deadline());
}

TEST_P(ContractTest, StatePassesThroughTextUnchanged) {
  Rig first, second;
  guest_.run(first, 5'000);
  second.time.advance_to(first.time.now());
  second.board.load(DeviceState::parse(first.board.save().dump()));
  EXPECT_EQ(second.board.save(), first.board.save());
}

TEST_P(ContractTest, ResetTwiceEqualsOnce) {
  Rig rig;
  guest_.run(rig, 5'000);
  rig.board.reset();
  const DeviceState once = rig.board.save();
  rig.board.reset();
  EXPECT_EQ(rig.board.save(), once);
}

// But for the clock's chip, whose memory and time the battery keeps, and flash, whose lock bits need none.
TEST_P(ContractTest, ResetBoardIsAsANewOne) {
  Rig used, fresh;
  guest_.run(used, 5'000);
  used.board.reset();
  fresh.board.reset();
  for (Device* chip : fresh.board.chips()) {
    if (chip->name() == "rtc_mc146818" || chip->name().starts_with("flash")) continue;
    EXPECT_EQ(used.chip(chip->name()).save(), chip->save()) << chip->name();
  }
  EXPECT_FALSE(used.board.interrupts().pending());
  EXPECT_FALSE(used.intr.level());
  EXPECT_TRUE(used.control.a20);
  EXPECT_EQ(used.time.clock().next_deadline(), std::nullopt);
}

// A saved state with a value gone, of a wrong type or out of range is refused or loaded, and the chip lives
// on.
TEST_P(ContractTest, DamagedStateIsHarmless) {
  Rig rig;
  guest_.run(rig, 2'000);
  const DeviceState replacements[] = {nullptr,    -1,     uint64_t{1} << 62,
                                      UINT64_MAX, "text", DeviceState::array()};
  for (Device* chip : rig.board.chips()) {
    const DeviceState saved = chip->save();
    const DeviceState values = saved.flatten();
    for (const auto& [path, value] : values.items()) {
      for (size_t i = 0; i <= std::size(replacements); i++) {
        DeviceState damaged = values;
        if (i == std::size(replacements)) {
          damaged.erase(path);
        } else {
          damaged[path] = replacements[i];
        }
        try {
          chip->load(damaged.unflatten());
        } catch (const std::exception&) {
        }
        for (uint16_t offset = 0; offset < 16; offset++) chip->read(offset, 1);
        guest_.run(rig, 2);
      }
    }
    chip->load(saved);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ContractTest, testing::Range(uint64_t{1}, uint64_t{21}));

TEST(PcBoardContract, ChipsHaveNamesOfTheirOwn) {
  Rig rig;
  std::set<std::string_view> names;
  for (Device* chip : rig.board.chips()) {
    EXPECT_FALSE(chip->name().empty());
    EXPECT_TRUE(names.insert(chip->name()).second) << chip->name();
    EXPECT_TRUE(chip->save().contains("version")) << chip->name();
  }
}

TEST(PcBoardContract, OtherVersionsAreRefused) {
  Rig rig;
  for (Device* chip : rig.board.chips()) {
    DeviceState state = chip->save();
    state["version"] = 1'000'000;
    EXPECT_THROW(chip->load(state), std::invalid_argument) << chip->name();
  }
}

TEST(PcBoardContract, ChipsThatWereNeverProgrammedAreSilent) {
  Rig rig;
  for (unsigned chip = 0; chip < 2; chip++) {  // only the interrupt controllers are, so that they would tell
    const auto port = static_cast<uint16_t>(chip ? 0xa0 : 0x20);
    rig.io.write(port, 1, 0x11);
    rig.io.write(port + 1, 1, chip ? 0x28 : 0x20);
    rig.io.write(port + 1, 1, chip ? 2 : 4);
    rig.io.write(port + 1, 1, 1);
  }
  EXPECT_EQ(rig.time.clock().next_deadline(), std::nullopt);
  rig.time.advance(3'600'000 * kMillisecond);
  EXPECT_EQ(rig.time.clock().next_deadline(), std::nullopt);
  EXPECT_FALSE(rig.board.interrupts().pending());
  EXPECT_EQ(rig.intr.rising_edges(), 0u);
  EXPECT_EQ(rig.control.resets + rig.control.exits, 0u);
}

TEST(PcBoardContract, UnprogrammedInterruptControllersDeliverNothing) {
  Rig rig;
  rig.io.write(0x43, 1, 0x34);
  rig.io.write(0x40, 1, 0x00);
  rig.io.write(0x40, 1, 0x10);
  rig.time.advance(1000 * kMillisecond);
  EXPECT_NE(rig.time.clock().next_deadline(), std::nullopt) << "the timer counts";
  EXPECT_FALSE(rig.board.interrupts().pending());
  EXPECT_EQ(rig.intr.rising_edges(), 0u);
}

}  // namespace
}  // namespace penumbra
