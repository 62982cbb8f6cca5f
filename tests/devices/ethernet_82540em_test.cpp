// The 82540EM as a driver sees it. Expected values are those of the 8254x manual (317453); its sections are
// named.
#include "devices/ethernet_82540em.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/devices/chip_fixture.h"
#include "tests/devices/memory_network.h"

namespace penumbra {
namespace {

using Frame = MemoryNetwork::Frame;

constexpr uint64_t kBase = 0xfe00'0000, kTxRing = 0x1'0000, kRxRing = 0x2'0000, kData = 0x4'0000,
                   kBuffers = 0x8'0000;
constexpr unsigned kRingSize = 16;
constexpr uint64_t kBufferBytes = 2048;
constexpr uint16_t kPort = 0xc000;

constexpr uint32_t kCtrl = 0x0, kStatus = 0x8, kEecd = 0x10, kEerd = 0x14, kMdic = 0x20, kIcr = 0xc0,
                   kItr = 0xc4, kIcs = 0xc8, kIms = 0xd0, kImc = 0xd8, kRctl = 0x100, kTctl = 0x400,
                   kRdbal = 0x2800, kRdlen = 0x2808, kRdh = 0x2810, kRdt = 0x2818, kTdbal = 0x3800,
                   kTdlen = 0x3808, kTdh = 0x3810, kTdt = 0x3818, kRxcsum = 0x5000, kMta = 0x5200,
                   kRal = 0x5400, kRah = 0x5404, kVfta = 0x5600;
constexpr uint32_t kTxdw = 1, kTxqe = 2, kLsc = 4, kRxdmt0 = 0x10, kRxt0 = 0x80;
constexpr uint64_t kEop = 1 << 24, kRs = 1 << 27, kExtended = 1 << 29, kTse = 1 << 26, kVle = 1 << 30,
                   kData1 = 1 << 20;

class EthernetTest : public testing::Test {
 protected:
  EthernetTest() { start(); }

