#include "tests/frontend/boot_fixture.h"

namespace penumbra {
namespace {

class Bios : public BootTest {
 protected:
  // Each 64 KiB numbered.
  static ImageBuilder rom(unsigned units) {
    ImageBuilder image(units * size_t{0x1'0000});
    for (unsigned i = 0; i < units; ++i) image.set<uint32_t>(i * size_t{0x1'0000}, i + 1);
    return image.set<uint32_t>(units * size_t{0x1'0000} - 16, 0xea);
  }
};

// SDM vol. 3, 10.1.4: the first instruction is at FFFFFFF0.
TEST_F(Bios, StartsAtTheResetVector) {
  start(bios_request(file("rom", rom(1))));
  EXPECT_EQ(state().segments[kCs].base + state().rip, 0xffff'fff0u);
  EXPECT_FALSE(machine_->vcpu().protected_mode());
  EXPECT_EQ(memory(0xffff'fff0, 4), 0xeau);
}

TEST_F(Bios, LastPartIsBelowOneMibToo) {
  start(bios_request(file("rom", rom(4))));
  EXPECT_EQ(memory(0xfffc'0000, 4), 1u);
  EXPECT_EQ(memory(0xffff'0000, 4), 4u);
  EXPECT_EQ(memory(0xe'0000, 4), 3u);
  EXPECT_EQ(memory(0xf'0000, 4), 4u);
  EXPECT_EQ(memory(0xf'fff0, 4), 0xeau);
}

TEST_F(Bios, ImageOf64KibLeavesTheSegmentBelowIt) {
  start(bios_request(file("rom", rom(1))));
  EXPECT_EQ(memory(0xf'0000, 4), 1u);
  machine_->map().write(PhysAddr{0xe'0000}, 4, 0x1234);
  EXPECT_EQ(memory(0xe'0000, 4), 0x1234u);
  machine_->map().write(PhysAddr{0xf'0000}, 4, 0x1234);
  EXPECT_EQ(memory(0xf'0000, 4), 1u);
}

TEST_F(Bios, LargestImage) {
  start(bios_request(file("rom", rom(256))));
  EXPECT_EQ(memory(0xff00'0000, 4), 1u);
}

TEST_F(Bios, BadImagesAreRefused) {
  const std::string empty = file("empty", ""), odd = file("odd", rom(1).resize(0x1'0001)),
                    large = file("large", rom(257)), absent = folder() + "/absent";
  expect_refused(bios_request(empty), empty, "is empty");
  expect_refused(bios_request(odd), odd, "has 65537 bytes; a firmware image is a multiple of 64 KiB");
  expect_refused(bios_request(large), large, "has 16448 KiB, more than the 16 MiB of a firmware image");
  expect_refused(bios_request(absent), absent, "No such file or directory");
}

TEST_F(Bios, OptionsThatNeedAKernel) {
  PhysicalMap map(16 * kMib);
  const std::string path = file("rom", rom(1));
  EXPECT_THROW(make_boot({.kernel = "", .initrds = {}, .append = "quiet", .bios = path}, map),
               std::runtime_error);
  EXPECT_THROW(make_boot({.kernel = "", .initrds = {path}, .append = "", .bios = path}, map),
               std::runtime_error);
}

}  // namespace
}  // namespace penumbra
