#include "storage/shared_folder.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace penumbra {

namespace {

// QEMU's names (hw/9pfs/9p-xattr.h, 9p-local.c); numbers are little-endian, four bytes, the device's eight.
constexpr const char *kMappedUser = "user.virtfs.uid", *kMappedGroup = "user.virtfs.gid",
                     *kMappedMode = "user.virtfs.mode", *kMappedDevice = "user.virtfs.rdev";
constexpr std::string_view kMappedPrefix = "user.virtfs.", kUserPrefix = "user.",
                           kAccessList = "system.posix_acl_access", kDefaultList = "system.posix_acl_default";
constexpr mode_t kMappedFileMode = 0600, kMappedFolderMode = 0700;
constexpr mode_t kModeBits = 07777;
constexpr size_t kLongestAttribute = XATTR_SIZE_MAX, kLongestList = XATTR_LIST_MAX, kLongestLink = PATH_MAX;
constexpr uint32_t kAsItIs = ~uint32_t{0};

// Where the kernel shows what a descriptor stands for: calls that do not take one (O_PATH) take this.
std::string proc_path(const Descriptor& file) {
  return "/proc/self/fd/" + std::to_string(file.get());
}

int error_of(long result) {
  return result < 0 ? errno : 0;
}

Descriptor open_at(const Descriptor& folder, const char* name, int flags, mode_t mode = 0) {
  return Descriptor(openat(folder.get(), name, flags | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode));
}

template <class Number>
bool get_number(const std::string& path, const char* name, Number& to) {
  std::array<uint8_t, sizeof(Number)> bytes;
  if (getxattr(path.c_str(), name, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
    return false;
  to = 0;
  for (size_t i = 0; i < bytes.size(); i++) to |= Number{bytes[i]} << 8 * i;
  return true;
}

template <class Number>
int set_number(const std::string& path, const char* name, Number value) {
  std::array<uint8_t, sizeof(Number)> bytes;
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(value >> 8 * i);
  return error_of(setxattr(path.c_str(), name, bytes.data(), bytes.size(), 0));
}

}  // namespace

SharedFolder::SharedFolder(const SharedFolderOptions& options)
    : root_(::open(options.path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)),
      security_(options.security),
      read_only_(options.read_only) {
  if (!root_) throw std::runtime_error(options.path + ": " + std::strerror(errno));
  const Descriptor readable(::open((proc_path(root_) + "/.").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!readable) throw std::runtime_error(options.path + ": " + std::strerror(errno));
  if (mapped() && fgetxattr(readable.get(), kMappedUser, nullptr, 0) < 0 && errno == ENOTSUP)
    throw std::runtime_error(
        options.path +
        ": its file system has no extended attributes, which security_model=mapped-xattr needs");
}

bool SharedFolder::is_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos &&
         name.find('\0') == name.npos;
}

SharedFolder::Result<Descriptor> SharedFolder::step(const Descriptor& folder, const std::string& name) const {
  if (!is_name(name)) return std::unexpected(ENOENT);
  Descriptor file = open_at(folder, name.c_str(), O_PATH);
  if (!file) return std::unexpected(errno);
  return file;
}

SharedFolder::Result<Descriptor> SharedFolder::reach(std::string_view path) const {
  Descriptor at(fcntl(root_.get(), F_DUPFD_CLOEXEC, 0));
  if (!at) return std::unexpected(errno);
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    auto next = step(at, std::string(path.substr(0, slash)));
    if (!next) return next;
    at = *std::move(next);
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return at;
}

// --- Files

SharedFolder::Result<struct stat> SharedFolder::attributes(const Descriptor& file) const {
  struct stat result;
  if (fstat(file.get(), &result) != 0) return std::unexpected(errno);
  if (!mapped() || S_ISLNK(result.st_mode)) return result;
  const std::string path = proc_path(file);
  uint32_t mode = 0;
  uint64_t device = 0;
  get_number(path, kMappedUser, result.st_uid);
  get_number(path, kMappedGroup, result.st_gid);
  if (!get_number(path, kMappedMode, mode)) return result;
  // What a regular file stands for; a folder is one here and there.
  const bool stands_for_it = S_ISREG(result.st_mode) && (mode & S_IFMT) != 0 && !S_ISDIR(mode);
  result.st_mode = ((stands_for_it ? mode : result.st_mode) & S_IFMT) | (mode & kModeBits);
  if ((S_ISCHR(mode) || S_ISBLK(mode)) && stands_for_it && get_number(path, kMappedDevice, device))
    result.st_rdev = device;
  return result;
}

SharedFolder::Result<struct statfs> SharedFolder::file_system(const Descriptor& file) const {
  struct statfs result;
  if (fstatfs(file.get(), &result) != 0) return std::unexpected(errno);
  return result;
}

SharedFolder::Result<std::string> SharedFolder::read_link(const Descriptor& link) const {
  const auto seen = attributes(link);
  if (!seen) return std::unexpected(seen.error());
  if (!S_ISLNK(seen->st_mode)) return std::unexpected(EINVAL);
  std::string target(kLongestLink, '\0');
  ssize_t bytes = readlinkat(link.get(), "", target.data(), target.size());
  if (bytes < 0 && mapped()) {
    const Descriptor file(::open(proc_path(link).c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    bytes = file ? pread(file.get(), target.data(), target.size(), 0) : -1;
  }
  if (bytes < 0) return std::unexpected(errno);
  target.resize(static_cast<size_t>(bytes));
  return target;
}

SharedFolder::Result<Descriptor> SharedFolder::open(const Descriptor& file, int flags) const {
  const auto seen = attributes(file);
  if (!seen) return std::unexpected(seen.error());
  if (S_ISLNK(seen->st_mode)) return std::unexpected(ELOOP);
  if (!S_ISREG(seen->st_mode) && !S_ISDIR(seen->st_mode)) return std::unexpected(ENXIO);
  Descriptor opened(::open(proc_path(file).c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!opened) return std::unexpected(errno);
  return opened;
}

int SharedFolder::set_mode(const Descriptor& file, uint32_t mode) const {
  const auto seen = attributes(file);
  if (!seen) return seen.error();
  const std::string path = proc_path(file);
  if (S_ISLNK(seen->st_mode)) return EOPNOTSUPP;
  if (mapped()) return set_number<uint32_t>(path, kMappedMode, (seen->st_mode & S_IFMT) | (mode & kModeBits));
  return error_of(chmod(path.c_str(), mode & kModeBits));
}

int SharedFolder::set_owner(const Descriptor& file, Owner owner) const {
  if (!mapped()) {
    const int error = error_of(fchownat(file.get(), "", owner.user, owner.group, AT_EMPTY_PATH));
    return security_ == SharedFolderOptions::Security::None && error == EPERM ? 0 : error;
  }
  const std::string path = proc_path(file);
  int error = 0;
  if (owner.user != kAsItIs) error = set_number(path, kMappedUser, owner.user);
  if (owner.group != kAsItIs && error == 0) error = set_number(path, kMappedGroup, owner.group);
  return error;
}

int SharedFolder::set_times(const Descriptor& file, const timespec (&times)[2]) const {
  return error_of(utimensat(AT_FDCWD, proc_path(file).c_str(), times, 0));
}

int SharedFolder::set_size(const Descriptor& file, uint64_t bytes) const {
  if (bytes > INT64_MAX) return EFBIG;
  return error_of(truncate(proc_path(file).c_str(), static_cast<off_t>(bytes)));
}

// --- Extended attributes

// What the host has under the guest's name.
SharedFolder::Result<std::string> SharedFolder::host_attribute(std::string_view name) const {
  if (name.find('\0') != name.npos) return std::unexpected(EINVAL);
  if (mapped() && name.starts_with(kMappedPrefix)) return std::unexpected(EACCES);
  if (name.starts_with(kUserPrefix)) return std::string(name);
  if (name != kAccessList && name != kDefaultList) return std::unexpected(EOPNOTSUPP);
  return (mapped() ? std::string(kMappedPrefix) : std::string()) + std::string(name);
}

SharedFolder::Result<SharedFolder::Bytes> SharedFolder::attribute_list(const Descriptor& file) const {
  std::string names(kLongestList, '\0');
  const ssize_t bytes = listxattr(proc_path(file).c_str(), names.data(), names.size());
  if (bytes < 0) return std::unexpected(errno);
  Bytes result;
  for (std::string_view left(names.data(), static_cast<size_t>(bytes)); !left.empty();) {
    const size_t end = std::min(left.find('\0'), left.size() - 1);
    std::string_view name = left.substr(0, end);
    left.remove_prefix(end + 1);
    const std::string_view inner =
        mapped() && name.starts_with(kMappedPrefix) ? name.substr(kMappedPrefix.size()) : "";
    if (inner == kAccessList || inner == kDefaultList) name = inner;
    if (!host_attribute(name)) continue;
    const auto shown = std::as_bytes(std::span(name));
    result.insert(result.end(), shown.begin(), shown.end());
    result.push_back(std::byte{0});
  }
  return result;
}

SharedFolder::Result<SharedFolder::Bytes> SharedFolder::attribute(const Descriptor& file,
                                                                  std::string_view name) const {
  const auto host_name = host_attribute(name);
  if (!host_name) return std::unexpected(host_name.error());
  Bytes value(kLongestAttribute);
  const ssize_t bytes = getxattr(proc_path(file).c_str(), host_name->c_str(), value.data(), value.size());
  if (bytes < 0) return std::unexpected(errno);
  value.resize(static_cast<size_t>(bytes));
  return value;
}

int SharedFolder::set_attribute(const Descriptor& file, std::string_view name,
                                std::span<const std::byte> value, int flags) const {
  const auto host_name = host_attribute(name);
  if (!host_name) return host_name.error();
  return error_of(setxattr(proc_path(file).c_str(), host_name->c_str(), value.data(), value.size(), flags));
}

int SharedFolder::remove_attribute(const Descriptor& file, std::string_view name) const {
  const auto host_name = host_attribute(name);
  if (!host_name) return host_name.error();
  return error_of(removexattr(proc_path(file).c_str(), host_name->c_str()));
}

// --- Names in folders

// A new file becomes what the guest wants it to be.
int SharedFolder::settle(const Descriptor& file, uint32_t mode, Owner owner, dev_t device) const {
  if (!mapped()) {
    const int error = set_owner(file, owner);
    return error || S_ISLNK(mode) ? error : error_of(chmod(proc_path(file).c_str(), mode & kModeBits));
  }
  const std::string path = proc_path(file);
  int error = set_owner(file, owner);
  if (!error) error = set_number(path, kMappedMode, mode);
  if (!error && (S_ISCHR(mode) || S_ISBLK(mode))) error = set_number(path, kMappedDevice, uint64_t{device});
  return error;
}

int SharedFolder::settle_new(const Descriptor& folder, const std::string& name, uint32_t mode, Owner owner,
                             dev_t device) const {
  const auto file = step(folder, name);
  const int error = file ? settle(*file, mode, owner, device) : file.error();
  if (error) unlinkat(folder.get(), name.c_str(), S_ISDIR(mode) ? AT_REMOVEDIR : 0);
  return error;
}

SharedFolder::Result<Descriptor> SharedFolder::create_plain(const Descriptor& folder, const std::string& name,
                                                            int flags, uint32_t mode) const {
  if (!is_name(name)) return std::unexpected(EINVAL);
  Descriptor file =
      open_at(folder, name.c_str(), flags | O_CREAT | O_EXCL, mapped() ? kMappedFileMode : mode & kModeBits);
  if (!file) return std::unexpected(errno);
  return file;
}

SharedFolder::Result<Descriptor> SharedFolder::create(const Descriptor& folder, const std::string& name,
                                                      int flags, uint32_t mode, Owner owner) const {
  auto file = create_plain(folder, name, flags, mode);
  if (!file) return file;
  if (const int error = settle(*file, S_IFREG | (mode & kModeBits), owner)) {
    unlinkat(folder.get(), name.c_str(), 0);
    return std::unexpected(error);
  }
  return file;
}

int SharedFolder::make_folder(const Descriptor& folder, const std::string& name, uint32_t mode,
                              Owner owner) const {
  if (!is_name(name)) return EINVAL;
  if (mkdirat(folder.get(), name.c_str(), mapped() ? kMappedFolderMode : mode & kModeBits) != 0) return errno;
  return settle_new(folder, name, S_IFDIR | (mode & kModeBits), owner);
}

int SharedFolder::make_link(const Descriptor& folder, const std::string& name, const std::string& target,
                            Owner owner) const {
  constexpr uint32_t kMode = S_IFLNK | 0777;
  if (target.empty() || target.size() >= kLongestLink || target.find('\0') != target.npos || !is_name(name))
    return EINVAL;
  if (!mapped()) {
    if (symlinkat(target.c_str(), folder.get(), name.c_str()) != 0) return errno;
    return settle_new(folder, name, kMode, owner);
  }
  const auto file = create_plain(folder, name, O_WRONLY, 0);
  if (!file) return file.error();
  const ssize_t written = pwrite(file->get(), target.data(), target.size(), 0);
  int error = written < 0 ? errno : static_cast<size_t>(written) < target.size() ? ENOSPC : 0;
  if (!error) error = settle(*file, kMode, owner);
  if (error) unlinkat(folder.get(), name.c_str(), 0);
  return error;
}

int SharedFolder::make_node(const Descriptor& folder, const std::string& name, uint32_t mode, dev_t device,
                            Owner owner) const {
  const bool known = S_ISREG(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISCHR(mode) || S_ISBLK(mode);
  if (!known || !is_name(name)) return EINVAL;
  const mode_t host_mode = mapped() ? S_IFREG | kMappedFileMode : mode & (S_IFMT | kModeBits);
  if (mknodat(folder.get(), name.c_str(), host_mode, mapped() ? 0 : device) != 0) return errno;
  return settle_new(folder, name, mode & (S_IFMT | kModeBits), owner, device);
}

int SharedFolder::link(const Descriptor& file, const Descriptor& folder, const std::string& name) const {
  if (!is_name(name)) return EINVAL;
  return error_of(linkat(AT_FDCWD, proc_path(file).c_str(), folder.get(), name.c_str(), AT_SYMLINK_FOLLOW));
}

int SharedFolder::rename(const Descriptor& from, const std::string& old_name, const Descriptor& to,
                         const std::string& new_name) const {
  if (!is_name(old_name) || !is_name(new_name)) return EINVAL;
  return error_of(renameat(from.get(), old_name.c_str(), to.get(), new_name.c_str()));
}

int SharedFolder::remove(const Descriptor& folder, const std::string& name, bool is_folder) const {
  if (!is_name(name)) return EINVAL;
  return error_of(unlinkat(folder.get(), name.c_str(), is_folder ? AT_REMOVEDIR : 0));
}

}  // namespace penumbra
