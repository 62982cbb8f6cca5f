// Page-table walks. Expected values: SDM vol. 3, 4.3 to 4.7.
#include "mmu/page_walker.h"

#include <gtest/gtest.h>

namespace penumbra {
namespace {

constexpr uint64_t kP = 1, kW = 2, kU = 4, kA = 0x20, kD = 0x40, kPs = 0x80, kG = 0x100;
constexpr uint64_t kNx = uint64_t{1} << 63;
constexpr Privilege kUserMode{.user = true}, kSupervisor{}, kSupervisorAc{.ac = true};

class PageWalkerTest : public testing::Test {
 protected:
  static constexpr uint64_t kRoot = 0x1000, kTable3 = 0x2000, kTable2 = 0x3000, kTable1 = 0x4000,
                            kPage = 0x9000;

  // Four levels to one 4 KiB page at linear 0x4567'8000'3000; every upper entry allows everything.
  static constexpr LinearAddr kLinear{0x4567'8000'3123};
  void levels4(uint64_t leaf) {
    paging_.mode = PagingMode::Levels4;
    paging_.root = kRoot;
    paging_.no_execute = true;
    put(kRoot, 39, kTable3 | kP | kW | kU);
    put(kTable3, 30, kTable2 | kP | kW | kU);
    put(kTable2, 21, kTable1 | kP | kW | kU);
    put(kTable1, 12, leaf);
  }
  uint64_t slot(uint64_t table, unsigned shift) const { return table + (kLinear.value >> shift & 511) * 8; }
  void put(uint64_t table, unsigned shift, uint64_t entry) { map_.write({slot(table, shift)}, 8, entry); }
  uint64_t get(uint64_t table, unsigned shift) { return map_.read({slot(table, shift)}, 8); }

  // The error code of a walk that must fail, or ~0 when it succeeds.
  uint32_t error(AccessKind access, Privilege privilege, LinearAddr address = kLinear) {
    const auto result = walker_.walk(paging_, address, access, privilege);
    if (result) return ~0u;
    EXPECT_EQ(result.error().address, address);
    return result.error().error_code;
  }

  PhysicalMap map_{16 << 20};
  PageWalker walker_{map_};
  PagingState paging_;
};

TEST_F(PageWalkerTest, WithoutPagingLinearIsPhysical) {
  const auto result = walker_.walk(paging_, {0x1'0000'1234}, AccessKind::Write, kUserMode);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->physical, PhysAddr{0x1234});
  EXPECT_TRUE(result->may_write);
}

TEST_F(PageWalkerTest, FourLevelsGiveTheAddressAndSetAccessedBits) {
  levels4(kPage | kP | kW | kU);
  const auto result = walker_.walk(paging_, kLinear, AccessKind::Read, kUserMode);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->physical, PhysAddr{kPage + 0x123});
  EXPECT_EQ(result->page_bytes, kPageSize);
  EXPECT_FALSE(result->may_write) << "the dirty bit is not set yet";
  EXPECT_TRUE(result->may_fetch);
  EXPECT_EQ(get(kRoot, 39) & kA, kA);
  EXPECT_EQ(get(kTable1, 12) & (kA | kD), kA);
}

TEST_F(PageWalkerTest, AWriteSetsTheDirtyBitOfTheLeafOnly) {
  levels4(kPage | kP | kW | kU);
  const auto result = walker_.walk(paging_, kLinear, AccessKind::Write, kUserMode);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->may_write);
  EXPECT_EQ(get(kTable1, 12) & (kA | kD), kA | kD);
  EXPECT_EQ(get(kTable2, 21) & (kA | kD), kA);
}

TEST_F(PageWalkerTest, AFaultLeavesTheLeafAlone) {
  levels4(kPage | kP | kU);
  EXPECT_EQ(error(AccessKind::Write, kUserMode),
            page_fault::kPresent | page_fault::kWrite | page_fault::kUser);
  EXPECT_EQ(get(kTable1, 12), kPage | kP | kU);
}