  // As a driver does: decoders on, rings, everything on.
  void start() {
    chip_.config().write(0x10, 4, static_cast<uint32_t>(kBase));
    chip_.config().write(0x14, 4, kPort);
    chip_.config().write(0x04, 2, 7);
    write(kTdbal, kTxRing);
    write(kTdlen, kRingSize * 16);
    write(kTctl, 0x0000'000a);  // EN, PSP
    write(kRdbal, kRxRing);
    write(kRdlen, kRingSize * 16);
    for (unsigned i = 0; i < kRingSize; i++) {
      map_.write({kRxRing + i * 16}, 8, kBuffers + i * kBufferBytes);
      map_.write({kRxRing + i * 16 + 8}, 8, 0);
    }
    write(kRdt, kRingSize - 1);
    write(kRctl, 0x0400'8002);  // EN, BAM, SECRC
  }

  uint32_t read(uint32_t offset) { return static_cast<uint32_t>(map_.read({kBase + offset}, 4)); }
  void write(uint32_t offset, uint64_t value) {
    map_.write({kBase + offset}, 4, static_cast<uint32_t>(value));
  }

  // A descriptor at the tail, not yet given to the chip.
  void queue(uint64_t first, uint64_t second) {
    map_.write({kTxRing + tail_ * 16}, 8, first);
    map_.write({kTxRing + tail_ * 16 + 8}, 8, second);
    tail_ = (tail_ + 1) % kRingSize;
  }
  void go() { write(kTdt, tail_); }
  void put(uint64_t address, const Frame& bytes) { map_.write_bytes({address}, bytes); }
  uint64_t descriptor_status(uint64_t ring, unsigned index) { return map_.read({ring + index * 16 + 8}, 8); }

  static Frame frame(size_t bytes,
                     std::initializer_list<unsigned> destination = {0x52, 0x54, 0, 0x12, 0x34, 0x56}) {
    Frame result(bytes);
    for (size_t i = 0; i < bytes; i++) result[i] = static_cast<std::byte>(i * 7 + bytes);
    std::ranges::transform(destination, result.begin(),
                           [](unsigned byte) { return static_cast<std::byte>(byte); });
    result[12] = std::byte{0x88};  // an experimental type
    result[13] = std::byte{0xb5};
    return result;
  }
  Frame received(unsigned index) {
    Frame result(map_.read({kRxRing + index * 16 + 8}, 2));
    map_.read_bytes({map_.read({kRxRing + index * 16}, 8)}, result);
    return result;
  }
  uint8_t status(unsigned index) { return static_cast<uint8_t>(map_.read({kRxRing + index * 16 + 12}, 1)); }
  uint8_t errors(unsigned index) { return static_cast<uint8_t>(map_.read({kRxRing + index * 16 + 13}, 1)); }

  // RFC 1071: what sums to ffff with its checksum in place.
  static uint16_t sum(std::span<const std::byte> bytes, uint32_t start = 0) {
    uint64_t total = start;
    for (size_t i = 0; i < bytes.size(); i++) total += static_cast<uint64_t>(bytes[i]) << (i % 2 ? 0 : 8);
    while (total >> 16) total = (total & 0xffff) + (total >> 16);
    return static_cast<uint16_t>(total);
  }
  static void set16(Frame& bytes, size_t offset, unsigned value) {
    bytes[offset] = static_cast<std::byte>(value >> 8);
    bytes[offset + 1] = static_cast<std::byte>(value);
  }
  static unsigned get16(const Frame& bytes, size_t offset) {
    return static_cast<unsigned>(bytes[offset]) << 8 | static_cast<unsigned>(bytes[offset + 1]);
  }
  static uint32_t get32(const Frame& bytes, size_t offset) {
    return get16(bytes, offset) << 16 | get16(bytes, offset + 2);
  }
  static std::span<const std::byte> part(const Frame& bytes, size_t from, size_t to = SIZE_MAX) {
    return std::span(bytes).subspan(from, std::min(to, bytes.size()) - from);
  }

  // IPv4 and TCP (or UDP) headers of 20 bytes (or 8) before `payload` bytes, checksums zero.
  static Frame packet(size_t payload, bool udp = false) {
    const size_t header = udp ? 42 : 54;
    Frame result = frame(header + payload);
    set16(result, 12, 0x0800);
    for (size_t i = 14; i < header; i++) result[i] = std::byte{0};
    result[14] = std::byte{0x45};
    set16(result, 16, static_cast<unsigned>(result.size() - 14));
    set16(result, 18, 0x1234);
    result[22] = std::byte{64};
    result[23] = std::byte{udp ? uint8_t{17} : uint8_t{6}};
    set16(result, 26, 0x0a00);
    set16(result, 28, 0x020f);
    set16(result, 30, 0x0a00);
    set16(result, 32, 0x0202);
    if (udp) {
      set16(result, 38, static_cast<unsigned>(8 + payload));
    } else {
      set16(result, 38, 0xffff);  // sequence number: wraps soon
      set16(result, 40, 0xfff0);
      result[46] = std::byte{0x50};
      result[47] = std::byte{0x19};  // ACK, PSH, FIN
    }
    return result;
  }
  static uint32_t pseudo(const Frame& frame, size_t length) {
    return sum(part(frame, 26, 34)) + static_cast<uint32_t>(frame[23]) + static_cast<uint32_t>(length);
  }
  // With both checksums.
  static Frame with_checksums(Frame result) {
    const size_t at = result[23] == std::byte{17} ? 40 : 50;
    set16(result, 24, sum(part(result, 14, 34)) ^ 0xffff);
    set16(result, at, sum(part(result, 34), pseudo(result, result.size() - 34)) ^ 0xffff);
    return result;
  }

  TestClock time_;
  IoBus io_;
  PhysicalMap map_{uint64_t{4} << 20};
  TestLine line_;
  MemoryNetwork network_;
  Ethernet82540em chip_{
      "ethernet", map_, io_, time_.clock(), line_.input(), network_, {0x52, 0x54, 0, 0x12, 0x34, 0x56}};
  unsigned tail_ = 0;
};

// --- Identity, EEPROM (5), PHY

TEST_F(EthernetTest, Identity) {
  EXPECT_EQ(chip_.config().read(0, 4), 0x100e'8086u);
  EXPECT_EQ(chip_.config().read(0x08, 4) >> 8, 0x02'00'00u);
  EXPECT_EQ(chip_.config().byte(0x3d), 1) << "INTA#";
  EXPECT_EQ(read(kStatus) & 0xc3, 0x83u) << "full duplex, link, 1000 Mb/s";
}

// 5.6.1: the words sum to BABAh. 13.4.4: the address is in bits 8 on, done is bit 4.
TEST_F(EthernetTest, EepromHoldsAddressAndChecksum) {
  uint16_t total = 0;
  std::vector<uint16_t> words;
  for (unsigned i = 0; i < 64; i++) {
    write(kEerd, i << 8 | 1);
    const uint32_t value = read(kEerd);
    EXPECT_TRUE(value & 0x10);
    words.push_back(static_cast<uint16_t>(value >> 16));
    total = static_cast<uint16_t>(total + words.back());
  }
  EXPECT_EQ(total, 0xbaba);
  EXPECT_EQ(words[0], 0x5452);
  EXPECT_EQ(words[1], 0x1200);
  EXPECT_EQ(words[2], 0x5634);
  EXPECT_EQ(read(kRal), 0x1200'5452u);
  EXPECT_EQ(read(kRah), 0x8000'5634u);
}

// 5.3.2 and 13.4.3: SK, CS, DI, DO are bits 0 to 3; a start bit, 10b, six bits of address; then a zero and
// the word.
TEST_F(EthernetTest, EepromIsReadBitByBit) {
  write(kEecd, 0x40);
  EXPECT_TRUE(read(kEecd) & 0x80) << "granted";
  const auto clock = [this](bool in) {
    const uint32_t lines = 0x42 | (in ? 4 : 0);
    write(kEecd, lines);
    write(kEecd, lines | 1);
    write(kEecd, lines);
    return (read(kEecd) & 8) != 0;
  };
  const auto command = [&](unsigned address) {
    write(kEecd, 0x40);
    bool out = true;
    for (int i = 8; i >= 0; i--) out = clock((0x180 | address) >> i & 1);
    EXPECT_FALSE(out) << "the zero before the data";
  };
  const auto word = [&] {
    unsigned value = 0;
    for (unsigned i = 0; i < 16; i++) value = value << 1 | clock(false);
    return value;
  };
  command(0);
  EXPECT_EQ(word(), 0x5452u);
  EXPECT_EQ(word(), 0x1200u) << "the next word follows";
  command(0x0d);
  EXPECT_EQ(word(), 0x100eu);
}

// 13.4.7
TEST_F(EthernetTest, PhyAnswersAtAddress1) {
  const auto phy = [this](unsigned number, unsigned address = 1) {
    write(kMdic, 2u << 26 | address << 21 | number << 16);
    return read(kMdic);
  };
  EXPECT_EQ(phy(2) & 0x1000'ffff, 0x1000'0141u) << "ready, Marvell";
  EXPECT_EQ(phy(3) & 0xffff, 0x0c20u);
  EXPECT_EQ(phy(1) & 0x24, 0x24u) << "link, negotiated";
  EXPECT_TRUE(phy(2, 2) & 0x4000'0000) << "error";
}

TEST_F(EthernetTest, NegotiationTellsOfTheLink) {
  write(kIms, kLsc);
  write(kMdic, 1u << 26 | 1u << 21 | 0x1340);  // control register: negotiate, restart
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(read(kIcr), kLsc);
  write(kMdic, 1u << 26 | 1u << 21 | 0x1940);  // power down
  EXPECT_EQ(read(kStatus) & 2, 0u);
  network_.deliver(frame(100));
  EXPECT_EQ(read(kRdh), 0u);
}

// --- Interrupts (13.4.17 to 13.4.21)

TEST_F(EthernetTest, CausesWaitForTheirMask) {
  write(kIcs, kTxdw | kRxt0);
  EXPECT_FALSE(line_.level());
  write(kIms, kRxt0);
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(read(kIms), kRxt0);
  EXPECT_EQ(read(kIcr), kTxdw | kRxt0);
  EXPECT_FALSE(line_.level());
  EXPECT_EQ(read(kIcr), 0u) << "cleared by being read";
  write(kIcs, kRxt0);
  write(kImc, kRxt0);
  EXPECT_FALSE(line_.level());
}

// 13.4.18: units of 256 ns between interrupts.
TEST_F(EthernetTest, ThrottledInterruptsComeLater) {
  write(kItr, 100);
  write(kIms, kRxt0);
  write(kIcs, kRxt0);
  EXPECT_TRUE(line_.level()) << "the first one at once";
  read(kIcr);
  write(kIcs, kRxt0);
  time_.advance(25'599);
  EXPECT_FALSE(line_.level());
  time_.advance(1);
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(line_.rising_edges(), 2u);
  time_.advance(1'000'000);
  EXPECT_EQ(line_.rising_edges(), 2u);
}

// --- Transmission (3.3)

TEST_F(EthernetTest, LegacyDescriptorSendsAFrame) {
  write(kIms, kTxdw);
  const Frame sent = frame(100);
  put(kData, sent);
  queue(kData, 100 | kEop | kRs);
  go();
  ASSERT_EQ(network_.sent.size(), 1u);
  EXPECT_EQ(network_.sent[0], sent);
  EXPECT_EQ(descriptor_status(kTxRing, 0) >> 32, 1u) << "done";
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(read(kIcr), kTxdw | kTxqe);
  EXPECT_EQ(read(kTdh), 1u);
}

TEST_F(EthernetTest, FrameOfSeveralDescriptorsAroundTheRingsEnd) {
  write(kTdh, kRingSize - 2);
  tail_ = kRingSize - 2;
  const Frame sent = frame(900);
  put(kData, sent);
  queue(kData, 300);
  queue(kData + 300, 300);
  queue(kData + 600, 300 | kEop);
  go();
  ASSERT_EQ(network_.sent.size(), 1u);
  EXPECT_EQ(network_.sent[0], sent);
  EXPECT_EQ(read(kTdh), 1u);
  EXPECT_EQ(descriptor_status(kTxRing, 0) >> 32, 0u) << "nobody asked for a status";
}

TEST_F(EthernetTest, ShortFramesArePadded) {
  put(kData, frame(20));
  queue(kData, 20 | kEop);
  go();
  ASSERT_EQ(network_.sent.size(), 1u);
  EXPECT_EQ(network_.sent[0].size(), 60u);
  EXPECT_EQ(network_.sent[0][20], std::byte{0});
  write(kTctl, 2);  // without PSP
  queue(kData, 20 | kEop);
  go();
  EXPECT_EQ(network_.sent[1].size(), 20u);
}

TEST_F(EthernetTest, NothingIsSentBeforeItIsEnabled) {
  write(kTctl, 0);
  put(kData, frame(100));
  queue(kData, 100 | kEop);
  go();
  EXPECT_EQ(network_.sent.size(), 0u);
  write(kTctl, 2);
  EXPECT_EQ(network_.sent.size(), 1u);
}

TEST_F(EthernetTest, WithoutBusMasteringNothingMoves) {
  chip_.config().write(0x04, 2, 3);
  put(kData, frame(100));
  queue(kData, 100 | kEop | kRs);
  go();
  EXPECT_EQ(network_.sent.size(), 0u);
  EXPECT_EQ(read(kTdh), 0u);
  network_.deliver(frame(100));
  EXPECT_EQ(read(kRdh), 0u);
  EXPECT_EQ(read(kIcr), 0u);
}

// 3.3.3: CSS and CSO
TEST_F(EthernetTest, LegacyDescriptorInsertsAChecksum) {
  Frame sent = packet(100);
  set16(sent, 50, pseudo(sent, 120) % 0xffff);
  put(kData, sent);
  queue(kData, sent.size() | kEop | 1 << 26 | 50 << 16 | uint64_t{34} << 40);
  go();
  ASSERT_EQ(network_.sent.size(), 1u);
  EXPECT_EQ(sum(part(network_.sent[0], 34), pseudo(sent, 120)), 0xffff);
}

// 3.3.6, 3.6
TEST_F(EthernetTest, ContextInsertsIpAndTcpChecksums) {
  Frame sent = packet(100);
  set16(sent, 50, pseudo(sent, 120) % 0xffff);
  put(kData, sent);
  const uint64_t context = 14 | 24 << 8 | 33 << 16 | uint64_t{34} << 32 | uint64_t{50} << 40;
  queue(context, kExtended | 3 << 24);
  queue(kData, sent.size() | kData1 | kExtended | kEop | kRs | uint64_t{3} << 40);
  go();
  ASSERT_EQ(network_.sent.size(), 1u);
  EXPECT_EQ(sum(part(network_.sent[0], 14, 34)), 0xffff);
  EXPECT_EQ(sum(part(network_.sent[0], 34), pseudo(sent, 120)), 0xffff);
  EXPECT_EQ(descriptor_status(kTxRing, 0) >> 32 & 1, 0u);
  EXPECT_EQ(descriptor_status(kTxRing, 1) >> 32 & 1, 1u);
}

// RFC 768: a UDP checksum that is zero is sent as ones.
TEST_F(EthernetTest, UdpChecksumIsNeverZero) {
  Frame sent = packet(2, true);
  set16(sent, 42, 0);
  const uint32_t rest = sum(part(sent, 34), pseudo(sent, 10));
  set16(sent, 42, 0xffff - rest);
  set16(sent, 40, pseudo(sent, 10) % 0xffff);
  put(kData, sent);
  queue(uint64_t{34} << 32 | uint64_t{40} << 40, kExtended);
  queue(kData, sent.size() | kData1 | kExtended | kEop | uint64_t{2} << 40);
  go();
  ASSERT_EQ(network_.sent.size(), 1u);
  EXPECT_EQ(get16(network_.sent[0], 40), 0xffffu);
}

// 3.5: numbers, lengths and checksums of each segment; PSH and FIN are the last one's.
TEST_F(EthernetTest, TcpSegmentation) {
  Frame whole = packet(2500);
  set16(whole, 16, 0);
  set16(whole, 50, pseudo(whole, 0) % 0xffff);  // without the length
  put(kData, whole);
  const uint64_t context = 14 | 24 << 8 | 33 << 16 | uint64_t{34} << 32 | uint64_t{50} << 40;
  queue(context, 2500 | kExtended | kTse | 3 << 24 | uint64_t{54} << 40 | uint64_t{1000} << 48);
  const uint64_t data = kData1 | kExtended | kTse | uint64_t{3} << 40;
  queue(kData, 30 | data);  // pieces that fit neither header nor segments
  queue(kData + 30, 700 | data);
  queue(kData + 730, (whole.size() - 730) | data | kEop | kRs);
  go();
  ASSERT_EQ(network_.sent.size(), 3u);
  for (unsigned i = 0; i < 3; i++) {
    const Frame& segment = network_.sent[i];
    const size_t payload = i < 2 ? 1000 : 500;
    ASSERT_EQ(segment.size(), 54 + payload);
    EXPECT_EQ(get16(segment, 16), 40 + payload);
    EXPECT_EQ(get16(segment, 18), 0x1234 + i);
    EXPECT_EQ(get32(segment, 38), 0xffff'fff0u + 1000 * i);
    EXPECT_EQ(static_cast<unsigned>(segment[47]), i < 2 ? 0x10u : 0x19u);
    EXPECT_EQ(sum(part(segment, 14, 34)), 0xffff);
    EXPECT_EQ(sum(part(segment, 34), pseudo(segment, 20 + payload)), 0xffff);
    for (size_t at = 54; at < segment.size(); at++) ASSERT_EQ(segment[at], whole[at + 1000 * i]);
  }
  EXPECT_EQ(read(0x40f8), 1u) << "TSCTC";
}

// A driver may give another context in the middle of a packet; what was saved then was refused.
TEST_F(EthernetTest, PacketWithAContextInItsMiddleIsSavedAndLoaded) {
  const uint64_t data = kData1 | kExtended | kTse;
  queue(0, 2500 | kExtended | kTse | uint64_t{54} << 40 | uint64_t{1000} << 48);
  queue(kData, 700 | data);
  queue(0, 2500 | kExtended | kTse | uint64_t{54} << 40 | uint64_t{100} << 48);
  go();
  const DeviceState saved = chip_.save();
  chip_.load(saved);
  EXPECT_EQ(chip_.save(), saved);
}

// 9.2
TEST_F(EthernetTest, VlanTagIsInserted) {
  write(kCtrl, read(kCtrl) | 1u << 30);
  const Frame sent = frame(100);
  put(kData, sent);
  queue(kData, 100 | kEop | kVle | uint64_t{0x2abc} << 48);
  go();
  ASSERT_EQ(network_.sent.size(), 1u);
  ASSERT_EQ(network_.sent[0].size(), 104u);
  EXPECT_EQ(get32(network_.sent[0], 12), 0x8100'2abcu);
  EXPECT_EQ(get16(network_.sent[0], 16), get16(sent, 12));
}

// --- Reception (3.2)

TEST_F(EthernetTest, FrameReachesItsBuffer) {
  write(kIms, kRxt0);
  const Frame sent = frame(100);
  network_.deliver(sent);
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(read(kIcr), kRxt0);
  EXPECT_EQ(read(kRdh), 1u);
  EXPECT_EQ(status(0), 0x07) << "done, end of packet, no checksums looked at";
  EXPECT_EQ(received(0), sent);
}

// IEEE 802.3, 3.2.9: without SECRC the frame check sequence follows, and short frames are padded.
TEST_F(EthernetTest, FrameCheckSequenceFollows) {
  write(kRctl, 0x8002);
  Frame sent = frame(42);
  network_.deliver(sent);
  const Frame got = received(0);
  ASSERT_EQ(got.size(), 64u);
  uint32_t crc = ~0u;
  for (size_t i = 0; i < 60; i++) {
    crc ^= static_cast<uint32_t>(got[i]);
    for (unsigned bit_number = 0; bit_number < 8; bit_number++) crc = crc >> 1 ^ (crc & 1 ? 0xedb8'8320u : 0);
  }
  uint32_t fcs;
  std::memcpy(&fcs, got.data() + 60, 4);
  EXPECT_EQ(fcs, ~crc);
  sent.resize(60);
  EXPECT_EQ(Frame(got.begin(), got.begin() + 60), sent);
}

// 13.5: exact addresses, groups by hash, everything
TEST_F(EthernetTest, Filters) {
  const Frame other = frame(100, {0x52, 0x54, 0, 0x12, 0x34, 0x57}),
              all = frame(100, {255, 255, 255, 255, 255, 255}),
              group = frame(100, {1, 0, 0x5e, 0, 0x12, 0x34});
  network_.deliver(other);
  network_.deliver(group);
  EXPECT_EQ(read(kRdh), 0u);
  network_.deliver(all);
  EXPECT_EQ(read(kRdh), 1u);
  write(kRctl, 0x0400'0002);  // without BAM
  network_.deliver(all);
  EXPECT_EQ(read(kRdh), 1u);
  // Bits 47:36 of the address, 341h with MO 0: dword 1Ah, bit 1.
  write(kMta + 4 * 0x1a, 2);
  network_.deliver(group);
  EXPECT_EQ(read(kRdh), 2u);
  EXPECT_EQ(status(1) & 0x80, 0x80) << "passed an inexact filter";
  write(kMta + 4 * 0x1a, 0);
  write(kRctl, 0x0400'0012);  // MPE
  network_.deliver(group);
  EXPECT_EQ(read(kRdh), 3u);
  write(kRctl, 0x0400'000a);  // UPE
  network_.deliver(other);
  EXPECT_EQ(read(kRdh), 4u);
  write(kRctl, 0x0400'0002);
  write(kRal + 8, 0x1200'5452);
  write(kRah + 8, 0x8000'5734);
  network_.deliver(other);
  EXPECT_EQ(read(kRdh), 5u);
}

TEST_F(EthernetTest, VlanTagIsStrippedAndFiltered) {
  write(kCtrl, read(kCtrl) | 1u << 30);
  write(kRctl, 0x0404'8002);  // VFE
  Frame sent = frame(100);
  set16(sent, 12, 0x8100);
  set16(sent, 14, 0x6123);
  network_.deliver(sent);
  EXPECT_EQ(read(kRdh), 0u) << "VLAN 123h is not let in";
  write(kVfta + 0x123 / 32 * 4, 1u << 0x123 % 32);
  network_.deliver(sent);
  EXPECT_EQ(status(0) & 0x08, 0x08);
  EXPECT_EQ(map_.read({kRxRing + 14}, 2), 0x6123u);
  Frame bare = sent;
  bare.erase(bare.begin() + 12, bare.begin() + 16);
  EXPECT_EQ(received(0), bare);
}

TEST_F(EthernetTest, LongFrameOverSeveralBuffers) {
  write(kRctl, 0x0403'8002);  // 256 bytes a buffer
  const Frame sent = frame(600);
  network_.deliver(sent);
  EXPECT_EQ(read(kRdh), 3u);
  EXPECT_EQ(status(0), 0x05) << "done, not the end";
  EXPECT_EQ(status(2) & 0x03, 0x03);
  Frame all = received(0);
  for (const unsigned i : {1u, 2u}) {
    const Frame more = received(i);
    all.insert(all.end(), more.begin(), more.end());
  }
  EXPECT_EQ(all, sent);
}

TEST_F(EthernetTest, FramesBeyondTheStandardsLengthNeedLpe) {
  network_.deliver(frame(1515));
  EXPECT_EQ(read(kRdh), 0u);
  EXPECT_EQ(read(0x40ac), 1u) << "ROC";
  network_.deliver(frame(1514));
  EXPECT_EQ(read(kRdh), 1u);
  write(kRctl, 0x0400'8022);
  network_.deliver(frame(9000));
  EXPECT_EQ(read(kRdh), 6u);
}

TEST_F(EthernetTest, FramesWaitForDescriptors) {
  write(kRdt, 2);
  for (unsigned i = 0; i < 4; i++) network_.deliver(frame(100 + i));
  EXPECT_EQ(read(kRdh), 2u);
  EXPECT_EQ(network_.waiting(), 2u);
  write(kRdt, 8);
  EXPECT_EQ(read(kRdh), 4u);
  EXPECT_EQ(received(3).size(), 103u);
}

// 3.2.7.2: half of the descriptors, by RCTL.RDMTS 00b
TEST_F(EthernetTest, FewDescriptorsAreTold) {
  for (unsigned i = 0; i < 6; i++) network_.deliver(frame(100));
  EXPECT_EQ(read(kIcr) & kRxdmt0, 0u) << "nine are left";
  network_.deliver(frame(100));
  EXPECT_EQ(read(kIcr) & kRxdmt0, kRxdmt0);
}

// 3.2.9
TEST_F(EthernetTest, ChecksumsAreVerified) {
  write(kRxcsum, 0x300);
  network_.deliver(with_checksums(packet(100)));
  EXPECT_EQ(status(0), 0x63) << "both looked at";
  EXPECT_EQ(errors(0), 0);
  Frame bad = with_checksums(packet(101));
  bad[60] ^= std::byte{1};
  network_.deliver(bad);
  EXPECT_EQ(errors(1), 0x20) << "TCP";
  bad = with_checksums(packet(100, true));
  bad[20] ^= std::byte{1};
  network_.deliver(bad);
  EXPECT_EQ(status(2) & 0x40, 0x40);
  EXPECT_EQ(errors(2) & 0x40, 0x40) << "IP";
  network_.deliver(frame(100));
  EXPECT_EQ(status(3), 0x07) << "not IP";
}

TEST_F(EthernetTest, LoopbackReturnsFrames) {
  write(kRctl, 0x0400'80c2);
  put(kData, frame(100));
  queue(kData, 100 | kEop);
  go();
  EXPECT_EQ(network_.sent.size(), 0u);
  EXPECT_EQ(received(0), frame(100));
}

// --- The rest

// 13.7
TEST_F(EthernetTest, StatisticsAreClearedByBeingRead) {
  put(kData, frame(200));
  queue(kData, 200 | kEop);
  go();
  network_.deliver(frame(100));
  network_.deliver(frame(60, {255, 255, 255, 255, 255, 255}));
  network_.deliver(frame(100, {2, 2, 2, 2, 2, 2}));
  EXPECT_EQ(read(0x4074), 2u) << "GPRC";
  EXPECT_EQ(read(0x4074), 0u);
  EXPECT_EQ(read(0x40d0), 3u) << "TPR";
  EXPECT_EQ(read(0x4078), 1u) << "BPRC";
  EXPECT_EQ(read(0x405c), 1u) << "PRC64";
  EXPECT_EQ(read(0x4060), 1u) << "PRC127";
  EXPECT_EQ(read(0x4088), 168u) << "GORCL";
  EXPECT_EQ(read(0x4080), 1u) << "GPTC";
  EXPECT_EQ(read(0x40e0), 1u) << "PTC255";
  EXPECT_EQ(read(0x4090), 204u) << "GOTCL";
}

// 13.2.2
TEST_F(EthernetTest, RegistersThroughPorts) {
  io_.write(kPort, 4, kRal);
  EXPECT_EQ(io_.read(kPort + 4, 4), 0x1200'5452u);
  io_.write(kPort + 4, 4, 0x1111'2222);
  EXPECT_EQ(read(kRal), 0x1111'2222u);
  EXPECT_EQ(io_.read(kPort, 4), kRal);
}

TEST_F(EthernetTest, SoftwareResetKeepsThePciConfiguration) {
  write(kIms, kRxt0);
  write(kIcs, kRxt0);
  write(kRal, 0);
  write(kCtrl, 1u << 26);
  EXPECT_FALSE(line_.level());
  EXPECT_EQ(read(kTdlen), 0u);
  EXPECT_EQ(read(kRctl), 0u);
  EXPECT_EQ(read(kRal), 0x1200'5452u) << "from the EEPROM";
  EXPECT_EQ(read(kCtrl) & 1u << 26, 0u);
  start();
  network_.deliver(frame(100));
  EXPECT_EQ(read(kRdh), 1u);
}

// --- Guests that mean harm

TEST_F(EthernetTest, TailOutsideTheRingEnds) {
  put(kData, frame(100));
  for (unsigned i = 0; i < kRingSize; i++) queue(kData, 100 | kEop);
  write(kTdt, 0xffff);
  EXPECT_EQ(network_.sent.size(), kRingSize) << "one round";
  write(kTdh, 0xffff);
  write(kTdt, 5);
  EXPECT_EQ(network_.sent.size(), kRingSize);
  write(kRdh, 0xffff);
  network_.deliver(frame(100));
  EXPECT_EQ(network_.waiting(), 1u);
}

TEST_F(EthernetTest, DescriptorsAndBuffersOutsideMemory) {
  queue(0xffff'ffff'ffff'f000, 100 | kEop | kRs);
  go();
  EXPECT_EQ(network_.sent.size(), 0u);
  EXPECT_EQ(read(kTdh), 1u);
  map_.write({kRxRing}, 8, 0xffff'ffff'ffff'fff0);
  network_.deliver(frame(100));
  EXPECT_EQ(read(kRdh), 1u);
  write(kTdbal + 4, 0xffff'ffff);
  write(kRdbal + 4, 0xffff'ffff);
  write(kTdt, 3);
  network_.deliver(frame(100));
  EXPECT_EQ(network_.sent.size(), 0u);
}

TEST_F(EthernetTest, SegmentsWithoutALength) {
  queue(0, 100 | kExtended | kTse);
  queue(kData, 1000 | kData1 | kExtended | kTse | kEop);
  go();
  EXPECT_EQ(network_.sent.size(), 1u) << "as it is";
  // The length becomes zero while payload of the packet waits.
  queue(0, 100 | kExtended | kTse | uint64_t{14} << 40 | uint64_t{100} << 48);
  queue(kData, 60 | kData1 | kExtended | kTse);
  queue(0, 100 | kExtended | kTse);
  queue(kData, 1000 | kData1 | kExtended | kTse | kEop);
  go();
  EXPECT_EQ(read(kTdh), tail_);
}

TEST_F(EthernetTest, FramesWithoutAnEndAreBounded) {
  write(kTdlen, 0xf'ff80);  // 65,528 descriptors, most of them what memory holds there
  for (unsigned i = 0; i < kRingSize; i++) queue(kData, 0xffff);
  write(kTdt, 0xfff0);
  EXPECT_EQ(network_.sent.size(), 0u);
}

// Two gigabytes of frames of one byte each: the guest's code runs in between.
TEST_F(EthernetTest, EndlessWorkGivesWay) {
  for (unsigned i = 0; i < 7; i++) {
    queue(0, 100 | kExtended | kTse | uint64_t{14} << 40 | uint64_t{1} << 48);
    queue(kData, 0x3000 | kData1 | kExtended | kTse | kEop);
  }
  go();
  EXPECT_LT(network_.sent.size(), 0x3000u * 2);
  EXPECT_NE(read(kTdh), tail_);
  for (unsigned i = 0; i < 10; i++) time_.clock().run_expired();
  EXPECT_EQ(read(kTdh), tail_);
  EXPECT_EQ(network_.sent.size(), 7 * (0x3000u - 14));
}

}  // namespace
}  // namespace penumbra
