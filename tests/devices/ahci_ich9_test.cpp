// The AHCI controller with a disk and a CD-ROM drive, as a driver sees them: Serial ATA AHCI 1.3.1.
#include "devices/ahci_ich9.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "devices/ata_disk.h"
#include "devices/atapi_cdrom.h"
#include "tests/devices/chip_fixture.h"
#include "tests/devices/memory_disk.h"

namespace penumbra {
namespace {

constexpr uint16_t kIndexPorts = 0xc100;
// Generic registers and a port's
constexpr uint32_t kGhc = 0x04, kIs = 0x08;
enum : uint32_t {
  kClb = 0x00,
  kFb = 0x08,
  kPxIs = 0x10,
  kPxIe = 0x14,
  kCmd = 0x18,
  kTfd = 0x20,
  kSig = 0x24,
  kSsts = 0x28,
  kSctl = 0x2c,
  kSerr = 0x30,
  kSact = 0x34,
  kCi = 0x38
};
constexpr uint32_t kDhrs = 1, kPss = 2, kSdbs = 8, kDps = 0x20, kOfs = 1u << 24, kHbfs = 1u << 29,
                   kTfes = 1u << 30;
constexpr uint32_t kStart = 1, kFre = 0x10;
constexpr uint64_t kList = 0x1'0000, kFis = 0x2'0000, kTables = 0x3'0000, kData = 0x10'0000;

class AhciTest : public testing::Test {
 protected:
  AhciTest() {
    ahci_.attach(0, std::make_unique<AtaDisk>("disk", disk_, AtaDrive::Cable::Serial, "serial"));
    ahci_.attach(1, std::make_unique<AtapiCdrom>("cdrom", disc_, AtaDrive::Cable::Serial));
    ahci_.config().write(0x20, 4, kIndexPorts);
    ahci_.config().write(0x04, 2, 7);
    for (size_t i = 0; i < disk_.contents.size(); i++)
      disk_.contents[i] = static_cast<std::byte>(i / 512 + i);
    for (size_t i = 0; i < disc_.contents.size(); i++)
      disc_.contents[i] = static_cast<std::byte>(i / 2048 * 3 + i);
    put(kGhc, 2);
    for (const unsigned port : {0u, 1u}) {
      put(port, kClb, static_cast<uint32_t>(kList + port * 0x1000));
      put(port, kFb, static_cast<uint32_t>(kFis + port * 0x1000));
      put(port, kPxIe, 0xffff'ffff);
      put(port, kCmd, kFre);
      put(port, kCmd, kFre | kStart);
    }
  }

  uint32_t get(uint32_t offset) { return static_cast<uint32_t>(ahci_.mmio_read(offset, 4)); }
  void put(uint32_t offset, uint32_t value) { ahci_.mmio_write(offset, 4, value); }
  uint32_t get(unsigned port, uint32_t offset) { return get(0x100 + port * 0x80 + offset); }
  void put(unsigned port, uint32_t offset, uint32_t value) { put(0x100 + port * 0x80 + offset, value); }
  uint8_t memory(uint64_t at) { return static_cast<uint8_t>(map_.read({at}, 1)); }
  void acknowledge(unsigned port) {
    put(port, kPxIs, 0xffff'ffff);
    put(kIs, 1u << port);
  }

  struct Region {
    uint64_t address;
    uint32_t bytes;
    bool interrupts = false;
  };
  struct Command {
    uint8_t code = 0;
    uint64_t lba = 0;
    uint16_t count = 0, feature = 0;
    uint8_t device = 0x40;
  };
  void fill_slot(unsigned port, unsigned slot, std::vector<uint8_t> fis, const std::vector<Region>& regions) {
    const uint64_t table = kTables + port * 0x8000 + slot * 0x400, header = kList + port * 0x1000 + slot * 32;
    map_.write({header}, 4, 5 | regions.size() << 16);
    map_.write({header + 4}, 4, 0);
    map_.write({header + 8}, 8, table);
    fis.resize(20);
    for (unsigned i = 0; i < fis.size(); i++) map_.write({table + i}, 1, fis[i]);
    for (size_t i = 0; i < regions.size(); i++) {
      map_.write({table + 0x80 + 16 * i}, 8, regions[i].address);
      map_.write({table + 0x8c + 16 * i}, 4, (regions[i].bytes - 1) | uint32_t{regions[i].interrupts} << 31);
    }
  }
  static std::vector<uint8_t> fis_of(const Command& c) {
    const auto lba = [&c](unsigned i) { return static_cast<uint8_t>(c.lba >> 8 * i); };
    return {0x27,
            0x80,
            c.code,
            static_cast<uint8_t>(c.feature),
            lba(0),
            lba(1),
            lba(2),
            c.device,
            lba(3),
            lba(4),
            lba(5),
            static_cast<uint8_t>(c.feature >> 8),
            static_cast<uint8_t>(c.count),
            static_cast<uint8_t>(c.count >> 8)};
  }
  void issue(unsigned port, unsigned slot, const Command& command, const std::vector<Region>& regions) {
    fill_slot(port, slot, fis_of(command), regions);
    put(port, kCi, 1u << slot);
  }
  void queue(unsigned slot, bool write, uint64_t lba, uint16_t sectors, const std::vector<Region>& regions) {
    fill_slot(0, slot,
              fis_of({.code = static_cast<uint8_t>(write ? 0x61 : 0x60),
                      .lba = lba,
                      .count = static_cast<uint16_t>(slot << 3),
                      .feature = sectors}),
              regions);
    put(0, kSact, 1u << slot);
    put(0, kCi, 1u << slot);
  }
  void packet(std::vector<uint8_t> bytes, const std::vector<Region>& regions, bool dma = true) {
    fill_slot(1, 0, fis_of({.code = 0xa0, .lba = 2048 << 8, .feature = static_cast<uint16_t>(dma)}), regions);
    bytes.resize(16);
    for (unsigned i = 0; i < bytes.size(); i++) map_.write({kTables + 0x8000 + 0x40 + i}, 1, bytes[i]);
    put(1, kCi, 1);
  }
  void expect_disk(uint64_t at, uint64_t disk, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ASSERT_EQ(memory(at + i), disk_.at(disk + i)) << i;
  }

  IoBus io_;
  PhysicalMap map_{uint64_t{4} << 20};
  TestLine line_;
  std::vector<std::pair<uint64_t, uint32_t>> messages_;
  MemoryDisk disk_{8192 * 512}, disc_{100 * 2048};
  AhciIch9 ahci_{"ahci", map_, io_, line_.input(), [this](uint64_t address, uint32_t data) {
                   messages_.push_back({address, data});
                 }};
};

TEST_F(AhciTest, TellsWhatItIs) {
  EXPECT_EQ(ahci_.config().dword(0x00), 0x2922'8086u);
  EXPECT_EQ(ahci_.config().dword(0x08) >> 8, 0x01'06'01u);
  EXPECT_EQ(get(0x00) & 0x1f, 5u) << "ports, less one";
  EXPECT_EQ(get(0x00) >> 8 & 0x1f, 31u) << "slots, less one";
  EXPECT_TRUE(get(0x00) & 1u << 30) << "queuing";
  EXPECT_TRUE(get(kGhc) & 1u << 31) << "AHCI is all there is";
  EXPECT_EQ(get(0x0c), 0x3fu);
  EXPECT_EQ(get(0x10), 0x0001'0300u);
  // 3.3.8 to 3.3.10
  EXPECT_EQ(get(0, kSig), 0x0000'0101u);
  EXPECT_EQ(get(1, kSig), 0xeb14'0101u);
  EXPECT_EQ(get(2, kSig), 0xffff'ffffu);
  EXPECT_EQ(get(0, kSsts), 0x113u);
  EXPECT_EQ(get(2, kSsts), 0u);
  EXPECT_EQ(get(0, kTfd), 0x0150u);
  EXPECT_EQ(get(2, kTfd), 0x7fu);
}

// Intel 316972, 15.2: index and data
TEST_F(AhciTest, RegistersBehindTheIndexPort) {
  io_.write(kIndexPorts + 0x10, 4, 0x124);
  EXPECT_EQ(io_.read(kIndexPorts + 0x10, 4), 0x124u);
  EXPECT_EQ(io_.read(kIndexPorts + 0x14, 4), 0x0101u);
  io_.write(kIndexPorts + 0x10, 4, kGhc);
  io_.write(kIndexPorts + 0x14, 4, 0);
  EXPECT_EQ(get(kGhc), 1u << 31);
}

// A PIO read has no register FIS at its end (5.6.2, 5.6.5.2).
TEST_F(AhciTest, IdentifyByPio) {
  issue(0, 3, {.code = 0xec}, {{kData, 512}});
  EXPECT_EQ(get(0, kCi), 0u);
  EXPECT_EQ(get(0, kPxIs), kPss);
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(get(kIs), 1u);
  EXPECT_EQ(memory(kFis + 0x20), 0x5f);
  EXPECT_EQ(memory(kFis + 0x21) & 0x60, 0x60) << "to the host, with an interrupt";
  EXPECT_EQ(memory(kFis + 0x2f) & 0x89, 0) << "ending status: not busy, no data, no error";
  EXPECT_EQ(map_.read({kFis + 0x30}, 2), 512u);
  EXPECT_EQ(map_.read({kList + 3 * 32 + 4}, 4), 512u) << "PRDBC";
  const auto word = [this](unsigned i) { return map_.read({kData + 2 * i}, 2); };
  EXPECT_EQ(word(76) & 0x0106, 0x0106u) << "1.5 and 3 Gb/s, queuing";
  EXPECT_EQ(word(75), 31u);
  EXPECT_EQ(word(93), 0u) << "no parallel cable";
  EXPECT_EQ(word(60) | word(61) << 16, 8192u);
  acknowledge(0);
  EXPECT_FALSE(line_.level());
}

TEST_F(AhciTest, DmaReadScatters) {
  issue(0, 0, {.code = 0x25, .lba = 7, .count = 5},
        {{kData, 512}, {kData + 0x1'0002, 1022, true}, {kData + 0x2'0000, 1026}});
  EXPECT_EQ(get(0, kPxIs), kDhrs | kDps);
  EXPECT_EQ(memory(kFis + 0x40), 0x34);
  EXPECT_EQ(memory(kFis + 0x42), 0x50);
  expect_disk(kData, 7 * 512, 512);
  expect_disk(kData + 0x1'0002, 8 * 512, 1022);
  expect_disk(kData + 0x2'0000, 8 * 512 + 1022, 1026);
  EXPECT_EQ(map_.read({kList + 4}, 4), 5 * 512u);
}

TEST_F(AhciTest, DmaWriteGathersMoreThanADriveTakesAtOnce) {
  for (unsigned i = 0; i < 1200 * 512; i++) map_.write({kData + i}, 1, i * 7 + i / 512);
  disk_.holds = true;
  issue(0, 1, {.code = 0x35, .lba = 100, .count = 1200},
        {{kData, 1000 * 512}, {kData + 1000 * 512, 200 * 512}});
  EXPECT_EQ(get(0, kCi), 2u);
  EXPECT_TRUE(get(0, kTfd) & 0x80);
  EXPECT_FALSE(line_.level());
  while (disk_.held()) disk_.release();
  EXPECT_EQ(get(0, kCi), 0u);
  EXPECT_EQ(get(0, kPxIs), kDhrs);
  for (unsigned i = 0; i < 1200 * 512; i++)
    ASSERT_EQ(disk_.at(100 * 512 + i), static_cast<uint8_t>(i * 7 + i / 512)) << i;
}

TEST_F(AhciTest, CommandsOfManySlotsRunOneByOne) {
  disk_.holds = true;
  for (unsigned slot = 0; slot < 4; slot++)
    issue(0, slot, {.code = 0x25, .lba = slot * 10, .count = 1}, {{kData + slot * 512, 512}});
  EXPECT_EQ(disk_.held(), 1u);
  while (disk_.held()) disk_.release();
  EXPECT_EQ(get(0, kCi), 0u);
  for (unsigned slot = 0; slot < 4; slot++) expect_disk(kData + slot * 512, slot * 10 * 512, 512);
}

// Serial ATA 2.6, 13.6
TEST_F(AhciTest, QueuedCommandsRunBesideOneAnother) {
  disk_.holds = true;
  for (unsigned i = 0; i < 1024; i++) map_.write({kData + 0x8000 + i}, 1, 0x5a);
  queue(2, false, 50, 2, {{kData, 1024}});
  queue(9, true, 60, 2, {{kData + 0x8000, 1024}});
  queue(31, false, 70, 1, {{kData + 0x1000, 512}});
  EXPECT_EQ(disk_.held(), 3u);
  EXPECT_EQ(get(0, kCi), 0u) << "the drive has taken them";
  EXPECT_EQ(get(0, kSact), 1u << 2 | 1u << 9 | 1u << 31);
  EXPECT_EQ(get(0, kTfd) & 0x88, 0u);
  EXPECT_FALSE(line_.level());
  disk_.release();
  EXPECT_EQ(get(0, kSact), 0u);
  EXPECT_EQ(get(0, kPxIs), kSdbs);
  EXPECT_EQ(memory(kFis + 0x58), 0xa1);
  EXPECT_EQ(map_.read({kFis + 0x5c}, 4), 1u << 31) << "of the last one";
  expect_disk(kData, 50 * 512, 1024);
  expect_disk(kData + 0x1000, 70 * 512, 512);
  EXPECT_EQ(disk_.at(60 * 512), 0x5a);
  EXPECT_EQ(disk_.at(62 * 512 - 1), 0x5a);
}

TEST_F(AhciTest, OtherCommandsWaitForQueuedOnes) {
  disk_.holds = true;
  queue(0, false, 50, 1, {{kData, 512}});
  issue(0, 1, {.code = 0xea}, {});
  EXPECT_EQ(disk_.held(), 1u);
  EXPECT_EQ(get(0, kCi), 2u);
  disk_.release();
  EXPECT_EQ(get(0, kCi), 0u);
  EXPECT_EQ(disk_.flushes, 1u);
}

TEST_F(AhciTest, ForcedWritesAreFlushed) {
  fill_slot(0, 0, fis_of({.code = 0x61, .lba = 5, .feature = 1, .device = 0xc0}), {{kData, 512}});
  put(0, kSact, 1);
  put(0, kCi, 1);
  EXPECT_EQ(get(0, kSact), 0u);
  EXPECT_EQ(disk_.flushes, 1u);
}

// Serial ATA 2.6, 13.6.4; AHCI 6.2.2.2: the log tells which one it was, and the others are to be asked for
// again.
TEST_F(AhciTest, FailedQueuedCommandStopsThePort) {
  disk_.holds = true;
  queue(4, false, 0x12'34, 3, {{kData, 1536}});
  queue(5, false, 60, 1, {{kData + 0x1000, 512}});
  disk_.next_error = EIO;
  disk_.release();
  EXPECT_EQ(get(0, kPxIs), kSdbs | kTfes);
  EXPECT_EQ(get(0, kTfd) & 0x89, 0x01u);
  EXPECT_EQ(get(0, kSact), 1u << 4 | 1u << 5);
  disk_.holds = false;
  issue(0, 0, {.code = 0x25, .count = 1}, {{kData, 512}});
  EXPECT_EQ(get(0, kCi), 1u) << "nothing runs before the port was stopped";
  put(0, kCmd, kFre);
  EXPECT_EQ(get(0, kSact) | get(0, kCi), 0u);
  acknowledge(0);
  put(0, kCmd, kFre | kStart);
  for (const bool read_before : {false, true}) {
    issue(0, 0, {.code = 0x2f, .lba = 0x10, .count = 1}, {{kData, 512}});
    EXPECT_EQ(get(0, kPxIs) & kTfes, 0u);
    EXPECT_EQ(memory(kData), read_before ? 0x80 : 4) << "ATA8-ACS, annex A.13: not queued, or the tag";
    if (read_before) break;
    EXPECT_EQ(memory(kData + 3), 0x40) << "UNC";
    EXPECT_EQ(memory(kData + 4), 0x34);
    EXPECT_EQ(memory(kData + 5), 0x12);
    uint8_t sum = 0;
    for (unsigned i = 0; i < 512; i++) sum = static_cast<uint8_t>(sum + memory(kData + i));
    EXPECT_EQ(sum, 0);
  }
  queue(5, false, 60, 1, {{kData + 0x1000, 512}});
  expect_disk(kData + 0x1000, 60 * 512, 512);
}

TEST_F(AhciTest, QueuedRangesBeyondTheEndAreRefused) {
  queue(0, false, 8191, 2, {{kData, 1024}});
  EXPECT_EQ(get(0, kPxIs), kSdbs | kTfes);
  EXPECT_EQ(get(0, kTfd) >> 8, 0x10u) << "IDNF";
}

TEST_F(AhciTest, FailedCommandStopsThePort) {
  issue(0, 6, {.code = 0x25, .lba = 8192, .count = 1}, {{kData, 512}});
  EXPECT_EQ(get(0, kPxIs), kDhrs | kTfes);
  EXPECT_EQ(get(0, kTfd), 0x1051u);
  EXPECT_EQ(get(0, kCi), 1u << 6) << "6.2.2.1";
  put(0, kCmd, kFre);
  put(0, kCmd, kFre | kStart);
  issue(0, 0, {.code = 0x25, .count = 1}, {{kData, 512}});
  EXPECT_EQ(get(0, kTfd), 0x0050u);
}

TEST_F(AhciTest, RegionsThatAreTooShort) {
  issue(0, 0, {.code = 0x25, .lba = 1, .count = 2}, {{kData, 512}});
  EXPECT_EQ(get(0, kPxIs), kDhrs | kOfs);
  expect_disk(kData, 512, 512);
  acknowledge(0);
  const uint8_t before = disk_.at(20 * 512);
  issue(0, 0, {.code = 0x35, .lba = 20, .count = 2}, {{kData, 512}});
  EXPECT_EQ(get(0, kPxIs), kOfs);
  EXPECT_EQ(disk_.at(20 * 512), before) << "nothing that the guest did not give is written";
  put(0, kCmd, kFre);
  put(0, kSctl, 1);
  put(0, kSctl, 0);
  EXPECT_EQ(get(0, kTfd), 0x0150u);
}

TEST_F(AhciTest, AddressesThatAreNoMemory) {
  issue(0, 0, {.code = 0x25, .lba = 1, .count = 1}, {{0xfee0'0000, 512}});
  EXPECT_EQ(get(0, kPxIs), kHbfs);
  acknowledge(0);
  put(0, kCmd, kFre);
  put(0, kSctl, 1);
  put(0, kSctl, 0);
  put(0, kClb, 0xffff'fc00);
  put(0, kCmd, kFre | kStart);
  put(0, kCi, 1);
  EXPECT_EQ(get(0, kPxIs) & kHbfs, kHbfs);
}

TEST_F(AhciTest, LinkResetEndsWhatIsUnderWay) {
  disk_.holds = true;
  issue(0, 0, {.code = 0x25, .lba = 1, .count = 1}, {{kData, 512}});
  put(0, kCmd, kFre);
  put(0, kSctl, 0x301);
  EXPECT_EQ(get(0, kSsts), 0u);
  EXPECT_EQ(get(0, kTfd), 0x7fu);
  put(0, kSctl, 0x300);
  EXPECT_EQ(get(0, kSsts), 0x113u);
  EXPECT_EQ(get(0, kSerr), 1u << 26) << "exchanged";
  EXPECT_EQ(get(0, kPxIs), 1u << 6);
  put(0, kSerr, 0xffff'ffff);
  EXPECT_EQ(get(0, kPxIs), 0u);
  disk_.release();
  EXPECT_EQ(memory(kData), 0);
  EXPECT_EQ(get(0, kTfd), 0x0150u);
  EXPECT_EQ(memory(kFis + 0x40), 0x34) << "the signature";
}

// 10.4.1: two control frames, the second one without SRST
TEST_F(AhciTest, SoftwareReset) {
  disk_.holds = true;
  issue(0, 0, {.code = 0x25, .lba = 1, .count = 1}, {{kData, 512}});
  put(0, kCmd, kFre);
  EXPECT_EQ(get(0, kTfd) & 0x80, 0x80u);
  put(0, kCmd, kFre | 8);  // CLO
  EXPECT_EQ(get(0, kTfd) & 0x88, 0u);
  put(0, kCmd, kFre | kStart);
  for (const uint8_t control : {0x04, 0x00}) {
    fill_slot(0, 0, {0x27, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, control}, {});
    put(0, kCi, 1);
    EXPECT_EQ(get(0, kCi), 0u);
  }
  EXPECT_EQ(get(0, kTfd), 0x0150u);
  disk_.release();
  EXPECT_EQ(get(0, kTfd), 0x0150u);
  EXPECT_EQ(get(0, kPxIs), 0u);
}

TEST_F(AhciTest, PacketCommands) {
  packet({0x28, 0, 0, 0, 0, 5, 0, 0, 3}, {{kData, 3 * 2048}});
  EXPECT_EQ(get(1, kPxIs), kDhrs);
  for (unsigned i = 0; i < 3 * 2048; i++) ASSERT_EQ(memory(kData + i), disc_.at(5 * 2048 + i)) << i;
  acknowledge(1);
  packet({0x25}, {{kData, 8}}, false);
  EXPECT_EQ(get(1, kPxIs), kDhrs | kPss);
  EXPECT_EQ(map_.read({kData}, 4), 99u << 24) << "the last sector";
  acknowledge(1);
  packet({0xff}, {});
  EXPECT_EQ(get(1, kPxIs), kDhrs | kTfes);
  EXPECT_EQ(get(1, kTfd), 0x5451u) << "illegal request, aborted";
}

// 10.7.2
TEST_F(AhciTest, MessagesTakeTheLinesPlace) {
  ahci_.config().write(0x84, 4, 0xfee0'1000);
  ahci_.config().write(0x8c, 2, 0x41);
  ahci_.config().write(0x82, 2, 1);
  issue(0, 0, {.code = 0xea}, {});
  ASSERT_EQ(messages_.size(), 1u);
  EXPECT_EQ(messages_[0], (std::pair<uint64_t, uint32_t>{0xfee0'1000, 0x41}));
  EXPECT_FALSE(line_.level());
  issue(0, 0, {.code = 0xec}, {{kData, 512}});
  EXPECT_EQ(messages_.size(), 2u) << "another cause";
  put(kIs, 1);
  EXPECT_EQ(get(kIs), 1u) << "the port's causes are still there";
  EXPECT_EQ(messages_.size(), 3u);
  acknowledge(0);
  EXPECT_EQ(get(kIs), 0u);
  EXPECT_EQ(messages_.size(), 3u);
}

// Delivery mode 4 (SDM vol. 3, 10.11.2) in a message that the function may send.
TEST_F(AhciTest, TheMessageMayBeAnNmi) {
  ahci_.config().write(0x84, 4, 0xfee0'0000);
  ahci_.config().write(0x8c, 2, 0x0400);
  EXPECT_FALSE(ahci_.signals_nmi()) << "MSI is disabled";
  ahci_.config().write(0x82, 2, 1);
  EXPECT_TRUE(ahci_.signals_nmi());
  ahci_.config().write(0x04, 2, 3);
  EXPECT_FALSE(ahci_.signals_nmi()) << "no bus master";
  ahci_.config().write(0x04, 2, 7);
  ahci_.config().write(0x8c, 2, 0x0041);
  EXPECT_FALSE(ahci_.signals_nmi()) << "a fixed vector";
  ahci_.config().write(0x8c, 2, 0x0400);
  ahci_.config().write(0x84, 4, 0x0010'0000);
  EXPECT_FALSE(ahci_.signals_nmi()) << "a write to memory";
}

TEST_F(AhciTest, InterruptsCanBeSwitchedOff) {
  put(kGhc, 0);
  issue(0, 0, {.code = 0xea}, {});
  EXPECT_FALSE(line_.level());
  put(kGhc, 2);
  EXPECT_TRUE(line_.level());
  ahci_.config().write(0x04, 2, 0x407);
  EXPECT_FALSE(line_.level());
}

TEST_F(AhciTest, ControllerReset) {
  issue(0, 0, {.code = 0xea}, {});
  put(kGhc, 1);
  EXPECT_EQ(get(kGhc), 1u << 31);
  EXPECT_EQ(get(kIs), 0u);
  EXPECT_EQ(get(0, kPxIs) | get(0, kPxIe), 0u);
  EXPECT_EQ(get(0, kCmd) & (kStart | kFre), 0u);
  EXPECT_EQ(get(0, kClb), kList);
  EXPECT_EQ(get(0, kSig), 0x0101u);
  EXPECT_FALSE(line_.level());
}

// A guest that queues 32 commands of 32 MiB each would claim 1 GiB.
TEST_F(AhciTest, QueuedCommandsDoNotClaimMemoryWithoutBound) {
  MemoryDisk large(0);
  large.contents.resize(size_t{65'536} * 512);
  large.holds = true;
  AhciIch9 ahci(
      "ahci", map_, io_, [](bool) {}, [](uint64_t, uint32_t) {});
  ahci.attach(0, std::make_unique<AtaDisk>("large", large, AtaDrive::Cable::Serial, "serial"));
  ahci.config().write(0x04, 2, 4);
  for (unsigned slot = 0; slot < 32; slot++)
    fill_slot(0, slot, fis_of({.code = 0x60, .count = static_cast<uint16_t>(slot << 3)}), {{kData, 512}});
  ahci.mmio_write(0x100 + kClb, 4, kList);
  ahci.mmio_write(0x100 + kCmd, 4, kStart);
  ahci.mmio_write(0x100 + kSact, 4, 0xffff'ffff);
  ahci.mmio_write(0x100 + kCi, 4, 0xffff'ffff);
  EXPECT_EQ(large.held(), 2u);
  while (large.held()) large.release();
  EXPECT_EQ(ahci.mmio_read(0x100 + kSact, 4), 0u);
}

}  // namespace
}  // namespace penumbra
