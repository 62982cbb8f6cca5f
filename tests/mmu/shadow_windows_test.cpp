// What a window lets an access reach, and what it must drop. Flush rules: SDM vol. 3, 4.10.4.
#include "mmu/shadow_windows.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <stdexcept>

#include "mmu/soft_tlb.h"

namespace penumbra {
namespace {

constexpr LinearAddr kUserPage{0x0000'5555'1234'5000}, kKernelPage{0xffff'8880'0030'0000};

// Whether host memory can be read or written, asked of the kernel so that a "no" is no signal.
class Prober {
 public:
  Prober() { EXPECT_EQ(pipe(ends_), 0); }
  ~Prober() {
    close(ends_[0]);
    close(ends_[1]);
  }
  bool readable(uint64_t host) {
    if (::write(ends_[1], reinterpret_cast<const void*>(host), 1) != 1) return false;
    char byte;
    return ::read(ends_[0], &byte, 1) == 1;
  }
  bool writable(uint64_t host) {
    char byte = 0;
    if (!readable(host)) return false;
    std::memcpy(&byte, reinterpret_cast<const void*>(host), 1);
    if (::write(ends_[1], &byte, 1) != 1) return false;
    if (::read(ends_[0], reinterpret_cast<void*>(host), 1) == 1) return true;
    EXPECT_EQ(::read(ends_[0], &byte, 1), 1);
    return false;
  }

 private:
  int ends_[2];
};

class ShadowWindowsTest : public testing::Test {
 protected:
  static Translation user_page(uint64_t physical, bool writable = true) {
    return {.physical = {physical}, .may_write = writable, .user = true, .writable = writable};
  }
  static Translation kernel_page(uint64_t physical, uint64_t bytes = kPageSize) {
    return {.physical = {physical}, .may_write = true, .global = true, .user = false, .page_bytes = bytes};
  }
  static constexpr auto k64 = ShadowWindows::Width::Bits64, k32 = ShadowWindows::Width::Bits32;
  uint64_t host(LinearAddr linear, TlbView view, unsigned space = 0, ShadowWindows::Width width = k64) const {
    if (width == k32) return linear.value + windows_.flat(space, view);
    return linear.value + windows_.table(space, view)[linear.value >> ShadowWindows::kRegionShift];
  }
  bool reads(LinearAddr linear, TlbView view, unsigned space = 0) {
    return prober_.readable(host(linear, view, space));
  }
  bool writes(LinearAddr linear, TlbView view, unsigned space = 0) {
    return prober_.writable(host(linear, view, space));
  }
  void TearDown() override { EXPECT_TRUE(windows_.check_invariants()); }

  PhysicalMap map_{16 << 20};
  ShadowWindows windows_{map_, 2};
  Prober prober_;
};

TEST_F(ShadowWindowsTest, AFilledPageIsGuestRam) {
  map_.write({0x7008}, 8, 0x1122334455667788);
  ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, kUserPage, user_page(0x7000), true));
  auto* const page = reinterpret_cast<uint64_t*>(host(kUserPage, TlbView::User));
  EXPECT_EQ(page[1], 0x1122334455667788u);
  page[2] = 42;
  EXPECT_EQ(map_.read({0x7010}, 8), 42u);
  EXPECT_FALSE(reads(kUserPage + kPageSize, TlbView::User));
}

TEST_F(ShadowWindowsTest, UserPagesServeUserAndSupervisorWithSmapLifted) {
  ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, kUserPage, user_page(0x7000), true));
  EXPECT_TRUE(writes(kUserPage, TlbView::SupervisorAc));
  EXPECT_FALSE(reads(kUserPage, TlbView::Supervisor));
  EXPECT_FALSE(reads(kUserPage, TlbView::User, 1));
}

