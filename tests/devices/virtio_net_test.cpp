// A virtio network card on PCI. Sections are those of VIRTIO 1.1; how the transport works is
// virtio_blk_test's.
#include "devices/virtio_net.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/devices/memory_network.h"
#include "tests/devices/virtio_driver.h"

namespace penumbra {
namespace {

using Frame = MemoryNetwork::Frame;

constexpr uint64_t kChecksum = 1, kMergeable = 1 << 15;

class VirtioNetTest : public VirtioDriverTest {
 protected:
  enum : unsigned { kReceive, kTransmit };

  VirtioNetTest() {
    plug_in([this](PhysicalMap& map) {
      return std::make_unique<VirtioNet>(map, network_, MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56});
    });
  }
  void start(uint64_t features) { VirtioDriverTest::start(features, 2); }
  // `count` buffers of the receive queue at kData, one behind the other.
  void offer_buffers(unsigned count, uint32_t bytes) {
    for (unsigned i = 0; i < count; i++) {
      descriptor(kReceive, i, kData + i * bytes, bytes, kWrite);
      offer(kReceive, static_cast<uint16_t>(i));
    }
    notify(kReceive);
  }
  static Frame frame(size_t bytes) {
    Frame result(bytes);
    for (size_t i = 0; i < bytes; i++) result[i] = static_cast<std::byte>(i * 5 + bytes);
    return result;
  }
  Frame memory(uint64_t address, size_t bytes) {
    Frame result(bytes);
    map_.read_bytes({address}, result);
    return result;
  }
  void send(const Frame& header, const Frame& bytes) {
    map_.write_bytes({kData}, header);
    map_.write_bytes({kData + 0x100}, bytes);
    descriptor(kTransmit, 0, kData, static_cast<uint32_t>(header.size()), kNext, 1);
    descriptor(kTransmit, 1, kData + 0x100, static_cast<uint32_t>(bytes.size()), 0);
    offer(kTransmit, 0);
    notify(kTransmit);
  }

