#include "storage/disk_image.h"

#include <array>
#include <filesystem>
#include <stdexcept>
#include <utility>

#include "storage/image_file.h"
#include "storage/image_format.h"
#include "storage/qcow2_image.h"
#include "storage/raw_image.h"
#include "storage/snapshot_image.h"

namespace penumbra {

namespace {

constexpr unsigned kLongestChain = 64;  // of backing files; one that names itself never ends

std::unique_ptr<DiskImage> open_below(const ImageOptions& options, unsigned depth = 0);

std::unique_ptr<DiskImage> open_backing(const ImageOptions& options, const Qcow2Header& header,
                                        unsigned depth) {
  if (header.backing_file.empty()) return nullptr;
  if (depth >= kLongestChain)
    throw std::runtime_error(options.path + ": its chain of backing files does not end");
  // Relative to the image that names it.
  ImageOptions backing{.path = std::filesystem::path(options.path).parent_path() / header.backing_file};
  backing.read_only = true;
  backing.cache = options.cache;
  if (header.backing_format == "raw") {
    backing.format = ImageOptions::Format::Raw;
  } else if (header.backing_format == "qcow2") {
    backing.format = ImageOptions::Format::Qcow2;
  } else if (!header.backing_format.empty()) {
    throw std::runtime_error(options.path + ": its backing file has the format " + header.backing_format +
                             ", which is not known here");
  }
  return open_below(backing, depth + 1);
}

std::unique_ptr<DiskImage> open_below(const ImageOptions& options, unsigned depth) {
  const bool read_only = options.read_only || options.snapshot;
  ImageFile file(options.path, read_only, options.cache);
  std::array<std::byte, kMagicBytes> first{};
  if (file.read(0, first) != 0) throw std::runtime_error(options.path + ": cannot be read");
  using enum ImageOptions::Format;
  if (options.format == Raw || (options.format == Probe && !looks_like_qcow2(first)))
    return std::make_unique<RawImage>(std::move(file), options, options.format == Probe);
  if (!looks_like_qcow2(first)) throw std::runtime_error(options.path + ": is no qcow2 image");
  Qcow2Header header;
  std::unique_ptr<DiskImage> backing;
  try {
    header = Qcow2Header::read(file);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(options.path + ": " + error.what());
  }
  backing = open_backing(options, header, depth);
  try {
    return std::make_unique<Qcow2Image>(std::move(file), header, options, std::move(backing));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(options.path + ": " + error.what());
  }
}

}  // namespace

std::unique_ptr<DiskImage> open_image(const ImageOptions& options) {
  std::unique_ptr<DiskImage> image = open_below(options);
  if (!options.snapshot) return image;
  return std::make_unique<SnapshotImage>(std::move(image));
}

}  // namespace penumbra
