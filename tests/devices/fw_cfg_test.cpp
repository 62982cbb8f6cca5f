// Expected values: QEMU, docs/specs/fw_cfg.
#include "devices/fw_cfg.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace penumbra {
namespace {

constexpr uint16_t kSelector = 0, kData = 1, kDmaHigh = 4, kDmaLow = 8;
constexpr uint32_t kError = 0x01, kRead = 0x02, kSkip = 0x04, kSelect = 0x08, kWrite = 0x10;
constexpr uint64_t kRam = uint64_t{4} << 20;
constexpr uint64_t kDescriptor = 0x2000, kBuffer = 0x3000;

class FwCfgTest : public testing::Test {
 protected:
  PhysicalMap map_{kRam};
  FwCfg chip_{map_};

  void select(uint16_t key) { chip_.write(kSelector, 2, key); }
  std::string bytes(unsigned count) {
    std::string text;
    while (count-- > 0) text += static_cast<char>(chip_.read(kData, 1));
    return text;
  }
  uint64_t little_endian(unsigned size) {
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) value |= uint64_t{chip_.read(kData, 1)} << 8 * i;
    return value;
  }
  uint64_t big_endian(unsigned size) {
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) value = value << 8 | chip_.read(kData, 1);
    return value;
  }
  struct Entry {
    uint64_t size, key;
    std::string name;
    bool operator==(const Entry&) const = default;
  };
  std::vector<Entry> directory() {
    std::vector<Entry> entries;
    select(FwCfg::kFileDirectory);
    for (uint64_t count = big_endian(4); count > 0; count--) {
      const uint64_t size = big_endian(4), key = big_endian(2);
      EXPECT_EQ(big_endian(2), 0u);
      entries.push_back({size, key, bytes(56).c_str()});
    }
    return entries;
  }
  void put(uint64_t address, const std::string& text) {
    map_.write_bytes(PhysAddr{address}, std::as_bytes(std::span(text)));
  }
  std::string get(uint64_t address, size_t length) {
    std::string text(length, '?');
    map_.read_bytes(PhysAddr{address}, std::as_writable_bytes(std::span(text)));
    return text;
  }
  void start(uint64_t descriptor) {
    chip_.write(kDmaHigh, 4, __builtin_bswap32(static_cast<uint32_t>(descriptor >> 32)));
    chip_.write(kDmaLow, 4, __builtin_bswap32(static_cast<uint32_t>(descriptor)));
  }
  // Returns the control word afterwards.
  uint32_t dma(uint32_t control, uint32_t length, uint64_t address, uint64_t descriptor = kDescriptor) {
    map_.write(PhysAddr{descriptor}, 4, __builtin_bswap32(control));
    map_.write(PhysAddr{descriptor + 4}, 4, __builtin_bswap32(length));
    map_.write(PhysAddr{descriptor + 8}, 8, __builtin_bswap64(address));
    start(descriptor);
    return __builtin_bswap32(static_cast<uint32_t>(map_.read(PhysAddr{descriptor}, 4)));
  }
};

// "Signature (Key 0x0000)", "Revision / feature bitmap (Key 0x0001)": bit 0 traditional interface, bit 1 DMA.
TEST_F(FwCfgTest, SignatureAndFeatures) {
  select(0x0000);
  EXPECT_EQ(bytes(4), "QEMU");
  select(0x0001);
  EXPECT_EQ(little_endian(4), 3u);
}

// QEMU's device selects key 0 at reset.
TEST_F(FwCfgTest, ResetSelectsTheSignature) {
  select(0x0001);
  chip_.reset();
  EXPECT_EQ(bytes(4), "QEMU");
}