TEST_F(PageWalkerTest, AbsentEntriesAtEveryLevel) {
  for (const auto& [table, shift] : {std::pair{kRoot, 39u}, {kTable3, 30u}, {kTable2, 21u}, {kTable1, 12u}}) {
    levels4(kPage | kP | kW | kU);
    put(table, shift, 0);
    EXPECT_EQ(error(AccessKind::Read, kSupervisor), 0u);
    EXPECT_EQ(error(AccessKind::Write, kUserMode), page_fault::kWrite | page_fault::kUser);
    EXPECT_EQ(error(AccessKind::Fetch, kUserMode), page_fault::kFetch | page_fault::kUser);
  }
}

TEST_F(PageWalkerTest, RightsAreThoseOfAllLevelsTogether) {
  levels4(kPage | kP | kW | kU);
  put(kTable3, 30, kTable2 | kP | kU);  // read-only
  EXPECT_EQ(error(AccessKind::Write, kUserMode),
            page_fault::kPresent | page_fault::kWrite | page_fault::kUser);
  put(kTable3, 30, kTable2 | kP | kW);  // supervisor
  EXPECT_EQ(error(AccessKind::Read, kUserMode), page_fault::kPresent | page_fault::kUser);
  put(kTable3, 30, kTable2 | kP | kW | kU | kNx);
  EXPECT_EQ(error(AccessKind::Fetch, kUserMode),
            page_fault::kPresent | page_fault::kUser | page_fault::kFetch);
}

TEST_F(PageWalkerTest, SupervisorWritesToReadOnlyPagesFollowWp) {
  levels4(kPage | kP);
  EXPECT_EQ(error(AccessKind::Write, kSupervisor), ~0u);
  paging_.write_protect = true;
  levels4(kPage | kP);
  EXPECT_EQ(error(AccessKind::Write, kSupervisor), page_fault::kPresent | page_fault::kWrite);
}

TEST_F(PageWalkerTest, SmepAndSmap) {
  levels4(kPage | kP | kW | kU);
  EXPECT_EQ(error(AccessKind::Fetch, kSupervisor), ~0u);
  paging_.smep = true;
  EXPECT_EQ(error(AccessKind::Fetch, kSupervisor), page_fault::kPresent | page_fault::kFetch);
  EXPECT_EQ(error(AccessKind::Read, kSupervisor), ~0u);
  paging_.smap = true;
  EXPECT_EQ(error(AccessKind::Read, kSupervisor), page_fault::kPresent);
  EXPECT_EQ(error(AccessKind::Read, kSupervisorAc), ~0u);
  EXPECT_EQ(error(AccessKind::Read, kUserMode), ~0u);
}

TEST_F(PageWalkerTest, NxWithoutNxeIsReservedAndFetchBitFollowsNxeAndSmep) {
  levels4(kPage | kP | kW | kU | kNx);
  paging_.no_execute = false;
  EXPECT_EQ(error(AccessKind::Read, kUserMode),
            page_fault::kPresent | page_fault::kReserved | page_fault::kUser);
  EXPECT_EQ(error(AccessKind::Fetch, kUserMode),
            page_fault::kPresent | page_fault::kReserved | page_fault::kUser);
  paging_.smep = true;
  EXPECT_EQ(error(AccessKind::Fetch, kUserMode),
            page_fault::kPresent | page_fault::kReserved | page_fault::kUser | page_fault::kFetch);
}

TEST_F(PageWalkerTest, ReservedBitsComeBeforePermissions) {
  levels4(kPage | kP | uint64_t{1} << 45);  // beyond 40 physical bits
  EXPECT_EQ(error(AccessKind::Write, kUserMode),
            page_fault::kPresent | page_fault::kReserved | page_fault::kUser | page_fault::kWrite);
  levels4(kPage | kP | kW | kU);
  put(kRoot, 39, kTable3 | kP | kW | kU | kPs);
  EXPECT_EQ(error(AccessKind::Read, kSupervisor), page_fault::kPresent | page_fault::kReserved);
}