  MemoryNetwork network_;
};

// 5.1.1, 5.1.4
TEST_F(VirtioNetTest, Identity) {
  EXPECT_EQ(pci_->config().dword(0), 0x1000'1af4u) << "transitional";
  EXPECT_EQ(pci_->config().word(0x2e), 1u);
  EXPECT_EQ(get(kDevice, 4), 0x1200'5452u);
  EXPECT_EQ(get(kDevice + 4, 2), 0x5634u);
  EXPECT_EQ(get(kDevice + 6, 2), 1u) << "link up";
}

// 5.1.6.1: the header has 12 bytes; without VIRTIO_F_VERSION_1 and merged buffers it has 10.
TEST_F(VirtioNetTest, SendsWhatFollowsTheHeader) {
  start(kVersion1);
  send(Frame(12), frame(100));
  ASSERT_EQ(network_.sent.size(), 1u);
  EXPECT_EQ(network_.sent[0], frame(100));
  EXPECT_EQ(used_count(kTransmit), 1u);
  EXPECT_EQ(used_bytes(kTransmit, 0), 0u);
  EXPECT_TRUE(line_.level());
}

// 5.1.6.2: the checksum from csum_start on goes to csum_start + csum_offset.
TEST_F(VirtioNetTest, ChecksumIsCompleted) {
  start(kVersion1 | kChecksum);
  Frame header(12);
  header[0] = std::byte{1};
  header[6] = std::byte{34};
  header[8] = std::byte{16};
  Frame sent(34 + 21);
  sent[34] = std::byte{0x12};
  sent[34 + 20] = std::byte{0x34};
  sent[50] = std::byte{0xab};  // of the pseudo-header
  send(header, sent);
  ASSERT_EQ(network_.sent.size(), 1u);
  const Frame& got = network_.sent[0];
  const uint32_t sum = 0x1200 + 0x3400 + 0xab00;
  EXPECT_EQ(static_cast<unsigned>(got[50]) << 8 | static_cast<unsigned>(got[51]), 0xffffu & ~sum);
  header[6] = std::byte{50};
  send(header, sent);
  EXPECT_EQ(network_.sent.size(), 1u) << "a place behind the frame's end";
}

TEST_F(VirtioNetTest, FrameGoesIntoOneBuffer) {
  start(kVersion1);
  offer_buffers(2, 0x800);
  network_.deliver(frame(1000));
  EXPECT_EQ(used_count(kReceive), 1u);
  EXPECT_EQ(used_bytes(kReceive, 0), 1012u);
  Frame header(12);
  header[10] = std::byte{1};  // num_buffers
  EXPECT_EQ(memory(kData, 12), header);
  EXPECT_EQ(memory(kData + 12, 1000), frame(1000));
  EXPECT_TRUE(line_.level());
}

// 5.1.6.4
TEST_F(VirtioNetTest, BuffersAreMerged) {
  start(kVersion1 | kMergeable);
  offer_buffers(3, 0x200);
  network_.deliver(frame(1200));
  EXPECT_EQ(used_count(kReceive), 3u);
  EXPECT_EQ(get(kData + 10, 2), 3u);
  EXPECT_EQ(used_bytes(kReceive, 0) + used_bytes(kReceive, 1) + used_bytes(kReceive, 2), 1212u);
  EXPECT_EQ(memory(kData + 12, 1200), frame(1200));
}

TEST_F(VirtioNetTest, FrameWaitsForEnoughBuffers) {
  start(kVersion1 | kMergeable);
  offer_buffers(2, 0x200);
  network_.deliver(frame(1200));
  EXPECT_EQ(network_.waiting(), 1u);
  EXPECT_EQ(used_count(kReceive), 0u);
  descriptor(kReceive, 2, kData + 0x400, 0x200, kWrite);
  offer(kReceive, 2);
  notify(kReceive);
  EXPECT_EQ(network_.waiting(), 0u);
  EXPECT_EQ(used_count(kReceive), 3u);
  EXPECT_EQ(memory(kData + 12, 1200), frame(1200));
}

TEST_F(VirtioNetTest, BufferThatIsTooSmallLosesTheFrame) {
  start(kVersion1);
  offer_buffers(2, 0x200);
  network_.deliver(frame(1200));
  network_.deliver(frame(100));
  EXPECT_EQ(used_count(kReceive), 2u);
  EXPECT_EQ(used_bytes(kReceive, 0), 0u);
  EXPECT_EQ(used_bytes(kReceive, 1), 112u);
}

TEST_F(VirtioNetTest, WithoutADriverFramesAreLost) {
  network_.deliver(frame(100));
  EXPECT_EQ(network_.waiting(), 0u);
  start(kVersion1 | kMergeable);
  offer_buffers(1, 0x200);
  network_.deliver(frame(1200));
  EXPECT_EQ(network_.waiting(), 1u);
  set(kModern + 20, 1, 0);
  network_.ready();
  EXPECT_EQ(network_.waiting(), 0u) << "after a reset";
}

TEST_F(VirtioNetTest, HostileBuffersAreHarmless) {
  start(kVersion1 | kChecksum);
  descriptor(kTransmit, 0, ~uint64_t{0} - 100, 0xffff'ffff, 0);
  offer(kTransmit, 0);
  notify(kTransmit);
  start(kVersion1 | kChecksum);
  set(available(kTransmit) + 2, 2, 0);
  descriptor(kTransmit, 0, 0x1'0000, 5, 0);  // less than a header
  offer(kTransmit, 0);
  descriptor(kTransmit, 1, 0x1'0000, 0x3'0000, 0);  // more than a frame
  offer(kTransmit, 1);
  notify(kTransmit);
  EXPECT_EQ(network_.sent.size(), 0u);
  EXPECT_EQ(used_count(kTransmit), 2u);
}

}  // namespace
}  // namespace penumbra