TEST_F(ShadowWindowsTest, GlobalPagesServeTheSupervisorOfEverySpace) {
  ASSERT_TRUE(windows_.fill(0, TlbView::Supervisor, k64, kKernelPage, kernel_page(0x7000), true));
  EXPECT_TRUE(writes(kKernelPage, TlbView::Supervisor, 1));
  EXPECT_TRUE(writes(kKernelPage, TlbView::SupervisorAc, 1));
  EXPECT_FALSE(reads(kKernelPage, TlbView::User));
}

TEST_F(ShadowWindowsTest, PagesOfNeitherKindHaveNoWindow) {
  Translation translation = kernel_page(0x7000);
  translation.global = false;
  EXPECT_FALSE(windows_.fill(0, TlbView::Supervisor, k64, kKernelPage, translation, false));
  EXPECT_FALSE(windows_.fill(0, TlbView::Supervisor, k64, kUserPage, user_page(0x7000), false));
  translation = user_page(0x7000);
  translation.global = true;
  EXPECT_FALSE(windows_.fill(0, TlbView::User, k64, kUserPage, translation, false));
  EXPECT_FALSE(windows_.fill(0, TlbView::User, k64, kUserPage, user_page(0xfe00'0000), false)) << "not RAM";
}

TEST_F(ShadowWindowsTest, AUserPageOfTheUpperHalfIsNotTheSupervisorsWithSmap) {
  Translation translation = kernel_page(0x7000);
  translation.user = true;
  EXPECT_FALSE(windows_.fill(0, TlbView::SupervisorAc, k64, kKernelPage, translation, false));
  EXPECT_FALSE(reads(kKernelPage, TlbView::Supervisor));
}

TEST_F(ShadowWindowsTest, CleanPagesAndCodeAreReadOnly) {
  Translation clean = user_page(0x7000);
  clean.may_write = false;
  ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, kUserPage, clean, false));
  EXPECT_TRUE(reads(kUserPage, TlbView::User));
  EXPECT_FALSE(writes(kUserPage, TlbView::User));
  ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, kUserPage, user_page(0x7000), true));
  EXPECT_TRUE(writes(kUserPage, TlbView::User));

  map_.tracker().set_holds_code({7}, true);
  windows_.stop_writes_to({7});
  EXPECT_TRUE(reads(kUserPage, TlbView::User));
  EXPECT_FALSE(writes(kUserPage, TlbView::User));
  EXPECT_FALSE(windows_.fill(0, TlbView::User, k64, kUserPage, user_page(0x7000), true));
}

TEST_F(ShadowWindowsTest, CodeStopsBeingWritableThroughEveryAlias) {
  const LinearAddr alias = kUserPage + 5 * kPageSize;
  ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, kUserPage, user_page(0x7000), true));
  ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, alias, user_page(0x7000), true));
  ASSERT_TRUE(windows_.fill(0, TlbView::Supervisor, k64, kKernelPage, kernel_page(0x7000), true));
  map_.tracker().set_holds_code({7}, true);
  windows_.stop_writes_to({7});
  EXPECT_FALSE(writes(kUserPage, TlbView::User));
  EXPECT_FALSE(writes(alias, TlbView::User));
  EXPECT_FALSE(writes(kKernelPage, TlbView::Supervisor));
}