TEST_F(FwCfgTest, IntegersAreLittleEndianAndStringsEndWithZero) {
  chip_.add_u16(FwCfg::kCpuCount, 0x1234);
  chip_.add_u32(FwCfg::kInitrdSize, 0x1234'5678);
  chip_.add_u64(FwCfg::kRamSize, 0x1122'3344'5566'7788);
  chip_.add_string(FwCfg::kCommandLineData, "quiet");
  chip_.add_bytes(FwCfg::kArchitectureLocal | 3, {1, 2, 3});
  select(0x05);
  EXPECT_EQ(little_endian(2), 0x1234u);
  select(0x0b);
  EXPECT_EQ(little_endian(4), 0x1234'5678u);
  select(0x03);
  EXPECT_EQ(little_endian(8), 0x1122'3344'5566'7788u);
  select(0x15);
  EXPECT_EQ(bytes(6), std::string("quiet\0", 6));
  select(0x8003);
  EXPECT_EQ(bytes(3), "\1\2\3");
}

// "After the data offset has passed the end ... any reads will return a data value of 0x00"; QEMU answers so
// for a key that doesn't exist, too.
TEST_F(FwCfgTest, BeyondTheEndThereAreZeros) {
  select(0x0000);
  bytes(4);
  EXPECT_EQ(little_endian(8), 0u);
  select(0x7777);
  EXPECT_EQ(little_endian(8), 0u);
}

TEST_F(FwCfgTest, SelectingStartsAnew) {
  select(0x0000);
  bytes(2);
  select(0x0000);
  EXPECT_EQ(bytes(4), "QEMU");
}

// "File Directory (Key 0x0019)": count, then size, selector, reserved, name[56], big-endian, sorted by name.
TEST_F(FwCfgTest, DirectoryIsSortedByName) {
  EXPECT_EQ(directory(), std::vector<Entry>{});
  chip_.add_file("etc/e820", {1, 2, 3});
  chip_.add_file("bootorder", {4});
  chip_.add_file("opt/x", {});
  EXPECT_EQ(directory(),
            (std::vector<Entry>{{1, 0x20, "bootorder"}, {3, 0x21, "etc/e820"}, {0, 0x22, "opt/x"}}));
  select(0x21);
  EXPECT_EQ(bytes(3), "\1\2\3");
  select(0x20);
  EXPECT_EQ(bytes(1), "\4");
}

TEST_F(FwCfgTest, MistakesInTheSetUpAreRefused) {
  chip_.add_u16(FwCfg::kCpuCount, 1);
  EXPECT_THROW(chip_.add_u16(FwCfg::kCpuCount, 1), std::invalid_argument);
  EXPECT_THROW(chip_.add_u16(FwCfg::kFileDirectory, 1), std::invalid_argument);
  EXPECT_THROW(chip_.add_u16(FwCfg::kFirstFile, 1), std::invalid_argument);
  chip_.add_file("a", {});
  EXPECT_THROW(chip_.add_file("a", {}), std::invalid_argument);
  EXPECT_THROW(chip_.add_file("", {}), std::invalid_argument);
  EXPECT_NO_THROW(chip_.add_file(std::string(55, 'b'), {}));
  EXPECT_THROW(chip_.add_file(std::string(56, 'c'), {}), std::invalid_argument);
}

// "Data Register": byte wide; "Selector Register": 16 bits, write-only.
TEST_F(FwCfgTest, OtherWidthsDontSelect) {
  select(0x0001);
  chip_.write(kSelector, 1, 0);
  chip_.write(kSelector, 4, 0);
  chip_.write(kData, 1, 0);
  EXPECT_EQ(chip_.read(kSelector, 1), 0xffu);
  EXPECT_EQ(little_endian(4), 3u);
}

// "Reading the DMA Address Register returns 0x51454d5520434647", as a big-endian field.
TEST_F(FwCfgTest, DmaAddressRegisterShowsItsSignature) {
  EXPECT_EQ(__builtin_bswap32(chip_.read(kDmaHigh, 4)), 0x5145'4d55u);
  EXPECT_EQ(__builtin_bswap32(chip_.read(kDmaLow, 4)), 0x2043'4647u);
}

TEST_F(FwCfgTest, DmaSelectsAndReads) {
  chip_.add_file("etc/x", {'a', 'b', 'c', 'd', 'e', 'f'});
  put(kBuffer, "--------");
  EXPECT_EQ(dma(0x20u << 16 | kSelect | kRead, 3, kBuffer), 0u);
  EXPECT_EQ(get(kBuffer, 4), "abc-");
  EXPECT_EQ(dma(kRead, 2, kBuffer), 0u);  // goes on where it was
  EXPECT_EQ(get(kBuffer, 4), "dec-");
  EXPECT_EQ(bytes(1), "f");
}

TEST_F(FwCfgTest, DmaSkips) {
  chip_.add_file("etc/x", {'a', 'b', 'c', 'd', 'e', 'f'});
  EXPECT_EQ(dma(0x20u << 16 | kSelect | kSkip, 4, 0), 0u);
  EXPECT_EQ(bytes(2), "ef");
  EXPECT_EQ(dma(kSkip, 0xffff'ffff, 0), 0u);
  EXPECT_EQ(bytes(1), std::string(1, '\0'));
}

TEST_F(FwCfgTest, DmaFillsWithZerosBeyondTheEnd) {
  put(kBuffer, "--------");
  EXPECT_EQ(dma(0u << 16 | kSelect | kRead, 6, kBuffer), 0u);
  EXPECT_EQ(get(kBuffer, 8), std::string("QEMU\0\0--", 8));
  EXPECT_EQ(dma(0x7777u << 16 | kSelect | kRead, 2, kBuffer), 0u);
  EXPECT_EQ(get(kBuffer, 8), std::string("\0\0MU\0\0--", 8));
  EXPECT_EQ(dma(0u << 16 | kSelect | kRead, 0x10'0000, kBuffer), 0u);
  EXPECT_EQ(get(kBuffer, 5), std::string("QEMU\0", 5));
}

// "Truncated writes are dropped entirely. Writes to read-only items are also rejected. All of these write
// errors set bit 0".
TEST_F(FwCfgTest, DmaWritesOnlyWhatMayBeWritten) {
  std::string told;
  chip_.add_file("etc/read", {'a', 'b'});
  chip_.add_writable_file("etc/write", {'a', 'b', 'c', 'd'}, [&](std::span<const uint8_t> contents) {
    told.assign(contents.begin(), contents.end());
  });
  put(kBuffer, "XYZWV");
  EXPECT_EQ(dma(0x20u << 16 | kSelect | kWrite, 2, kBuffer), kError);
  EXPECT_EQ(dma(0x00u << 16 | kSelect | kWrite, 2, kBuffer), kError);
  EXPECT_EQ(dma(0x21u << 16 | kSelect | kWrite, 5, kBuffer), kError);
  EXPECT_EQ(told, "");
  EXPECT_EQ(dma(0x21u << 16 | kSelect | kSkip, 1, 0), 0u);
  EXPECT_EQ(dma(kWrite, 2, kBuffer), 0u);
  EXPECT_EQ(told, "aXYd");
  select(0x21);
  EXPECT_EQ(bytes(4), "aXYd");
  select(0x20);
  EXPECT_EQ(bytes(2), "ab");
}

TEST_F(FwCfgTest, DmaOutsideOfRamIsAnError) {
  const uint32_t read = 0u << 16 | kSelect | kRead;
  EXPECT_EQ(dma(read, 0xffff'ffff, 0), kError);
  EXPECT_EQ(dma(read, 2, kRam - 1), kError);
  EXPECT_EQ(dma(read, 1, kRam - 1), 0u);
  EXPECT_EQ(dma(read, 4, 0xfee0'0000), kError);
  EXPECT_EQ(dma(read, 4, uint64_t{1} << 32), kError);
  EXPECT_EQ(dma(read, 0xffff'ffff, ~uint64_t{0}), kError);
  EXPECT_EQ(dma(read, 4, ~uint64_t{0} - 1), kError);
}

TEST_F(FwCfgTest, DescriptorOutsideOfRamIsIgnored) {
  for (const uint64_t address : {kRam - 15, kRam, uint64_t{0xffff'fff8}, ~uint64_t{0} - 7, ~uint64_t{0}}) {
    start(address);
  }
  EXPECT_EQ(dma(kRead, 4, kBuffer, kRam - 16), 0u);
  EXPECT_EQ(get(kBuffer, 4), "QEMU");
}

// "The value for the register is 0 at startup and after an operation."
TEST_F(FwCfgTest, HighHalfOfTheDmaAddressCountsOnce) {
  start(uint64_t{1} << 32 | kDescriptor);
  map_.write(PhysAddr{kDescriptor}, 4, __builtin_bswap32(kRead));
  map_.write(PhysAddr{kDescriptor + 4}, 4, __builtin_bswap32(4));
  map_.write(PhysAddr{kDescriptor + 8}, 8, __builtin_bswap64(kBuffer));
  chip_.write(kDmaLow, 4, __builtin_bswap32(kDescriptor));
  EXPECT_EQ(get(kBuffer, 4), "QEMU");
}

TEST_F(FwCfgTest, SavedStateKeepsPlaceAndWrittenFiles) {
  const auto ignore = [](std::span<const uint8_t>) {};
  chip_.add_writable_file("etc/write", {'a', 'b', 'c', 'd'}, ignore);
  put(kBuffer, "XY");
  ASSERT_EQ(dma(0x20u << 16 | kSelect | kWrite, 2, kBuffer), 0u);
  const DeviceState state = chip_.save();
  FwCfg other(map_);
  other.add_writable_file("etc/write", {'a', 'b', 'c', 'd'}, ignore);
  other.load(state);
  EXPECT_EQ(other.save(), state);
  EXPECT_EQ(other.read(kData, 1), 'c');
  other.write(kSelector, 2, 0x20);
  EXPECT_EQ(other.read(kData, 1), 'X');
  FwCfg smaller(map_);
  smaller.add_writable_file("etc/write", {'a'}, ignore);
  EXPECT_THROW(smaller.load(state), std::invalid_argument);
}

}  // namespace
}  // namespace penumbra
