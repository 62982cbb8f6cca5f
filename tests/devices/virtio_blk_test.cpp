// A virtio disk on PCI, as drivers of today and legacy drivers use it. Offsets are those of
// VIRTIO 1.1, 4.1.4.
#include "devices/virtio_blk.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "devices/virtio_pci.h"
#include "tests/devices/chip_fixture.h"
#include "tests/devices/memory_disk.h"

namespace penumbra {
namespace {

constexpr uint64_t kModern = 0xfe00'0000, kMsix = 0xfe10'0000, kDevice = kModern + 0x2000,
                   kNotify = kModern + 0x3000;
constexpr uint16_t kLegacy = 0xc000;
// Descriptor flags
constexpr uint16_t kNext = 1, kWrite = 2, kIndirect = 4;
// Request types and status
constexpr uint32_t kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kDiscard = 11, kWriteZeroes = 13;
constexpr uint8_t kOk = 0, kIoError = 1, kUnsupported = 2, kUntouched = 0x77;

class VirtioBlkTest : public testing::Test {
 protected:
  // The queue, the header, the data and the status in memory.
  static constexpr uint64_t kDescriptors = 0x1000, kAvailable = 0x2000, kUsed = 0x3000, kHeader = 0x4000,
                            kStatus = 0x4800, kData = 0x5000;
  static constexpr uint16_t kEntries = 8;

  VirtioBlkTest() {
    pci_.config().write(0x10, 4, kLegacy);
    pci_.config().write(0x14, 4, kMsix);
    pci_.config().write(0x20, 4, kModern);
    pci_.config().write(0x04, 2, 7);
    for (size_t i = 0; i < disk_.contents.size(); i++)
      disk_.contents[i] = static_cast<std::byte>(i / 512 + i);
  }
  uint64_t get(uint64_t address, unsigned size) { return map_.read({address}, size); }
  void set(uint64_t address, unsigned size, uint64_t value) { map_.write({address}, size, value); }

