// The floppy disk controller with drives, as a driver sees them: Intel 82077AA (290166).
#include "devices/fdc_82077aa.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/devices/chip_fixture.h"
#include "tests/devices/memory_disk.h"

namespace penumbra {
namespace {

constexpr uint16_t kDor = 2, kMsr = 4, kFifo = 5, kDir = 7;
using Bytes = std::vector<uint8_t>;

class FdcTest : public testing::Test {
 protected:
  FdcTest() {
    for (size_t i = 0; i < disk_.contents.size(); i++)
      disk_.contents[i] = static_cast<std::byte>(i / 512 * 5 + i);
    out(fdc_, kDor, 0x1c);
    for (unsigned i = 0; i < 4; i++) command({0x08}, 2);
    command({0x03, 0xdf, 0x02}, 0);
    command({0x07, 0}, 0);
    command({0x08}, 2);
  }

  Bytes command(const Bytes& bytes, size_t results) {
    for (const uint8_t byte : bytes) {
      EXPECT_EQ(in(fdc_, kMsr) & 0xc0, 0x80) << "ready for a byte";
      out(fdc_, kFifo, byte);
    }
    return take(results);
  }
  Bytes take(size_t count) {
    Bytes bytes;
    while (bytes.size() < count && (in(fdc_, kMsr) & 0xc0) == 0xc0) bytes.push_back(in(fdc_, kFifo));
    EXPECT_EQ(bytes.size(), count);
    EXPECT_EQ(in(fdc_, kMsr), count == 0 ? in(fdc_, kMsr) : 0x80);
    return bytes;
  }
  // Channel 2
  void dma(bool to_memory, uint32_t address, uint16_t bytes) {
    out(dma_, 12, 0);
    out(dma_, 4, static_cast<uint8_t>(address));
    out(dma_, 4, static_cast<uint8_t>(address >> 8));
    out(dma_, 5, static_cast<uint8_t>(bytes - 1));
    out(dma_, 5, static_cast<uint8_t>((bytes - 1) >> 8));
    out(pages_, 0, static_cast<uint8_t>(address >> 16));
    out(dma_, 11, to_memory ? 0x46 : 0x4a);
    out(dma_, 10, 2);
  }
  void expect_disk(uint64_t at, uint64_t disk, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ASSERT_EQ(map_.read({at + i}, 1), disk_.at(disk + i)) << i;
  }
  static uint64_t offset(unsigned c, unsigned h, unsigned r) { return ((c * 2 + h) * 18 + r - 1) * 512; }

