// A raw image: byte n of the disk is byte n of the file.
#pragma once

#include "storage/disk_image.h"
#include "storage/image_file.h"

namespace penumbra {

class RawImage final : public DiskImage {
 public:
  // `guessed`: nobody said that the image is raw. Writes that would make it look like another format then
  // fail with EPERM: a guest could otherwise have any file of the host opened as its backing file, the next
  // time.
  RawImage(ImageFile file, const ImageOptions& options, bool guessed);

  std::string_view format() const override { return "raw"; }
  uint64_t bytes() const override { return bytes_; }
  bool read_only() const override { return read_only_; }
  bool discards() const override { return discards_; }
  unsigned threads() const override { return 4; }
  int read(uint64_t offset, std::span<std::byte> to) override { return file_.read(offset, to); }
  int write(uint64_t offset, std::span<const std::byte> from) override;
  int write_zeroes(uint64_t offset, uint64_t length) override { return file_.write_zeroes(offset, length); }
  int discard(uint64_t offset, uint64_t length) override;
  int flush() override { return file_.flush(); }

 private:
  ImageFile file_;
  uint64_t bytes_;
  bool read_only_, discards_, guessed_;
};

}  // namespace penumbra
