#include "frontend/host_file.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "tests/frontend/boot_fixture.h"

namespace penumbra {
namespace {

class HostFile : public BootTest {
 protected:
  static std::string message(const std::string& path, uint64_t limit) {
    try {
      return "read " + std::to_string(read_host_file(path, limit, "the test").size());
    } catch (const std::runtime_error& error) {
      return error.what();
    }
  }
};

TEST_F(HostFile, ReadsUpToTheLimit) {
  const std::string path = file("f", std::string(3 * kMib + 5, 'x'));
  EXPECT_EQ(message(path, 3 * kMib + 5), "read 3145733");
  EXPECT_EQ(message(path, 3 * kMib + 4),
            path + ": has 3145733 bytes, more than the 3145732 bytes of the test");
}

TEST_F(HostFile, EmptyFileIsRefused) {
  const std::string path = file("f", "");
  EXPECT_EQ(message(path, 10), path + ": is empty");
}

TEST_F(HostFile, WhatIsNoFileIsRefused) {
  EXPECT_EQ(message(folder(), 10), folder() + ": is a directory");
  EXPECT_EQ(message("/dev/zero", 10), "/dev/zero: is a character device, not a file");
  EXPECT_EQ(message(folder() + "/absent", 10), folder() + "/absent: No such file or directory");
}

TEST_F(HostFile, UnreadableFileIsRefused) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const std::string path = file("f", "x");
  chmod(path.c_str(), 0);
  EXPECT_EQ(message(path, 10), path + ": Permission denied");
}

TEST_F(HostFile, PipeIsReadToItsEndOrToTheLimit) {
  const std::string path = folder() + "/pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const auto feed = [&](size_t size) {
    return std::jthread([&path, size] { std::ofstream(path) << std::string(size, 'x'); });
  };
  {
    const auto feeder = feed(2 * kMib + 1);
    EXPECT_EQ(message(path, 3 * kMib), "read 2097153");
  }
  const auto old_action = signal(SIGPIPE, SIG_IGN);
  {
    const auto feeder = feed(2 * kMib + 1);
    EXPECT_EQ(message(path, 2 * kMib), path + ": has more than the 2 MiB of the test");
  }
  signal(SIGPIPE, old_action);
}

TEST_F(HostFile, SizesAreShortAndNeverHideTheDifference) {
  EXPECT_EQ(size_text(300), "300 bytes");
  EXPECT_EQ(size_text(639 * 1024), "639 KiB");
  EXPECT_EQ(size_text(64 * kMib), "64 MiB");
  EXPECT_EQ(size_text(2048 * kMib), "2 GiB");
  EXPECT_EQ(size_text(5 * kMib + 1), "5242881 bytes");
}

}  // namespace
}  // namespace penumbra
