#include "mmu/physical_map.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace penumbra {
namespace {

constexpr uint64_t kMiB = 1 << 20;

class Registers : public MmioHandler {
 public:
  uint64_t mmio_read(uint64_t offset, unsigned size) override {
    return 0x1111'1111'1111'1111 * size + offset;
  }
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override {
    last_offset = offset;
    last_size = size;
    last_value = value;
  }
  uint64_t last_offset = 0, last_value = 0;
  unsigned last_size = 0;
};

TEST(PhysicalMap, RamKeepsWhatIsWritten) {
  PhysicalMap map(2 * kMiB);
  map.write({0x1234}, 8, 0x1122334455667788);
  EXPECT_EQ(map.read({0x1234}, 8), 0x1122334455667788u);
  EXPECT_EQ(map.read({0x1236}, 2), 0x5566u);
  EXPECT_EQ(map.page({0x1234}).kind, PhysicalMap::PageKind::Ram);
}

TEST(PhysicalMap, UnclaimedAddressesReadAsOnesAndSwallowWrites) {
  PhysicalMap map(kMiB);
  map.write({kMiB}, 4, 0);
  EXPECT_EQ(map.read({kMiB}, 4), 0xffff'ffffu);
  EXPECT_EQ(map.read({uint64_t{1} << 51}, 8), ~uint64_t{0});
  std::vector<std::byte> bytes(32, std::byte{0});
  map.read_bytes({kMiB - 16}, bytes);
  EXPECT_EQ(bytes[15], std::byte{0});
  EXPECT_EQ(bytes[16], std::byte{0xff});
}

TEST(PhysicalMap, RamAboveTheLowLimitContinuesAt4GiB) {
  PhysicalMap map(PhysicalMap::kLowRamLimit + 16 * kMiB);
  EXPECT_EQ(map.ram_below_4g(), PhysicalMap::kLowRamLimit);
  EXPECT_EQ(map.ram_above_4g(), 16 * kMiB);
  EXPECT_EQ(map.page({PhysicalMap::kLowRamLimit}).kind, PhysicalMap::PageKind::Unclaimed);
  map.write({(uint64_t{1} << 32) + 8}, 4, 42);
  EXPECT_EQ(map.read({(uint64_t{1} << 32) + 8}, 4), 42u);
  EXPECT_EQ(map.page({(uint64_t{1} << 32) + 16 * kMiB}).kind, PhysicalMap::PageKind::Unclaimed);
}

TEST(PhysicalMap, RomCoversRamAndIgnoresWrites) {
  PhysicalMap map(2 * kMiB);
  const std::vector<std::byte> image(kPageSize, std::byte{0x5a});
  map.write({0xf0000}, 1, 1);
  map.add_rom({0xf0000}, image);
  EXPECT_EQ(map.read({0xf0000}, 1), 0x5au);
  map.write({0xf0000}, 1, 2);
  const std::vector<std::byte> dma(16, std::byte{3});
  map.write_bytes({0xf0000}, dma);
  EXPECT_EQ(map.read({0xf0000}, 1), 0x5au);
}

TEST(PhysicalMap, MmioGetsOffsetSizeAndValue) {
  PhysicalMap map(kMiB);
  Registers chip;
  map.add_mmio({0xfe00'0000}, 2 * kPageSize, chip, "chip");
  EXPECT_EQ(map.read({0xfe00'1010}, 2), (0x2222 + 0x1010) & 0xffffu);
  map.write({0xfe00'1020}, 4, 0xffff'ffff'1234'5678);
  EXPECT_EQ(chip.last_offset, 0x1020u);
  EXPECT_EQ(chip.last_size, 4u);
  EXPECT_EQ(chip.last_value, 0x1234'5678u);
}

TEST(PhysicalMap, OverlappingOrOddRegionsAreRefused) {
  PhysicalMap map(kMiB);
  Registers chip;
  map.add_mmio({0xfe00'0000}, kPageSize, chip, "first");
  EXPECT_THROW(map.add_mmio({0xfe00'0000}, kPageSize, chip, "second"), std::invalid_argument);
  EXPECT_THROW(map.add_mmio({0xfdff'f000}, 2 * kPageSize, chip, "second"), std::invalid_argument);
  EXPECT_THROW(map.add_mmio({0xfe00'1800}, kPageSize, chip, "odd"), std::invalid_argument);
  EXPECT_THROW(map.add_mmio({0xfe01'0000}, 0, chip, "empty"), std::invalid_argument);
}

TEST(PhysicalMap, AbsurdSizesAreRefused) {
  EXPECT_THROW(PhysicalMap(0), std::runtime_error);
  EXPECT_THROW(PhysicalMap(kMiB + 1), std::runtime_error);
  EXPECT_THROW(PhysicalMap(uint64_t{1} << 60), std::runtime_error);
}

TEST(PhysicalMap, ClosedA20GateMasksBit20) {
  PhysicalMap map(4 * kMiB);
  map.write({0x500}, 1, 7);
  map.set_a20(false);
  EXPECT_EQ(map.read({kMiB + 0x500}, 1), 7u);
  EXPECT_EQ(map.page({kMiB}).frame, PageFrame{0});
  map.set_a20(true);
  EXPECT_EQ(map.read({kMiB + 0x500}, 1), 0u);
}

class CodeWrites : public CodeWriteListener {
 public:
  void code_written(PageFrame frame, uint64_t offset, uint64_t size) override {
    writes.push_back({frame.number, offset, size});
  }
  std::vector<std::array<uint64_t, 3>> writes;
};

TEST(PhysicalMap, WritesToCodeAreAnnouncedPageByPage) {
  PhysicalMap map(kMiB);
  CodeWrites listener;
  map.tracker().set_listener(&listener);
  map.tracker().set_holds_code({3}, true);
  map.tracker().set_holds_code({4}, true);
  map.write({0x2ff8}, 8, 0);
  EXPECT_TRUE(listener.writes.empty());
  map.write({0x3010}, 4, 0);
  const std::vector<std::byte> dma(0x20);
  map.write_bytes({0x3ff0}, dma);
  const std::vector<std::array<uint64_t, 3>> expected{{3, 0x10, 4}, {3, 0xff0, 16}, {4, 0, 16}};
  EXPECT_EQ(listener.writes, expected);
}

TEST(PhysicalMap, HoleHidesRamAndShadowShowsItAgain) {
  PhysicalMap map(2 * kMiB);
  map.write({0xc0000}, 1, 7);
  map.add_hole({0xa0000}, 0x60000);
  EXPECT_EQ(map.read({0xc0000}, 1), 0xffu);
  const auto shadow = map.add_shadow({0xc0000}, 0x4000);
  EXPECT_EQ(map.read({0xc0000}, 1), 0xffu);
  map.show(shadow, PhysicalMap::Visibility::ReadOnly);
  map.write({0xc0000}, 1, 8);
  EXPECT_EQ(map.read({0xc0000}, 1), 7u);
  EXPECT_EQ(map.page({0xc0000}).kind, PhysicalMap::PageKind::Rom);
  map.show(shadow, PhysicalMap::Visibility::Writable);
  map.write({0xc0000}, 1, 8);
  EXPECT_EQ(map.read({0xc0000}, 1), 8u);
  EXPECT_EQ(map.page({0xc4000}).kind, PhysicalMap::PageKind::Unclaimed);
  map.show(shadow, PhysicalMap::Visibility::Hidden);
  EXPECT_EQ(map.read({0xc0000}, 1), 0xffu);
}

TEST(PhysicalMap, ShadowRamCoversRom) {
  PhysicalMap map(2 * kMiB);
  const std::vector<std::byte> image(0x20000, std::byte{0x5a});
  map.add_rom({0xe0000}, image);
  const auto shadow = map.add_shadow({0xf0000}, 0x10000);
  map.show(shadow, PhysicalMap::Visibility::Writable);
  map.write({0xfffff}, 1, 1);
  EXPECT_EQ(map.read({0xfffff}, 1), 1u);
  EXPECT_EQ(map.read({0xeffff}, 1), 0x5au);
  map.show(shadow, PhysicalMap::Visibility::Hidden);
  EXPECT_EQ(map.read({0xfffff}, 1), 0x5au);
}

TEST(PhysicalMap, PciRegionsMoveAndStayBehindRamAndBoard) {
  PhysicalMap map(2 * kMiB);
  Registers chip, board;
  map.add_mmio({0xfec0'0000}, kPageSize, board, "board");
  const auto bar = map.add_pci_mmio(2 * kPageSize, chip, "bar");
  const auto seen = [&](uint64_t address) { return map.page({address}).handler; };
  EXPECT_EQ(seen(0), nullptr);
  map.place(bar, PhysAddr{0xfebf'f000});
  EXPECT_EQ(seen(0xfebf'f000), &chip);
  EXPECT_EQ(seen(0xfec0'0000), &board);
  map.place(bar, PhysAddr{2 * kMiB - kPageSize});
  EXPECT_EQ(map.page({2 * kMiB - kPageSize}).kind, PhysicalMap::PageKind::Ram);
  EXPECT_EQ(seen(2 * kMiB), &chip);
  EXPECT_EQ(map.page({2 * kMiB}).region_offset, kPageSize);
  EXPECT_EQ(seen(0xfebf'f000), nullptr);
  map.place(bar, PhysAddr{(uint64_t{1} << 52) - kPageSize});
  EXPECT_EQ(seen((uint64_t{1} << 52) - kPageSize), nullptr) << "it would leave the address space";
  map.place(bar, std::nullopt);
  EXPECT_EQ(seen(2 * kMiB), nullptr);
}

TEST(PhysicalMap, OfTwoPciRegionsThatOverlapTheFirstIsSeen) {
  PhysicalMap map(kMiB);
  Registers first, second;
  const auto a = map.add_pci_mmio(kPageSize, first, "first");
  const auto b = map.add_pci_mmio(2 * kPageSize, second, "second");
  map.place(b, PhysAddr{0xe000'0000});
  map.place(a, PhysAddr{0xe000'0000});
  EXPECT_EQ(map.page({0xe000'0000}).handler, &first);
  EXPECT_EQ(map.page({0xe000'1000}).handler, &second);
}

TEST(PhysicalMap, ChangesAreAnnounced) {
  PhysicalMap map(2 * kMiB);
  CodeWrites listener;
  std::vector<bool> changes;
  Registers chip;
  const std::vector<std::byte> image(kPageSize);
  map.add_hole({0xa0000}, 0x60000);
  const auto shadow = map.add_shadow({0xc0000}, 0x4000);
  const auto bar = map.add_pci_mmio(kPageSize, chip, "bar");
  map.tracker().set_listener(&listener);
  map.set_change_listener([&](bool code) { changes.push_back(code); });
  map.tracker().set_holds_code({0xc1}, true);
  map.tracker().set_holds_code({0xc5}, true);
  map.show(shadow, PhysicalMap::Visibility::ReadOnly);
  const std::vector<std::array<uint64_t, 3>> expected{{0xc1, 0, kPageSize}};
  EXPECT_EQ(listener.writes, expected);
  map.show(shadow, PhysicalMap::Visibility::Writable);  // other rights, same bytes
  EXPECT_EQ(listener.writes, expected);
  map.show(shadow, PhysicalMap::Visibility::Writable);
  map.place(bar, PhysAddr{0xe000'0000});
  map.place(bar, PhysAddr{0xe000'0000});
  EXPECT_EQ(changes, (std::vector<bool>{false, false, false}));
}

TEST(PhysicalMap, IsRamLooksAtEveryByte) {
  PhysicalMap map(PhysicalMap::kLowRamLimit + kMiB);
  const std::vector<std::byte> image(kPageSize);
  map.add_rom({0xf0000}, image);
  EXPECT_TRUE(map.is_ram({0}, 0xf0000));
  EXPECT_FALSE(map.is_ram({0}, 0xf0001));
  EXPECT_FALSE(map.is_ram({0xf0800}, 1));
  EXPECT_TRUE(map.is_ram({0xf1000}, PhysicalMap::kLowRamLimit - 0xf1000));
  EXPECT_FALSE(map.is_ram({0xf1000}, PhysicalMap::kLowRamLimit - 0xf1000 + 1));
  EXPECT_TRUE(map.is_ram({uint64_t{1} << 32}, kMiB));
  EXPECT_FALSE(map.is_ram({uint64_t{1} << 32}, kMiB + 1));
  EXPECT_FALSE(map.is_ram({~uint64_t{0}}, 2));
  EXPECT_FALSE(map.is_ram({0x1000}, ~uint64_t{0}));
}

TEST(PhysicalMapDeviceRam, IsMemoryWhereItWasPlacedAndTellsOfWrites) {
  PhysicalMap map(uint64_t{4} << 20);
  std::atomic<bool> written{false};
  const auto region = map.add_pci_ram(2 * kPageSize, written, "frame buffer");
  const PhysAddr place{0xfd00'0000};
  EXPECT_EQ(map.page(place).kind, PhysicalMap::PageKind::Unclaimed);
  map.place(region, place);
  const PhysicalMap::Page page = map.page(place + kPageSize);
  EXPECT_EQ(page.kind, PhysicalMap::PageKind::Ram);
  EXPECT_EQ(page.written, &written);
  EXPECT_EQ(page.host, reinterpret_cast<HostPtr>(map.device_ram(region).data()) + kPageSize);
  EXPECT_TRUE(map.is_ram(place, 2 * kPageSize));
  // The same bytes through the file, which shadow windows map.
  std::byte stored{};
  map.write(place + (kPageSize + 7), 1, 0x5a);
  ASSERT_EQ(pread(map.ram_fd(), &stored, 1, static_cast<off_t>(map.ram_offset(page.host) + 7)), 1);
  EXPECT_EQ(stored, std::byte{0x5a});
  EXPECT_TRUE(written);

  std::pair<uint64_t, uint64_t> told;
  map.set_watch_listener([&](PageFrame first, uint64_t frames) { told = {first.number, frames}; });
  map.watch_writes(region);
  EXPECT_FALSE(written);
  EXPECT_EQ(told, (std::pair<uint64_t, uint64_t>{0xfd000, 2}));
  map.read(place, 8);
  EXPECT_FALSE(written);
  const std::byte bytes[2]{};
  map.write_bytes(place, bytes);
  EXPECT_TRUE(written);
  EXPECT_THROW(map.add_pci_ram(PhysicalMap::kDeviceRamLimit, written, "more"), std::runtime_error);
}

// Guests move the regions of their PCI devices about when they start; translations of all else must survive
// it.
TEST(PhysicalMapDeviceRam, MovedOnesMakeCodeStaleIfThereIsCodeThatNobodyTracks) {
  PhysicalMap map(uint64_t{4} << 20);
  std::atomic<bool> written{false};
  const auto region = map.add_pci_ram(kPageSize, written, "frame buffer");
  std::vector<bool> changes;
  map.set_change_listener([&](bool code) { changes.push_back(code); });
  map.place(region, PhysAddr{0xfd00'0000});
  map.place(region, PhysAddr{0xfe00'0000});
  map.tracker().set_holds_untracked_code(true);
  map.place(region, PhysAddr{0xfd00'0000});
  EXPECT_EQ(changes, (std::vector<bool>{false, false, true}));
}

TEST(PhysicalMapDeviceRam, RomOnPciIsNowhereUntilPlaced) {
  PhysicalMap map(uint64_t{4} << 20);
  const std::vector<std::byte> image(kPageSize, std::byte{0x55});
  const auto region = map.add_pci_rom(image);
  map.place(region, PhysAddr{0xfe00'0000});
  EXPECT_EQ(map.read(PhysAddr{0xfe00'0000}, 1), 0x55u);
  map.write(PhysAddr{0xfe00'0000}, 1, 0);
  EXPECT_EQ(map.read(PhysAddr{0xfe00'0000}, 1), 0x55u);
  map.place(region, std::nullopt);
  EXPECT_EQ(map.read(PhysAddr{0xfe00'0000}, 1), 0xffu);
}

}  // namespace
}  // namespace penumbra