TEST_F(ShadowWindowsTest, ALargePageIsMappedAtOnceButForItsCode) {
  map_.tracker().set_holds_code({0x203}, true);
  ASSERT_TRUE(windows_.fill(0, TlbView::Supervisor, k64, kKernelPage, kernel_page(0x30'0000, 2 << 20), true));
  const LinearAddr start{kKernelPage.value & ~uint64_t{0x1f'ffff}};
  EXPECT_TRUE(writes(start, TlbView::Supervisor));
  EXPECT_TRUE(writes(start + 0x1f'f000, TlbView::Supervisor));
  EXPECT_TRUE(reads(start + 0x3000, TlbView::Supervisor));
  EXPECT_FALSE(writes(start + 0x3000, TlbView::Supervisor));
  EXPECT_FALSE(reads(start + 0x20'0000, TlbView::Supervisor));
  windows_.flush_page(0, start + 0x5000, true);
  EXPECT_FALSE(reads(start, TlbView::Supervisor));
}

TEST_F(ShadowWindowsTest, FlushesDropWhatTheyMustAndKeepTheRest) {
  const auto fill_all = [&] {
    ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, kUserPage, user_page(0x7000), true));
    ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, kUserPage + kPageSize, user_page(0x8000), true));
    ASSERT_TRUE(windows_.fill(1, TlbView::User, k64, kUserPage, user_page(0x9000), true));
    ASSERT_TRUE(windows_.fill(0, TlbView::Supervisor, k64, kKernelPage, kernel_page(0xa000), true));
  };
  fill_all();
  windows_.flush_page(0, kUserPage, true);
  EXPECT_FALSE(reads(kUserPage, TlbView::User));
  EXPECT_TRUE(reads(kUserPage + kPageSize, TlbView::User));
  EXPECT_TRUE(reads(kUserPage, TlbView::User, 1));
  windows_.flush_page(0, kKernelPage, false);
  EXPECT_TRUE(reads(kKernelPage, TlbView::Supervisor)) << "INVPCID kind 0 keeps global pages";
  windows_.flush_page(0, kKernelPage, true);
  EXPECT_FALSE(reads(kKernelPage, TlbView::Supervisor));
  fill_all();
  windows_.flush_space(0);
  EXPECT_FALSE(reads(kUserPage + kPageSize, TlbView::User));
  EXPECT_TRUE(reads(kUserPage, TlbView::User, 1));
  EXPECT_TRUE(reads(kKernelPage, TlbView::Supervisor));
  fill_all();
  windows_.flush_all();
  EXPECT_FALSE(reads(kUserPage, TlbView::User, 1));
  EXPECT_FALSE(reads(kKernelPage, TlbView::Supervisor));
}

TEST_F(ShadowWindowsTest, InvlpgOnALargeUserPageDropsAllOfIt) {
  Translation large = user_page(0x40'0000);
  large.page_bytes = 2 << 20;
  const LinearAddr start{kUserPage.value & ~uint64_t{0x1f'ffff}};
  ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, start, large, true));
  windows_.flush_page(0, start + 0x10'0000, false);
  EXPECT_FALSE(reads(start, TlbView::User));
}

TEST_F(ShadowWindowsTest, InvlpgAnywhereInAGigabytePageDropsAllThatIsMappedOfIt) {
  const LinearAddr start{0xffff'8880'0000'0000};
  ASSERT_TRUE(windows_.fill(0, TlbView::Supervisor, k64, start, kernel_page(0, 1 << 30), true));
  windows_.flush_page(0, start + 0x3000'0000, true);
  EXPECT_FALSE(reads(start, TlbView::Supervisor));
}

// Random canonical addresses, and those around every chunk, before and after fills: an address in no filled
// page is either not canonical or not mapped.
TEST_F(ShadowWindowsTest, NoOtherAddressReachesAnything) {
  std::mt19937_64 random(2);
  for (unsigned i = 0; i < 40; ++i) {
    windows_.fill(i % 2, TlbView::User, k64, {(random() & 0x7fff'ffff'f000)}, user_page((i + 16) << 12),
                  true);
  }
  for (unsigned i = 0; i < 200'000; ++i) {
    const LinearAddr linear{static_cast<uint64_t>(static_cast<int64_t>(random()) >> 16)};
    const auto view = static_cast<TlbView>(random() % 3);
    const uint64_t at = host(linear, view, random() % 2);
    const bool canonical = static_cast<uint64_t>(static_cast<int64_t>(at << 16) >> 16) == at;
    if (canonical) {
      EXPECT_FALSE(prober_.readable(at)) << std::hex << linear.value;
    }
  }
}

// What translated code computes from a slot whose tag it has compared: a base in the region, a displacement,
// and steps.
TEST_F(ShadowWindowsTest, DisplacementsFromACheckedBaseReachTheRegionOrNothing) {
  const LinearAddr first{0x7f05'0000'0000}, last{0x7f05'ffff'f000}, next{0x7f06'0000'0000};
  for (const LinearAddr page : {first, last, next}) {
    ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, page,
                              user_page(page.value == next.value ? 0x8000 : 0x7000), true));
  }
  WindowState state;
  windows_.select(state, 0, TlbView::User, k64);
  const unsigned slot = WindowState::slot_of(0x7f05);
  ASSERT_EQ(state.user_tag[slot], 0x7f05u);
  EXPECT_EQ(state.lifted_tag, WindowState::kNoTags);
  const uint64_t delta = state.lower_delta[slot];
  EXPECT_TRUE(prober_.readable(first.value + delta));
  EXPECT_TRUE(prober_.readable(last.value + delta));
  EXPECT_FALSE(prober_.readable(first.value - 1 + delta));
  EXPECT_FALSE(prober_.readable(next.value + delta)) << "the next region's page is elsewhere";
  std::mt19937_64 random(3);
  for (unsigned i = 0; i < 100'000; ++i) {
    const uint64_t base = first.value + (random() & 0xffff'ffff);
    const int64_t step = static_cast<int64_t>(random() % (uint64_t{3} << 31)) - (int64_t{3} << 30);
    const uint64_t address = base + static_cast<uint64_t>(step);
    const uint64_t page = address & ~uint64_t{0xfff};
    EXPECT_EQ(prober_.readable(address + delta), page == first.value || page == last.value)
        << std::hex << address;
  }
}

TEST_F(ShadowWindowsTest, SlotsFollowTheSpaceAndThePrivilege) {
  ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, kUserPage, user_page(0x7000), true));
  ASSERT_TRUE(windows_.fill(0, TlbView::Supervisor, k64, kKernelPage, kernel_page(0x8000), true));
  const unsigned user = WindowState::slot_of(kUserPage.value >> 32),
                 kernel = WindowState::slot_of(kKernelPage.value >> 32);
  WindowState state;
  windows_.select(state, 0, TlbView::SupervisorAc, k64);
  EXPECT_EQ(state.lifted_tag[user], kUserPage.value >> 32);
  EXPECT_EQ(state.upper_tag[kernel], kKernelPage.value >> 32);
  windows_.select(state, 0, TlbView::Supervisor, k64);
  EXPECT_EQ(state.lifted_tag, WindowState::kNoTags);
  windows_.select(state, 1, TlbView::SupervisorAc, k64);
  EXPECT_EQ(state.lifted_tag, WindowState::kNoTags);
  EXPECT_EQ(state.upper_tag[kernel], kKernelPage.value >> 32);
}

// A tag that nothing has must match no address that any delta makes canonical.
TEST_F(ShadowWindowsTest, TheTagOfEmptySlotsIsOfNoCanonicalAddress) {
  const uint64_t address = uint64_t{WindowState::kNoTag} << 32;
  for (const int64_t delta : {int64_t{0}, (int64_t{1} << 47) - 1, -(int64_t{1} << 47)}) {
    const auto at = static_cast<int64_t>(address + static_cast<uint64_t>(delta));
    EXPECT_NE(at << 16 >> 16, at);
  }
}

TEST_F(ShadowWindowsTest, ThirtyTwoBitCodeHasAWindowForEachPrivilege) {
  if (!windows_.serves(k32)) GTEST_SKIP() << "the host has no FSGSBASE";
  const LinearAddr user{0x0804'8000}, kernel{0xc010'0000};
  const uint64_t nowhere = windows_.flat(0, TlbView::User);
  EXPECT_FALSE(prober_.readable(nowhere));
  ASSERT_TRUE(windows_.fill(0, TlbView::User, k32, user, user_page(0x7000), true));
  ASSERT_TRUE(windows_.fill(0, TlbView::SupervisorAc, k32, user, user_page(0x7000), true));
  ASSERT_TRUE(windows_.fill(0, TlbView::Supervisor, k32, kernel, kernel_page(0x8000), true));
  ASSERT_TRUE(windows_.fill(1, TlbView::Supervisor, k32, kernel, kernel_page(0x8000), true));
  EXPECT_TRUE(prober_.writable(host(user, TlbView::User, 0, k32)));
  EXPECT_TRUE(prober_.writable(host(user, TlbView::SupervisorAc, 0, k32)));
  EXPECT_TRUE(prober_.writable(host(kernel, TlbView::Supervisor, 1, k32)));
  EXPECT_FALSE(prober_.readable(host(kernel, TlbView::User, 0, k32)));
  EXPECT_FALSE(prober_.readable(host(user, TlbView::Supervisor, 0, k32)));
  EXPECT_FALSE(prober_.readable(host(user, TlbView::User, 1, k32)));
  windows_.flush_page(0, kernel, true);
  EXPECT_FALSE(prober_.readable(host(kernel, TlbView::Supervisor, 0, k32)));
  EXPECT_FALSE(prober_.readable(host(kernel, TlbView::Supervisor, 1, k32))) << "global pages go everywhere";
  ASSERT_TRUE(windows_.fill(0, TlbView::SupervisorAc, k32, kernel, kernel_page(0x8000), true));
  windows_.flush_space(0);
  EXPECT_FALSE(prober_.readable(host(user, TlbView::User, 0, k32)));
  EXPECT_FALSE(prober_.readable(host(user, TlbView::SupervisorAc, 0, k32)));
  EXPECT_TRUE(prober_.readable(host(kernel, TlbView::SupervisorAc, 0, k32)));
}

// base + 8 * index + displacement, of 32 bits each, computed in 64 bits.
TEST_F(ShadowWindowsTest, AddressesThatShouldHaveWrappedReachNothing) {
  if (!windows_.serves(k32)) GTEST_SKIP() << "the host has no FSGSBASE";
  ASSERT_TRUE(windows_.fill(0, TlbView::User, k32, {0}, user_page(0x7000), true));
  const uint64_t flat = windows_.flat(0, TlbView::User);
  std::mt19937_64 random(4);
  for (unsigned i = 0; i < 100'000; ++i) {
    const uint64_t address =
        (random() & 0xffff'ffff) + 8 * (random() & 0xffff'ffff) + (random() & 0x7fff'ffff);
    EXPECT_EQ(prober_.readable(flat + address), address < kPageSize) << std::hex << address;
    EXPECT_FALSE(prober_.readable(flat - 1 - (random() & 0x7fff'ffff)));
  }
}

TEST_F(ShadowWindowsTest, TooManyMappingsDropEverythingFirst) {
  ShadowWindows small(map_, 1, 4096);
  for (unsigned i = 0; i < 10'000; ++i) {
    ASSERT_TRUE(small.fill(0, TlbView::User, k64, kUserPage + (uint64_t{i} << 12),
                           user_page((16 + i % 1000) << 12), true));
    ASSERT_LE(small.mappings(), 4096u);
  }
  EXPECT_GT(small.stats().resets, 0u);
  EXPECT_THROW(ShadowWindows(map_, 1, 10), std::runtime_error);
}

TEST_F(ShadowWindowsTest, ChunksOfOldRegionsServeNewOnes) {
  for (uint64_t region = 1; region < 500; ++region) {
    const LinearAddr linear{region << 32};
    ASSERT_TRUE(windows_.fill(0, TlbView::User, k64, linear, user_page(0x7000), true)) << region;
    ASSERT_TRUE(reads(linear, TlbView::User));
    windows_.flush_space(0);
    ASSERT_FALSE(reads(linear, TlbView::User));
    if (windows_.has_many_chunks(0)) windows_.recycle(0);
  }
}

}  // namespace
}  // namespace penumbra
