// Expected values: QEMU, hw/misc/pc-testdev.c.
#include "devices/pc_testdev.h"

#include <gtest/gtest.h>

#include <vector>

namespace penumbra {
namespace {

TEST(PcTestdev, LatchesComeBack) {
  PhysicalMap map(uint64_t{1} << 20);
  PcTestdev chip(map, [](unsigned, bool) {});
  chip.write(PcTestdev::kLatch, 4, 0x1234'5678);
  chip.write(PcTestdev::kLatch + 1, 1, 0xab);
  EXPECT_EQ(chip.read(PcTestdev::kLatch, 4), 0x1234'ab78u);
  chip.write(PcTestdev::kByteLatch, 2, 0xbeef);
  EXPECT_EQ(chip.read(PcTestdev::kByteLatch, 2), 0xbeefu);
  EXPECT_EQ(chip.read(PcTestdev::kLatch, 4), 0x1234'ab78u);
}

TEST(PcTestdev, LinesFollowWhatIsWritten) {
  PhysicalMap map(uint64_t{1} << 20);
  std::vector<std::pair<unsigned, bool>> seen;
  PcTestdev chip(map, [&seen](unsigned line, bool level) { seen.emplace_back(line, level); });
  chip.write(5, 1, 1);
  chip.write(23, 4, 0x100);
  chip.write(5, 1, 0);
  chip.reset();
  const std::vector<std::pair<unsigned, bool>> expected = {{5, true}, {23, true}, {5, false}, {23, false}};
  EXPECT_EQ(seen, expected);
}

TEST(PcTestdev, ScratchMemory) {
  PhysicalMap map(uint64_t{1} << 20);
  PcTestdev chip(map, [](unsigned, bool) {});
  map.write(PhysAddr{0xff00'fff8}, 8, 0x1122'3344'5566'7788);
  EXPECT_EQ(map.read(PhysAddr{0xff00'fffc}, 4), 0x1122'3344u);
  EXPECT_EQ(map.page(PhysAddr{0xff01'0000}).kind, PhysicalMap::PageKind::Unclaimed);
}

}  // namespace
}  // namespace penumbra
