// A disk's contents as a format on the host keeps them. Functions that take bytes block, are called by the
// threads of an ImageDevice, and return 0 or an errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace penumbra {

class DiskImage {
 public:
  virtual ~DiskImage() = default;

  virtual std::string_view format() const = 0;  // QEMU's name
  virtual uint64_t bytes() const = 0;           // a multiple of 512
  virtual bool read_only() const = 0;
  virtual bool discards() const = 0;
  // How many threads may be in the functions below at a time.
  virtual unsigned threads() const = 0;

  // Ranges lie within bytes().
  virtual int read(uint64_t offset, std::span<std::byte> to) = 0;
  virtual int write(uint64_t offset, std::span<const std::byte> from) = 0;
  virtual int write_zeroes(uint64_t offset, uint64_t length) = 0;
  virtual int discard(uint64_t offset, uint64_t length) = 0;  // the range may read as zeros afterwards
  virtual int flush() = 0;                                    // what was written is on stable storage
};

struct ImageOptions {
  enum class Format : uint8_t { Probe, Raw, Qcow2 };
  // QEMU's cache=: whether the host's page cache is used, and whether flushes reach the disk.
  enum class Cache : uint8_t { Writeback, None, Writethrough, Directsync, Unsafe };

  std::string path;
  Format format = Format::Probe;
  Cache cache = Cache::Writeback;
  bool read_only = false;
  bool snapshot = false;  // what is written goes to a temporary file
  bool discard = false;   // discards reach the host
};

// Throws std::runtime_error with one line that names the file and what is wrong.
std::unique_ptr<DiskImage> open_image(const ImageOptions& options);

}  // namespace penumbra
