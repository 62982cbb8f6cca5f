// A host file or block device below an image: opened with QEMU's locks, read and written at any alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "storage/disk_image.h"

namespace penumbra {

class ImageFile {
 public:
  // Throws std::runtime_error. The locks are those of QEMU's file driver (block/file-posix.c), so that each
  // refuses what the other has open: one writer, or any number of readers.
  ImageFile(const std::string& path, bool read_only, ImageOptions::Cache cache);
  // A file without a name in the host's folder for temporary files.
  static ImageFile temporary();
  ImageFile(ImageFile&& other) noexcept;
  ImageFile(const ImageFile&) = delete;
  ~ImageFile();

  const std::string& path() const { return path_; }
  uint64_t bytes() const;  // now
  bool is_block_device() const { return block_device_; }

  // All of it or an errno; bytes beyond the end read as zeros.
  int read(uint64_t offset, std::span<std::byte> to) const;
  int write(uint64_t offset, std::span<const std::byte> from);
  int resize(uint64_t bytes);
  int punch_hole(uint64_t offset, uint64_t length);  // they read as zeros
  int write_zeroes(uint64_t offset, uint64_t length);
  int flush();
  // Its bytes in memory, shared and writable, for munmap(); null: the host refuses. Aligned to pages.
  std::byte* map(uint64_t offset, size_t length);

 private:
  ImageFile() = default;
  void lock(bool read_only);
  int read_direct(uint64_t offset, std::span<std::byte> to) const;
  int write_direct(uint64_t offset, std::span<const std::byte> from);

  std::string path_;
  int fd_ = -1;
  uint32_t alignment_ = 0;  // of direct I/O; 0: through the page cache
  bool block_device_ = false, flushes_ = true;
};

}  // namespace penumbra
