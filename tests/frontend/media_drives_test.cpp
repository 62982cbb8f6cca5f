// Media that a person takes out and changes. The words are those of QEMU's monitor.
#include "frontend/media_drives.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/devices/memory_disk.h"

namespace penumbra {
namespace {

class MediaDrivesTest : public testing::Test {
 protected:
  MediaDrivesTest() {
    const auto watch = [this](RemovableDevice& device, std::string name) {
      device.set_tray_listener(
          [this, name](bool open) { moves_ += name + (open ? " opens, " : " closes, "); });
    };
    watch(cdrom_, "cd");
    watch(floppy_, "floppy");
    drives_.add({.name = "ide0-hd0", .id = "", .image = {.path = "/disk"}, .format = "qcow2"});
    drives_.add({.name = "ide1-cd0",
                 .id = "cd",
                 .image = {.path = "/old.iso", .read_only = true},
                 .format = "raw",
                 .removable = &cdrom_,
                 .cdrom = true});
    drives_.add({.name = "floppy0", .id = "", .image = {}, .format = {}, .removable = &floppy_});
  }

  MediaDrives::Medium open(const ImageOptions& image) {
    if (image.path == "/nowhere") throw std::runtime_error("/nowhere: No such file or directory");
    opened_ = image;
    return {.device = std::make_unique<MemoryDisk>(2048), .format = "raw"};
  }
  template <class Action>
  static std::string error_of(Action action) {
    try {
      action();
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  }

  EventQueue events_;
  std::string moves_;
  ImageOptions opened_;
  RemovableDevice cdrom_{std::make_unique<MemoryDisk>(1024), events_}, floppy_{nullptr, events_};
  MediaDrives drives_{[this](const ImageOptions& image) { return open(image); }};
};

TEST_F(MediaDrivesTest, EjectOpensTheTray) {
  drives_.eject("ide1-cd0", false);
  EXPECT_EQ(cdrom_.bytes(), 0u);
  EXPECT_EQ(moves_, "cd opens, ");
  drives_.eject("cd", false);
  EXPECT_EQ(moves_, "cd opens, ") << "it is open";
  drives_.change("cd", {.path = "/new.iso", .format = {}, .mode = {}}, false);
  EXPECT_EQ(cdrom_.bytes(), 2048u);
  EXPECT_EQ(moves_, "cd opens, cd closes, ");
}

TEST_F(MediaDrivesTest, ChangeIsOneMoveEachWay) {
  const unsigned before = cdrom_.generation();
  drives_.change("ide1-cd0", {.path = "/new.iso", .format = "raw", .mode = "read-write"}, false);
  EXPECT_EQ(moves_, "cd opens, cd closes, ");
  EXPECT_TRUE(opened_.read_only) << "a CD-ROM drive";
  EXPECT_EQ(opened_.format, ImageOptions::Format::Raw);
  EXPECT_NE(cdrom_.generation(), before);
}

TEST_F(MediaDrivesTest, FloppyDriveHasNoTray) {
  drives_.change("floppy0", {.path = "/a.img", .format = {}, .mode = {}}, false);
  EXPECT_FALSE(opened_.read_only);
  EXPECT_EQ(floppy_.bytes(), 2048u);
  drives_.change("floppy0", {.path = "/b.img", .format = {}, .mode = "read-only"}, false);
  EXPECT_TRUE(opened_.read_only);
  drives_.change("floppy0", {.path = "/b.img", .format = {}, .mode = "retain"}, false);
  EXPECT_TRUE(opened_.read_only);
  drives_.change("floppy0", {.path = "/b.img", .format = {}, .mode = "read-write"}, false);
  EXPECT_FALSE(opened_.read_only);
  drives_.eject("floppy0", false);
  EXPECT_EQ(floppy_.bytes(), 0u);
  EXPECT_FALSE(floppy_.tray_open());
  EXPECT_EQ(moves_, "");
}

TEST_F(MediaDrivesTest, LockedTrayIsTheGuestsUnlessForced) {
  cdrom_.lock_tray(true);
  const std::string locked =
      "Device 'ide1-cd0' is locked and force was not specified, wait for tray to open and try again";
  EXPECT_EQ(error_of([this] { drives_.eject("ide1-cd0", false); }), locked);
  EXPECT_TRUE(cdrom_.take_eject_request()) << "the guest is asked";
  EXPECT_EQ(error_of([this] { drives_.change("cd", {.path = "/new.iso", .format = {}, .mode = {}}, false); }),
            locked);
  EXPECT_EQ(cdrom_.bytes(), 1024u);
  EXPECT_NE(drives_.text().find("Removable device: locked, tray closed"), std::string::npos);
  drives_.eject("ide1-cd0", true);
  EXPECT_EQ(cdrom_.bytes(), 0u);
  EXPECT_FALSE(cdrom_.tray_locked());
}

TEST_F(MediaDrivesTest, WhatCannotBeLeavesTheOldMedium) {
  const auto change = [this](std::string_view drive, MediaDrives::Change what) {
    return error_of([&] { drives_.change(drive, what, false); });
  };
  EXPECT_EQ(change("cd9", {.path = "/new", .format = {}, .mode = {}}), "Device 'cd9' not found");
  EXPECT_EQ(change("", {.path = "/new", .format = {}, .mode = {}}), "Device '' not found");
  EXPECT_EQ(change("ide0-hd0", {.path = "/new", .format = {}, .mode = {}}),
            "Device 'ide0-hd0' is not removable");
  EXPECT_EQ(change("cd", {.path = "/nowhere", .format = {}, .mode = {}}),
            "/nowhere: No such file or directory");
  EXPECT_EQ(change("cd", {.path = "/new", .format = "vmdk", .mode = {}}), "Unknown driver 'vmdk'");
  EXPECT_EQ(change("cd", {.path = "/new", .format = {}, .mode = "write"}),
            "Parameter 'read-only-mode' does not accept value 'write'");
  EXPECT_THROW(drives_.eject("cd9", true), MediaDrives::NotFound);
  EXPECT_EQ(cdrom_.bytes(), 1024u);
  EXPECT_EQ(moves_, "");
}

TEST_F(MediaDrivesTest, ListAsQemuHasIt) {
  EXPECT_EQ(drives_.text(),
            "ide0-hd0: /disk (qcow2)\n"
            "    Cache mode:       writeback\n"
            "\n"
            "ide1-cd0: /old.iso (raw, read-only)\n"
            "    Removable device: not locked, tray closed\n"
            "    Cache mode:       writeback\n"
            "\n"
            "floppy0: [not inserted]\n"
            "    Removable device: not locked, tray closed\n");
  const nlohmann::json list = drives_.description();
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[1]["device"], "ide1-cd0");
  EXPECT_EQ(list[1]["inserted"]["file"], "/old.iso");
  EXPECT_EQ(list[1]["inserted"]["drv"], "raw");
  EXPECT_TRUE(list[1]["inserted"]["ro"].get<bool>());
  EXPECT_FALSE(list[0].contains("tray_open"));
  EXPECT_FALSE(list[2].contains("inserted"));
}

}  // namespace
}  // namespace penumbra
