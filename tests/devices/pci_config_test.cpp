#include "devices/pci_config.h"

#include <gtest/gtest.h>

#include <optional>
#include <stdexcept>
#include <vector>

namespace penumbra {
namespace {

class PciConfigTest : public testing::Test {
 protected:
  using Places = std::vector<std::optional<uint64_t>>;
  static PciConfig::Placement into(Places& places) {
    return [&places](std::optional<uint64_t> address) { places.push_back(address); };
  }

  PciConfig config_{{.vendor = 0x1af4,
                     .device = 0x1001,
                     .revision = 2,
                     .class_code = 0x01'00'05,
                     .subsystem_vendor = 0x1234,
                     .subsystem = 0x5678,
                     .multifunction = true,
                     .interrupt_pin = 1}};
};

// PCI 3.0, figure 6-1
TEST_F(PciConfigTest, Header) {
  EXPECT_EQ(config_.read(0x00, 4), 0x1001'1af4u);
  EXPECT_EQ(config_.read(0x08, 4), 0x0100'0502u);
  EXPECT_EQ(config_.read(0x0e, 1), 0x80u);
  EXPECT_EQ(config_.read(0x2c, 4), 0x5678'1234u);
  EXPECT_EQ(config_.read(0x3d, 1), 1u);
  EXPECT_EQ(config_.read(0x100, 4), 0xffff'ffffu);
}

TEST_F(PciConfigTest, IdentityIsReadOnlyAndTheCommandIsNot) {
  config_.write(0x00, 4, 0);
  config_.write(0x2c, 4, 0);
  config_.write(0xfe, 4, 0);
  EXPECT_EQ(config_.read(0x00, 4), 0x1001'1af4u);
  config_.write(0x04, 2, 0xffff);
  EXPECT_EQ(config_.read(0x04, 2), 0x0547u);
  EXPECT_TRUE(config_.bus_master());
  config_.write(0x3c, 1, 11);
  EXPECT_EQ(config_.read(0x3c, 2), 0x010bu);
}

TEST_F(PciConfigTest, StatusErrorsAreClearedByOnes) {
  config_.set(0x06, 2, 0xf900);
  config_.write(0x06, 2, 0x2000);
  EXPECT_EQ(config_.read(0x06, 2), 0xd900u);
  config_.write(0x06, 2, 0xffff);
  EXPECT_EQ(config_.read(0x06, 2), 0u);
}

// PCI 3.0, 6.2.5.1: all ones are written, and the size read back.
TEST_F(PciConfigTest, SizingOfBaseAddresses) {
  Places io, memory, wide, rom;
  config_.add_io_base(0, 16, into(io));
  config_.add_memory_base(1, 0x2000, into(memory));
  config_.add_memory_base(2, uint64_t{1} << 33, into(wide), true, true);
  config_.add_rom_base(0x8000, into(rom));
  for (const unsigned offset : {0x10, 0x14, 0x18, 0x1c, 0x20, 0x30}) config_.write(offset, 4, 0xffff'ffff);
  EXPECT_EQ(config_.read(0x10, 4), 0xffff'fff1u);
  EXPECT_EQ(config_.read(0x14, 4), 0xffff'e000u);
  EXPECT_EQ(config_.read(0x18, 4), 0x0000'000cu);
  EXPECT_EQ(config_.read(0x1c, 4), 0xffff'fffeu);
  EXPECT_EQ(config_.read(0x20, 4), 0u);
  EXPECT_EQ(config_.read(0x30, 4), 0xffff'8001u);
  config_.write(0x04, 2, 3);  // with the decoders on
  EXPECT_TRUE(io.empty() && memory.empty() && wide.empty() && rom.empty());
}

TEST_F(PciConfigTest, BaseAddressesDecodeWhenTheCommandSaysSo) {
  Places io, memory;
  config_.add_io_base(0, 16, into(io));
  config_.add_memory_base(1, 0x2000, into(memory));
  config_.write(0x10, 4, 0xc000);
  config_.write(0x14, 4, 0xfebf'0000);
  EXPECT_TRUE(io.empty());
  config_.write(0x04, 2, 1);
  EXPECT_EQ(io, (Places{0xc000}));
  config_.write(0x04, 2, 3);
  EXPECT_EQ(memory, (Places{0xfebf'0000}));
  config_.write(0x14, 4, 0xfebe'0000);
  config_.write(0x04, 2, 0);
  EXPECT_EQ(io, (Places{0xc000, std::nullopt}));
  EXPECT_EQ(memory, (Places{0xfebf'0000, 0xfebe'0000, std::nullopt}));
}

TEST_F(PciConfigTest, ImpossibleAddressesDecodeNothing) {
  Places io, memory;
  config_.add_io_base(0, 16, into(io));
  config_.add_memory_base(1, 0x2000, into(memory));
  config_.write(0x04, 2, 3);
  config_.write(0x10, 4, 0x1'c000);
  config_.write(0x10, 4, 0xfff0);
  config_.write(0x10, 4, 0);
  config_.write(0x14, 4, 0xffff'e000);
  EXPECT_TRUE(io.empty() && memory.empty());
}

TEST_F(PciConfigTest, RomNeedsItsOwnEnable) {
  Places rom;
  config_.add_rom_base(0x8000, into(rom));
  config_.write(0x04, 2, 2);
  config_.write(0x30, 4, 0xfebf'0000);
  EXPECT_TRUE(rom.empty());
  config_.write(0x30, 4, 0xfebf'0001);
  EXPECT_EQ(rom, (Places{0xfebf'0000}));
}

// PCI 3.0, 6.7
TEST_F(PciConfigTest, CapabilitiesAreAList) {
  config_.add_capability(0x11, 0x98);
  config_.add_capability(0x09, 0x40);
  EXPECT_EQ(config_.read(0x06, 2), 0x0010u);
  EXPECT_EQ(config_.read(0x34, 1), 0x98u);
  EXPECT_EQ(config_.read(0x98, 2), 0x4011u);
  EXPECT_EQ(config_.read(0x40, 2), 0x0009u);
  config_.reset();
  EXPECT_EQ(config_.read(0x98, 2), 0x4011u);
}

TEST_F(PciConfigTest, ResetTakesTheAddressesAway) {
  Places io;
  config_.add_io_base(0, 16, into(io));
  config_.write(0x10, 4, 0xc000);
  config_.write(0x04, 2, 1);
  config_.reset();
  EXPECT_EQ(io, (Places{0xc000, std::nullopt}));
  EXPECT_EQ(config_.read(0x10, 4), 1u);
}

TEST_F(PciConfigTest, LoadPlacesAndRefusesAnotherFunctionsState) {
  Places io, loaded;
  config_.add_io_base(0, 16, into(io));
  config_.write(0x10, 4, 0xc000);
  config_.write(0x04, 2, 1);
  PciConfig same({.vendor = 0x1af4,
                  .device = 0x1001,
                  .revision = 2,
                  .class_code = 0x01'00'05,
                  .multifunction = true,
                  .interrupt_pin = 1}),
      other({.vendor = 0x8086, .device = 0x1237});
  same.add_io_base(0, 16, into(loaded));
  same.load(config_.save());
  EXPECT_EQ(loaded, (Places{0xc000}));
  EXPECT_THROW(other.load(config_.save()), std::invalid_argument);
}

}  // namespace
}  // namespace penumbra
