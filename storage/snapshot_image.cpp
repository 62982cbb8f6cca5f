#include "storage/snapshot_image.h"

#include <algorithm>
#include <utility>

namespace penumbra {

SnapshotImage::SnapshotImage(std::unique_ptr<DiskImage> below)
    : below_(std::move(below)),
      above_(ImageFile::temporary()),
      taken_(static_cast<size_t>((below_->bytes() + kCluster - 1) / kCluster)) {}

template <class Step>
int SnapshotImage::in_clusters(uint64_t offset, uint64_t length, Step step) {
  while (length > 0) {
    const uint64_t piece = std::min(length, kCluster - offset % kCluster);
    if (const int error = step(offset, piece)) return error;
    offset += piece;
    length -= piece;
  }
  return 0;
}

int SnapshotImage::read(uint64_t offset, std::span<std::byte> to) {
  return in_clusters(offset, to.size(), [&, first = offset](uint64_t at, uint64_t bytes) {
    const auto piece = to.subspan(at - first, bytes);
    return taken_[at / kCluster] ? above_.read(at, piece) : below_->read(at, piece);
  });
}

// Copies a cluster that is about to be written in part.
int SnapshotImage::take_over(uint64_t cluster) {
  if (taken_[cluster]) return 0;
  const uint64_t start = cluster * kCluster;
  std::vector<std::byte> bytes(static_cast<size_t>(std::min(kCluster, below_->bytes() - start)));
  if (const int error = below_->read(start, bytes)) return error;
  if (const int error = above_.write(start, bytes)) return error;
  taken_[cluster] = true;
  return 0;
}

int SnapshotImage::write(uint64_t offset, std::span<const std::byte> from) {
  return in_clusters(offset, from.size(), [&, first = offset](uint64_t at, uint64_t bytes) {
    if (bytes < kCluster) {
      if (const int error = take_over(at / kCluster)) return error;
    }
    if (const int error = above_.write(at, from.subspan(at - first, bytes))) return error;
    taken_[at / kCluster] = true;
    return 0;
  });
}

int SnapshotImage::write_zeroes(uint64_t offset, uint64_t length) {
  return in_clusters(offset, length, [&](uint64_t at, uint64_t bytes) {
    if (bytes < kCluster) {
      if (const int error = take_over(at / kCluster)) return error;
    }
    if (const int error = above_.write_zeroes(at, bytes)) return error;
    taken_[at / kCluster] = true;
    return 0;
  });
}

int SnapshotImage::discard(uint64_t offset, uint64_t length) {
  return write_zeroes(offset, length);
}

}  // namespace penumbra
