#include "core/io_bus.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

namespace penumbra {
namespace {

// Answers a read with its own number and the offset; remembers writes.
class Probe : public Device {
 public:
  explicit Probe(uint8_t number) : number_(number) {}
  struct Access {
    uint16_t offset;
    unsigned size;
    uint32_t value;
    bool operator==(const Access&) const = default;
  };
  std::vector<Access> writes;

  std::string_view name() const override { return "probe"; }
  uint32_t read(uint16_t offset, unsigned size) override {
    return size == 1 ? uint32_t{number_} << 4 | offset : 0xabcd'0000u | uint32_t{number_} << 4 | offset;
  }
  void write(uint16_t offset, unsigned size, uint32_t value) override {
    writes.push_back({offset, size, value});
  }
  void reset() override {}
  DeviceState save() const override { return {}; }
  void load(const DeviceState&) override {}

 private:
  uint8_t number_;
};

TEST(IoBus, UnclaimedPortsReadAsOnes) {
  IoBus bus;
  EXPECT_EQ(bus.read(0x1234, 1), 0xffu);
  EXPECT_EQ(bus.read(0x1234, 2), 0xffffu);
  EXPECT_EQ(bus.read(0xffff, 4), 0xffff'ffffu);
  bus.write(0xffff, 4, 0);
}

TEST(IoBus, OffsetsCountFromTheRangeAndStartAtTheDeviceOffset) {
  IoBus bus;
  Probe a(1), b(2);
  bus.add(0x3f8, 8, a);
  bus.add(0x4d0, 1, b, 2);
  EXPECT_EQ(bus.read(0x3f8, 1), 0x10u);
  EXPECT_EQ(bus.read(0x3ff, 1), 0x17u);
  EXPECT_EQ(bus.read(0x4d0, 1), 0x22u);
  EXPECT_EQ(bus.read(0x3f7, 1), 0xffu);
  EXPECT_EQ(bus.read(0x400, 1), 0xffu);
}

TEST(IoBus, WideAccessInsideARangeReachesTheDeviceWhole) {
  IoBus bus;
  Probe a(1);
  bus.add(0x510, 12, a);
  EXPECT_EQ(bus.read(0x514, 4), 0xabcd'0014u);
  EXPECT_EQ(bus.read(0x514, 2), 0x0014u) << "bits above the access are dropped";
  bus.write(0x518, 4, 0x1234'5678);
  bus.write(0x518, 2, 0x1234'5678);
  EXPECT_EQ(a.writes, (std::vector<Probe::Access>{{8, 4, 0x1234'5678}, {8, 2, 0x5678}}));
}

TEST(IoBus, AccessThatLeavesTheRangeIsSplitIntoBytes) {
  IoBus bus;
  Probe a(1), b(2);
  bus.add(0x60, 1, a);
  bus.add(0x62, 2, b);
  EXPECT_EQ(bus.read(0x60, 4), 0x2120'ff10u);
  EXPECT_EQ(bus.read(0x61, 2), 0x20ffu) << "the first port may be unclaimed";
  bus.write(0x60, 4, 0x4433'2211);
  EXPECT_EQ(a.writes, (std::vector<Probe::Access>{{0, 1, 0x11}}));
  EXPECT_EQ(b.writes, (std::vector<Probe::Access>{{0, 1, 0x33}, {1, 1, 0x44}}));
}

TEST(IoBus, AccessAtTheLastPortDoesNotWrapToPortZero) {
  IoBus bus;
  Probe zero(1), last(2);
  bus.add(0, 4, zero);
  bus.add(0xfffe, 2, last);
  EXPECT_EQ(bus.read(0xfffe, 4), 0xffff'2120u);
  bus.write(0xffff, 4, 0);
  EXPECT_TRUE(zero.writes.empty());
  EXPECT_EQ(last.writes.size(), 1u);
}

TEST(IoBus, RefusesOverlapsAndImpossibleRanges) {
  IoBus bus;
  Probe a(1), b(2);
  bus.add(0x100, 0x10, a);
  EXPECT_THROW(bus.add(0x100, 1, b), std::invalid_argument);
  EXPECT_THROW(bus.add(0x10f, 4, b), std::invalid_argument);
  EXPECT_THROW(bus.add(0xf0, 0x11, b), std::invalid_argument);
  EXPECT_THROW(bus.add(0xf0, 0x100, b), std::invalid_argument);
  EXPECT_THROW(bus.add(0x200, 0, b), std::invalid_argument);
  EXPECT_THROW(bus.add(0xffff, 2, b), std::invalid_argument);
  EXPECT_NO_THROW(bus.add(0xf0, 0x10, b));
  EXPECT_NO_THROW(bus.add(0x110, 1, b));
  EXPECT_NO_THROW(bus.add(0xffff, 1, b));
}

TEST(IoBus, WindowsMoveAndStayBehindTheBoardsPorts) {
  IoBus bus;
  Probe board(1), first(2), second(3);
  bus.add(0xc004, 1, board);
  const auto a = bus.add_window(8, first), b = bus.add_window(16, second, 1);
  EXPECT_EQ(bus.read(0xc000, 1), 0xffu);
  bus.place(b, 0xc000);
  EXPECT_EQ(bus.read(0xc000, 1), 0x31u);
  bus.place(a, 0xc000);
  EXPECT_EQ(bus.read(0xc000, 1), 0x20u);
  EXPECT_EQ(bus.read(0xc004, 1), 0x10u);
  EXPECT_EQ(bus.read(0xc008, 1), 0x39u);
  bus.place(a, 0xfff9);
  EXPECT_EQ(bus.read(0xfff9, 1), 0xffu) << "it would end behind the last port";
  EXPECT_EQ(bus.read(0xc000, 1), 0x31u);
  bus.place(b, std::nullopt);
  EXPECT_EQ(bus.read(0xc000, 1), 0xffu);
}

}  // namespace
}  // namespace penumbra