  uint64_t offered() {
    set(kModern + 0, 4, 0);
    const uint64_t low = get(kModern + 4, 4);
    set(kModern + 0, 4, 1);
    return low | get(kModern + 4, 4) << 32;
  }
  // 3.1.1
  void start(uint64_t features = uint64_t{1} << 32) {
    set(kModern + 20, 1, 0);
    set(kModern + 20, 1, 3);
    for (unsigned half = 0; half < 2; half++) {
      set(kModern + 8, 4, half);
      set(kModern + 12, 4, features >> 32 * half & 0xffff'ffff);
    }
    set(kModern + 20, 1, 11);
    ASSERT_EQ(get(kModern + 20, 1), 11u);
    set(kModern + 22, 2, 0);
    set(kModern + 24, 2, kEntries);
    set(kModern + 32, 8, kDescriptors);
    set(kModern + 40, 4, kAvailable);
    set(kModern + 44, 4, 0);
    set(kModern + 48, 8, kUsed);
    set(kModern + 28, 2, 1);
    set(kModern + 20, 1, 15);
    available_ = 0;
  }
  void descriptor(unsigned index, uint64_t address, uint32_t bytes, uint16_t flags, uint16_t next = 0,
                  uint64_t table = kDescriptors) {
    set(table + 16 * index, 8, address);
    set(table + 16 * index + 8, 4, bytes);
    set(table + 16 * index + 12, 2, flags);
    set(table + 16 * index + 14, 2, next);
  }
  void header(uint32_t type, uint64_t sector) {
    set(kHeader, 4, type);
    set(kHeader + 4, 4, 0);
    set(kHeader + 8, 8, sector);
    set(kStatus, 1, kUntouched);
  }
  void offer(uint16_t head) {
    set(kAvailable + 4 + 2 * (available_ % kEntries), 2, head);
    set(kAvailable + 2, 2, ++available_);
  }
  // Header, data and status as a chain of three; the status that the device gave.
  uint8_t request(uint32_t type, uint64_t sector, uint32_t bytes, bool to_driver) {
    header(type, sector);
    descriptor(0, kHeader, 16, kNext, 1);
    descriptor(1, kData, bytes, static_cast<uint16_t>(kNext | (to_driver ? kWrite : 0)), 2);
    descriptor(2, kStatus, 1, kWrite);
    offer(0);
    set(kNotify, 2, 0);
    return static_cast<uint8_t>(get(kStatus, 1));
  }

  PhysicalMap map_{uint64_t{1} << 20};
  IoBus io_;
  TestLine line_;
  MemoryDisk disk_{64 * 512};
  std::vector<std::pair<uint64_t, uint32_t>> messages_;
  VirtioPci pci_{
      "disk",        std::make_unique<VirtioBlk>(map_, disk_, "serial-number"),
      map_,          io_,
      line_.input(), [this](uint64_t address, uint32_t data) { messages_.emplace_back(address, data); }};
  uint16_t available_ = 0;
};

TEST_F(VirtioBlkTest, Identity) {
  EXPECT_EQ(pci_.config().dword(0), 0x1001'1af4u) << "transitional";
  EXPECT_EQ(pci_.config().word(0x2e), 2u);
  EXPECT_EQ(get(kDevice, 8), 64u) << "sectors";
  EXPECT_TRUE(offered() >> 32 & 1);
}

TEST_F(VirtioBlkTest, ReadsAndInterrupts) {
  start();
  EXPECT_EQ(request(kIn, 3, 1024, true), kOk);
  for (unsigned i = 0; i < 1024; i += 100) EXPECT_EQ(get(kData + i, 1), disk_.at(3 * 512 + i));
  EXPECT_EQ(get(kUsed + 2, 2), 1u);
  EXPECT_EQ(get(kUsed + 4, 4), 0u) << "the chain's head";
  EXPECT_EQ(get(kUsed + 8, 4), 1025u) << "data and status";
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(get(kModern + 0x1000, 1), 1u) << "ISR";
  EXPECT_FALSE(line_.level());
}

TEST_F(VirtioBlkTest, WritesFlushesAndTellsItsName) {
  start();
  for (unsigned i = 0; i < 512; i++) set(kData + i, 1, i * 3);
  EXPECT_EQ(request(kOut, 63, 512, false), kOk);
  EXPECT_EQ(disk_.at(63 * 512 + 5), 15);
  EXPECT_EQ(request(kFlush, 0, 0, true), kOk);
  EXPECT_EQ(disk_.flushes, 1u);
  EXPECT_EQ(request(kGetId, 0, 20, true), kOk);
  EXPECT_EQ(get(kData, 8), 0x6e2d'6c61'6972'6573u);  // "serial-n"
}

TEST_F(VirtioBlkTest, WhatCannotBeDoneIsSaid) {
  start();
  EXPECT_EQ(request(kIn, 64, 512, true), kIoError) << "beyond the end";
  EXPECT_EQ(request(kIn, ~uint64_t{0}, 512, true), kIoError);
  EXPECT_EQ(request(kIn, 0, 100, true), kIoError) << "no whole sector";
  EXPECT_EQ(request(99, 0, 512, true), kUnsupported);
  EXPECT_EQ(request(kDiscard, 0, 16, false), kUnsupported) << "the medium frees nothing";
  disk_.next_error = 5;
  EXPECT_EQ(request(kIn, 0, 512, true), kIoError);
  disk_.is_read_only = true;
  EXPECT_TRUE(offered() >> 5 & 1);
  EXPECT_EQ(request(kOut, 0, 512, false), kIoError);
}

TEST_F(VirtioBlkTest, ZeroesAndDiscards) {
  disk_.can_discard = true;
  start();
  set(kData, 8, 4);
  set(kData + 8, 4, 2);
  set(kData + 12, 4, 1);
  EXPECT_EQ(request(kWriteZeroes, 0, 16, false), kOk);
  EXPECT_EQ(disk_.at(4 * 512 + 9), 0);
  EXPECT_NE(disk_.at(6 * 512 + 9), 0);
  set(kData + 12, 4, 0);
  EXPECT_EQ(request(kDiscard, 0, 16, false), kOk);
  EXPECT_EQ(disk_.discards_seen, 1u);
}

// 5.2.4: exponent of the physical block, least and best request in logical blocks; 5.2.6.1: whole logical
// blocks.
TEST_F(VirtioBlkTest, BlockSizes) {
  EXPECT_EQ(get(kDevice + 20, 4), 512u);
  EXPECT_EQ(get(kDevice + 24, 1), 0u);
  pci_.config().write(0x04, 2, 0);
  disk_.can_discard = true;
  VirtioPci other("other",
                  std::make_unique<VirtioBlk>(map_, disk_, "serial-number",
                                              BlockSizes{.logical = 1024,
                                                         .physical = 4096,
                                                         .least_request = 8192,
                                                         .best_request = 65536,
                                                         .discard = 16384}),
                  map_, io_, line_.input(), [](uint64_t, uint32_t) {});
  other.config().write(0x20, 4, kModern);
  other.config().write(0x04, 2, 7);
  EXPECT_EQ(get(kDevice, 8), 64u) << "512-byte sectors as ever";
  EXPECT_EQ(get(kDevice + 20, 4), 1024u);
  EXPECT_EQ(get(kDevice + 24, 1), 2u);
  EXPECT_EQ(get(kDevice + 26, 2), 8u);
  EXPECT_EQ(get(kDevice + 28, 4), 64u);
  EXPECT_EQ(get(kDevice + 44, 4), 32u) << "sectors";
  start();
  EXPECT_EQ(request(kIn, 2, 1024, true), kOk);
  EXPECT_EQ(request(kIn, 2, 512, true), kIoError);
  EXPECT_EQ(request(kOut, 3, 1024, false), kIoError);
}

// 2.6.5.3
TEST_F(VirtioBlkTest, IndirectDescriptors) {
  constexpr uint64_t kTable = 0x8000;
  start();
  header(kIn, 1);
  descriptor(0, kHeader, 16, kNext, 1, kTable);
  descriptor(1, kData, 512, kNext | kWrite, 2, kTable);
  descriptor(2, kStatus, 1, kWrite, 0, kTable);
  descriptor(5, kTable, 48, kIndirect);
  offer(5);
  set(kNotify, 2, 0);
  EXPECT_EQ(get(kStatus, 1), kOk);
  EXPECT_EQ(get(kUsed + 4, 4), 5u);
  EXPECT_EQ(get(kData + 7, 1), disk_.at(512 + 7));
}

TEST_F(VirtioBlkTest, RequestsEndLaterAndPassAReset) {
  disk_.holds = true;
  start();
  EXPECT_EQ(request(kIn, 0, 512, true), kUntouched);
  disk_.release();
  EXPECT_EQ(get(kStatus, 1), kOk);
  EXPECT_EQ(request(kIn, 0, 512, true), kUntouched);
  set(kModern + 20, 1, 0);
  disk_.release();
  EXPECT_EQ(get(kStatus, 1), kUntouched) << "the memory may be somebody else's by now";
  disk_.holds = false;
  start();
  EXPECT_EQ(request(kIn, 0, 512, true), kOk);
}

// A driver that breaks the rules is stopped, not followed (2.1.2, DEVICE_NEEDS_RESET).
TEST_F(VirtioBlkTest, BrokenQueues) {
  const auto breaks = [this](auto prepare) {
    start();
    prepare();
    set(kNotify, 2, 0);
    EXPECT_TRUE(get(kModern + 20, 1) & 64);
    EXPECT_EQ(request(kIn, 0, 512, true), kUntouched) << "until a reset";
  };
  breaks([this] {  // a loop
    descriptor(0, kHeader, 16, kNext, 1);
    descriptor(1, kData, 512, kNext, 0);
    offer(0);
  });
  breaks([this] { offer(kEntries); });
  breaks([this] { set(kAvailable + 2, 2, kEntries + 1); });
  breaks([this] {  // a table outside memory
    descriptor(0, uint64_t{1} << 40, 48, kIndirect);
    offer(0);
  });
  breaks([this] {  // to be read behind to be written
    descriptor(0, kStatus, 1, kNext | kWrite, 1);
    descriptor(1, kHeader, 16, 0);
    offer(0);
  });
}

TEST_F(VirtioBlkTest, BuffersOutsideMemoryAreHarmless) {
  start();
  header(kIn, 0);
  descriptor(0, kHeader, 16, kNext, 1);
  descriptor(1, ~uint64_t{0} - 100, 512, kNext | kWrite, 2);
  descriptor(2, kStatus, 1, kWrite);
  offer(0);
  set(kNotify, 2, 0);
  EXPECT_EQ(get(kUsed + 2, 2), 1u);
}

TEST_F(VirtioBlkTest, MsixMessages) {
  const uint8_t capability = 0x98;
  start();
  set(kMsix + 16, 4, 0xfee0'1000);
  set(kMsix + 24, 4, 0x4123);
  set(kMsix + 28, 4, 0);  // unmasked
  pci_.config().write(capability + 2, 2, 0x8000);
  set(kModern + 22, 2, 0);
  set(kModern + 26, 2, 1);
  EXPECT_EQ(get(kModern + 26, 2), 1u);
  EXPECT_EQ(request(kIn, 0, 512, true), kOk);
  ASSERT_EQ(messages_.size(), 1u);
  EXPECT_EQ(messages_[0], (std::pair<uint64_t, uint32_t>{0xfee0'1000, 0x4123}));
  EXPECT_FALSE(line_.level());
  set(kMsix + 28, 4, 1);
  EXPECT_EQ(request(kIn, 0, 512, true), kOk);
  EXPECT_EQ(messages_.size(), 1u);
  EXPECT_EQ(get(kMsix + 0x800, 4), 2u) << "pending";
  set(kMsix + 28, 4, 0);
  EXPECT_EQ(messages_.size(), 2u);
  set(kModern + 26, 2, 7);
  EXPECT_EQ(get(kModern + 26, 2), 0xffffu) << "there are two";
}

// Delivery mode 4 (SDM vol. 3, 10.11.2) in a message that the function may send.
TEST_F(VirtioBlkTest, MessagesMayBeNmis) {
  start();
  set(kMsix + 16, 4, 0xfee0'0000);
  set(kMsix + 24, 4, 0x0400);
  set(kMsix + 28, 4, 0);
  EXPECT_FALSE(pci_.signals_nmi()) << "MSI-X is disabled";
  pci_.config().write(0x98 + 2, 2, 0x8000);
  EXPECT_TRUE(pci_.signals_nmi());
  set(kMsix + 28, 4, 1);
  EXPECT_FALSE(pci_.signals_nmi()) << "masked";
  set(kMsix + 28, 4, 0);
  set(kMsix + 24, 4, 0x0041);
  EXPECT_FALSE(pci_.signals_nmi()) << "a fixed vector";
}

// 2.6.7.2: used_event in place of the flag.
TEST_F(VirtioBlkTest, EventIndexHoldsInterruptsBack) {
  start(uint64_t{1} << 32 | 1u << 29);
  set(kAvailable + 4 + 2 * kEntries, 2, 1);  // after the second
  EXPECT_EQ(request(kIn, 0, 512, true), kOk);
  EXPECT_FALSE(line_.level());
  EXPECT_EQ(request(kIn, 0, 512, true), kOk);
  EXPECT_TRUE(line_.level());
}

// 4.1.4.8: one page-aligned allocation with the used ring on a page of its own; 256 entries, always.
TEST_F(VirtioBlkTest, ABufferBeforeTheDriverIsReadyDoesNotSilenceIt) {
  constexpr uint64_t kEventIndex = uint64_t{1} << 29;
  set(kModern + 20, 1, 3);
  set(kModern + 8, 4, 0);
  set(kModern + 12, 4, kEventIndex);
  set(kModern + 8, 4, 1);
  set(kModern + 12, 4, 1);
  set(kModern + 20, 1, 11);
  set(kModern + 22, 2, 0);
  set(kModern + 24, 2, kEntries);
  set(kModern + 32, 8, kDescriptors);
  set(kModern + 40, 8, kAvailable);
  set(kModern + 48, 8, kUsed);
  set(kModern + 28, 2, 1);
  EXPECT_EQ(request(kIn, 0, 512, true), kOk);
  EXPECT_EQ(get(kUsed + 4 + 8 * kEntries, 2), 1u) << "avail_event: it is to tell of the next one";
}

TEST_F(VirtioBlkTest, LegacyDriver) {
  constexpr uint64_t kQueue = 0x2'0000, kLegacyAvailable = kQueue + 256 * 16, kLegacyUsed = kQueue + 0x2000;
  io_.write(kLegacy + 18, 1, 3);
  EXPECT_EQ(io_.read(kLegacy + 12, 2), 256u);
  io_.write(kLegacy + 14, 2, 0);
  io_.write(kLegacy + 8, 4, kQueue >> 12);
  io_.write(kLegacy + 18, 1, 7);
  EXPECT_EQ(io_.read(kLegacy + 20, 4), 64u) << "capacity";
  header(kIn, 2);
  descriptor(0, kHeader, 16, kNext, 1, kQueue);
  descriptor(1, kData, 512, kNext | kWrite, 2, kQueue);
  descriptor(2, kStatus, 1, kWrite, 0, kQueue);
  set(kLegacyAvailable + 4, 2, 0);
  set(kLegacyAvailable + 2, 2, 1);
  io_.write(kLegacy + 16, 2, 0);
  EXPECT_EQ(get(kStatus, 1), kOk);
  EXPECT_EQ(get(kLegacyUsed + 2, 2), 1u);
  EXPECT_EQ(get(kData + 3, 1), disk_.at(2 * 512 + 3));
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(io_.read(kLegacy + 19, 1), 1u);
  EXPECT_FALSE(line_.level());
}

TEST_F(VirtioBlkTest, NoMasterNoRequests) {
  start();
  pci_.config().write(0x04, 2, 3);
  EXPECT_EQ(request(kIn, 0, 512, true), kUntouched);
}

TEST_F(VirtioBlkTest, SavedDeviceGoesOn) {
  start();
  EXPECT_EQ(request(kIn, 0, 512, true), kOk);
  const DeviceState saved = pci_.save();
  set(kModern + 20, 1, 0);
  pci_.load(saved);
  EXPECT_EQ(pci_.save(), saved);
  EXPECT_EQ(request(kIn, 1, 512, true), kOk);
  EXPECT_EQ(get(kUsed + 2, 2), 2u);
}

TEST_F(VirtioBlkTest, AnyAccessIsHarmless) {
  std::mt19937 random(1);
  start();
  for (unsigned i = 0; i < 200'000; i++) {
    const uint32_t dice = random();
    const unsigned size = 1u << dice % 4;
    const uint64_t offset = random() % 0x4000 & ~uint64_t{size - 1},
                   value = dice >> 8 & 1 ? random() : random() % 16;
    switch (dice >> 4 & 7) {
      case 0:
        set(kModern + offset, size, value);
        break;
      case 1:
        get(kModern + offset, size);
        break;
      case 2:
        set(kMsix + offset % 0x1000, size, value);
        break;
      case 3:
        io_.write(static_cast<uint16_t>(kLegacy + offset % 64), 1u << dice % 3, static_cast<uint32_t>(value));
        break;
      case 4:
        set(kDescriptors + offset % 0x80, size, value);
        break;
      case 5:
        offer(static_cast<uint16_t>(value));
        break;
      case 6:
        set(kNotify, 2, 0);
        break;
      default:
        if (random() % 64 == 0) start();
        break;
    }
  }
}

}  // namespace
}  // namespace penumbra
