// Expected values: VIRTIO 1.1, 5.8; Linux, include/uapi/linux/input-event-codes.h.
#include "devices/virtio_input.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "devices/ps2_mouse.h"

namespace penumbra {
namespace {

constexpr uint64_t kTable = 0x1000, kAvailable = 0x2000, kUsed = 0x3000, kBuffers = 0x4000;
constexpr uint16_t kDeviceWrites = 2;

template <class Device>
class Rig {
 public:
  PhysicalMap map{uint64_t{1} << 20};
  Device device{map};
  std::vector<Virtqueue> queues{{map, 64}, {map, 64}};
  unsigned interrupts = 0;

  Rig() {
    device.attach(queues, {.interrupt = [this](unsigned) { interrupts++; }, .configuration_changed = {}});
    Virtqueue& events = queues[0];
    events.descriptors = kTable;
    events.available = kAvailable;
    events.used = kUsed;
    events.enabled = true;
  }
  // The driver offers one more buffer of eight bytes.
  void offer() {
    const uint64_t entry = kTable + offered_ * 16u;
    map.write({entry}, 8, kBuffers + offered_ * 8u);
    map.write({entry + 8}, 4, 8);
    map.write({entry + 12}, 4, kDeviceWrites);
    map.write({kAvailable + 4 + offered_ * 2u}, 2, offered_);
    map.write({kAvailable + 2}, 2, ++offered_);
    device.notified(0);
  }
  unsigned used() { return static_cast<unsigned>(map.read({kUsed + 2}, 2)); }
  // "type code value"
  std::string event(unsigned number) {
    const uint64_t at = kBuffers + number * 8u;
    return std::to_string(map.read({at}, 2)) + " " + std::to_string(map.read({at + 2}, 2)) + " " +
           std::to_string(static_cast<int32_t>(map.read({at + 4}, 4)));
  }
  std::string answer(uint8_t select, uint8_t subselect = 0) {
    device.write_configuration(0, select);
    device.write_configuration(1, subselect);
    std::string text;
    for (unsigned i = 0; i < device.read_configuration(2); i++)
      text += static_cast<char>(device.read_configuration(8 + i));
    return text;
  }
  bool has(uint8_t type, unsigned code) {
    const std::string bits = answer(0x11, type);
    return code / 8 < bits.size() && bits[code / 8] >> (code % 8) & 1;
  }

 private:
  uint16_t offered_ = 0;
};

TEST(VirtioInput, TabletSaysWhatItHas) {
  Rig<VirtioTablet> rig;
  EXPECT_NE(rig.answer(0x01).find("tablet"), std::string::npos);
  for (const unsigned axis : {0, 1}) {
    EXPECT_TRUE(rig.has(3, axis));
    const std::string range = rig.answer(0x12, static_cast<uint8_t>(axis));
    ASSERT_EQ(range.size(), 20u);
    EXPECT_EQ(range.substr(0, 8), std::string("\0\0\0\0\xff\x7f\0\0", 8));
  }
  EXPECT_FALSE(rig.has(3, 2));
  EXPECT_TRUE(rig.has(1, 0x110)) << "BTN_LEFT";
  EXPECT_FALSE(rig.has(1, 30)) << "KEY_A";
  EXPECT_EQ(rig.answer(0x55), "");
}

TEST(VirtioInput, KeyboardSaysWhatItHas) {
  Rig<VirtioKeyboard> rig;
  for (const unsigned key : {1, 30, 57, 88, 97, 103, 119, 127}) EXPECT_TRUE(rig.has(1, key)) << key;
  EXPECT_FALSE(rig.has(1, 0x110));
  EXPECT_FALSE(rig.has(1, 0));
}

TEST(VirtioInput, EventsWaitForBuffers) {
  Rig<VirtioTablet> rig;
  rig.device.start(0);
  rig.offer();
  rig.device.place(5, 0x9000, 0, Ps2Mouse::kLeft);
  EXPECT_EQ(rig.used(), 1u);
  for (unsigned i = 0; i < 4; i++) rig.offer();
  EXPECT_EQ(rig.used(), 4u);
  EXPECT_EQ(rig.event(0), "3 0 5");
  EXPECT_EQ(rig.event(1), "3 1 32767") << "no further than the edge";
  EXPECT_EQ(rig.event(2), "1 272 1");
  EXPECT_EQ(rig.event(3), "0 0 0");
  rig.device.place(5, 6, 1, 0);
  for (unsigned i = 0; i < 5; i++) rig.offer();
  EXPECT_EQ(rig.event(6), "2 8 -1") << "the wheel";
  EXPECT_EQ(rig.event(7), "1 272 0");
  EXPECT_EQ(rig.interrupts, rig.used());
}

TEST(VirtioInput, KeysHaveLinuxNumbers) {
  Rig<VirtioKeyboard> rig;
  rig.device.start(0);
  for (unsigned i = 0; i < 4; i++) rig.offer();
  rig.device.key(0x1e, true);
  rig.device.key(0xc8, false);
  EXPECT_EQ(rig.event(0), "1 30 1");
  EXPECT_EQ(rig.event(2), "1 103 0") << "KEY_UP";
}

TEST(VirtioInput, NothingIsKeptForADriverThatIsNotThere) {
  Rig<VirtioKeyboard> rig;
  rig.device.key(0x1e, true);
  EXPECT_FALSE(rig.device.ready());
  rig.device.start(0);
  rig.offer();
  EXPECT_EQ(rig.used(), 0u);
  for (unsigned i = 0; i < 5'000; i++) rig.device.key(0x1e, i % 2 == 0);  // must not grow without bound
  rig.device.reset();
  EXPECT_FALSE(rig.device.ready());
}

}  // namespace
}  // namespace penumbra
