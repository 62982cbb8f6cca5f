#include "devices/hex.h"

#include <gtest/gtest.h>

namespace penumbra {
namespace {

TEST(Hex, BytesThereAndBack) {
  EXPECT_EQ(to_hex(std::string_view("\x01\xfe", 2)), "01fe");
  EXPECT_EQ(from_hex("01Fe"), std::string("\x01\xfe", 2));
  EXPECT_FALSE(from_hex("0"));
  EXPECT_FALSE(from_hex("0g"));
}

}  // namespace
}  // namespace penumbra
