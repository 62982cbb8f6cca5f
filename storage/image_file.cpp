#include "storage/image_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

namespace penumbra {

namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw std::runtime_error(path + ": " + why);
}

// QEMU, block/file-posix.c: a byte for each permission that one uses, and for each that one does not share.
constexpr off_t kUsed = 100, kNotShared = 200;
constexpr unsigned kConsistentRead = 0, kWrite = 1, kResize = 3, kPermissions = 4;

// Memory for direct I/O.
struct FreeMemory {
  void operator()(void* memory) const { std::free(memory); }
};
using AlignedMemory = std::unique_ptr<std::byte, FreeMemory>;
AlignedMemory aligned_memory(size_t bytes) {
  return AlignedMemory(static_cast<std::byte*>(std::aligned_alloc(4096, (bytes + 4095) & ~size_t{4095})));
}

int pread_all(int fd, uint64_t offset, std::span<std::byte> to) {
  while (!to.empty()) {
    const ssize_t got = pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) {
      std::ranges::fill(to, std::byte{0});
      return 0;
    }
    to = to.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return 0;
}

int pwrite_all(int fd, uint64_t offset, std::span<const std::byte> from) {
  while (!from.empty()) {
    const ssize_t put = pwrite(fd, from.data(), from.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    from = from.subspan(static_cast<size_t>(put));
    offset += static_cast<uint64_t>(put);
  }
  return 0;
}

}  // namespace

ImageFile::ImageFile(const std::string& path, bool read_only, ImageOptions::Cache cache) : path_(path) {
  using enum ImageOptions::Cache;
  const bool direct = cache == None || cache == Directsync;
  int flags = O_CLOEXEC | (read_only ? O_RDONLY : O_RDWR);
  if (direct) flags |= O_DIRECT;
  if (cache == Writethrough || cache == Directsync) flags |= O_DSYNC;
  flushes_ = cache != Unsafe;
  fd_ = open(path.c_str(), flags);
  if (fd_ < 0) {
    if (direct && errno == EINVAL) refuse(path, "the file system has no direct I/O (cache=none)");
    refuse(path, std::strerror(errno));
  }
  struct stat about {};
  if (fstat(fd_, &about) != 0) refuse(path, std::strerror(errno));
  block_device_ = S_ISBLK(about.st_mode);
  if (!S_ISREG(about.st_mode) && !block_device_) {
    close(std::exchange(fd_, -1));
    refuse(path, S_ISDIR(about.st_mode) ? "is a directory" : "is neither a file nor a block device");
  }
  if (direct) alignment_ = static_cast<uint32_t>(std::clamp<long>(about.st_blksize, 512, 4096));
  try {
    lock(read_only);
  } catch (...) {
    close(std::exchange(fd_, -1));
    throw;
  }
}

