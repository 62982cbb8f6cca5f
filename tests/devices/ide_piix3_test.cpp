// The IDE controller with a disk and a CD-ROM drive, as a driver sees them.
#include "devices/ide_piix3.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "devices/ata_disk.h"
#include "devices/atapi_cdrom.h"
#include "tests/devices/chip_fixture.h"
#include "tests/devices/memory_disk.h"

namespace penumbra {
namespace {

// Status and error bits
constexpr uint8_t kErr = 0x01, kDrq = 0x08, kDrdy = 0x40, kBsy = 0x80, kAbrt = 0x04, kIdnf = 0x10,
                  kUnc = 0x40;
constexpr uint16_t kPrimary = 0x1f0, kSecondary = 0x170, kBusMaster = 0xc000;

class IdeTest : public testing::Test {
 protected:
  IdeTest() {
    io_.add(0x1f0, 8, ide_, 0x00);
    io_.add(0x3f6, 1, ide_, 0x10);
    io_.add(0x170, 8, ide_, 0x08);
    io_.add(0x376, 1, ide_, 0x11);
    ide_.attach(0, 0, std::make_unique<AtaDisk>("disk", disk_, AtaDrive::Cable::OnlyParallel, "serial"));
    ide_.attach(1, 0, std::make_unique<AtapiCdrom>("cdrom", disc_, AtaDrive::Cable::OnlyParallel));
    ide_.config().write(0x20, 4, kBusMaster);
    ide_.config().write(0x04, 2, 5);
    for (size_t i = 0; i < disk_.contents.size(); i++)
      disk_.contents[i] = static_cast<std::byte>(i / 512 + i);
    for (size_t i = 0; i < disc_.contents.size(); i++)
      disc_.contents[i] = static_cast<std::byte>(i / 2048 * 3 + i);
  }

  uint8_t inb(unsigned port) { return static_cast<uint8_t>(io_.read(static_cast<uint16_t>(port), 1)); }
  void outb(unsigned port, uint8_t value) { io_.write(static_cast<uint16_t>(port), 1, value); }
  // 28-bit LBA on the primary master
  void command(uint8_t code, uint32_t lba, uint8_t count, uint8_t feature = 0) {
    outb(kPrimary + 6, static_cast<uint8_t>(0xe0 | lba >> 24));
    outb(kPrimary + 1, feature);
    outb(kPrimary + 2, count);
    outb(kPrimary + 3, static_cast<uint8_t>(lba));
    outb(kPrimary + 4, static_cast<uint8_t>(lba >> 8));
    outb(kPrimary + 5, static_cast<uint8_t>(lba >> 16));
    outb(kPrimary + 7, code);
  }
  void command48(uint8_t code, uint64_t lba, uint16_t count) {
    outb(kPrimary + 6, 0xe0);
    for (const bool high : {true, false}) {
      outb(kPrimary + 2, static_cast<uint8_t>(count >> (high ? 8 : 0)));
      for (unsigned i = 0; i < 3; i++)
        outb(kPrimary + 3 + i, static_cast<uint8_t>(lba >> (8 * (high ? 3 + i : i))));
    }
    outb(kPrimary + 7, code);
  }
  std::vector<uint8_t> read_data(size_t bytes, uint16_t base = kPrimary) {
    std::vector<uint8_t> data;
    while (data.size() < bytes) {
      const uint32_t word = io_.read(base, 2);
      data.push_back(static_cast<uint8_t>(word));
      data.push_back(static_cast<uint8_t>(word >> 8));
    }
    return data;
  }
  void write_data(size_t bytes, uint8_t value) {
    for (size_t i = 0; i < bytes; i += 2) io_.write(kPrimary, 2, value * 0x0101u);
  }
  void expect_sectors(const std::vector<uint8_t>& data, size_t first) {
    for (size_t i = 0; i < data.size(); i++) ASSERT_EQ(data[i], disk_.at(first * 512 + i)) << i;
  }
  void descriptor(uint64_t at, uint32_t address, uint32_t control) {
    map_.write({at}, 4, address);
    map_.write({at + 4}, 4, control);
  }
  void packet(std::vector<uint8_t> bytes, uint16_t limit = 2048, bool dma = false) {
    bytes.resize(12);
    outb(kSecondary + 6, 0xa0);
    outb(kSecondary + 1, dma);
    outb(kSecondary + 4, static_cast<uint8_t>(limit));
    outb(kSecondary + 5, static_cast<uint8_t>(limit >> 8));
    outb(kSecondary + 7, 0xa0);
    EXPECT_EQ(inb(kSecondary + 2), 0x01) << "C/D";
    for (unsigned i = 0; i < 12; i += 2) io_.write(kSecondary, 2, bytes[i] | uint32_t{bytes[i + 1]} << 8);
  }
  std::vector<uint8_t> packet_data(std::vector<uint8_t> bytes) {
    packet(std::move(bytes));
    std::vector<uint8_t> data;
    while (inb(kSecondary + 7) & kDrq) {
      const auto piece = read_data(inb(kSecondary + 4) | inb(kSecondary + 5) << 8, kSecondary);
      data.insert(data.end(), piece.begin(), piece.end());
    }
    return data;
  }

