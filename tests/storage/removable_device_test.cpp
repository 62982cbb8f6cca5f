// Media that are taken out and changed while the machine runs.
#include "storage/removable_device.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <optional>
#include <string>

#include "tests/devices/memory_disk.h"

namespace penumbra {
namespace {

class RemovableTest : public testing::Test {
 protected:
  // Tells when it is gone.
  class Medium : public MemoryDisk {
   public:
    Medium(size_t bytes, bool& gone) : MemoryDisk(bytes), gone_(gone) {}
    ~Medium() override { gone_ = true; }

   private:
    bool& gone_;
  };
  static std::unique_ptr<BlockRequest> read(std::optional<int>& error) {
    auto request = std::make_unique<BlockRequest>();
    request->data.resize(512);
    request->done = [&error](BlockRequest& done) { error = done.error; };
    return request;
  }
  EventQueue events_;
  bool gone_ = false;
};

TEST_F(RemovableTest, EveryLookCounts) {
  RemovableDevice device(std::make_unique<MemoryDisk>(1024), events_);
  EXPECT_EQ(device.bytes(), 1024u);
  EXPECT_FALSE(device.read_only());
  const unsigned first = device.generation();
  device.change(std::make_unique<MemoryDisk>(4096));
  EXPECT_EQ(device.bytes(), 4096u);
  EXPECT_NE(device.generation(), first);
  device.move_tray(true);
  EXPECT_EQ(device.bytes(), 0u);
  std::optional<int> error;
  device.submit(read(error));
  EXPECT_EQ(error, ENOMEDIUM);
  device.move_tray(false);
  EXPECT_EQ(device.bytes(), 4096u);
  device.change(nullptr);
  EXPECT_EQ(device.bytes(), 0u);
  EXPECT_FALSE(device.tray_open());
}

TEST_F(RemovableTest, TrayTellsOfItsMoves) {
  RemovableDevice device(std::make_unique<MemoryDisk>(1024), events_);
  std::string moves;
  device.set_tray_listener([&moves](bool open) { moves += open ? "open " : "closed "; });
  device.move_tray(false);
  device.move_tray(true);
  device.move_tray(true);
  device.move_tray(false);
  EXPECT_EQ(moves, "open closed ");
}

TEST_F(RemovableTest, EjectRequestIsToldOnceAndEndsWithTheMedium) {
  RemovableDevice device(std::make_unique<MemoryDisk>(1024), events_);
  EXPECT_FALSE(device.take_eject_request());
  device.request_eject();
  EXPECT_TRUE(device.take_eject_request());
  EXPECT_FALSE(device.take_eject_request());
  device.request_eject();
  device.change(nullptr);
  EXPECT_FALSE(device.take_eject_request());
}

TEST_F(RemovableTest, IdleMediumGoesAtOnce) {
  RemovableDevice device(std::make_unique<Medium>(1024, gone_), events_);
  device.change(nullptr);
  EXPECT_TRUE(gone_) << "its file can be opened again";
}

TEST_F(RemovableTest, MediumLivesUntilItsRequestsHaveEnded) {
  auto medium = std::make_unique<Medium>(1024, gone_);
  Medium& disk = *medium;
  disk.holds = true;
  RemovableDevice device(std::move(medium), events_);
  std::optional<int> error;
  device.submit(read(error));
  device.change(nullptr);
  events_.drain();
  EXPECT_FALSE(gone_);
  EXPECT_FALSE(error);
  disk.release();
  EXPECT_EQ(error, 0);
  EXPECT_FALSE(gone_) << "not within its own call";
  events_.drain();
  EXPECT_TRUE(gone_);
}

// As when the guest ejects with the next command, which a controller starts from within the end of the one
// before.
TEST_F(RemovableTest, MediumCanBeChangedWhileARequestOfItEnds) {
  auto medium = std::make_unique<Medium>(1024, gone_);
  Medium& disk = *medium;
  disk.holds = true;
  RemovableDevice device(std::move(medium), events_);
  auto request = std::make_unique<BlockRequest>();
  request->data.resize(512);
  request->done = [&](BlockRequest&) {
    device.change(nullptr);
    EXPECT_FALSE(gone_);
  };
  device.submit(std::move(request));
  disk.release();
  events_.drain();
  EXPECT_TRUE(gone_);
}

}  // namespace
}  // namespace penumbra
