// Expected values: Intel 28F128J3A datasheet (290667), tables 4 and 9, figures 5 to 7; JESD68.01, 4.3.
#include "devices/flash_28f128j3.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace penumbra {
namespace {

constexpr uint64_t kBytes = 64 * 1024, kStart = 0xffff'0000;
constexpr uint8_t kReady = 0x80;

class FlashTest : public testing::Test {
 protected:
  PhysicalMap map_{uint64_t{1} << 20};
  std::vector<std::byte> kept_ = std::vector<std::byte>(kBytes, std::byte{0xa5});
  bool keeps_ = true;
  Flash28F128J3 chip_{"flash", map_, PhysAddr{kStart}, kept_,
                      [this](uint64_t offset, std::span<const std::byte> bytes) {
                        if (keeps_) std::ranges::copy(bytes, kept_.begin() + static_cast<ptrdiff_t>(offset));
                        return keeps_;
                      }};

  // As the processor's: through the map.
  uint8_t get(uint64_t offset) { return static_cast<uint8_t>(map_.read(PhysAddr{kStart + offset}, 1)); }
  void put(uint64_t offset, uint8_t value) { map_.write(PhysAddr{kStart + offset}, 1, value); }
  void erase(uint64_t offset) {
    put(offset, 0x20);
    put(offset, 0xd0);
  }
  void program(uint64_t offset, uint8_t value) {
    put(offset, 0x40);
    put(offset, value);
  }
};

TEST_F(FlashTest, ReadsAsRomUntilItIsAskedForSomethingElse) {
  using enum PhysicalMap::PageKind;
  EXPECT_EQ(map_.page(PhysAddr{kStart}).kind, Rom);
  EXPECT_EQ(get(0), 0xa5);
  put(0, 0x70);
  EXPECT_EQ(map_.page(PhysAddr{kStart}).kind, Mmio);
  EXPECT_EQ(get(0), kReady);
  EXPECT_EQ(get(kBytes - 1), kReady);
  put(0, 0xff);
  EXPECT_EQ(map_.page(PhysAddr{kStart}).kind, Rom);
  EXPECT_EQ(get(0), 0xa5);
}

TEST_F(FlashTest, ErasingSetsTheBitsOfABlock) {
  erase(0x1234);
  EXPECT_EQ(get(0), kReady) << "status is what is read after a command";
  put(0, 0xff);
  EXPECT_EQ(get(0x0fff), 0xa5);
  EXPECT_EQ(get(0x1000), 0xff);
  EXPECT_EQ(get(0x1fff), 0xff);
  EXPECT_EQ(get(0x2000), 0xa5);
  EXPECT_EQ(kept_[0x1000], std::byte{0xff});
  EXPECT_EQ(kept_[0x2000], std::byte{0xa5});
}

TEST_F(FlashTest, ErasingNeedsItsConfirmation) {
  put(0, 0x20);
  put(0, 0xff);
  EXPECT_EQ(get(0), kReady | 0x30) << "improper command sequence: SR.4 and SR.5";
  put(0, 0xff);
  EXPECT_EQ(get(0), 0xa5);
}

TEST_F(FlashTest, ProgrammingOnlyClearsBits) {
  program(5, 0x0f);
  put(0, 0xff);
  EXPECT_EQ(get(5), 0x05);
  EXPECT_EQ(get(4), 0xa5);
  EXPECT_EQ(kept_[5], std::byte{0x05});
}

TEST_F(FlashTest, WriteToBuffer) {
  erase(0x100);
  put(0x100, 0xe8);
  EXPECT_EQ(get(0x100), kReady) << "a buffer is free: XSR.7";
  put(0x100, 2);  // three bytes
  for (const uint64_t offset : {0x102, 0x100, 0x104}) put(offset, static_cast<uint8_t>(offset));
  put(0x100, 0xd0);
  EXPECT_EQ(get(0), kReady);
  put(0, 0xff);
  for (const uint8_t offset : {0, 1, 2, 3, 4, 5}) EXPECT_EQ(get(0x100u + offset), offset % 2 ? 0xff : offset);
  EXPECT_EQ(kept_[0x104], std::byte{4});
}

TEST_F(FlashTest, WriteToBufferStaysInItsBuffer) {
  erase(0);
  put(0xff, 0xe8);
  put(0xff, 1);
  put(0xff, 0x12);
  put(0x100, 0x34);
  EXPECT_EQ(get(0), kReady | 0x30);
  put(0, 0xff);
  EXPECT_EQ(get(0xff), 0xff);
  EXPECT_EQ(get(0x100), 0xff);
}

TEST_F(FlashTest, LockedBlocksStayAsTheyAre) {
  put(0x1000, 0x60);
  put(0x1000, 0x01);
  put(0, 0x90);
  EXPECT_EQ(get(0x0002), 0);
  EXPECT_EQ(get(0x1002), 1);
  program(0x1005, 0);
  EXPECT_EQ(get(0), kReady | 0x12);
  put(0, 0x50);
  erase(0x1000);
  EXPECT_EQ(get(0), kReady | 0x22);
  put(0, 0x50);
  program(0x0fff, 0);
  EXPECT_EQ(get(0), kReady);
  chip_.reset();
  EXPECT_EQ(get(0x1005), 0xa5) << "neither the data nor the lock is lost with a reset";
  program(0x1005, 0);
  EXPECT_EQ(get(0), kReady | 0x12);
  put(0, 0x50);
  put(0, 0x60);
  put(0, 0xd0);
  program(0x1005, 0);
  EXPECT_EQ(get(0), kReady);
}

TEST_F(FlashTest, WholeSectorsAreKept) {
  std::vector<std::pair<uint64_t, size_t>> seen;
  PhysicalMap map(uint64_t{1} << 20);
  Flash28F128J3 chip("flash", map, PhysAddr{kStart}, kept_,
                     [&seen](uint64_t offset, std::span<const std::byte> bytes) {
                       seen.emplace_back(offset, bytes.size());
                       return true;
                     });
  for (const uint8_t value : {0x40, 0x00}) chip.mmio_write(0x3ff, 1, value);
  for (const uint8_t value : {0x20, 0xd0}) chip.mmio_write(0x3ff, 1, value);
  const std::vector<std::pair<uint64_t, size_t>> expected = {{0x200, 0x200}, {0, 0x1000}};
  EXPECT_EQ(seen, expected);
}

TEST_F(FlashTest, WriteToBufferNeedsItsConfirmation) {
  erase(0);
  put(0, 0xe8);
  put(0, 0);
  put(0, 0x12);
  put(0, 0xff);
  EXPECT_EQ(get(0), kReady | 0x30);
  put(0, 0xff);
  EXPECT_EQ(get(0), 0xff);
}

TEST_F(FlashTest, IdentifierAndQuery) {
  put(0, 0x90);
  EXPECT_EQ(get(0), 0x89);
  EXPECT_EQ(get(1), 0x18);
  EXPECT_EQ(get(0x1002), 0x00) << "not locked";
  EXPECT_EQ(get(0x1003), 0x00);
  put(0, 0x98);
  EXPECT_EQ(get(0x10), 'Q');
  EXPECT_EQ(get(0x11), 'R');
  EXPECT_EQ(get(0x12), 'Y');
  EXPECT_EQ(get(0x13), 1) << "Intel's extended command set";
  EXPECT_EQ(get(0x27), 16) << "64 KiB";
  EXPECT_EQ(get(0x2c), 1);
  EXPECT_EQ(get(0x2d), 15) << "16 blocks";
  EXPECT_EQ(get(0x2f), 0x10) << "of 4 KiB";
  EXPECT_EQ(get(get(0x15)), 'P');
}

TEST_F(FlashTest, WhatCannotBeKeptFails) {
  keeps_ = false;
  program(0, 0);
  EXPECT_EQ(get(0), kReady | 0x10);
  put(0, 0x50);
  erase(0);
  EXPECT_EQ(get(0), kReady | 0x20);
}

TEST_F(FlashTest, WriteProtected) {
  PhysicalMap map(uint64_t{1} << 20);
  Flash28F128J3 chip("flash", map, PhysAddr{kStart}, kept_, {});
  chip.mmio_write(0, 1, 0x40);
  chip.mmio_write(0, 1, 0);
  EXPECT_EQ(chip.mmio_read(0, 1), kReady | 0x12u);
  chip.mmio_write(0, 1, 0x20);
  chip.mmio_write(0, 1, 0xd0);
  EXPECT_EQ(chip.mmio_read(0, 1), kReady | 0x32u);
  chip.mmio_write(0, 1, 0xff);
  EXPECT_EQ(chip.mmio_read(0, 4), 0xa5a5'a5a5);
}

// OvmfPkg/QemuFlashFvbServicesRuntimeDxe, QemuFlashDetected(): after "clear status" the array is read, then
// the status is 0.
TEST_F(FlashTest, OvmfKnowsItFromRamAndRom) {
  put(0, 0x50);
  EXPECT_EQ(get(0), 0xa5);
  put(0, 0x70);
  EXPECT_EQ(get(0), 0);
}

TEST_F(FlashTest, ResetKeepsTheContents) {
  program(7, 0);
  chip_.reset();
  EXPECT_EQ(get(7), 0);
  EXPECT_EQ(get(6), 0xa5);
}

}  // namespace
}  // namespace penumbra