  IoBus io_;
  PhysicalMap map_{uint64_t{4} << 20};
  TestLine irq14_, irq15_;
  MemoryDisk disk_{4096 * 512}, disc_{100 * 2048};
  IdePiix3 ide_{map_, io_, irq14_.input(), irq15_.input()};
};

// T13/1532D volume 1, 9.12
TEST_F(IdeTest, SignaturesTellDiskAndPacketDriveApart) {
  for (const bool reset : {false, true}) {
    if (reset) {
      for (const unsigned control : {0x3f6, 0x376}) {
        outb(control, 0x04);
        outb(control, 0x00);
      }
    }
    EXPECT_EQ(inb(kPrimary + 1), 0x01);
    EXPECT_EQ(inb(kPrimary + 2) | inb(kPrimary + 3) << 8, 0x0101);
    EXPECT_EQ(inb(kPrimary + 4) | inb(kPrimary + 5) << 8, 0x0000);
    EXPECT_EQ(inb(kPrimary + 7), kDrdy | 0x10);
    EXPECT_EQ(inb(kSecondary + 4) | inb(kSecondary + 5) << 8, 0xeb14);
    EXPECT_EQ(inb(kSecondary + 7), 0x00);
  }
}

TEST_F(IdeTest, DriveThatIsNotThereReadsAsZeros) {
  outb(kPrimary + 6, 0xb0);
  EXPECT_EQ(inb(kPrimary + 7), 0);
  outb(kPrimary + 7, 0xec);
  EXPECT_EQ(inb(kPrimary + 7), 0);
  EXPECT_FALSE(irq14_.level());
  outb(kPrimary + 6, 0xa0);
  EXPECT_EQ(inb(kPrimary + 7), kDrdy | 0x10);
}

TEST_F(IdeTest, Identify) {
  command(0xec, 0, 0);
  EXPECT_TRUE(irq14_.level());
  EXPECT_EQ(inb(kPrimary + 7) & (kBsy | kDrq | kErr), kDrq);
  EXPECT_FALSE(irq14_.level()) << "reading the status takes the interrupt";
  const auto data = read_data(512);
  EXPECT_EQ(inb(kPrimary + 7) & (kBsy | kDrq | kErr), 0);
  const auto word = [&data](unsigned i) { return data[2 * i] | data[2 * i + 1] << 8; };
  EXPECT_EQ(word(0) & 0x8000, 0);
  EXPECT_EQ(word(1) * word(3) * word(6), 4 * 16 * 63);
  EXPECT_EQ(word(10), 's' << 8 | 'e');
  EXPECT_EQ(word(49) & 0x0300, 0x0300) << "LBA and DMA";
  EXPECT_EQ(word(60) | word(61) << 16, 4096);
  EXPECT_EQ(word(100) | word(101) << 16, 4096);
  EXPECT_EQ(word(83) & 0xc000, 0x4000);
  uint8_t sum = 0;
  for (const uint8_t byte : data) sum = static_cast<uint8_t>(sum + byte);
  EXPECT_EQ(sum, 0);
}

TEST_F(IdeTest, PioReadInterruptsForEverySector) {
  command(0x20, 5, 3);
  std::vector<uint8_t> data;
  for (unsigned i = 0; i < 3; i++) {
    EXPECT_TRUE(irq14_.level()) << i;
    EXPECT_EQ(inb(kPrimary + 7) & (kBsy | kDrq), kDrq);
    const auto sector = read_data(512);
    data.insert(data.end(), sector.begin(), sector.end());
  }
  EXPECT_FALSE(irq14_.level());
  EXPECT_EQ(inb(kPrimary + 7), kDrdy | 0x10);
  EXPECT_EQ(irq14_.rising_edges(), 3u);
  expect_sectors(data, 5);
}

TEST_F(IdeTest, PioWriteDoesNotAnnounceItsFirstSector) {
  command(0x30, 7, 2);
  EXPECT_FALSE(irq14_.level());
  EXPECT_EQ(inb(kPrimary + 7) & (kBsy | kDrq), kDrq);
  write_data(512, 0x11);
  EXPECT_TRUE(irq14_.level());
  EXPECT_EQ(inb(kPrimary + 7) & (kBsy | kDrq), kDrq);
  write_data(512, 0x22);
  EXPECT_TRUE(irq14_.level());
  EXPECT_EQ(inb(kPrimary + 7), kDrdy | 0x10);
  EXPECT_EQ(disk_.at(7 * 512), 0x11);
  EXPECT_EQ(disk_.at(9 * 512 - 1), 0x22);
}

TEST_F(IdeTest, DriveIsBusyUntilTheHostHasTheData) {
  disk_.holds = true;
  command(0x20, 5, 1);
  EXPECT_EQ(inb(kPrimary + 7) & kBsy, kBsy);
  EXPECT_FALSE(irq14_.level());
  disk_.release();
  EXPECT_TRUE(irq14_.level());
  expect_sectors(read_data(512), 5);
}

TEST_F(IdeTest, ResetForgetsWhatIsUnderWay) {
  disk_.holds = true;
  command(0x20, 5, 1);
  outb(0x3f6, 0x04);
  outb(0x3f6, 0x00);
  disk_.release();
  EXPECT_FALSE(irq14_.level());
  EXPECT_EQ(inb(kPrimary + 7), kDrdy | 0x10);
}

TEST_F(IdeTest, MultipleSectorsABlock) {
  command(0xc4, 0, 8);
  EXPECT_EQ(inb(kPrimary + 7) & kErr, kErr) << "not set up";
  command(0xc6, 0, 3);
  EXPECT_EQ(inb(kPrimary + 1), kAbrt) << "no power of two";
  command(0xc6, 0, 4);
  EXPECT_EQ(inb(kPrimary + 7) & kErr, 0);
  const unsigned before = irq14_.rising_edges();
  command(0xc4, 10, 6);
  EXPECT_TRUE(irq14_.level());
  inb(kPrimary + 7);
  auto data = read_data(4 * 512);
  EXPECT_TRUE(irq14_.level()) << "the rest";
  inb(kPrimary + 7);
  const auto rest = read_data(2 * 512);
  data.insert(data.end(), rest.begin(), rest.end());
  EXPECT_EQ(irq14_.rising_edges(), before + 2);
  expect_sectors(data, 10);
}

TEST_F(IdeTest, FortyEightBitAddresses) {
  command48(0x24, 0x20, 0x0101);
  std::vector<uint8_t> data = read_data(0x101 * 512);
  expect_sectors(data, 0x20);
  EXPECT_EQ(inb(kPrimary + 7), kDrdy | 0x10);
  command48(0x24, uint64_t{1} << 30, 1);
  EXPECT_EQ(inb(kPrimary + 1), kIdnf);
  outb(0x3f6, 0x80);  // HOB
  EXPECT_EQ(inb(kPrimary + 3), 0x40);
}

// T13/1321D (ATA-5), 6.2: sector numbers count from 1
TEST_F(IdeTest, CylindersHeadsAndSectors) {
  outb(kPrimary + 6, 0xa3);  // head 3
  outb(kPrimary + 2, 1);
  outb(kPrimary + 3, 9);
  outb(kPrimary + 4, 2);
  outb(kPrimary + 5, 0);
  outb(kPrimary + 7, 0x20);
  expect_sectors(read_data(512), (2 * 16 + 3) * 63 + 8);
  outb(kPrimary + 3, 0);
  outb(kPrimary + 7, 0x20);
  EXPECT_EQ(inb(kPrimary + 1), kIdnf);
}

TEST_F(IdeTest, RangesBeyondTheEndAreRefused) {
  command(0x20, 4096, 1);
  EXPECT_EQ(inb(kPrimary + 1), kIdnf);
  command(0x20, 4095, 2);
  EXPECT_EQ(inb(kPrimary + 1), kIdnf);
  command(0x30, 4000, 0);  // 256 sectors
  EXPECT_EQ(inb(kPrimary + 1), kIdnf);
}

TEST_F(IdeTest, ErrorsOfTheHostReachTheGuest) {
  disk_.next_error = EIO;
  command(0x20, 5, 1);
  EXPECT_TRUE(irq14_.level());
  EXPECT_EQ(inb(kPrimary + 7) & (kErr | kDrq | kBsy), kErr);
  EXPECT_EQ(inb(kPrimary + 1), kUnc);
  disk_.is_read_only = true;
  command(0x30, 5, 1);
  EXPECT_EQ(inb(kPrimary + 7) & (kErr | kDrq), kErr);
}

TEST_F(IdeTest, FlushAndWriteCache) {
  command(0xe7, 0, 0);
  EXPECT_TRUE(irq14_.level());
  EXPECT_EQ(disk_.flushes, 1u);
  command(0xef, 0, 0, 0x82);  // write cache off
  command(0x30, 1, 1);
  write_data(512, 1);
  EXPECT_EQ(disk_.flushes, 3u);
}

TEST_F(IdeTest, InterruptsCanBeSwitchedOff) {
  outb(0x3f6, 0x02);
  command(0xe7, 0, 0);
  EXPECT_FALSE(irq14_.level());
  outb(0x3f6, 0x00);
  EXPECT_TRUE(irq14_.level());
  EXPECT_EQ(inb(0x3f6), kDrdy | 0x10) << "the alternate status takes no interrupt";
  EXPECT_TRUE(irq14_.level());
}

// SFF-8038i
TEST_F(IdeTest, BusMasterReadScattersIntoMemory) {
  descriptor(0x1000, 0x2'0000, 512);
  descriptor(0x1008, 0x3'0000, 0x8000'0000 | 1024);
  io_.write(kBusMaster + 4, 4, 0x1000);
  outb(kBusMaster, 0x08);
  command(0xc8, 20, 3);
  EXPECT_EQ(irq14_.level(), false);
  outb(kBusMaster, 0x09);
  EXPECT_TRUE(irq14_.level());
  EXPECT_EQ(inb(kBusMaster + 2) & 7, 4) << "interrupt, no longer active";
  for (unsigned i = 0; i < 512; i++) ASSERT_EQ(map_.read({0x2'0000 + i}, 1), disk_.at(20 * 512 + i));
  for (unsigned i = 0; i < 1024; i++) ASSERT_EQ(map_.read({0x3'0000 + i}, 1), disk_.at(21 * 512 + i));
  outb(kBusMaster + 2, 4);
  EXPECT_EQ(inb(kBusMaster + 2) & 7, 0);
}

TEST_F(IdeTest, BusMasterWriteInChunks) {
  constexpr unsigned kSectors = 1200;  // more than a request's
  for (unsigned i = 0; i < kSectors * 512; i++) map_.write({0x10'0000 + i}, 1, i * 7 + i / 512);
  for (unsigned i = 0; i < 10; i++)
    descriptor(0x1000 + 8 * i, 0x10'0000 + i * 0x1'0000, i == 9 ? 0x8000'0000u : 0);
  io_.write(kBusMaster + 4, 4, 0x1000);
  disk_.holds = true;
  command48(0x35, 100, kSectors);
  outb(kBusMaster, 0x01);
  while (disk_.held()) disk_.release();
  EXPECT_TRUE(irq14_.level());
  EXPECT_EQ(inb(kPrimary + 7), kDrdy | 0x10);
  EXPECT_EQ(inb(kBusMaster + 2) & 6, 4);
  for (unsigned i = 0; i < kSectors * 512; i++)
    ASSERT_EQ(disk_.at(100 * 512 + i), static_cast<uint8_t>(i * 7 + i / 512)) << i;
}

TEST_F(IdeTest, TableThatIsTooShortEndsWithoutAnInterrupt) {
  descriptor(0x1000, 0x2'0000, 0x8000'0000 | 512);
  io_.write(kBusMaster + 4, 4, 0x1000);
  command(0xc8, 20, 3);
  outb(kBusMaster, 0x09);
  EXPECT_FALSE(irq14_.level());
  EXPECT_EQ(inb(kBusMaster + 2) & 7, 0);
}

TEST_F(IdeTest, BusMasterNeedsItsEnableAndRam) {
  descriptor(0x1000, 0x2'0000, 0x8000'0000 | 512);
  io_.write(kBusMaster + 4, 4, 0x1000);
  ide_.config().write(0x04, 2, 1);
  command(0xc8, 20, 1);
  outb(kBusMaster, 0x09);
  EXPECT_EQ(inb(kBusMaster + 2) & 7, 2) << "error";
  EXPECT_FALSE(irq14_.level());
  ide_.config().write(0x04, 2, 5);
  outb(kBusMaster, 0);
  outb(kBusMaster + 2, 2);
  descriptor(0x1000, 0xe000'0000, 0x8000'0000 | 512);
  outb(kBusMaster, 0x09);
  EXPECT_EQ(inb(kBusMaster + 2) & 7, 2);
}

TEST_F(IdeTest, Trim) {
  command(0x06, 0, 1, 1);
  EXPECT_EQ(inb(kPrimary + 1), kAbrt) << "the image keeps everything";
  disk_.can_discard = true;
  disk_.fill(0, disk_.contents.size(), 0xff);
  map_.write({0x2'0000}, 8, uint64_t{8} << 48 | 100);
  map_.write({0x2'0008}, 8, uint64_t{1} << 48 | 200);
  descriptor(0x1000, 0x2'0000, 0x8000'0000 | 512);
  io_.write(kBusMaster + 4, 4, 0x1000);
  outb(kBusMaster, 0x01);
  command(0x06, 0, 1, 1);
  EXPECT_EQ(inb(kPrimary + 7), kDrdy | 0x10);
  EXPECT_EQ(disk_.discards_seen, 2u);
  EXPECT_EQ(disk_.at(100 * 512), 0);
  EXPECT_EQ(disk_.at(108 * 512), 0xff);
  EXPECT_EQ(disk_.at(200 * 512), 0);
}

// --- The CD-ROM drive

TEST_F(IdeTest, PacketDriveRefusesIdentifyDevice) {
  outb(kSecondary + 6, 0xa0);
  outb(kSecondary + 7, 0xec);
  EXPECT_EQ(inb(kSecondary + 7) & kErr, kErr);
  EXPECT_EQ(inb(kSecondary + 4) | inb(kSecondary + 5) << 8, 0xeb14);
  outb(kSecondary + 7, 0xa1);
  EXPECT_TRUE(irq15_.level());
  const auto id = read_data(512, kSecondary);
  EXPECT_EQ(id[1] & 0x9f, 0x85) << "packet device, CD-ROM, removable";
}

// T13/1532D volume 1, 9.10
TEST_F(IdeTest, PacketReadComesInBlocksOfTheByteLimit) {
  packet({0x28, 0, 0, 0, 0, 4, 0, 0, 2}, 1000);
  std::vector<uint8_t> data;
  size_t blocks = 0;
  while (inb(kSecondary + 7) & kDrq) {
    EXPECT_EQ(inb(kSecondary + 2), 0x02) << "data to the host";
    const size_t bytes = inb(kSecondary + 4) | inb(kSecondary + 5) << 8;
    EXPECT_LE(bytes, 1000u);
    const auto block = read_data(bytes, kSecondary);
    data.insert(data.end(), block.begin(), block.end());
    EXPECT_TRUE(irq15_.level());
    blocks++;
  }
  EXPECT_EQ(blocks, 5u);
  EXPECT_EQ(inb(kSecondary + 2), 0x03) << "command complete";
  ASSERT_EQ(data.size(), 4096u);
  for (size_t i = 0; i < data.size(); i++) ASSERT_EQ(data[i], disc_.at(4 * 2048 + i));
}

TEST_F(IdeTest, PacketReadByDma) {
  descriptor(0x1000, 0x2'0000, 0x8000'0000 | 4096);
  io_.write(kBusMaster + 12, 4, 0x1000);
  outb(kBusMaster + 8, 0x09);
  packet({0x28, 0, 0, 0, 0, 4, 0, 0, 2}, 0, true);
  EXPECT_TRUE(irq15_.level());
  EXPECT_EQ(inb(kSecondary + 7), kDrdy | 0x10);
  EXPECT_EQ(inb(kBusMaster + 10) & 7, 4);
  for (unsigned i = 0; i < 4096; i++) ASSERT_EQ(map_.read({0x2'0000 + i}, 1), disc_.at(4 * 2048 + i));
}

TEST_F(IdeTest, CapacityInquiryAndToc) {
  EXPECT_EQ(packet_data({0x25}), (std::vector<uint8_t>{0, 0, 0, 99, 0, 0, 8, 0}));
  const auto inquiry = packet_data({0x12, 0, 0, 0, 36});
  ASSERT_EQ(inquiry.size(), 36u);
  EXPECT_EQ(inquiry[0], 5);
  EXPECT_EQ(inquiry[1], 0x80);
  EXPECT_EQ(packet_data({0x12, 0, 0, 0, 5}).size(), 6u) << "five bytes, read as words";
  // One track at 0, the lead-out behind it
  EXPECT_EQ(packet_data({0x43, 0, 0, 0, 0, 0, 0, 0, 255}),
            (std::vector<uint8_t>{0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 0, 100}));
  EXPECT_EQ(packet_data({0x43, 2, 0, 0, 0, 0, 0xaa, 0, 255}),
            (std::vector<uint8_t>{0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 0, 3, 25}));
}

TEST_F(IdeTest, SenseTellsWhatWasWrong) {
  packet({0x28, 0, 0, 0, 0, 99, 0, 0, 2});
  EXPECT_EQ(inb(kSecondary + 7) & kErr, kErr);
  EXPECT_EQ(inb(kSecondary + 1) >> 4, 5) << "illegal request";
  auto sense = packet_data({0x03, 0, 0, 0, 18});
  EXPECT_EQ(sense[2], 5);
  EXPECT_EQ(sense[12], 0x21);
  sense = packet_data({0x03, 0, 0, 0, 18});
  EXPECT_EQ(sense[2], 0) << "told once";
  packet({0xff});
  EXPECT_EQ(inb(kSecondary + 1) >> 4, 5);
  disc_.next_error = EIO;
  packet({0x28, 0, 0, 0, 0, 1, 0, 0, 1});
  EXPECT_EQ(inb(kSecondary + 1) >> 4, 3) << "medium error";
}

TEST_F(IdeTest, MediumThatChanges) {
  packet({0x00});
  EXPECT_EQ(inb(kSecondary + 7) & kErr, 0);
  disc_.contents.resize(50 * 2048);
  disc_.medium++;
  packet({0x00});
  EXPECT_EQ(inb(kSecondary + 1) >> 4, 6) << "unit attention";
  EXPECT_EQ(packet_data({0x25})[3], 49);
  EXPECT_EQ(packet_data({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}),
            (std::vector<uint8_t>{0, 6, 4, 0x10, 2, 2, 0, 0}));
  disc_.contents.clear();
  disc_.medium++;
  packet({0x00});
  EXPECT_EQ(inb(kSecondary + 1) >> 4, 2) << "not ready";
  packet({0x28, 0, 0, 0, 0, 0, 0, 0, 1});
  EXPECT_EQ(inb(kSecondary + 1) >> 4, 2);
}

// MMC-3, 6.6: media events and the tray's state.
TEST_F(IdeTest, TrayAndEjectRequestsAreTold) {
  const auto event = [this] { return packet_data({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}); };
  disc_.is_asked_for = true;
  EXPECT_EQ(event(), (std::vector<uint8_t>{0, 6, 4, 0x10, 1, 2, 0, 0})) << "a person wants it";
  EXPECT_EQ(event(), (std::vector<uint8_t>{0, 6, 4, 0x10, 0, 2, 0, 0}));
  const auto contents = std::exchange(disc_.contents, {});
  disc_.is_open = true;
  disc_.medium++;
  EXPECT_EQ(event(), (std::vector<uint8_t>{0, 6, 4, 0x10, 3, 1, 0, 0})) << "gone, the tray open";
  disc_.contents = contents;
  disc_.is_open = false;
  disc_.medium++;
  EXPECT_EQ(event(), (std::vector<uint8_t>{0, 6, 4, 0x10, 2, 2, 0, 0})) << "a new one";
}

// A read of several blocks, of which one was the old disc's.
TEST_F(IdeTest, ReadEndsWhereTheDiscWasChanged) {
  packet({0x28, 0, 0, 0, 0, 0, 0, 0, 80});
  size_t sectors = 0;
  for (; inb(kSecondary + 7) & kDrq; sectors++) {
    if (sectors == 1) disc_.medium++;
    read_data(2048, kSecondary);
  }
  EXPECT_EQ(sectors, 64u) << "as many as were read at a time";
  EXPECT_EQ(inb(kSecondary + 7) & kErr, kErr);
  EXPECT_EQ(inb(kSecondary + 1) >> 4, 2) << "not ready";
  packet({0x00});
  EXPECT_EQ(inb(kSecondary + 1) >> 4, 6) << "unit attention";
}

TEST_F(IdeTest, LockedTrayStaysShut) {
  packet({0x1e, 0, 0, 0, 1});
  packet({0x1b, 0, 0, 0, 2});
  EXPECT_EQ(inb(kSecondary + 1) >> 4, 5);
  packet({0x1e, 0, 0, 0, 0});
  packet({0x1b, 0, 0, 0, 2});
  packet({0x1b, 0, 0, 0, 3});
  EXPECT_EQ(disc_.trays, "open close ");
}

// T13/1699D, IDENTIFY DEVICE, word 106: how many logical sectors a physical one has, as a power of two.
TEST_F(IdeTest, LargePhysicalSectors) {
  TestLine line;
  IoBus io;
  IdePiix3 other(map_, io, line.input(), line.input());
  other.attach(0, 0,
               std::make_unique<AtaDisk>("disk", disk_, AtaDrive::Cable::OnlyParallel, "serial",
                                         BlockSizes{.physical = 4096}));
  other.write(7, 1, 0xec);
  std::vector<uint32_t> words;
  for (unsigned i = 0; i < 256; i++) words.push_back(other.read(0, 2));
  EXPECT_EQ(words[106], 0x6003u);
}

TEST_F(IdeTest, SavedTransferGoesOn) {
  command(0x20, 5, 2);
  auto data = read_data(300);
  TestLine line;
  MemoryDisk disk(4096 * 512), disc(100 * 2048);
  disk.contents = disk_.contents;
  IoBus io;
  IdePiix3 other(map_, io, line.input(), line.input());
  other.attach(0, 0, std::make_unique<AtaDisk>("disk", disk, AtaDrive::Cable::OnlyParallel, "serial"));
  other.attach(1, 0, std::make_unique<AtapiCdrom>("cdrom", disc, AtaDrive::Cable::OnlyParallel));
  other.load(ide_.save());
  EXPECT_EQ(other.save(), ide_.save());
  while (data.size() < 1024) {
    const uint32_t word = other.read(0, 2);
    data.push_back(static_cast<uint8_t>(word));
    data.push_back(static_cast<uint8_t>(word >> 8));
  }
  expect_sectors(data, 5);
}

}  // namespace
}  // namespace penumbra
