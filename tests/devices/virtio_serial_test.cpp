// A virtio console device on PCI. Sections are those of VIRTIO 1.1; how the transport works is
// virtio_blk_test's.
#include "devices/virtio_serial.h"

#include <gtest/gtest.h>

#include <map>
#include <stdexcept>

#include "tests/devices/virtio_driver.h"

namespace penumbra {
namespace {

constexpr uint64_t kMultiport = 2;

class VirtioSerialTest : public VirtioDriverTest {
 protected:
  enum : unsigned { kReceive, kTransmit, kControlReceive, kControlTransmit, kReceive1, kTransmit1, kQueues };
  enum : uint16_t {
    kDeviceReady = 0,
    kDeviceAdd = 1,
    kPortReady = 3,
    kConsolePort = 4,
    kPortOpen = 6,
    kPortName = 7
  };

  static std::string message(uint32_t port, uint16_t event, uint16_t value, std::string_view name = {}) {
    std::string bytes;
    for (unsigned i = 0; i < 4; i++) bytes += static_cast<char>(port >> 8 * i);
    for (const uint16_t field : {event, value}) {
      for (unsigned i = 0; i < 2; i++) bytes += static_cast<char>(field >> 8 * i);
    }
    return bytes + std::string(name);
  }
  // `count` buffers of 64 bytes, from kData + 1000h * queue on.
  void offer_room(unsigned queue, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
      descriptor(queue, i, room(queue, i), 64, kWrite);
      offer(queue, static_cast<uint16_t>(i));
    }
    notify(queue);
  }
  static uint64_t room(unsigned queue, unsigned index) { return kData + 0x1000 * (queue + 1) + 64 * index; }
  // What the device wrote into these buffers, in order.
  std::vector<std::string> received(unsigned queue) {
    std::vector<std::string> all;
    for (unsigned i = 0; i < used_count(queue); i++)
      all.push_back(text(room(queue, i), used_bytes(queue, i)));
    return all;
  }
  VirtioSerial::Port port(unsigned number, bool console, std::string name) {
    return {
        .number = number, .console = console, .name = std::move(name), .out = [this, number](uint8_t byte) {
          out_[number] += static_cast<char>(byte);
        }};
  }

  std::map<unsigned, std::string> out_;
  VirtioSerial& serial_ = plug_in([this](PhysicalMap& map) {
    return std::make_unique<VirtioSerial>(
        map, std::vector{port(0, true, ""), port(1, false, "org.penumbra.test")});
  });
};

// 5.3.1, 5.3.2, 5.3.4
TEST_F(VirtioSerialTest, Identity) {
  EXPECT_EQ(pci_->config().dword(0), 0x1003'1af4u) << "transitional";
  EXPECT_EQ(pci_->config().word(0x2e), 3u);
  EXPECT_EQ(get(kModern + 18, 2), 6u) << "queues";
  EXPECT_EQ(get(kDevice + 4, 4), 2u) << "ports";
}

TEST_F(VirtioSerialTest, TheOnlyPortOfAnOldDriver) {
  start(kVersion1, 2);
  offer_text(kTransmit, "hello\n");
  EXPECT_EQ(out_[0], "hello\n");
  EXPECT_EQ(used_count(kTransmit), 1u);
  EXPECT_FALSE(serial_.receive(0, 'a')) << "no buffer";
  offer_room(kReceive, 2);
  EXPECT_TRUE(serial_.receive(0, 'a'));
  EXPECT_TRUE(serial_.receive(0, 'b'));
  EXPECT_FALSE(serial_.receive(0, 'c'));
  EXPECT_EQ(received(kReceive), (std::vector<std::string>{"a", "b"}));
}

// 5.3.6.2: ready, which ports there are, what each is; then both sides open it.
TEST_F(VirtioSerialTest, PortsAreNamedAndOpened) {
  start(kVersion1 | kMultiport, kQueues);
  offer_room(kControlReceive, 8);
  offer_text(kControlTransmit, message(0, kDeviceReady, 1));
  EXPECT_EQ(received(kControlReceive), (std::vector{message(0, kDeviceAdd, 1), message(1, kDeviceAdd, 1)}));
  offer_text(kControlTransmit, message(0, kPortReady, 1));
  offer_text(kControlTransmit, message(1, kPortReady, 1));
  const auto all = received(kControlReceive);
  EXPECT_EQ(std::vector(all.begin() + 2, all.end()),
            (std::vector{message(0, kConsolePort, 1), message(0, kPortOpen, 1),
                         message(1, kPortName, 1, "org.penumbra.test"), message(1, kPortOpen, 1)}));

  offer_room(kReceive1, 2);
  EXPECT_FALSE(serial_.receive(1, 'x')) << "nobody has opened it";
  unsigned told = 0;
  serial_.set_room_listener([&told] { told++; });
  offer_text(kControlTransmit, message(1, kPortOpen, 1));
  EXPECT_EQ(told, 1u);
  EXPECT_TRUE(serial_.receive(1, 'x'));
  EXPECT_FALSE(serial_.receive(0, 'x')) << "the other one is closed";
  EXPECT_EQ(received(kReceive1), std::vector<std::string>{"x"});
  offer_text(kTransmit1, "to the host");
  EXPECT_EQ(out_[1], "to the host");
  offer_text(kControlTransmit, message(1, kPortOpen, 0));
  EXPECT_FALSE(serial_.receive(1, 'y')) << "closed again";
}

TEST_F(VirtioSerialTest, MessagesWaitForBuffers) {
  start(kVersion1 | kMultiport, kQueues);
  offer_text(kControlTransmit, message(0, kDeviceReady, 1));
  EXPECT_EQ(used_count(kControlReceive), 0u);
  offer_room(kControlReceive, 1);
  EXPECT_EQ(received(kControlReceive).size(), 1u);
}

TEST_F(VirtioSerialTest, MessagesThatMakeNoSense) {
  start(kVersion1 | kMultiport, kQueues);
  offer_room(kControlReceive, 8);
  for (const auto& text : {message(77, kPortReady, 1), message(0xffff'ffff, kPortOpen, 1), message(0, 99, 1),
                           std::string("abc")})
    offer_text(kControlTransmit, text);
  EXPECT_EQ(used_count(kControlTransmit), 4u);
  EXPECT_EQ(used_count(kControlReceive), 0u);
  EXPECT_EQ(get(kModern + 20, 1), 15u);
}

// 5.3.4: before any queue is there.
TEST_F(VirtioSerialTest, EmergencyWrite) {
  set(kDevice + 8, 4, '!');
  EXPECT_EQ(out_[0], "!");
}

TEST_F(VirtioSerialTest, PortsHaveNumbersOfTheirOwn) {
  EXPECT_THROW(VirtioSerial(map_, {port(1, false, "a"), port(1, false, "b")}), std::invalid_argument);
  EXPECT_THROW(VirtioSerial(map_, {port(VirtioSerial::kMostPorts, false, "a")}), std::invalid_argument);
}

}  // namespace
}  // namespace penumbra