TEST_F(PageWalkerTest, LargePages) {
  levels4(0);
  paging_.global_pages = true;
  put(kTable2, 21, 0x60'0000 | kP | kW | kU | kPs | kG | kD);
  auto result = walker_.walk(paging_, kLinear, AccessKind::Read, kUserMode);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->physical, PhysAddr{0x60'0000 + (kLinear.value & 0x1f'ffff)});
  EXPECT_EQ(result->page_bytes, uint64_t{2} << 20);
  EXPECT_TRUE(result->global);
  EXPECT_TRUE(result->may_write) << "the dirty bit was set";
  put(kTable2, 21, 0x60'2000 | kP | kW | kU | kPs);
  EXPECT_EQ(error(AccessKind::Read, kSupervisor), page_fault::kPresent | page_fault::kReserved);

  put(kTable3, 30, 0x4000'0000 | kP | kW | kU | kPs);
  result = walker_.walk(paging_, kLinear, AccessKind::Read, kUserMode);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->physical, PhysAddr{0x4000'0000 + (kLinear.value & 0x3fff'ffff)});
  EXPECT_EQ(result->page_bytes, uint64_t{1} << 30);
}

TEST_F(PageWalkerTest, ThirtyTwoBitPaging) {
  paging_.mode = PagingMode::Bits32;
  paging_.root = kRoot;
  map_.write({kRoot + 0x345 * 4}, 4, kTable1 | kP | kW | kU);
  map_.write({kTable1 + 0x67 * 4}, 4, kPage | kP | kW | kU);
  const LinearAddr address{uint64_t{0x345} << 22 | uint64_t{0x67} << 12 | 0x89};
  auto result = walker_.walk(paging_, address, AccessKind::Write, kUserMode);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->physical, PhysAddr{kPage + 0x89});
  EXPECT_EQ(map_.read({kTable1 + 0x67 * 4}, 4), kPage | kP | kW | kU | kA | kD);
  // No XD in 32-bit paging: the fetch bit is reported only with SMEP.
  EXPECT_EQ(error(AccessKind::Fetch, kUserMode, {0}), page_fault::kUser);

  // PS is ignored without CR4.PSE, and makes a 4 MiB page with PSE-36 address bits with it.
  map_.write({kRoot + 0x345 * 4}, 4, 0xc0'0000 | 1 << 13 | kP | kW | kU | kPs);
  paging_.page_size_ext = true;
  result = walker_.walk(paging_, address, AccessKind::Read, kUserMode);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->physical, PhysAddr{0x1'00c0'0000 + (address.value & 0x3f'ffff)});
  EXPECT_EQ(result->page_bytes, uint64_t{4} << 20);
  map_.write({kRoot + 0x345 * 4}, 4, 0xc0'0000 | 1 << 21 | kP | kW | kU | kPs);
  EXPECT_EQ(error(AccessKind::Read, kSupervisor, address), page_fault::kPresent | page_fault::kReserved);
}

TEST_F(PageWalkerTest, PaeTakesThePdptesFromTheState) {
  paging_.mode = PagingMode::Pae;
  paging_.no_execute = true;
  paging_.pdpte[2] = kTable2 | kP;
  const LinearAddr address{0x8020'3456};
  EXPECT_EQ(error(AccessKind::Read, kUserMode, {0x4000'0000}), page_fault::kUser);
  map_.write({kTable2 + 8}, 8, kTable1 | kP | kW | kU);
  map_.write({kTable1 + 3 * 8}, 8, kPage | kP | kW | kU | kNx);
  auto result = walker_.walk(paging_, address, AccessKind::Read, kUserMode);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->physical, PhysAddr{kPage + 0x456});
  EXPECT_FALSE(result->may_fetch);
  map_.write({kTable1 + 3 * 8}, 8,
             kPage | kP | kW | kU | uint64_t{1} << 58);  // bits 52 to 62 are reserved in PAE
  EXPECT_EQ(error(AccessKind::Read, kSupervisor, address), page_fault::kPresent | page_fault::kReserved);
}

TEST_F(PageWalkerTest, TablesBeyondMemoryFaultAndHarmNothing) {
  levels4(kPage | kP | kW | kU);
  paging_.root = 0x7f'ffff'f000;  // nothing there: reads as ones, so reserved bits are set
  EXPECT_EQ(error(AccessKind::Write, kSupervisor),
            page_fault::kPresent | page_fault::kReserved | page_fault::kWrite);
}

TEST_F(PageWalkerTest, ProbeChecksNothingAndSetsNothing) {
  levels4(kPage | kP);
  const auto physical = walker_.probe(paging_, kLinear);
  ASSERT_TRUE(physical);
  EXPECT_EQ(*physical, PhysAddr{kPage + 0x123});
  EXPECT_EQ(get(kTable1, 12), kPage | kP);
}

}  // namespace
}  // namespace penumbra
