// Images of the host as disks: formats, locks, modes, and requests that run beside the vCPU.
#include "storage/image_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

namespace penumbra {
namespace {

class ImageTest : public testing::Test {
 protected:
  ImageTest() {
    char name[] = "/tmp/image_test_XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ / "disk.img";
  }
  ~ImageTest() override { std::filesystem::remove_all(folder_); }

  void make(uint64_t bytes, const std::string& start = {}) {
    std::ofstream(path_) << start;
    std::filesystem::resize_file(path_, bytes);
  }
  std::string contents(size_t offset, size_t bytes) {
    std::ifstream file(path_);
    file.seekg(static_cast<std::streamoff>(offset));
    std::string text(bytes, '?');
    file.read(text.data(), static_cast<std::streamsize>(bytes));
    return text;
  }
  ImageOptions options() const {
    ImageOptions result;
    result.path = path_;
    return result;
  }
  static std::vector<std::byte> bytes_of(const std::string& text) {
    const auto bytes = std::as_bytes(std::span(text));
    return {bytes.begin(), bytes.end()};
  }
  static std::string text_of(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte byte : bytes) text += static_cast<char>(byte);
    return text;
  }
  static std::string refusal(const ImageOptions& wanted) {
    try {
      open_image(wanted);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  }
  // Runs a request to its end.
  static int run(BlockDevice& device, EventQueue& events, BlockRequest::Kind kind, uint64_t offset,
                 std::vector<std::byte>& data, uint64_t bytes = 0) {
    bool ended = false;
    int error = -1;
    auto request = std::make_unique<BlockRequest>();
    request->kind = kind;
    request->offset = offset;
    request->bytes = bytes;
    request->data = std::move(data);
    request->done = [&](BlockRequest& done) {
      ended = true;
      error = done.error;
      data = std::move(done.data);
    };
    device.submit(std::move(request));
    while (!ended) {
      events.drain();
      std::this_thread::yield();
    }
    return error;
  }

  std::filesystem::path folder_, path_;
};

TEST_F(ImageTest, RawImageIsReadAndWritten) {
  make(10 * 512, "first");
  const auto image = open_image(options());
  EXPECT_EQ(image->bytes(), 10u * 512);
  std::vector<std::byte> data(5);
  EXPECT_EQ(image->read(0, data), 0);
  EXPECT_EQ(text_of(data), "first");
  EXPECT_EQ(image->write(1000, bytes_of("written")), 0);
  EXPECT_EQ(image->flush(), 0);
  EXPECT_EQ(contents(1000, 7), "written");
}

TEST_F(ImageTest, LastSectorOfAFileThatEndsWithinIt) {
  make(700, std::string(700, 'x'));
  const auto image = open_image(options());
  EXPECT_EQ(image->bytes(), 1024u);
  std::vector<std::byte> data(512, std::byte{1});
  EXPECT_EQ(image->read(512, data), 0);
  EXPECT_EQ(text_of(data).substr(0, 188), std::string(188, 'x'));
  EXPECT_EQ(data[188], std::byte{0});
}

TEST_F(ImageTest, WhatIsWrongIsSaidInOneLine) {
  EXPECT_EQ(refusal(options()), path_.string() + ": No such file or directory");
  ImageOptions directory;
  directory.path = folder_;
  directory.read_only = true;
  EXPECT_EQ(refusal(directory), folder_.string() + ": is a directory");
}

TEST_F(ImageTest, OneWriterOrManyReaders) {
  make(4096);
  ImageOptions reader = options();
  reader.read_only = true;
  {
    const auto writer = open_image(options());
    EXPECT_EQ(refusal(options()), path_.string() + ": is in use by another process");
    EXPECT_EQ(refusal(reader), path_.string() + ": is in use by another process");
  }
  const auto first = open_image(reader), second = open_image(reader);
  EXPECT_EQ(refusal(options()), path_.string() + ": is in use by another process");
}

TEST_F(ImageTest, GuessedRawImageDoesNotBecomeAnotherFormat) {
  make(4096);
  const auto image = open_image(options());
  EXPECT_EQ(image->write(0, bytes_of("QFI\xfb")), EPERM);
  EXPECT_EQ(image->write(0, bytes_of("QFIx")), 0);
  EXPECT_EQ(image->write(3, bytes_of("\xfb")), EPERM) << "piece by piece";
  EXPECT_EQ(image->write(512, bytes_of("QFI\xfb")), 0);
  EXPECT_EQ(contents(0, 4), "QFIx");
}

TEST_F(ImageTest, SaidToBeRawItTakesAnything) {
  make(4096);
  ImageOptions raw = options();
  raw.format = ImageOptions::Format::Raw;
  const auto image = open_image(raw);
  EXPECT_EQ(image->write(0, bytes_of("QFI\xfb")), 0);
}

TEST_F(ImageTest, SnapshotLeavesTheFileAlone) {
  make(300'000, "first");
  ImageOptions snapshot = options();
  snapshot.snapshot = true;
  const auto image = open_image(snapshot);
  EXPECT_FALSE(image->read_only());
  EXPECT_EQ(image->write(65'530, bytes_of("across clusters")), 0);
  EXPECT_EQ(image->write_zeroes(0, 2), 0);
  std::vector<std::byte> data(15), start(5);
  EXPECT_EQ(image->read(65'530, data), 0);
  EXPECT_EQ(text_of(data), "across clusters");
  EXPECT_EQ(image->read(0, start), 0);
  EXPECT_EQ(text_of(start), std::string("\0\0rst", 5));
  std::vector<std::byte> end(512, std::byte{1});
  EXPECT_EQ(image->read(299'520, end), 0);
  EXPECT_EQ(contents(0, 5), "first");
  EXPECT_EQ(contents(65'530, 3), std::string(3, '\0'));
}

TEST_F(ImageTest, DiscardsPunchHolesWhenAsked) {
  make(1 << 20, std::string(1 << 20, 'x'));
  ImageOptions unmap = options();
  unmap.discard = true;
  const auto image = open_image(unmap);
  EXPECT_TRUE(image->discards());
  EXPECT_EQ(image->discard(0, 512 * 1024), 0);
  struct stat about {};
  ASSERT_EQ(stat(path_.c_str(), &about), 0);
  EXPECT_LT(about.st_blocks * 512, 1 << 20);
  EXPECT_EQ(about.st_size, 1 << 20);
  EXPECT_EQ(contents(0, 1), std::string(1, '\0'));
  EXPECT_EQ(contents(512 * 1024, 1), "x");
}

TEST_F(ImageTest, EveryCacheModeReadsAndWrites) {
  using enum ImageOptions::Cache;
  for (const auto cache : {Writeback, None, Writethrough, Directsync, Unsafe}) {
    make(10'000);
    ImageOptions mode = options();
    mode.cache = cache;
    const auto image = open_image(mode);
    EXPECT_EQ(image->write(3000, bytes_of(std::string(5000, 'y'))), 0);
    EXPECT_EQ(image->write(9728, bytes_of(std::string(200, 'z'))), 0);
    EXPECT_EQ(image->flush(), 0);
    std::vector<std::byte> data(5002);
    EXPECT_EQ(image->read(2999, data), 0);
    EXPECT_EQ(text_of(data), std::string(1, '\0') + std::string(5000, 'y') + std::string(1, '\0'));
    EXPECT_EQ(std::filesystem::file_size(path_), 10'000u);
  }
}

TEST_F(ImageTest, RequestsEndOnTheThreadThatDrainsTheQueue) {
  make(1 << 20);
  EventQueue events;
  ImageDevice device(open_image(options()), events);
  std::vector<std::byte> data = bytes_of("across threads");
  EXPECT_EQ(run(device, events, BlockRequest::Kind::Write, 4096, data), 0);
  data.assign(14, std::byte{0});
  EXPECT_EQ(run(device, events, BlockRequest::Kind::Read, 4096, data), 0);
  EXPECT_EQ(text_of(data), "across threads");
  EXPECT_EQ(run(device, events, BlockRequest::Kind::WriteZeroes, 4096, data, 7), 0);
  data.assign(14, std::byte{1});
  EXPECT_EQ(run(device, events, BlockRequest::Kind::Read, 4096, data), 0);
  EXPECT_EQ(text_of(data), std::string(7, '\0') + "threads");
  EXPECT_EQ(run(device, events, BlockRequest::Kind::Flush, 0, data), 0);
}

TEST_F(ImageTest, ImpossibleRequestsAreRefused) {
  make(4096);
  EventQueue events;
  ImageOptions reader = options();
  reader.read_only = true;
  ImageDevice device(open_image(reader), events);
  std::vector<std::byte> data(512);
  EXPECT_EQ(run(device, events, BlockRequest::Kind::Read, 4096, data), EINVAL);
  data.resize(512);
  EXPECT_EQ(run(device, events, BlockRequest::Kind::Read, ~uint64_t{0}, data), EINVAL);
  data.resize(512);
  EXPECT_EQ(run(device, events, BlockRequest::Kind::Write, 0, data), EROFS);
}

TEST_F(ImageTest, FlushWaitsForWhatWasSubmittedBefore) {
  make(64 << 20);
  EventQueue events;
  ImageDevice device(open_image(options()), events);
  std::set<unsigned> ended;
  bool flushed = false;
  for (unsigned i = 0; i < 64; i++) {
    auto request = std::make_unique<BlockRequest>();
    request->kind = BlockRequest::Kind::Write;
    request->offset = uint64_t{i} << 20;
    request->data.resize(i % 2 ? 1 << 20 : 512);
    request->done = [&ended, i](BlockRequest&) { ended.insert(i); };
    device.submit(std::move(request));
  }
  auto flush = std::make_unique<BlockRequest>();
  flush->kind = BlockRequest::Kind::Flush;
  flush->done = [&](BlockRequest& done) {
    flushed = true;
    EXPECT_EQ(done.error, 0);
    EXPECT_EQ(ended.size(), 64u);
  };
  device.submit(std::move(flush));
  while (!flushed) events.drain();
}

// A disk whose host has no room, or fails, as long as the test says so.
class FailingImage : public DiskImage {
 public:
  explicit FailingImage(std::atomic<int>& error) : error_(error) {}
  std::string_view format() const override { return "raw"; }
  uint64_t bytes() const override { return size_t{1} << 20; }
  bool read_only() const override { return false; }
  bool discards() const override { return true; }
  unsigned threads() const override { return 2; }
  int read(uint64_t, std::span<std::byte>) override { return error_; }
  int write(uint64_t, std::span<const std::byte>) override { return error_; }
  int write_zeroes(uint64_t, uint64_t) override { return error_; }
  int discard(uint64_t, uint64_t) override { return error_; }
  int flush() override { return error_; }

 private:
  std::atomic<int>& error_;
};

TEST(ImageErrors, WhatIsKeptAndWhatTheGuestSees) {
  using enum ErrorPolicy::Action;
  using enum BlockRequest::Kind;
  constexpr int kKept = -1;
  const struct {
    ErrorPolicy policy;
    BlockRequest::Kind kind;
    int error, seen;
  } kCases[] = {
      {{}, Write, ENOSPC, kKept},
      {{}, Write, EDQUOT, kKept},
      {{}, Write, EFBIG, kKept},
      {{}, Write, EIO, EIO},
      {{}, Read, EIO, EIO},
      {{}, WriteZeroes, ENOSPC, kKept},
      {{}, Flush, ENOSPC, kKept},
      {{.write = Report}, Write, ENOSPC, ENOSPC},
      {{.write = Ignore}, Write, EIO, 0},
      {{.read = Ignore}, Write, EIO, EIO},
      {{.write = Stop}, Write, EIO, kKept},
      {{.read = Stop}, Read, EIO, kKept},
      {{.read = Stop}, Write, EIO, EIO},
  };
  for (const auto& test : kCases) {
    std::atomic<int> error = test.error;
    EventQueue events;
    ImageDevice device(std::make_unique<FailingImage>(error), events, test.policy);
    unsigned stops = 0;
    device.set_stop_listener([&](const BlockRequest& request) {
      EXPECT_EQ(request.error, test.error);
      stops++;
    });
    std::optional<int> seen;
    auto request = std::make_unique<BlockRequest>();
    request->kind = test.kind;
    request->bytes = 512;
    if (test.kind == Read || test.kind == Write) request->data.resize(512);
    request->done = [&](BlockRequest& done) { seen = done.error; };
    device.submit(std::move(request));
    while (!seen && stops == 0) events.drain();
    if (test.seen != kKept) {
      EXPECT_EQ(seen, test.seen);
      EXPECT_EQ(stops, 0u);
      continue;
    }
    EXPECT_FALSE(seen);
    device.retry();
    while (!seen && stops == 1) events.drain();
    EXPECT_EQ(stops, 2u) << "there is still no room";
    error = 0;
    device.retry();
    while (!seen) events.drain();
    EXPECT_EQ(seen, 0);
    EXPECT_EQ(stops, 2u);
  }
}

TEST_F(ImageTest, DeviceEndsWithRequestsUnderWay) {
  make(64 << 20);
  EventQueue events;
  bool called = false;
  {
    ImageDevice device(open_image(options()), events);
    for (unsigned i = 0; i < 64; i++) {
      auto request = std::make_unique<BlockRequest>();
      request->offset = uint64_t{i} << 20;
      request->data.resize(1 << 20);
      request->done = [&called](BlockRequest&) { called = true; };
      device.submit(std::move(request));
    }
  }
  EXPECT_FALSE(called);
}

}  // namespace
}  // namespace penumbra