  PhysicalMap map_{uint64_t{1} << 20};
  DmaPageRegisters pages_;
  Dma8237 dma_{"dma", 0, map_, pages_};
  TestLine irq_;
  MemoryDisk disk_{1'474'560}, none_{0};
  Fdc82077aa fdc_{dma_, irq_.input(), {&disk_, &none_}};
};

// 4.2: after a reset one SENSE INTERRUPT a drive
TEST_F(FdcTest, ResetInterruptsForEveryDrive) {
  out(fdc_, kDor, 0x18);
  EXPECT_EQ(in(fdc_, kMsr), 0x00);
  out(fdc_, kDor, 0x1c);
  EXPECT_TRUE(irq_.level());
  for (uint8_t drive = 0; drive < 4; drive++)
    EXPECT_EQ(command({0x08}, 2), (Bytes{static_cast<uint8_t>(0xc0 | drive), 0}));
  EXPECT_FALSE(irq_.level());
  EXPECT_EQ(command({0x08}, 1), Bytes{0x80}) << "there was no interrupt";
  out(fdc_, kMsr, 0x80);
  EXPECT_TRUE(irq_.level());
}

TEST_F(FdcTest, TellsWhatItIs) {
  EXPECT_EQ(command({0x10}, 1), Bytes{0x90});
  EXPECT_EQ(command({0x18}, 1), Bytes{0x80}) << "no PART ID: a 82077AA";
  EXPECT_EQ(command({0x13, 0, 0x57, 3}, 0), Bytes{});
  EXPECT_EQ(command({0x94}, 1), Bytes{0x10});
  out(fdc_, kMsr, 0x80);
  const Bytes registers = command({0x0e}, 10);
  EXPECT_EQ(registers[4], 0xdf);
  EXPECT_EQ(registers[5], 0x02);
  EXPECT_EQ(registers[7], 0x80) << "locked";
  EXPECT_EQ(registers[8], 0x57) << "kept by the lock";
  EXPECT_EQ(command({0x14}, 1), Bytes{0x00});
}

TEST_F(FdcTest, SeekAndRecalibrate) {
  command({0x0f, 0x00, 40}, 0);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(command({0x08}, 2), (Bytes{0x20, 40}));
  EXPECT_EQ(command({0x04, 0x00}, 1), Bytes{0x28});
  command({0xcf, 0x00, 5}, 0);
  EXPECT_EQ(command({0x08}, 2), (Bytes{0x20, 45}));
  command({0x07, 0x00}, 0);
  EXPECT_EQ(command({0x08}, 2), (Bytes{0x20, 0}));
  EXPECT_EQ(command({0x04, 0x00}, 1), Bytes{0x38}) << "track 0";
  command({0x07, 0x02}, 0);
  EXPECT_EQ(command({0x08}, 2), (Bytes{0x72, 0})) << "no such drive";
}

TEST_F(FdcTest, ReadUntilTerminalCount) {
  dma(true, 0x1'0000, 3 * 512);
  const Bytes result = command({0xe6, 0x04, 20, 1, 7, 2, 18, 0x1b, 0xff}, 7);
  EXPECT_EQ(result, (Bytes{0x04, 0, 0, 20, 1, 10, 2}));
  EXPECT_FALSE(irq_.level());
  expect_disk(0x1'0000, offset(20, 1, 7), 3 * 512);
  EXPECT_EQ(irq_.rising_edges(), 3u) << "reset, recalibrate, read";
}

TEST_F(FdcTest, ImageShorterThanItsDisketteEndsWithZeros) {
  disk_.contents.resize(1'296'384);  // 70 cylinders and 12 sectors
  dma(true, 0x1'0000, 18 * 512);
  EXPECT_EQ(command({0xe6, 0x00, 70, 0, 1, 2, 18, 0x1b, 0xff}, 7)[0] & 0xc0, 0x00);
  expect_disk(0x1'0000, offset(70, 0, 1), 12 * 512);
  EXPECT_EQ(map_.read({0x1'0000 + 12 * 512}, 4), 0u);
  dma(true, 0x1'0000, 512);
  EXPECT_EQ(command({0xe6, 0x00, 79, 0, 1, 2, 18, 0x1b, 0xff}, 7)[0], 0x00);
  EXPECT_EQ(map_.read({0x1'0000}, 4), 0u);
}

// Multi-track: from head 0's last sector to head 1's first (5.1.1).
TEST_F(FdcTest, ReadACylinder) {
  dma(true, 0x1'0000, 36 * 512);
  EXPECT_EQ(command({0xe6, 0x00, 3, 0, 1, 2, 18, 0x1b, 0xff}, 7), (Bytes{0x00, 0, 0, 4, 0, 1, 2}));
  expect_disk(0x1'0000, offset(3, 0, 1), 36 * 512);
}

TEST_F(FdcTest, LastSectorWithoutTerminalCount) {
  dma(true, 0x1'0000, 5 * 512);
  EXPECT_EQ(command({0x66, 0x00, 3, 0, 17, 2, 18, 0x1b, 0xff}, 7), (Bytes{0x40, 0x80, 0, 4, 0, 1, 2}));
  expect_disk(0x1'0000, offset(3, 0, 17), 2 * 512);
}

TEST_F(FdcTest, Write) {
  for (unsigned i = 0; i < 1024; i++) map_.write({0x2'0000 + i}, 1, i * 3);
  dma(false, 0x2'0000, 1000);
  EXPECT_EQ(command({0xc5, 0x00, 5, 0, 18, 2, 18, 0x1b, 0xff}, 7), (Bytes{0x04, 0, 0, 5, 1, 2, 2}));
  for (unsigned i = 0; i < 1000; i++)
    ASSERT_EQ(disk_.at(offset(5, i < 512 ? 0 : 1, i < 512 ? 18 : 1) + i % 512), static_cast<uint8_t>(i * 3));
  for (unsigned i = 1000; i < 1024; i++) ASSERT_EQ(disk_.at(offset(5, 1, 1) + i % 512), 0) << "filled up";
}

TEST_F(FdcTest, BusyUntilTheHostHasDone) {
  disk_.holds = true;
  dma(true, 0x1'0000, 512);
  for (const uint8_t byte : Bytes{0xe6, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff}) out(fdc_, kFifo, byte);
  EXPECT_EQ(in(fdc_, kMsr), 0x10);
  EXPECT_FALSE(irq_.level());
  disk_.release();
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(take(7)[0], 0x00);
  disk_.holds = true;
  dma(true, 0x1'0000, 512);
  for (const uint8_t byte : Bytes{0xe6, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff}) out(fdc_, kFifo, byte);
  out(fdc_, kMsr, 0x80);
  disk_.release();
  EXPECT_EQ(in(fdc_, kMsr), 0x80) << "a reset has forgotten it";
}

TEST_F(FdcTest, WaitsForTheDmaController) {
  dma_.set_listener([this] { fdc_.dma_ready(); });
  for (const uint8_t byte : Bytes{0xe6, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff}) out(fdc_, kFifo, byte);
  EXPECT_EQ(in(fdc_, kMsr), 0x10);
  dma(true, 0x1'0000, 512);
  EXPECT_TRUE(irq_.level());
  EXPECT_EQ(take(7)[0], 0x00);
  expect_disk(0x1'0000, 0, 512);
}

// 3.2: without DMA every byte passes through the FIFO
TEST_F(FdcTest, WithoutDma) {
  command({0x03, 0xdf, 0x03}, 0);
  for (const uint8_t byte : Bytes{0x46, 0x00, 0, 0, 18, 2, 18, 0x1b, 0xff}) out(fdc_, kFifo, byte);
  for (unsigned i = 0; i < 512; i++) {
    ASSERT_EQ(in(fdc_, kMsr), 0xf0);
    ASSERT_EQ(in(fdc_, kFifo), disk_.at(17 * 512 + i));
  }
  EXPECT_EQ(take(7)[1], 0x80);
  for (const uint8_t byte : Bytes{0x45, 0x00, 0, 0, 18, 2, 18, 0x1b, 0xff}) out(fdc_, kFifo, byte);
  for (unsigned i = 0; i < 512; i++) {
    ASSERT_EQ(in(fdc_, kMsr), 0xb0);
    out(fdc_, kFifo, 0x77);
  }
  EXPECT_EQ(take(7)[1], 0x80);
  EXPECT_EQ(disk_.at(17 * 512 + 511), 0x77);
}

TEST_F(FdcTest, FormatFillsTheSectors) {
  for (unsigned i = 0; i < 18; i++) map_.write({0x2'0000 + 4 * i}, 4, 7 | 1 << 8 | (i + 1) << 16 | 2 << 24);
  command({0x0f, 0x04, 7}, 0);
  command({0x08}, 2);
  dma(false, 0x2'0000, 72);
  EXPECT_EQ(command({0x4d, 0x04, 2, 18, 0x54, 0xf6}, 7)[0], 0x04);
  for (unsigned i = 0; i < 18 * 512; i++) ASSERT_EQ(disk_.at(offset(7, 1, 1) + i), 0xf6);
  EXPECT_NE(disk_.at(offset(8, 0, 1)), 0xf6);
}

TEST_F(FdcTest, ReadIdAndVerify) {
  command({0x0f, 0x00, 12}, 0);
  command({0x08}, 2);
  EXPECT_EQ(command({0x4a, 0x04}, 7), (Bytes{0x04, 0, 0, 12, 1, 1, 2}));
  EXPECT_EQ(command({0x56, 0x04, 12, 1, 1, 2, 18, 0x1b, 0xff}, 7), (Bytes{0x04, 0, 0, 13, 1, 1, 2}));
  out(fdc_, kDir, 2);  // 250 kb/s
  EXPECT_EQ(command({0x4a, 0x04}, 7)[1], 0x01) << "at this rate there is nothing to read";
}

TEST_F(FdcTest, WhatIsNotThere) {
  EXPECT_EQ(command({0xe6, 0x01, 0, 0, 1, 2, 18, 0x1b, 0xff}, 7)[0], 0x41) << "no diskette";
  EXPECT_EQ(command({0xe6, 0x03, 0, 0, 1, 2, 18, 0x1b, 0xff}, 7)[0], 0x43) << "no drive";
  EXPECT_EQ(command({0xe6, 0x00, 0, 0, 19, 2, 19, 0x1b, 0xff}, 7)[1], 0x04);
  EXPECT_EQ(command({0xe6, 0x00, 80, 0, 1, 2, 18, 0x1b, 0xff}, 7)[2], 0x10);
  EXPECT_EQ(command({0xe6, 0x00, 0, 0, 1, 3, 18, 0x1b, 0xff}, 7)[1], 0x04) << "1024-byte sectors";
  disk_.next_error = EIO;
  EXPECT_EQ(command({0xe6, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff}, 7)[1], 0x20);
  disk_.is_read_only = true;
  EXPECT_EQ(command({0xc5, 0x00, 0, 0, 1, 2, 18, 0x1b, 0xff}, 7)[1], 0x02);
  EXPECT_EQ(command({0x04, 0x00}, 1)[0] & 0x40, 0x40);
}

// 2.1.8: the line stays until the head moves with a diskette in the drive
TEST_F(FdcTest, DiskChangeLine) {
  EXPECT_EQ(in(fdc_, kDir) & 0x80, 0x00);
  disk_.medium++;
  EXPECT_EQ(in(fdc_, kDir) & 0x80, 0x80);
  command({0x0f, 0x00, 1}, 0);
  command({0x08}, 2);
  EXPECT_EQ(in(fdc_, kDir) & 0x80, 0x00);
  out(fdc_, kDor, 0x1d);
  EXPECT_EQ(in(fdc_, kDir) & 0x80, 0x80) << "the other drive is empty";
}

TEST_F(FdcTest, InterruptsPassTheGate) {
  out(fdc_, kDor, 0x14);
  command({0x0f, 0x00, 1}, 0);
  EXPECT_FALSE(irq_.level());
  out(fdc_, kDor, 0x1c);
  EXPECT_TRUE(irq_.level());
}

TEST(FdcFormats, BySize) {
  const struct {
    unsigned kib, cylinders, heads, sectors;
  } kSizes[] = {{160, 40, 1, 8}, {180, 40, 1, 9},   {320, 40, 2, 8},   {360, 40, 2, 9},
                {720, 80, 2, 9}, {1200, 80, 2, 15}, {1440, 80, 2, 18}, {2880, 80, 2, 36}};
  for (const auto& size : kSizes) {
    const Fdc82077aa::Format format = Fdc82077aa::format_of(uint64_t{size.kib} * 1024);
    EXPECT_EQ(format.cylinders, size.cylinders);
    EXPECT_EQ(format.heads, size.heads);
    EXPECT_EQ(format.sectors, size.sectors);
  }
}

}  // namespace
}  // namespace penumbra