ImageFile ImageFile::temporary() {
  ImageFile file;
  const char* folder = std::getenv("TMPDIR");
  file.path_ = folder && *folder ? folder : "/var/tmp";
  file.fd_ = open(file.path_.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
  if (file.fd_ < 0) refuse(file.path_, std::string("no temporary file: ") + std::strerror(errno));
  file.flushes_ = false;
  return file;
}

ImageFile::ImageFile(ImageFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      alignment_(other.alignment_),
      block_device_(other.block_device_),
      flushes_(other.flushes_) {}

ImageFile::~ImageFile() {
  if (fd_ >= 0) close(fd_);
}

void ImageFile::lock(bool read_only) {
  const unsigned used = read_only ? 1u << kConsistentRead : 1u << kConsistentRead | 1u << kWrite;
  constexpr unsigned not_shared = 1u << kWrite | 1u << kResize;
  const auto range = [](short type, off_t byte) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    return lock;
  };
  const auto hold = [&](off_t base, unsigned permissions) {
    for (unsigned i = 0; i < kPermissions; i++) {
      if (!(permissions >> i & 1)) continue;
      struct flock lock = range(F_RDLCK, base + static_cast<off_t>(i));
      // File systems without locks have none to respect.
      if (fcntl(fd_, F_OFD_SETLK, &lock) != 0 && (errno == EAGAIN || errno == EACCES))
        refuse(path_, "is in use by another process");
    }
  };
  const auto test = [&](off_t base, unsigned permissions) {
    for (unsigned i = 0; i < kPermissions; i++) {
      if (!(permissions >> i & 1)) continue;
      struct flock lock = range(F_WRLCK, base + static_cast<off_t>(i));
      if (fcntl(fd_, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
        refuse(path_, "is in use by another process");
    }
  };
  hold(kUsed, used);
  hold(kNotShared, not_shared);
  test(kNotShared, used);
  test(kUsed, not_shared);
}

uint64_t ImageFile::bytes() const {
  uint64_t size = 0;
  if (block_device_ && ioctl(fd_, BLKGETSIZE64, &size) == 0) return size;
  struct stat about {};
  return fstat(fd_, &about) == 0 ? static_cast<uint64_t>(about.st_size) : 0;
}

int ImageFile::read(uint64_t offset, std::span<std::byte> to) const {
  return alignment_ ? read_direct(offset, to) : pread_all(fd_, offset, to);
}

int ImageFile::write(uint64_t offset, std::span<const std::byte> from) {
  return alignment_ ? write_direct(offset, from) : pwrite_all(fd_, offset, from);
}

// Whole aligned blocks around the range, in aligned memory.
int ImageFile::read_direct(uint64_t offset, std::span<std::byte> to) const {
  const uint64_t mask = alignment_ - 1, first = offset & ~mask, end = (offset + to.size() + mask) & ~mask;
  const AlignedMemory memory = aligned_memory(end - first);
  if (!memory) return ENOMEM;
  if (const int error = pread_all(fd_, first, std::span(memory.get(), end - first))) return error;
  std::memcpy(to.data(), memory.get() + (offset - first), to.size());
  return 0;
}

int ImageFile::write_direct(uint64_t offset, std::span<const std::byte> from) {
  const uint64_t mask = alignment_ - 1, first = offset & ~mask, end = (offset + from.size() + mask) & ~mask;
  const AlignedMemory memory = aligned_memory(end - first);
  if (!memory) return ENOMEM;
  const std::span<std::byte> blocks(memory.get(), end - first);
  if (first == offset && end == offset + from.size()) {
    std::memcpy(blocks.data(), from.data(), from.size());
    return pwrite_all(fd_, first, blocks);
  }
  // Two writes into one block must not undo one another.
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const uint64_t size = bytes();
  if (const int error = pread_all(fd_, first, blocks)) return error;
  std::memcpy(blocks.data() + (offset - first), from.data(), from.size());
  if (const int error = pwrite_all(fd_, first, blocks)) return error;
  // The last block of a file that ends within it.
  if (!block_device_ && end > size &&
      ftruncate(fd_, static_cast<off_t>(std::max(size, offset + from.size()))) != 0)
    return errno;
  return 0;
}

int ImageFile::resize(uint64_t bytes) {
  return ftruncate(fd_, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
}

int ImageFile::punch_hole(uint64_t offset, uint64_t length) {
  if (fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                static_cast<off_t>(length)) == 0)
    return 0;
  return errno;
}

int ImageFile::write_zeroes(uint64_t offset, uint64_t length) {
  if (punch_hole(offset, length) == 0) return 0;
  static constexpr size_t kPiece = size_t{1} << 16;
  const std::vector<std::byte> zeros(static_cast<size_t>(std::min<uint64_t>(length, kPiece)));
  while (length > 0) {
    const auto piece = static_cast<size_t>(std::min<uint64_t>(length, kPiece));
    if (const int error = write(offset, std::span(zeros).first(piece))) return error;
    offset += piece;
    length -= piece;
  }
  return 0;
}

int ImageFile::flush() {
  if (!flushes_) return 0;
  return fdatasync(fd_) == 0 ? 0 : errno;
}

std::byte* ImageFile::map(uint64_t offset, size_t length) {
  void* memory = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, static_cast<off_t>(offset));
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

}  // namespace penumbra
