// AML byte by byte against the specification, and the tables' structure.
#include "devices/acpi_tables.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "devices/aml.h"

namespace penumbra {
namespace {

using Bytes = std::vector<uint8_t>;

// ACPI 6.4, 20.2
TEST(Aml, IntegersAreAsShortAsTheyCanBe) {
  EXPECT_EQ(aml::integer(0).bytes(), (Bytes{0x00}));
  EXPECT_EQ(aml::integer(1).bytes(), (Bytes{0x01}));
  EXPECT_EQ(aml::integer(0xff).bytes(), (Bytes{0x0a, 0xff}));
  EXPECT_EQ(aml::integer(0x1234).bytes(), (Bytes{0x0b, 0x34, 0x12}));
  EXPECT_EQ(aml::integer(0x12345678).bytes(), (Bytes{0x0c, 0x78, 0x56, 0x34, 0x12}));
  EXPECT_EQ(aml::integer(uint64_t{1} << 32).bytes(), (Bytes{0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
}

TEST(Aml, Paths) {
  EXPECT_EQ(aml::path("PCI0").bytes(), (Bytes{'P', 'C', 'I', '0'}));
  EXPECT_EQ(aml::path("\\_SB").bytes(), (Bytes{'\\', '_', 'S', 'B', '_'}));
  EXPECT_EQ(aml::path("\\_SB.RTC").bytes(), (Bytes{'\\', 0x2e, '_', 'S', 'B', '_', 'R', 'T', 'C', '_'}));
  EXPECT_EQ(aml::path("A.B.C").bytes(),
            (Bytes{0x2f, 3, 'A', '_', '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_'}));
}

// ACPI 6.4, 19.3.4: the example of EISAID
TEST(Aml, EisaIdentifiers) {
  EXPECT_EQ(aml::eisa_id("PNP0C09").bytes(), (Bytes{0x0c, 0x41, 0xd0, 0x0c, 0x09}));
}

// ACPI 6.4, 20.2.4: the length's own bytes count
TEST(Aml, PackageLengths) {
  EXPECT_EQ(aml::package({aml::integer(0), aml::integer(1)}).bytes(), (Bytes{0x12, 4, 2, 0, 1}));
  const Bytes long_one = aml::scope("\\X", aml::string(std::string(100, 'x'))).bytes();
  EXPECT_EQ(Bytes(long_one.begin(), long_one.begin() + 3), (Bytes{0x10, 0x40 | (109 & 15), 109 >> 4}));
  EXPECT_EQ(long_one.size(), 110u);
}

TEST(Aml, Descriptors) {
  EXPECT_EQ(aml::io_ports(0x70, 2).bytes(), (Bytes{0x47, 1, 0x70, 0, 0x70, 0, 1, 2}));
  EXPECT_EQ(aml::irq(8).bytes(), (Bytes{0x22, 0x00, 0x01}));
  EXPECT_EQ(aml::dma(2).bytes(), (Bytes{0x2a, 0x04, 0x00}));
  EXPECT_EQ(aml::resources(aml::irq(8)).bytes(), (Bytes{0x11, 8, 0x0a, 5, 0x22, 0, 1, 0x79, 0}));
  EXPECT_EQ(aml::interrupts({9}).bytes(), (Bytes{0x89, 6, 0, 0x09, 1, 9, 0, 0, 0}));
}

class AcpiTablesTest : public testing::Test {
 protected:
  static constexpr uint64_t kAddress = 0xf'0040;
  AcpiTablesTest() { tables_.link(kAddress); }

  uint64_t field(const Bytes& from, uint64_t at, unsigned size) const {
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) value |= uint64_t{from.at(at + i)} << 8 * i;
    return value;
  }
  // Offset of a table by its address, after a look at its header.
  uint64_t table(uint64_t address, const std::string& signature) const {
    const uint64_t at = address - kAddress;
    const Bytes& bytes = tables_.tables;
    EXPECT_EQ(std::string(bytes.begin() + static_cast<ptrdiff_t>(at),
                          bytes.begin() + static_cast<ptrdiff_t>(at) + 4),
              signature);
    const uint64_t length = field(bytes, at + 4, 4);
    if (signature != "FACS") {
      const auto first = bytes.begin() + static_cast<ptrdiff_t>(at);
      EXPECT_EQ(std::accumulate(first, first + static_cast<ptrdiff_t>(length), 0) & 0xff, 0) << signature;
    }
    return at;
  }

  AcpiTables tables_ = make_acpi_tables({.pm_block = 0xb000,
                                         .ram_below_4g = uint64_t{512} << 20,
                                         .processors = 1,
                                         .serial = {true, false, false, false}});
};

// ACPI 6.4, 5.2.5.3
TEST_F(AcpiTablesTest, EverythingIsFoundFromTheRootPointer) {
  const Bytes& rsdp = tables_.rsdp;
  EXPECT_EQ(std::string(rsdp.begin(), rsdp.begin() + 8), "RSD PTR ");
  EXPECT_EQ(std::accumulate(rsdp.begin(), rsdp.begin() + 20, 0) & 0xff, 0);
  EXPECT_EQ(std::accumulate(rsdp.begin(), rsdp.end(), 0) & 0xff, 0);
  const uint64_t rsdt = table(field(rsdp, 16, 4), "RSDT"), xsdt = table(field(rsdp, 24, 8), "XSDT");
  const char* expected[] = {"FACP", "APIC", "HPET", "WAET"};
  EXPECT_EQ(field(tables_.tables, rsdt + 4, 4), 36u + 4 * std::size(expected));
  for (unsigned i = 0; i < std::size(expected); i++) {
    const uint64_t address = field(tables_.tables, rsdt + 36 + 4 * i, 4);
    table(address, expected[i]);
    EXPECT_EQ(field(tables_.tables, xsdt + 36 + 8 * i, 8), address);
  }
  const uint64_t fadt = table(field(tables_.tables, rsdt + 36, 4), "FACP");
  EXPECT_EQ(table(field(tables_.tables, fadt + 36, 4), "FACS") % 64, 0u);
  EXPECT_EQ(field(tables_.tables, fadt + 132, 8), 0u) << "X_FIRMWARE_CTRL: a second FACS to Linux";
  table(field(tables_.tables, fadt + 40, 4), "DSDT");
  EXPECT_EQ(field(tables_.tables, fadt + 4, 4), 244u) << "revision 3's length";
  EXPECT_EQ(field(tables_.tables, fadt + 56, 4), 0xb000u) << "PM1a events follow the chip";
  EXPECT_EQ(field(tables_.tables, fadt + 140, 8), field(tables_.tables, fadt + 40, 4)) << "X_DSDT";
}

// ACPI 6.4, 9.9.1 and 9.9.2; as the disk parameter tables of SeaBIOS and QEMU's pc have it
TEST(AcpiFloppies, AreDescribedByTheirController) {
  const auto contains = [](const AcpiTables& tables, const Bytes& piece) {
    return std::ranges::search(tables.tables, piece).size() == piece.size();
  };
  const Bytes name = {'F', 'D', 'C', '0'};
  EXPECT_FALSE(contains(make_acpi_tables({}), name));
  // A drive for 2.88 MB as the second, none as the first
  const AcpiTables tables = make_acpi_tables({.floppies = {0, 5}});
  EXPECT_TRUE(contains(tables, name));
  EXPECT_TRUE(contains(tables, {0x47, 1, 0xf2, 3, 0xf2, 3,    1, 4,    0x47, 1, 0xf7, 3,
                                0xf7, 3, 1,    1, 0x22, 0x40, 0, 0x2a, 4,    0, 0x79, 0}));
  EXPECT_TRUE(contains(tables, {'_', 'F', 'D', 'E', 0x11, 23, 0x0a, 20, 0, 0, 0, 0, 1, 0,
                                0,   0,   0,   0,   0,    0,  0,    0,  0, 0, 2, 0, 0, 0}));
  EXPECT_FALSE(contains(tables, {'F', 'L', 'P', 'A'}));
  EXPECT_TRUE(contains(tables, {'F', 'L', 'P', 'B', 0x08, '_', 'A', 'D', 'R', 0x01}));
  // Drive 1, type 5, cylinders 0 to 79, sectors 1 to 36, heads 0 to 1
  EXPECT_TRUE(contains(
      tables, {0x08, '_', 'F', 'D', 'I', 0x12, 32, 16, 0x01, 0x0a, 5, 0x0a, 79, 0x0a, 36, 0x01, 0x0a, 0xaf}));
}

TEST_F(AcpiTablesTest, LoaderScriptHasTheLinksOfLink) {
  const AcpiTables fresh = make_acpi_tables({});
  const Bytes script = fresh.loader_script();
  EXPECT_EQ(script.size() % 128, 0u);
  EXPECT_EQ(script.size() / 128, 2 + fresh.pointers.size() + fresh.checksums.size());
  EXPECT_EQ(field(script, 0, 4), 1u);
  EXPECT_STREQ(reinterpret_cast<const char*>(&script[4]), "etc/acpi/tables");
  EXPECT_EQ(field(script, 60, 4), 64u);
  EXPECT_EQ(script[64], 1);
  EXPECT_STREQ(reinterpret_cast<const char*>(&script[128 + 4]), "etc/acpi/rsdp");
  EXPECT_EQ(script[128 + 64], 2);
}

}  // namespace
}  // namespace penumbra
