#include "devices/pci_function.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace penumbra {
namespace {

constexpr uint64_t kPlace = 0xfeb8'0000;

class Function : public PciFunction {
 public:
  Function() : PciFunction({.vendor = 0x1af4, .device = 0x1000}) {}
  std::string_view name() const override { return "function"; }
  uint32_t read(uint16_t, unsigned) override { return 0; }
  void write(uint16_t, unsigned, uint32_t) override {}
  void reset() override { config_.reset(); }
  DeviceState save() const override { return config_.save(); }
  void load(const DeviceState& state) override { config_.load(state); }
};

class PciFunctionTest : public testing::Test {
 protected:
  // An image of 1 KiB (PCI 3.0, 6.3.1.1): 55h AAh, its length, the place of its data structure, a checksum in
  // byte 6.
  static std::vector<std::byte> image(uint16_t device) {
    std::vector<std::byte> bytes(1024);
    const auto put = [&bytes](size_t at, std::initializer_list<unsigned> values) {
      for (const unsigned value : values) bytes[at++] = static_cast<std::byte>(value);
    };
    put(0, {0x55, 0xaa, 2, 0xeb, 0x40});
    put(0x18, {0x80, 0});
    put(0x80, {'P', 'C', 'I', 'R', 0xf4, 0x1a, device & 0xffu, static_cast<unsigned>(device >> 8)});
    bytes[6] = static_cast<std::byte>(-sum(bytes));
    return bytes;
  }
  static uint8_t sum(const std::vector<std::byte>& bytes) {
    return static_cast<uint8_t>(
        std::accumulate(bytes.begin(), bytes.end(), 0u,
                        [](unsigned total, std::byte byte) { return total + static_cast<unsigned>(byte); }));
  }
  // What the guest reads where it placed the ROM.
  std::vector<std::byte> seen(const std::vector<std::byte>& rom) {
    function_.add_rom(map_, rom);
    function_.config().write(PciConfig::kCommand, 2, PciConfig::kMemorySpace);
    function_.config().write(PciConfig::kRomBase, 4, kPlace | 1);
    std::vector<std::byte> bytes(rom.size());
    map_.read_bytes(PhysAddr{kPlace}, bytes);
    return bytes;
  }

  PhysicalMap map_{1 << 20};
  Function function_;
};

TEST_F(PciFunctionTest, RomIsWhereTheGuestPutsIt) {
  EXPECT_EQ(seen(image(0x1000)), image(0x1000));
}

TEST_F(PciFunctionTest, RomOfTodaysVirtioRunsOnATransitionalCard) {
  const auto bytes = seen(image(0x1041));
  EXPECT_EQ(sum(bytes), 0u);
  EXPECT_EQ(bytes[0x86], std::byte{0x00});
  EXPECT_EQ(bytes[0x87], std::byte{0x10});
}

TEST_F(PciFunctionTest, RomThatNamesNoFunctionIsLeftAlone) {
  std::vector<std::byte> rom = image(0x1041);
  rom[0x80] = std::byte{'X'};
  EXPECT_EQ(seen(rom), rom);
}

TEST_F(PciFunctionTest, RomWhoseDataIsBeyondItsEndIsLeftAlone) {
  std::vector<std::byte> rom = image(0x1041);
  rom[0x18] = rom[0x19] = std::byte{0xff};
  EXPECT_EQ(seen(rom), rom);
  EXPECT_EQ(seen({}).size(), 0u);
}

}  // namespace
}  // namespace penumbra
