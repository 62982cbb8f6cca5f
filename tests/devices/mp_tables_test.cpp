// Expected values: Intel MultiProcessor Specification 1.4 (242016), chapter 4.
#include "devices/mp_tables.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <string>

namespace penumbra {
namespace {

uint8_t sum(std::span<const uint8_t> bytes) {
  return static_cast<uint8_t>(std::accumulate(bytes.begin(), bytes.end(), 0u));
}

TEST(MpTables, PointerTableAndEntriesAgree) {
  const MpPciInterrupt pins[] = {{.device = 3, .pin = 0, .input = 11}, {.device = 4, .pin = 1, .input = 11}};
  const std::vector<uint8_t> made = make_mp_tables(0xf'1000, pins);
  const std::span<const uint8_t> bytes(made);
  const auto number = [&bytes](size_t at) {
    return bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24;
  };
  EXPECT_EQ(std::string(bytes.begin(), bytes.begin() + 4), "_MP_");
  EXPECT_EQ(number(4), 0xf'1010);
  EXPECT_EQ(bytes[8], 1) << "paragraphs";
  EXPECT_EQ(sum(bytes.first(16)), 0);
  EXPECT_EQ(std::string(bytes.begin() + 16, bytes.begin() + 20), "PCMP");
  EXPECT_EQ(number(20) & 0xffff, static_cast<int>(bytes.size() - 16));
  EXPECT_EQ(sum(bytes.subspan(16)), 0);
  EXPECT_EQ(static_cast<uint32_t>(number(16 + 36)), 0xfee0'0000u);

  std::map<unsigned, unsigned> kinds;
  std::map<std::pair<unsigned, unsigned>, unsigned> inputs;  // by bus and line
  size_t at = 16 + 44;
  unsigned entries = 0;
  for (; at < bytes.size(); entries++) {
    kinds[bytes[at]]++;
    if (bytes[at] == 3) inputs[{bytes[at + 4], bytes[at + 5]}] = bytes[at + 7];
    at += bytes[at] == 0 ? 20 : 8;  // 4.3
  }
  EXPECT_EQ(at, bytes.size());
  EXPECT_EQ(entries, static_cast<unsigned>(number(16 + 34) & 0xffff));
  EXPECT_EQ(kinds[0], 1u);
  EXPECT_EQ(kinds[1], 2u);
  EXPECT_EQ(kinds[2], 1u);
  EXPECT_EQ(kinds[4], 2u) << "the 8259A and NMI";
  EXPECT_EQ((inputs[{0, 3 << 2}]), 11u);
  EXPECT_EQ((inputs[{0, 4 << 2 | 1}]), 11u);
  EXPECT_EQ((inputs[{1, 0}]), 2u) << "the 8254";
  EXPECT_EQ((inputs[{1, 4}]), 4u);
  EXPECT_FALSE((inputs.contains({1, 11}))) << "PCI's";
}

}  // namespace
}  // namespace penumbra
