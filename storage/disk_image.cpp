#include "storage/disk_image.h"

#include <array>
#include <stdexcept>
#include <utility>

#include "storage/image_file.h"
#include "storage/image_format.h"
#include "storage/raw_image.h"
#include "storage/snapshot_image.h"

namespace penumbra {

namespace {

std::unique_ptr<DiskImage> open_below(const ImageOptions& options) {
  const bool read_only = options.read_only || options.snapshot;
  ImageFile file(options.path, read_only, options.cache);
  std::array<std::byte, kMagicBytes> first{};
  if (file.read(0, first) != 0) throw std::runtime_error(options.path + ": cannot be read");
  const bool probe = options.format == ImageOptions::Format::Probe;
  if (probe && looks_like_qcow2(first))
    throw std::runtime_error(options.path + ": is a qcow2 image, which is not there yet");
  return std::make_unique<RawImage>(std::move(file), options, probe);
}

}  // namespace

std::unique_ptr<DiskImage> open_image(const ImageOptions& options) {
  std::unique_ptr<DiskImage> image = open_below(options);
  if (!options.snapshot) return image;
  return std::make_unique<SnapshotImage>(std::move(image));
}

}  // namespace penumbra
