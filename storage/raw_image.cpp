#include "storage/raw_image.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "storage/image_format.h"

namespace penumbra {

namespace {
constexpr uint64_t kSector = 512;
}

// The last sector of a file that ends within it reads as zeros behind the end.
RawImage::RawImage(ImageFile file, const ImageOptions& options, bool guessed)
    : file_(std::move(file)),
      bytes_((file_.bytes() + kSector - 1) & ~(kSector - 1)),
      read_only_(options.read_only || options.snapshot),
      discards_(options.discard && !read_only_),
      guessed_(guessed) {}

int RawImage::write(uint64_t offset, std::span<const std::byte> from) {
  if (guessed_ && offset < kMagicBytes) {
    std::array<std::byte, kMagicBytes> first;
    if (const int error = file_.read(0, first)) return error;
    std::copy_n(from.begin(), std::min<size_t>(from.size(), kMagicBytes - offset),
                first.begin() + static_cast<ptrdiff_t>(offset));
    if (looks_formatted(first)) return EPERM;
  }
  return file_.write(offset, from);
}

int RawImage::discard(uint64_t offset, uint64_t length) {
  const int error = discards_ ? file_.punch_hole(offset, length) : 0;
  return error == EOPNOTSUPP ? 0 : error;  // it was a hint
}

}  // namespace penumbra
