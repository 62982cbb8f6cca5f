// Expected values: DMTF DSP0134 2.8.
#include "devices/smbios_tables.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace penumbra {
namespace {

struct Structure {
  std::string formatted;
  std::vector<std::string> strings;
  std::string text(size_t field) const {
    const auto number = static_cast<uint8_t>(formatted.at(field));
    return number == 0 ? "" : strings.at(number - 1u);
  }
};

// By type; 6.1: a formatted area, strings that end with a zero each, and one more zero.
std::multimap<unsigned, Structure> parse(const std::vector<uint8_t>& tables) {
  std::multimap<unsigned, Structure> result;
  for (size_t at = 0; at < tables.size();) {
    const uint8_t length = tables.at(at + 1);
    Structure structure;
    structure.formatted.assign(tables.begin() + static_cast<ptrdiff_t>(at),
                               tables.begin() + static_cast<ptrdiff_t>(at + length));
    const unsigned type = tables[at];
    at += length;
    if (tables.at(at) == 0) at++;
    while (tables.at(at) != 0) {
      const std::string text(reinterpret_cast<const char*>(&tables[at]));
      at += text.size() + 1;
      structure.strings.push_back(text);
    }
    at++;
    result.emplace(type, structure);
  }
  return result;
}

TEST(SmbiosTables, AllThatTheStandardRequires) {
  const SmbiosTables made = make_smbios_tables({}, uint64_t{64} << 20, 0);
  const auto tables = parse(made.tables);
  for (const unsigned type : {1, 3, 4, 16, 17, 19, 32, 127}) EXPECT_EQ(tables.count(type), 1u) << type;
  EXPECT_EQ(tables.count(0), 0u) << "firmware's own";
  const std::map<unsigned, size_t> lengths = {{1, 0x1b},  {4, 0x2a},  {16, 0x17},
                                              {17, 0x28}, {19, 0x1f}, {127, 4}};
  for (const auto& [type, length] : lengths)
    EXPECT_EQ(tables.find(type)->second.formatted.size(), length) << type;
  EXPECT_EQ(std::string(made.anchor.begin(), made.anchor.begin() + 4), "_SM_");
  ASSERT_EQ(made.anchor.size(), 0x1fu);
  EXPECT_EQ(made.anchor[0x16] | made.anchor[0x17] << 8, static_cast<int>(made.tables.size()));
  EXPECT_EQ(made.anchor[0x1c] | made.anchor[0x1d] << 8, static_cast<int>(tables.size()));
}

TEST(SmbiosTables, ChosenTextsAreThere) {
  SmbiosOptions options;
  options.firmware = {.vendor = "V", .version = "7", .date = "02/03/2024", .release = "3.14"};
  options.system = {.manufacturer = "M",
                    .product = "P",
                    .version = "1",
                    .serial = "S",
                    .asset = {},
                    .sku = "K",
                    .family = "F",
                    .location = {}};
  options.oem_strings = {"one", "two"};
  for (uint8_t i = 0; i < 16; i++) options.uuid[i] = i;
  const auto tables = parse(make_smbios_tables(options, uint64_t{64} << 20, 0).tables);
  const Structure& system = tables.find(1)->second;
  EXPECT_EQ(system.text(4) + system.text(5) + system.text(6) + system.text(7) + system.text(0x19) +
                system.text(0x1a),
            "MP1SKF");
  const std::string mixed_endian("\3\2\1\0\5\4\7\6\10\11\12\13\14\15\16\17", 16);
  EXPECT_EQ(system.formatted.substr(8, 16), mixed_endian);
  EXPECT_EQ(tables.find(0)->second.text(4), "V");
  EXPECT_EQ(tables.find(0)->second.formatted[0x14], 3);
  EXPECT_EQ(tables.find(0)->second.formatted[0x15], 14);
  EXPECT_EQ(tables.find(11)->second.strings, options.oem_strings);
}

TEST(SmbiosTables, MemoryAboveFourGib) {
  const auto tables = parse(make_smbios_tables({}, uint64_t{3} << 30, uint64_t{30} << 30).tables);
  EXPECT_EQ(tables.count(17), 3u) << "33 GiB in modules of 16";
  EXPECT_EQ(tables.count(19), 2u);
}

}  // namespace
}  // namespace penumbra
