// A virtio memory balloon on PCI. Sections are those of VIRTIO 1.1; how the transport works is
// virtio_blk_test's.
#include "devices/virtio_balloon.h"

#include <gtest/gtest.h>

#include "tests/devices/virtio_driver.h"

namespace penumbra {
namespace {

class VirtioBalloonTest : public VirtioDriverTest {
 protected:
  enum : unsigned { kInflate, kDeflate, kStatistics };
  static constexpr uint64_t kStatisticsFeature = 2;
  static constexpr uint64_t kPage = VirtioBalloon::kPageBytes;

  static std::string pages(std::initializer_list<uint32_t> numbers) {
    std::string text;
    for (const uint32_t number : numbers) {
      for (unsigned i = 0; i < 4; i++) text += static_cast<char>(number >> 8 * i);
    }
    return text;
  }

  static std::string statistic(uint16_t tag, uint64_t value) {
    std::string text;
    for (unsigned i = 0; i < 2; i++) text += static_cast<char>(tag >> 8 * i);
    for (unsigned i = 0; i < 8; i++) text += static_cast<char>(value >> 8 * i);
    return text;
  }

  VirtioBalloon& balloon_ = plug_in([](PhysicalMap& map) { return std::make_unique<VirtioBalloon>(map); });
};

// 5.5.1, 5.5.4
TEST_F(VirtioBalloonTest, Identity) {
  EXPECT_EQ(pci_->config().dword(0), 0x1002'1af4u) << "transitional";
  EXPECT_EQ(pci_->config().word(0x2e), 5u);
  EXPECT_EQ(get(kDevice, 8), 0u);
}

// 5.5.6: the configuration says how many pages are wanted, and the driver says there how many it gave.
TEST_F(VirtioBalloonTest, WantedPagesInterrupt) {
  start(kVersion1, 2);
  const uint64_t generation = get(kModern + 21, 1);
  balloon_.set_wanted(300 * kPage + 1);
  EXPECT_TRUE(line_.level());
  EXPECT_EQ(get(kModern + 0x1000, 1), 2u) << "the configuration changed";
  EXPECT_NE(get(kModern + 21, 1), generation);
  EXPECT_EQ(get(kDevice, 4), 300u);
  set(kDevice + 4, 4, 299);
  EXPECT_EQ(balloon_.held(), 299 * kPage);
  set(kDevice, 4, 7);
  EXPECT_EQ(get(kDevice, 4), 300u) << "the driver cannot change what is wanted";
}

TEST_F(VirtioBalloonTest, PagesInItAreTheHostsAgain) {
  start(kVersion1, 2);
  for (const uint64_t page : {0x60, 0x61, 0x62}) set(page * kPage + 8, 8, 0x1234);
  offer_text(kInflate, pages({0x60, 0x62}));
  EXPECT_EQ(used_count(kInflate), 1u);
  EXPECT_EQ(used_bytes(kInflate, 0), 0u);
  EXPECT_EQ(get(0x60 * kPage + 8, 8), 0u);
  EXPECT_EQ(get(0x61 * kPage + 8, 8), 0x1234u) << "not in it";
  EXPECT_EQ(get(0x62 * kPage + 8, 8), 0u);
  offer_text(kDeflate, pages({0x60}));
  EXPECT_EQ(used_count(kDeflate), 1u);
  set(0x60 * kPage + 8, 8, 0x5678);
  EXPECT_EQ(get(0x60 * kPage + 8, 8), 0x5678u) << "of use again";
}

// Memory that is none, a chip's registers, half a number.
TEST_F(VirtioBalloonTest, NumbersThatAreNoPages) {
  start(kVersion1, 2);
  offer_text(kInflate, pages({0x100, 0xfe000, 0xffff'ffff}) + "ab");
  EXPECT_EQ(used_count(kInflate), 1u);
  EXPECT_EQ(get(kModern + 20, 1), 15u);
}

// 5.5.6.3: the device keeps the buffer, and gives it back to ask for the next numbers.
TEST_F(VirtioBalloonTest, StatisticsComeWhenTheyAreAskedFor) {
  start(kVersion1 | kStatisticsFeature, 3);
  unsigned told = 0;
  balloon_.set_statistics_listener([&told] { told++; });
  EXPECT_FALSE(balloon_.request_statistics()) << "the driver has not begun";
  offer_text(kStatistics, statistic(4, 0x1234'5678'9abc) + statistic(5, 7) + statistic(99, 1) + "half");
  EXPECT_EQ(told, 1u);
  EXPECT_EQ(balloon_.statistics()[4], 0x1234'5678'9abcu);
  EXPECT_EQ(balloon_.statistics()[5], 7u);
  EXPECT_EQ(balloon_.statistics()[0], VirtioBalloon::kNotSaid);
  EXPECT_EQ(used_count(kStatistics), 0u);
  EXPECT_TRUE(balloon_.request_statistics());
  EXPECT_EQ(used_count(kStatistics), 1u);
  EXPECT_EQ(used_bytes(kStatistics, 0), 0u);
  EXPECT_FALSE(balloon_.request_statistics()) << "one question at a time";
  offer_text(kStatistics, statistic(5, 8));
  EXPECT_EQ(balloon_.statistics()[5], 8u);
  EXPECT_EQ(balloon_.statistics()[4], VirtioBalloon::kNotSaid);
}

TEST_F(VirtioBalloonTest, AQuestionIsSaved) {
  start(kVersion1 | kStatisticsFeature, 3);
  offer_text(kStatistics, statistic(5, 8));
  const DeviceState state = pci_->save();
  set(kModern + 20, 1, 0);
  EXPECT_EQ(balloon_.statistics()[5], VirtioBalloon::kNotSaid);
  EXPECT_FALSE(balloon_.request_statistics());
  pci_->load(state);
  EXPECT_EQ(balloon_.statistics()[5], 8u);
  EXPECT_TRUE(balloon_.request_statistics());
  EXPECT_EQ(used_count(kStatistics), 1u);
}

TEST_F(VirtioBalloonTest, SizeIsTold) {
  start(kVersion1, 2);
  uint64_t held = 0;
  balloon_.set_size_listener([&] { held = balloon_.held(); });
  set(kDevice + 4, 4, 0x12345);
  EXPECT_EQ(held, 0x12345 * kPage);
}

TEST_F(VirtioBalloonTest, ResetEmptiesIt) {
  start(kVersion1, 2);
  set(kDevice + 4, 4, 5);
  set(kModern + 20, 1, 0);
  EXPECT_EQ(balloon_.held(), 0u);
}

}  // namespace
}  // namespace penumbra
