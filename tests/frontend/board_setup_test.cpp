#include "frontend/board_setup.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/io_bus.h"
#include "core/virtual_clock.h"

namespace penumbra {
namespace {

class Control : public MachineControl {
 public:
  void request_reset() override {}
  void request_exit(int) override {}
  void request_nmi() override {}
  void set_a20(bool) override {}
};

class BoardSetup : public testing::Test {
 protected:
  BoardSetup() { set_up_board(board_, map_); }
  Control control_;
  VirtualClock clock_{[] { return Nanoseconds{0}; }};
  IoBus io_;
  PhysicalMap map_{uint64_t{64} << 20};
  PcBoard board_{control_, clock_, io_, map_, [](bool) {}, {}};

  uint64_t at(uint64_t address, unsigned size) { return map_.read({address}, size); }
  uint8_t sum(uint64_t address, uint64_t bytes) {
    uint8_t total = 0;
    for (uint64_t i = 0; i < bytes; ++i) total = static_cast<uint8_t>(total + at(address + i, 1));
    return total;
  }
};

// ACPI 6.4, 5.2.5.1: on a paragraph between E0000h and FFFFFh.
TEST_F(BoardSetup, RootPointerAndTablesAreLinked) {
  EXPECT_EQ(at(kAcpiRootPointer, 8), 0x2052'5450'2044'5352u);  // "RSD PTR "
  EXPECT_EQ(sum(kAcpiRootPointer, 20), 0);
  EXPECT_EQ(sum(kAcpiRootPointer, 36), 0);
  const uint64_t xsdt = at(kAcpiRootPointer + 24, 8);
  EXPECT_EQ(at(xsdt, 4), 0x5444'5358u);
  const uint64_t length = at(xsdt + 4, 4);
  EXPECT_EQ(sum(xsdt, length), 0);
  for (uint64_t entry = xsdt + 36; entry < xsdt + length; entry += 8) {
    const uint64_t table = at(entry, 8);
    EXPECT_EQ(sum(table, at(table + 4, 4)), 0) << std::hex << table;
  }
}

TEST_F(BoardSetup, PortsAndInterruptsAreAssigned) {
  PciConfig& ide = board_.pci().at(PciBus::address(1, 1))->config();
  EXPECT_EQ(ide.dword(PciConfig::kBase0 + 4 * 4), 0xc001u);
  EXPECT_TRUE(ide.word(PciConfig::kCommand) & PciConfig::kIoSpace);
  EXPECT_EQ(io_.read(0xc002, 1), 0u) << "the bus master's status";
  EXPECT_EQ(board_.power_management().block(), 0x600);
  EXPECT_EQ(io_.read(0x4d1, 1) & 0x0c, 0x0cu) << "IRQ 10 and 11 are level-triggered";
}

// A kernel that reboots finds the machine as it found it first.
TEST_F(BoardSetup, AgainAfterAReset) {
  map_.write({kAcpiRootPointer}, 8, 0);
  board_.reset();
  EXPECT_NE(board_.power_management().block(), 0x600);
  set_up_board(board_, map_);
  EXPECT_EQ(sum(kAcpiRootPointer, 36), 0);
  EXPECT_EQ(board_.power_management().block(), 0x600);
}

}  // namespace
}  // namespace penumbra
