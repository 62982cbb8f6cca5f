// What a flush must drop and what it must keep. Expected values: SDM vol. 3, 4.10.4.
#include "mmu/soft_tlb.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <vector>

namespace penumbra {
namespace {

class SoftTlbTest : public testing::Test {
 protected:
  void fill(LinearAddr address, Translation translation, TlbView view = TlbView::User) {
    tlb_.fill(view, address, translation);
  }
  static Translation page(uint64_t physical, bool global = false, uint64_t bytes = kPageSize) {
    return {
        .physical = {physical}, .may_write = true, .may_fetch = true, .global = global, .page_bytes = bytes};
  }
  bool hit(LinearAddr address, TlbView view = TlbView::User) {
    return tlb_.entry(view, address).read_tag == address.page().value;
  }
  bool write_hit(LinearAddr address, TlbView view = TlbView::User) {
    return tlb_.entry(view, address).write_tag == address.page().value;
  }
  void TearDown() override { EXPECT_TRUE(tlb_.check_invariants()); }

  PhysicalMap map_{16 << 20};
  SoftTlb tlb_{map_};
};

constexpr LinearAddr kOne{0x7000'1000}, kTwo{0x7000'2000};

TEST_F(SoftTlbTest, AnEntryLeadsToTheHostPage) {
  map_.write({0x5008}, 8, 0x1122334455667788);
  fill({0x7000'1234}, page(0x5234));
  ASSERT_TRUE(hit(kOne));
  const TlbEntry& entry = tlb_.entry(TlbView::User, kOne);
  EXPECT_EQ(*reinterpret_cast<uint64_t*>(0x7000'1008 + entry.addend), 0x1122334455667788u);
  EXPECT_EQ(entry.frame(), PageFrame{5});
  EXPECT_FALSE(hit(kOne, TlbView::Supervisor));
}

TEST_F(SoftTlbTest, MmioAndUnclaimedPagesGetNoEntry) {
  fill(kOne, page(0xfe00'0000));
  EXPECT_FALSE(hit(kOne));
}

TEST_F(SoftTlbTest, RomIsNeverWritable) {
  const std::vector<std::byte> image(kPageSize);
  map_.add_rom({0xfffff000}, image);
  fill(kOne, page(0xfffff000));
  EXPECT_TRUE(hit(kOne));
  EXPECT_FALSE(write_hit(kOne));
}

TEST_F(SoftTlbTest, WatchedMemoryIsWrittenDirectlyUntilItIsWatchedAgain) {
  std::atomic<bool> written{false};
  const auto region = map_.add_pci_ram(4 * kPageSize, written, "frame buffer");
  map_.place(region, PhysAddr{0xfd00'0000});
  map_.set_watch_listener(
      [this](PageFrame first, uint64_t frames) { tlb_.stop_writes_to_range(first, frames); });
  fill(kOne, page(0xfd00'3000));
  fill(kTwo, page(0x5000));
  EXPECT_TRUE(write_hit(kOne));
  EXPECT_TRUE(written) << "nobody is told of the writes";
  map_.watch_writes(region);
  EXPECT_FALSE(write_hit(kOne));
  EXPECT_TRUE(hit(kOne));
  EXPECT_TRUE(write_hit(kTwo));
  EXPECT_FALSE(written);
  fill(kOne, page(0xfd00'3000));
  EXPECT_TRUE(write_hit(kOne) && written);
}

TEST_F(SoftTlbTest, PagesWithCodeAreNotWrittenDirectly) {
  fill(kOne, page(0x5000));
  fill(kTwo, page(0x5000), TlbView::Supervisor);
  map_.tracker().set_holds_code({5}, true);
  tlb_.stop_writes_to({5});
  EXPECT_TRUE(hit(kOne));
  EXPECT_FALSE(write_hit(kOne));
  EXPECT_FALSE(write_hit(kTwo, TlbView::Supervisor));
  fill(kOne, page(0x5000));
  EXPECT_FALSE(write_hit(kOne));
}

TEST_F(SoftTlbTest, InvlpgDropsThePageInEveryView) {
  fill(kOne, page(0x5000));
  fill(kOne, page(0x5000), TlbView::Supervisor);
  fill(kTwo, page(0x6000));
  tlb_.flush_page(kOne + 0x123);
  EXPECT_FALSE(hit(kOne));
  EXPECT_FALSE(hit(kOne, TlbView::Supervisor));
  EXPECT_TRUE(hit(kTwo));
}

TEST_F(SoftTlbTest, InvlpgDropsAllOfALargePage) {
  for (const uint64_t bytes : {uint64_t{2} << 20, uint64_t{4} << 20, uint64_t{1} << 30}) {
    const LinearAddr far{(kOne.value & ~(bytes - 1)) + bytes / 4};
    fill(kOne, page(0x20'1000, false, bytes));
    fill(far, page(0x30'0000, false, bytes));
    tlb_.flush_page(kOne);
    EXPECT_FALSE(hit(kOne));
    EXPECT_FALSE(hit(far)) << bytes;
  }
}

TEST_F(SoftTlbTest, InvlpgDropsGlobalEntriesOfOtherSpacesToo) {
  fill(kOne, page(0x5000, true));
  tlb_.switch_space(7, false);
  tlb_.flush_page(kOne);
  tlb_.switch_space(0, true);
  EXPECT_FALSE(hit(kOne));
}

TEST_F(SoftTlbTest, ACr3LoadWithoutPcidKeepsGlobalEntriesOnly) {
  fill(kOne, page(0x5000, true));
  fill(kTwo, page(0x6000));
  tlb_.switch_space(0, false);
  EXPECT_TRUE(hit(kOne));
  EXPECT_FALSE(hit(kTwo));
}

TEST_F(SoftTlbTest, SpacesArePcidsAndKeepTheirEntries) {
  tlb_.switch_space(1, false);
  fill(kOne, page(0x5000));
  tlb_.switch_space(2, false);
  EXPECT_FALSE(hit(kOne));
  tlb_.switch_space(1, true);
  EXPECT_TRUE(hit(kOne));
  tlb_.switch_space(1, false);
  EXPECT_FALSE(hit(kOne));
}

TEST_F(SoftTlbTest, ARecycledSpaceHasNothingOfItsFormerPcid) {
  for (uint16_t pcid = 1; pcid <= 3 * SoftTlb::kSpaces; ++pcid) {
    tlb_.switch_space(pcid, true);
    EXPECT_FALSE(hit(kOne)) << pcid;
    fill(kOne, page(0x5000));
  }
}

TEST_F(SoftTlbTest, InvpcidKinds) {
  const auto fill_two_spaces = [&] {
    for (const uint16_t pcid : {2, 1}) {
      tlb_.switch_space(pcid, true);
      fill(kOne, page(0x5000));
      fill(kTwo, page(0x6000, true));
    }
  };
  fill_two_spaces();
  tlb_.flush_pcid_page(1, kOne);
  tlb_.flush_pcid_page(1, kTwo);
  EXPECT_FALSE(hit(kOne));
  EXPECT_TRUE(hit(kTwo)) << "individual-address invalidation keeps global entries";
  tlb_.switch_space(2, true);
  EXPECT_TRUE(hit(kOne));

  fill_two_spaces();
  tlb_.flush_pcid(2);
  EXPECT_TRUE(hit(kOne));
  tlb_.switch_space(2, true);
  EXPECT_FALSE(hit(kOne));
  EXPECT_TRUE(hit(kTwo));

  fill_two_spaces();
  tlb_.flush_all_non_global();
  EXPECT_FALSE(hit(kOne));
  EXPECT_TRUE(hit(kTwo));

  fill_two_spaces();
  tlb_.flush_all();
  EXPECT_FALSE(hit(kTwo));
  tlb_.switch_space(2, true);
  EXPECT_FALSE(hit(kTwo));
}

class Listener : public MappingListener {
 public:
  void pages_unmapped(LinearAddr first, uint64_t bytes) override {
    for (uint64_t at = 0; at < bytes; at += kPageSize) pages.push_back(first.value + at);
  }
  void space_flushed(unsigned space) override { spaces.push_back(space); }
  void all_flushed() override { ++all; }
  std::vector<uint64_t> pages;
  std::vector<unsigned> spaces;
  unsigned all = 0;
};

TEST_F(SoftTlbTest, EveryFlushIsAnnounced) {
  Listener listener;
  tlb_.set_listener(&listener);
  tlb_.flush_page(kOne);
  tlb_.switch_space(5, true);
  tlb_.switch_space(5, true);
  tlb_.switch_space(5, false);
  tlb_.flush_all();
  EXPECT_EQ(listener.pages, std::vector<uint64_t>{kOne.value});
  EXPECT_EQ(listener.spaces, (std::vector<unsigned>{tlb_.current_space(), tlb_.current_space()}));
  EXPECT_EQ(listener.all, 1u);
}

// More fills than the log of a view holds, with flushes between: the invariants hold throughout.
TEST_F(SoftTlbTest, RandomFillsAndFlushesKeepTheInvariants) {
  std::mt19937_64 random(1);
  for (unsigned step = 0; step < 40000; ++step) {
    const LinearAddr address{(random() % 20000) << kPageShift};
    const unsigned what = random() % 1000;
    if (what < 980) {
      fill(address, page((random() % 4096) << kPageShift, random() % 4 == 0),
           static_cast<TlbView>(random() % 3));
    } else if (what < 990) {
      tlb_.flush_page(address);
      EXPECT_FALSE(hit(address));
    } else if (what < 995) {
      tlb_.switch_space(random() % 12, random() % 2);
    } else if (what < 999) {
      const PageFrame frame{random() % 4096};
      map_.tracker().set_holds_code(frame, true);
      tlb_.stop_writes_to(frame);
    } else {
      ASSERT_TRUE(tlb_.check_invariants()) << step;
      tlb_.flush_all();
    }
  }
}

}  // namespace
}  // namespace penumbra
