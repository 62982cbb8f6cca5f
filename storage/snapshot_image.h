// What is written to an image stays in a temporary file and goes with the machine (snapshot=on).
#pragma once

#include <memory>
#include <vector>

#include "storage/disk_image.h"
#include "storage/image_file.h"

namespace penumbra {

class SnapshotImage final : public DiskImage {
 public:
  explicit SnapshotImage(std::unique_ptr<DiskImage> below);

  std::string_view format() const override { return below_->format(); }
  uint64_t bytes() const override { return below_->bytes(); }
  bool read_only() const override { return false; }
  bool discards() const override { return true; }
  unsigned threads() const override { return 1; }
  int read(uint64_t offset, std::span<std::byte> to) override;
  int write(uint64_t offset, std::span<const std::byte> from) override;
  int write_zeroes(uint64_t offset, uint64_t length) override;
  int discard(uint64_t offset, uint64_t length) override;
  int flush() override { return 0; }

 private:
  static constexpr uint64_t kCluster = 1 << 16;
  // Calls `step(offset, bytes)` for the pieces of the range, none of which spans clusters.
  template <class Step>
  static int in_clusters(uint64_t offset, uint64_t length, Step step);
  int take_over(uint64_t cluster);

  std::unique_ptr<DiskImage> below_;
  ImageFile above_;
  std::vector<bool> taken_;  // clusters that are in `above_`
};

}  // namespace penumbra
