// qcow2 images against qemu-img, which makes them, checks them and says what they hold.
#include "storage/qcow2_image.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace penumbra {
namespace {

using Bytes = std::vector<std::byte>;

class Qcow2Test : public testing::Test {
 protected:
  Qcow2Test() {
    char name[] = "/tmp/qcow2_test_XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ / "disk.qcow2";
  }
  ~Qcow2Test() override { std::filesystem::remove_all(folder_); }
  void SetUp() override {
    if (qemu_img("--version") != 0) GTEST_SKIP() << "qemu-img is not installed (package qemu-utils)";
  }

  int qemu_img(const std::string& arguments) const {
    const std::string log = folder_ / "log";
    const int status =
        std::system(("cd " + folder_.string() + " && qemu-img " + arguments + " >" + log + " 2>&1").c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string log() const {
    std::ifstream file(folder_ / "log");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void make(const std::string& options, uint64_t bytes) {
    ASSERT_EQ(qemu_img("create -f qcow2 " + options + " disk.qcow2 " + std::to_string(bytes)), 0) << log();
  }
  void expect_clean(const std::string& name = "disk.qcow2") {
    EXPECT_EQ(qemu_img("check " + name), 0) << log();
  }
  std::unique_ptr<DiskImage> open(ImageOptions::Cache cache = ImageOptions::Cache::Writeback) const {
    ImageOptions options;
    options.path = path_;
    options.discard = true;
    options.cache = cache;
    return open_image(options);
  }
  std::string refusal(bool read_only = false) const {
    ImageOptions options;
    options.path = path_;
    options.read_only = read_only;
    try {
      open_image(options);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  }
  static Bytes read(DiskImage& image, uint64_t offset, size_t bytes) {
    Bytes result(bytes);
    EXPECT_EQ(image.read(offset, result), 0);
    return result;
  }
  Bytes file(const std::string& name) const {
    std::ifstream stream(folder_ / name, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    const auto bytes = std::as_bytes(std::span(text));
    return {bytes.begin(), bytes.end()};
  }
  void put(uint64_t offset, const Bytes& bytes) const {
    std::fstream stream(path_, std::ios::binary | std::ios::in | std::ios::out);
    stream.seekp(static_cast<std::streamoff>(offset));
    for (const std::byte byte : bytes) stream.put(static_cast<char>(byte));
  }
  static Bytes pattern(uint32_t seed, size_t bytes) {
    std::mt19937 random(seed);
    Bytes result(bytes);
    for (std::byte& byte : result) byte = static_cast<std::byte>(random());
    return result;
  }
  // Requests of any kind and size on `image`; `model` is what the disk holds.
  void use(DiskImage& image, Bytes& model, std::mt19937& random, unsigned requests) {
    for (unsigned i = 0; i < requests; i++) {
      const size_t most = random() % 4 == 0 ? 300'000 : 9'000;
      const size_t offset = random() % model.size() & ~size_t{511};
      const size_t bytes = std::min<size_t>((random() % most & ~size_t{511}) + 512, model.size() - offset);
      const auto at = model.begin() + static_cast<ptrdiff_t>(offset);
      switch (random() % 8) {
        case 0:
          ASSERT_EQ(image.write_zeroes(offset, bytes), 0);
          std::fill_n(at, bytes, std::byte{0});
          break;
        case 1: {
          ASSERT_EQ(image.discard(offset, bytes), 0);
          // Each byte stays or is zero.
          const Bytes now = read(image, offset, bytes);
          for (size_t j = 0; j < bytes; j++) {
            if (now[j] != std::byte{0}) {
              ASSERT_EQ(now[j], at[static_cast<ptrdiff_t>(j)]);
            }
          }
          std::ranges::copy(now, at);
          break;
        }
        case 2:
          ASSERT_EQ(read(image, offset, bytes), Bytes(at, at + static_cast<ptrdiff_t>(bytes)));
          break;
        case 3:
          if (random() % 8 == 0) {
            ASSERT_EQ(image.flush(), 0);
          }
          break;
        default: {
          const Bytes data = pattern(random(), bytes);
          ASSERT_EQ(image.write(offset, data), 0);
          std::ranges::copy(data, at);
          break;
        }
      }
    }
  }

  std::filesystem::path folder_, path_;
};

struct Layout {
  const char* name;
  const char* options;
  uint64_t bytes;
};
class Qcow2LayoutTest : public Qcow2Test, public testing::WithParamInterface<Layout> {};

// The file as a process that was killed leaves it checks clean at any time, and holds what was written.
TEST_P(Qcow2LayoutTest, HoldsWhatWasWritten) {
  make(GetParam().options, GetParam().bytes);
  Bytes model(GetParam().bytes);
  std::mt19937 random(1);
  for (unsigned session = 0; session < 3; session++) {
    const auto image = open();
    for (unsigned i = 0; i < 2; i++) {
      use(*image, model, random, 25);
      ASSERT_EQ(std::system(("cp " + path_.string() + " " + (folder_ / "copy").string()).c_str()), 0);
      expect_clean("copy");
    }
  }
  expect_clean();
  ASSERT_EQ(qemu_img("convert -O raw disk.qcow2 raw"), 0) << log();
  EXPECT_EQ(file("raw"), model);
  // And what QEMU writes, we read.
  ASSERT_EQ(qemu_img("convert -c -O qcow2 disk.qcow2 compressed.qcow2"), 0) << log();
  path_ = folder_ / "compressed.qcow2";
  const auto compressed = open();
  EXPECT_EQ(read(*compressed, 0, model.size()), model);
  use(*compressed, model, random, 40);
  EXPECT_EQ(read(*compressed, 0, model.size()), model);
  expect_clean("-U compressed.qcow2");
}

constexpr uint64_t kDisk = 3'000'832;  // no multiple of a cluster
INSTANTIATE_TEST_SUITE_P(
    Layouts, Qcow2LayoutTest,
    testing::Values(Layout{"usual", "", kDisk}, Layout{"smallest_clusters", "-o cluster_size=512", kDisk},
                    Layout{"small_clusters", "-o cluster_size=4k", kDisk},
                    Layout{"large_clusters", "-o cluster_size=2M", kDisk},
                    Layout{"version_2", "-o compat=0.10", kDisk},
                    Layout{"counts_of_a_bit", "-o refcount_bits=1", kDisk},
                    Layout{"small_counts", "-o refcount_bits=4,cluster_size=1k", kDisk},
                    Layout{"large_counts", "-o refcount_bits=64,cluster_size=512", kDisk},
                    Layout{"lazy", "-o lazy_refcounts=on", kDisk},
                    Layout{"preallocated", "-o preallocation=metadata", kDisk}),
    [](const auto& layout) { return std::string(layout.param.name); });

TEST_F(Qcow2Test, BackingFileShowsThroughAndStays) {
  const Bytes below = pattern(7, 1'000'000 / 512 * 512);
  std::ofstream(folder_ / "base.raw").close();
  path_ = folder_ / "base.raw";
  put(0, below);
  path_ = folder_ / "disk.qcow2";
  make("-b base.raw -F raw", 2'000'384);
  Bytes model = below;
  model.resize(2'000'384);
  std::mt19937 random(2);
  {
    const auto image = open();
    EXPECT_EQ(read(*image, 0, model.size()), model);
    use(*image, model, random, 60);
    EXPECT_EQ(read(*image, 0, model.size()), model);
  }
  expect_clean();
  ASSERT_EQ(qemu_img("convert -O raw disk.qcow2 raw"), 0) << log();
  EXPECT_EQ(file("raw"), model);
  EXPECT_EQ(file("base.raw"), below);
}

TEST_F(Qcow2Test, SnapshotsOfTheImageStay) {
  make("", kDisk);
  Bytes model(kDisk);
  std::mt19937 random(3);
  use(*open(), model, random, 40);
  const Bytes then = model;
  ASSERT_EQ(qemu_img("snapshot -c then disk.qcow2"), 0) << log();
  use(*open(), model, random, 40);
  expect_clean();
  ASSERT_EQ(qemu_img("convert -O raw disk.qcow2 raw"), 0) << log();
  EXPECT_EQ(file("raw"), model);
  ASSERT_EQ(qemu_img("snapshot -a then disk.qcow2"), 0) << log();
  expect_clean();
  const auto image = open();
  EXPECT_EQ(read(*image, 0, kDisk), then);
}

// Small clusters: the table of reference counts is full after 8 MiB.
TEST_F(Qcow2Test, ReferenceCountTableGrows) {
  constexpr uint64_t kBytes = 40 << 20;
  make("-o cluster_size=512", kBytes);
  const Bytes data = pattern(4, 1 << 20);
  {
    const auto image = open();
    for (uint64_t offset = 0; offset < kBytes; offset += data.size())
      ASSERT_EQ(image->write(offset, data), 0);
  }
  expect_clean();
  const auto image = open();
  EXPECT_EQ(read(*image, kBytes - data.size(), data.size()), data);
}

TEST_F(Qcow2Test, AKilledProcessLeavesACleanImage) {
  const char* count = std::getenv("PENUMBRA_KILLS");
  const unsigned kills = count ? static_cast<unsigned>(std::atoi(count)) : 6;
  std::mt19937 random(5);
  for (unsigned i = 0; i < kills; i++) {
    make(i % 2 ? "-o cluster_size=4k" : "", 64 << 20);
    const pid_t child = fork();
    if (child == 0) {
      const auto image = open();
      std::mt19937 own(i);
      const Bytes data = pattern(i, 40'000);
      for (;;) {
        const uint64_t offset = own() % ((64 << 20) - data.size()) & ~uint64_t{511};
        const size_t bytes = (own() % data.size() & ~size_t{511}) + 512;
        const unsigned dice = own() % 16;
        if (dice == 0) {
          image->discard(offset, bytes);
        } else if (dice == 1) {
          image->flush();
        } else {
          image->write(offset, std::span(data).first(bytes));
        }
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(20'000 + random() % 100'000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    expect_clean();
    if (HasFailure()) return;
  }
}

TEST_F(Qcow2Test, LostCountsAreMended) {
  make("", kDisk);
  Bytes model(kDisk);
  std::mt19937 random(6);
  use(*open(), model, random, 40);
  Bytes header = file("disk.qcow2");
  const uint64_t table = load_be(&header[48], 8), block = load_be(&header[table], 8);
  put(block, Bytes(64));  // a loss of power before they reached the disk
  EXPECT_NE(qemu_img("check disk.qcow2"), 0);
  put(79, {std::byte{1}});  // the dirty bit
  open();
  expect_clean();
  const auto image = open();
  EXPECT_EQ(read(*image, 0, kDisk), model);
}

TEST_F(Qcow2Test, TheDirtyBitIsSetFromTheFirstWriteToTheEnd) {
  make("", kDisk);
  {
    const auto image = open();
    EXPECT_EQ(file("disk.qcow2")[79], std::byte{0});
    ASSERT_EQ(image->write(0, Bytes(512)), 0);
    EXPECT_EQ(file("disk.qcow2")[79], std::byte{1});
  }
  EXPECT_EQ(file("disk.qcow2")[79], std::byte{0});
}

TEST_F(Qcow2Test, WhatCannotBeOpenedIsNamed) {
  make("", kDisk);
  const auto expect = [this](const std::string& words, bool read_only = false) {
    const std::string said = refusal(read_only);
    EXPECT_NE(said.find(path_), std::string::npos) << said;
    EXPECT_NE(said.find(words), std::string::npos) << said;
  };
  {
    const auto image = open();
    expect("in use by another process");
    expect("in use by another process", true);
  }
  put(7, {std::byte{9}});
  expect("version 9");
  put(7, {std::byte{3}});
  put(79, {std::byte{0x10}});
  expect("features");
  put(79, {std::byte{2}});
  expect("damaged");
  put(79, {std::byte{0}});
  put(23, {std::byte{30}});
  expect("cluster size");
  ASSERT_EQ(qemu_img("create -f qcow2 -u -b disk.qcow2 -F qcow2 other.qcow2 1M"), 0) << log();
  std::filesystem::rename(folder_ / "other.qcow2", path_);
  expect("in use by another process");
  expect("does not end", true);
  ASSERT_EQ(qemu_img("create -f qcow2 -u -b gone -F qcow2 disk.qcow2 1M"), 0) << log();
  EXPECT_NE(refusal().find("gone: No such file"), std::string::npos) << refusal();
}

// Any image may come from a stranger.
// Offset 0 once meant that no cluster was unpacked yet, and what was not there was read.
TEST_F(Qcow2Test, CompressedClusterAtTheImagesBeginningIsAnError) {
  make("-o cluster_size=64k", uint64_t{1} << 20);
  ASSERT_EQ(open()->write(0, pattern(1, 512)), 0);
  const Bytes image = file("disk.qcow2");
  constexpr size_t kL1Offset = 40;
  const uint64_t l1 = load_be(&image[kL1Offset], 8), l2 = load_be(&image[l1], 8) & ~(uint64_t{1} << 63);
  Bytes compressed(8);
  compressed[0] = std::byte{0x40};
  put(l2, compressed);
  Bytes sector(512);
  EXPECT_NE(open()->read(0, sector), 0);
}

// The table that counts its clusters would be larger than one that can be opened; once it was made, of any
// size.
TEST_F(Qcow2Test, AFileTooLargeToBeCountedTakesNoMoreData) {
  make("-o cluster_size=512", uint64_t{1} << 20);
  std::filesystem::resize_file(path_, uint64_t{1} << 43);
  EXPECT_EQ(open()->write(0, pattern(1, 512)), EFBIG);
}

TEST_F(Qcow2Test, DamagedImagesAreHarmless) {
  make("-o cluster_size=512", 200'000);
  std::mt19937 random(8);
  Bytes model(200'000 / 512 * 512);
  use(*open(), model, random, 20);
  const Bytes good = file("disk.qcow2");
  for (unsigned round = 0; round < 400; round++) {
    put(0, good);
    // The header and the tables are at the front.
    for (unsigned i = 0; i < 1 + random() % 6; i++) {
      const size_t where = random() % 3 == 0 ? random() % 112 : random() % good.size();
      put(where, {static_cast<std::byte>(random() % 2 ? random() : 1u << random() % 8)});
    }
    if (round % 3 == 0) put(79, {std::byte{1}});
    try {
      const auto image = open(ImageOptions::Cache::Unsafe);
      for (unsigned i = 0; i < 20; i++) {
        Bytes data(4'096);
        const uint64_t offset = random() % std::max<uint64_t>(image->bytes(), 8'192) & ~uint64_t{511};
        if (offset + data.size() > image->bytes()) continue;
        image->read(offset, data);
        image->write(offset, data);
        image->discard(offset, data.size());
        image->flush();
      }
    } catch (const std::runtime_error&) {
    }
    std::filesystem::resize_file(path_, good.size());
  }
}

}  // namespace
}  // namespace penumbra
