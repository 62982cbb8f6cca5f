#include "vcpu_fixture.h"

namespace penumbra {
namespace {

class MemoryAccess : public VcpuTest {};

struct CountingChip : MmioHandler {
  uint64_t mmio_read(uint64_t offset, unsigned size) override {
    ++reads;
    return 0x1122'3344'5566'7700 + offset + size;
  }
  void mmio_write(uint64_t offset, unsigned, uint64_t value) override {
    ++writes;
    last_offset = offset;
    last_value = value;
  }
  unsigned reads = 0, writes = 0;
  uint64_t last_offset = 0, last_value = 0;
};

TEST_F(MemoryAccess, ReadsWhatWasWrittenInEverySize) {
  long_mode(0);
  for (unsigned size : {1u, 2u, 4u, 8u}) {
    const uint64_t value = 0x8877'6655'4433'2211 & (size == 8 ? ~uint64_t{0} : (uint64_t{1} << size * 8) - 1);
    ASSERT_TRUE(cpu().write_linear(LinearAddr{0x6003}, value, size, TlbView::Supervisor));
    EXPECT_EQ(cpu().read_linear(LinearAddr{0x6003}, size, TlbView::Supervisor).value(), value);
    EXPECT_EQ(mem(0x6003, size), value);
  }
}

TEST_F(MemoryAccess, CrossesPagesThatAreNotNeighbours) {
  long_mode(0);
  set_page(0x7000, 0x20'0000 | 7);
  ASSERT_TRUE(
      cpu().write_linear(LinearAddr{0x6ffd}, uint64_t{0x8877'6655'4433'2211}, 8, TlbView::Supervisor));
  EXPECT_EQ(mem(0x6ffd, 2), 0x2211u);
  EXPECT_EQ(mem(0x20'0000, 4), 0x7766'5544u);
  EXPECT_EQ(cpu().read_linear(LinearAddr{0x6ffd}, 8, TlbView::Supervisor).value(), 0x8877'6655'4433'2211u);
}

TEST_F(MemoryAccess, FaultOnSecondPageWritesNothing) {
  long_mode(0);
  set_page(0x7000, 0);
  set_mem(0x6ff8, 8, 0);
  const auto result = cpu().write_linear(LinearAddr{0x6ffc}, ~uint64_t{0}, 8, TlbView::User);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().vector, vector::kPf);
  EXPECT_EQ(result.error().cr2, 0x7000u);
  EXPECT_EQ(result.error().error_code, page_fault::kWrite | page_fault::kUser);
  EXPECT_EQ(mem(0x6ff8, 8), 0u);
}

TEST_F(MemoryAccess, UserViewIsRefusedSupervisorPages) {
  long_mode(0);
  set_page(0x7000, 0x7000 | 3);
  EXPECT_TRUE(cpu().read_linear(LinearAddr{0x7000}, 4, TlbView::Supervisor));
  const auto user = cpu().read_linear(LinearAddr{0x7000}, 4, TlbView::User);
  ASSERT_FALSE(user);
  EXPECT_EQ(user.error().error_code, page_fault::kPresent | page_fault::kUser);
}

TEST_F(MemoryAccess, ProbeWriteSetsDirtyAndWritesNothing) {
  long_mode(0);
  set_page(0x7000, 0x7000 | 7);
  set_mem(0x7000, 8, 0x55);
  ASSERT_TRUE(cpu().probe_write(LinearAddr{0x7000}, 8, TlbView::Supervisor));
  EXPECT_EQ(mem(0x7000, 8), 0x55u);
  EXPECT_EQ(mem(kPageTables + 0x3000 + 7 * 8, 8) & 0x60, 0x60u);
}

TEST_F(MemoryAccess, ChipsAreReachedThroughTheMapAndCounted) {
  CountingChip chip;
  map_.add_mmio(PhysAddr{0xd0'0000'00}, 0x1000, chip, "chip");
  long_mode(0);
  set_page(0x7000, 0xd0'0000'00 | 7);
  EXPECT_EQ(cpu().read_linear(LinearAddr{0x7010}, 4, TlbView::Supervisor).value(), 0x5566'7714u);
  ASSERT_TRUE(cpu().write_linear(LinearAddr{0x7020}, uint64_t{0xabcd}, 2, TlbView::Supervisor));
  EXPECT_EQ(chip.last_offset, 0x20u);
  EXPECT_EQ(chip.last_value, 0xabcdu);
  EXPECT_EQ(cpu().stats().mmio_reads, 1u);
  EXPECT_EQ(cpu().stats().mmio_writes, 1u);
}

TEST_F(MemoryAccess, LinearAddressesWrapAt4GiBOutsideLongMode) {
  protected_mode(0);
  set_mem(0x6000, 4, 0x1234);
  EXPECT_EQ(cpu().read_linear(LinearAddr{0x1'0000'6000}, 4, TlbView::Supervisor).value(), 0x1234u);
}

TEST_F(MemoryAccess, FetchBeyondTheCodeLimitIsAGeneralProtectionFault) {
  protected_mode(0);
  s().segments[kCs].limit = 0x5fff;
  EXPECT_TRUE(cpu().translate_fetch(LinearAddr{0x5fff}));
  EXPECT_EQ(cpu().translate_fetch(LinearAddr{0x6000}).error().vector, vector::kGp);
}

TEST_F(MemoryAccess, FetchHonoursNoExecute) {
  long_mode(3);
  set_page(0x7000, uint64_t{1} << 63 | 0x7000 | 7);
  EXPECT_TRUE(cpu().read_linear(LinearAddr{0x7000}, 4, TlbView::User));
  const auto fetch = cpu().translate_fetch(LinearAddr{0x7000});
  ASSERT_FALSE(fetch);
  EXPECT_EQ(fetch.error().error_code, page_fault::kPresent | page_fault::kUser | page_fault::kFetch);
  EXPECT_EQ(cpu().translate_fetch(LinearAddr{0x8000'0000'0000}).error().vector, vector::kGp);
}

}  // namespace
}  // namespace penumbra
