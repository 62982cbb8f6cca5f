#include "frontend/host_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace penumbra {

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int operator*() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void refuse(const std::string& path, std::string_view why) {
  throw std::runtime_error(fmt::format("{}: {}", path, why));
}

[[noreturn]] void refuse_errno(const std::string& path) {
  refuse(path, std::strerror(errno));
}

}  // namespace

std::string size_text(uint64_t bytes) {
  static constexpr std::array kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < kUnits.size()) bytes /= 1024, ++unit;
  return fmt::format("{} {}", bytes, kUnits[unit]);
}

std::vector<std::byte> read_host_file(const std::string& path, uint64_t limit, std::string_view what) {
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (*file < 0) refuse_errno(path);
  struct stat info;
  if (fstat(*file, &info) < 0) refuse_errno(path);
  if (S_ISDIR(info.st_mode)) refuse(path, "is a directory");
  if (S_ISCHR(info.st_mode)) refuse(path, "is a character device, not a file");
  if (S_ISREG(info.st_mode) && static_cast<uint64_t>(info.st_size) > limit) {
    refuse(path, fmt::format("has {}, more than the {} of {}", size_text(static_cast<uint64_t>(info.st_size)),
                             size_text(limit), what));
  }

  // The size is only a hint: pipes and block devices have none, and a file may grow meanwhile.
  constexpr uint64_t kStep = 1 << 20;
  std::vector<std::byte> bytes;
  if (S_ISREG(info.st_mode)) bytes.reserve(static_cast<size_t>(info.st_size) + 1);
  size_t filled = 0;
  while (true) {
    const uint64_t room = limit + 1 - filled;
    if (room == 0) refuse(path, fmt::format("has more than the {} of {}", size_text(limit), what));
    const size_t spare = bytes.capacity() - filled;
    bytes.resize(filled + static_cast<size_t>(std::min(room, spare ? uint64_t{spare} : kStep)));
    const ssize_t got = read(*file, bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse_errno(path);
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  bytes.resize(filled);
  if (bytes.empty()) refuse(path, "is empty");
  return bytes;
}

}  // namespace penumbra
