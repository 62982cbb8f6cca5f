// The bus and the functions of the chip set: host bridge, ISA bridge, power management.
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "devices/acpi_pm_piix4.h"
#include "devices/host_bridge_440fx.h"
#include "devices/isa_bridge_piix3.h"
#include "devices/pci_bus.h"
#include "devices/reset_control.h"
#include "tests/devices/chip_fixture.h"

namespace penumbra {
namespace {

constexpr uint64_t kMiB = 1 << 20;

class HostBridgeTest : public testing::Test {
 protected:
  HostBridgeTest() {
    io_.add(0xcf8, 8, bridge_);
    bus_.add(0, bridge_);
  }
  uint32_t read(unsigned offset, unsigned size) {
    io_.write(0xcf8, 4, 0x8000'0000 | (offset & 0xfc));
    return io_.read(static_cast<uint16_t>(0xcfc + (offset & 3)), size);
  }
  void write(unsigned offset, unsigned size, uint32_t value) {
    io_.write(0xcf8, 4, 0x8000'0000 | (offset & 0xfc));
    io_.write(static_cast<uint16_t>(0xcfc + (offset & 3)), size, value);
  }

  PhysicalMap map_{2 * kMiB};
  PciBus bus_{[](unsigned, bool) {}};
  unsigned resets_ = 0;
  ResetControl reset_control_{[this] { resets_++; }};
  HostBridge440fx bridge_{map_, bus_, reset_control_};
  IoBus io_;
};

// PCI 3.0, 3.2.2.3.2
TEST_F(HostBridgeTest, ConfigurationMechanism1) {
  EXPECT_EQ(read(0, 4), 0x1237'8086u);
  EXPECT_EQ(read(2, 2), 0x1237u);
  EXPECT_EQ(read(1, 1), 0x80u);
  EXPECT_EQ(io_.read(0xcf8, 4), 0x8000'0000u);
  io_.write(0xcf8, 4, 0x0000'0000);
  EXPECT_EQ(io_.read(0xcfc, 4), 0xffff'ffffu) << "not enabled";
  io_.write(0xcf8, 4, 0x8001'0000);
  EXPECT_EQ(io_.read(0xcfc, 4), 0xffff'ffffu) << "bus 1";
  io_.write(0xcf8, 4, 0x8000'0800);
  EXPECT_EQ(io_.read(0xcfc, 4), 0xffff'ffffu) << "nothing there";
  io_.write(0xcf8, 4, 0xffff'ffff);
  EXPECT_EQ(io_.read(0xcf8, 4), 0x80ff'ffffu);
}

TEST_F(HostBridgeTest, OnlyDoublewordsReachTheAddressRegister) {
  io_.write(0xcf8, 4, 0x8000'0000);
  io_.write(0xcf9, 1, 0x06);
  EXPECT_EQ(resets_, 1u);
  EXPECT_EQ(io_.read(0xcf9, 1), 0x06u);
  io_.write(0xcf8, 2, 0x1111);
  EXPECT_EQ(io_.read(0xcf8, 4), 0x8000'0000u);
  io_.write(0xcf8, 4, 0x8000'0f00);
  EXPECT_EQ(resets_, 1u);
}

// 290549, 3.2.18 (PAM): read enable, write enable for each half byte
TEST_F(HostBridgeTest, ShadowRam) {
  const std::vector<std::byte> rom(0x2'0000, std::byte{0x5a});
  map_.add_rom({0xe'0000}, rom);
  EXPECT_EQ(map_.read({0xf'0000}, 1), 0x5au);
  EXPECT_EQ(map_.read({0xc'0000}, 1), 0xffu);
  write(0x59, 1, 0x30);  // F0000h: RAM
  map_.write({0xf'0000}, 1, 0x11);
  EXPECT_EQ(map_.read({0xf'0000}, 1), 0x11u);
  EXPECT_EQ(map_.read({0xe'ffff}, 1), 0x5au);
  write(0x59, 1, 0x10);  // read only
  map_.write({0xf'0000}, 1, 0x22);
  EXPECT_EQ(map_.read({0xf'0000}, 1), 0x11u);
  write(0x5a, 1, 0x31);  // C0000h read only, C4000h RAM
  map_.write({0xc'4000}, 1, 0x33);
  EXPECT_EQ(map_.read({0xc'4000}, 1), 0x33u);
  EXPECT_EQ(map_.page({0xc'0000}).kind, PhysicalMap::PageKind::Rom);
  EXPECT_EQ(map_.page({0xc'8000}).kind, PhysicalMap::PageKind::Unclaimed);
  write(0x5f, 1, 0x30);  // EC000h
  EXPECT_EQ(map_.page({0xe'c000}).kind, PhysicalMap::PageKind::Ram);
  EXPECT_EQ(map_.page({0xe'8000}).kind, PhysicalMap::PageKind::Rom);
  bridge_.reset();
  EXPECT_EQ(map_.read({0xf'0000}, 1), 0x5au);
  EXPECT_EQ(map_.read({0xc'4000}, 1), 0xffu);
  bridge_.open_shadow_ram();
  EXPECT_TRUE(map_.is_ram({0xc'0000}, 0x4'0000));
  EXPECT_EQ(map_.page({0xa'0000}).kind, PhysicalMap::PageKind::Unclaimed);
}

TEST(PciBus, InterruptPinsShareFourLines) {
  std::vector<std::pair<unsigned, bool>> seen;
  PciBus bus([&](unsigned pirq, bool level) { seen.push_back({pirq, level}); });
  const auto first = bus.interrupt_line(PciBus::address(1, 2)),
             second = bus.interrupt_line(PciBus::address(5, 0)),
             third = bus.interrupt_line(PciBus::address(3, 0));
  first(true);
  second(true);
  first(false);
  third(true);
  second(false);
  second(false);
  EXPECT_EQ(seen, (std::vector<std::pair<unsigned, bool>>{{0, true}, {2, true}, {0, false}}));
}

TEST(PciBus, PlacesAreTakenOnce) {
  PciBus bus([](unsigned, bool) {});
  IsaBridgePiix3 first([](unsigned, bool) {}), second([](unsigned, bool) {});
  bus.add(PciBus::address(2, 0), first);
  EXPECT_THROW(bus.add(PciBus::address(2, 0), second), std::invalid_argument);
  EXPECT_EQ(bus.free_device(2), 3u);
  EXPECT_EQ(bus.free_device(1), 1u);
}

// 290550, 2.2.8 (PIRQRC)
TEST(IsaBridgePiix3, RoutesPirqs) {
  std::vector<std::pair<unsigned, bool>> seen;
  IsaBridgePiix3 bridge([&](unsigned irq, bool level) { seen.push_back({irq, level}); });
  using Expected = std::vector<std::pair<unsigned, bool>>;
  bridge.set_pirq(0, true);
  EXPECT_TRUE(seen.empty()) << "not routed after reset";
  bridge.config().write(0x60, 1, 10);
  EXPECT_EQ(seen, (Expected{{10, true}}));
  seen.clear();
  bridge.config().write(0x61, 1, 10);
  bridge.set_pirq(1, true);
  bridge.set_pirq(0, false);
  EXPECT_TRUE(seen.empty()) << "PIRQ B holds the line";
  bridge.config().write(0x61, 1, 11);
  EXPECT_EQ(seen, (Expected{{10, false}, {11, true}}));
  seen.clear();
  bridge.config().write(0x61, 1, 0x8b);
  EXPECT_EQ(seen, (Expected{{11, false}}));
  seen.clear();
  bridge.config().write(0x61, 1, 8);
  EXPECT_TRUE(seen.empty()) << "IRQ 8 is reserved";
}

class AcpiPmTest : public testing::Test {
 protected:
  AcpiPmTest() { pm_.set_up(kBlock, 9); }
  static constexpr uint16_t kBlock = 0x600;
  uint16_t in16(uint16_t offset) { return static_cast<uint16_t>(io_.read(kBlock + offset, 2)); }
  void out16(uint16_t offset, uint16_t value) { io_.write(kBlock + offset, 2, value); }

  TestClock time_;
  IoBus io_;
  TestLine sci_;
  unsigned power_offs_ = 0;
  AcpiPmPiix4 pm_{time_.clock(), io_, sci_.input(), [this] { power_offs_++; }};
};

// 290562, 7.2.4 (PMTMR): 24 bits at 3.579545 MHz
TEST_F(AcpiPmTest, TimerCounts) {
  EXPECT_EQ(io_.read(kBlock + 8, 4), 0u);
  time_.advance(1'000'000'000);
  EXPECT_EQ(io_.read(kBlock + 8, 4), 3'579'545u);
  time_.advance(4'000'000'000);
  EXPECT_EQ(io_.read(kBlock + 8, 4), 5u * 3'579'545 & 0xff'ffff);
}

// ACPI 6.4, 4.8.3.1.1: TMR_STS is set when the uppermost bit changes
TEST_F(AcpiPmTest, TimerInterruptsWhenItsUppermostBitChanges) {
  pm_.write(AcpiPmPiix4::kApm, 1, AcpiPmPiix4::kEnableAcpi);
  out16(2, 1);
  time_.advance(2'343'000'000);  // 2^23 ticks are 2.3435 s
  EXPECT_FALSE(sci_.level());
  EXPECT_EQ(in16(0) & 1, 0);
  time_.advance(1'000'000);
  EXPECT_TRUE(sci_.level());
  EXPECT_EQ(in16(0) & 1, 1);
  out16(0, 1);
  EXPECT_FALSE(sci_.level());
  time_.advance(2'343'500'000);
  EXPECT_TRUE(sci_.level());
  out16(2, 0);
  EXPECT_FALSE(sci_.level());
  EXPECT_EQ(time_.clock().next_deadline(), std::nullopt);
}

TEST_F(AcpiPmTest, PowerButtonInterruptsOnceAcpiIsOn) {
  out16(2, 0x100);
  pm_.press_power_button();
  EXPECT_EQ(in16(0), 0x100);
  EXPECT_FALSE(sci_.level()) << "firmware's business";
  pm_.write(AcpiPmPiix4::kApm, 1, AcpiPmPiix4::kEnableAcpi);
  EXPECT_EQ(in16(4), 1);
  EXPECT_TRUE(sci_.level());
  out16(0, 0x100);
  EXPECT_EQ(in16(0), 0);
  EXPECT_FALSE(sci_.level());
  pm_.write(AcpiPmPiix4::kApm, 1, AcpiPmPiix4::kDisableAcpi);
  EXPECT_EQ(in16(4), 0);
}

// ACPI 6.4, 4.8.3.2.1
TEST_F(AcpiPmTest, SleepEnableWithTheTypeOfSoftOffEndsTheMachine) {
  out16(4, 0x0001);
  EXPECT_EQ(power_offs_, 0u);
  out16(4, 0x2401);
  EXPECT_EQ(power_offs_, 0u) << "type 1 is a sleep that the board does not have";
  out16(4, 0x2001);
  EXPECT_EQ(power_offs_, 1u);
  EXPECT_EQ(in16(4), 0x0001) << "SLP_EN reads as 0";
}

TEST_F(AcpiPmTest, BlockMovesWithItsBase) {
  out16(2, 0x120);
  pm_.config().write(0x40, 4, 0xb001);
  EXPECT_EQ(io_.read(kBlock + 2, 2), 0xffffu);
  EXPECT_EQ(io_.read(0xb002, 2), 0x120u);
  pm_.config().write(0x80, 1, 0);
  EXPECT_EQ(io_.read(0xb002, 2), 0xffffu);
}

}  // namespace
}  // namespace penumbra
