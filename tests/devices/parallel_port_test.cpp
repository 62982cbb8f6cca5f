// Expected values: IBM PS/2 Hardware Interface Technical Reference, "Parallel Port Controller".
#include "devices/parallel_port.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

class ParallelPortTest : public testing::Test {
 protected:
  TestLine line_;
  std::string printed_;
  ParallelPort chip_{line_.input(), [this](uint8_t byte) { printed_ += static_cast<char>(byte); }};
};

TEST_F(ParallelPortTest, TheStrobePrints) {
  EXPECT_EQ(in(chip_, 1) & 0xf8, 0xd8) << "not busy, selected, no error";
  for (const char letter : std::string("ok")) {
    out(chip_, 0, static_cast<uint8_t>(letter));
    out(chip_, 2, 0x0d);
    out(chip_, 2, 0x0d);  // no second edge
    out(chip_, 2, 0x0c);
  }
  EXPECT_EQ(printed_, "ok");
  EXPECT_EQ(line_.rising_edges(), 0u);
}

TEST_F(ParallelPortTest, APrinterThatIsBeingResetPrintsNothing) {
  out(chip_, 0, 'x');
  out(chip_, 2, 0x09);
  EXPECT_EQ(printed_, "");
}

TEST_F(ParallelPortTest, AcknowledgeInterrupts) {
  out(chip_, 2, 0x1c);
  out(chip_, 2, 0x1d);
  EXPECT_EQ(line_.rising_edges(), 1u);
  EXPECT_FALSE(line_.level());
}

TEST_F(ParallelPortTest, FirmwareFindsItByItsDataLatch) {
  out(chip_, 0, 0xaa);
  EXPECT_EQ(in(chip_, 0), 0xaa);
}

}  // namespace
}  // namespace penumbra
