#include "storage/file_server_9p.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/little_endian.h"
#include "devices/file_server.h"

namespace penumbra {

namespace {

// Messages of a client; the answer has the next number.
enum : uint8_t {
  kError = 6,  // of answers only: 7
  kStatfs = 8,
  kOpen = 12,
  kCreate = 14,
  kSymlink = 16,
  kMknod = 18,
  kRename = 20,
  kReadlink = 22,
  kGetattr = 24,
  kSetattr = 26,
  kXattrwalk = 30,
  kXattrcreate = 32,
  kReaddir = 40,
  kFsync = 50,
  kLock = 52,
  kGetlock = 54,
  kLink = 70,
  kMkdir = 72,
  kRenameat = 74,
  kUnlinkat = 76,
  kVersion = 100,
  kAuth = 102,
  kAttach = 104,
  kFlush = 108,
  kWalk = 110,
  kRead = 116,
  kWrite = 118,
  kClunk = 120,
  kRemove = 122,
};
constexpr size_t kHeaderBytes = 7;  // length, type, tag
constexpr size_t kErrorBytes = kHeaderBytes + 4;
constexpr size_t kCountBytes = 4;
constexpr size_t kLeastMessage = 4096;
constexpr unsigned kMostWalked = 16;  // names in one walk (walk(5))
constexpr std::string_view kDialect = "9P2000.L";
constexpr uint8_t kFolderQid = 0x80, kLinkQid = 0x02, kFileQid = 0x00;
// What a client may make the server keep, beside open files.
constexpr size_t kMostWeight = size_t{256} << 20;

// Tlopen's flags are Linux' (its numbers on x86, whatever the host's).
constexpr uint32_t kAccess = 3, kTruncate = 01000, kAppend = 02000, kDataSync = 010000, kSync = 04010000,
                   kExclusive = 0200;

int open_flags(uint32_t flags) {
  const uint32_t access = flags & kAccess;
  return (access == 1   ? O_WRONLY
          : access == 2 ? O_RDWR
                        : O_RDONLY) |
         (flags & kTruncate ? O_TRUNC : 0) | (flags & kAppend ? O_APPEND : 0) |
         ((flags & kSync) == kSync ? O_SYNC
          : flags & kDataSync      ? O_DSYNC
                                   : 0);
}

bool writes(uint32_t flags) {
  return (flags & kAccess) != 0 || (flags & kTruncate) != 0;
}

std::string joined(const std::string& folder, const std::string& name) {
  return folder.empty() ? name : folder + "/" + name;
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

bool is_at_or_below(std::string_view path, std::string_view top) {
  return path.starts_with(top) && (path.size() == top.size() || path[top.size()] == '/');
}

int refusal_of_name(const std::string& name) {
  if (!SharedFolder::is_name(name)) return name == "." || name == ".." ? EEXIST : EINVAL;
  return name.size() > NAME_MAX ? ENAMETOOLONG : 0;
}

}  // namespace

// Numbers are little-endian; a string is its length in two bytes and its bytes.
class FileServer9p::Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : left_(bytes) {}

  template <class Number>
  Number number() {
    const auto bytes = take(sizeof(Number));
    return bytes.empty() ? Number{0} : load_field<Number>(bytes, 0);
  }
  std::string text() {
    const auto bytes = take(number<uint16_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::span<const std::byte> take(size_t bytes) {
    if (bytes > left_.size()) {
      short_ = true;
      bytes = 0;
    }
    const auto taken = left_.first(bytes);
    left_ = left_.subspan(bytes);
    return taken;
  }
  // More was asked for than there is.
  bool failed() const { return short_; }

 private:
  std::span<const std::byte> left_;
  bool short_ = false;
};

class FileServer9p::Writer {
 public:
  explicit Writer(size_t room) : room_(room), bytes_(kHeaderBytes) {}

  template <class Number>
  void number(Number value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    store_field(bytes_, at, value);
  }
  void text(std::string_view value) {
    number(static_cast<uint16_t>(value.size()));
    raw(std::as_bytes(std::span(value)));
  }
  void raw(std::span<const std::byte> value) { bytes_.insert(bytes_.end(), value.begin(), value.end()); }
  void qid(uint8_t type, uint32_t version, uint64_t path) {
    number(type);
    number(version);
    number(path);
  }
  // A length, and what `fill` makes of up to that many bytes: it returns how many, or a negative errno.
  template <class Fill>
  int counted(size_t wanted, Fill fill) {
    const size_t at = bytes_.size();
    const size_t free = room_ > at + kCountBytes ? room_ - at - kCountBytes : 0;
    bytes_.resize(at + kCountBytes + std::min(wanted, free));
    const long got = fill(std::span(bytes_).subspan(at + kCountBytes));
    if (got < 0) return static_cast<int>(-got);
    bytes_.resize(at + kCountBytes + static_cast<size_t>(got));
    store_field(bytes_, at, static_cast<uint32_t>(got));
    return 0;
  }

  bool fits() const { return bytes_.size() <= room_; }
  Bytes finish(uint8_t type, uint16_t tag) {
    store_field(bytes_, 0, static_cast<uint32_t>(bytes_.size()));
    bytes_[4] = std::byte{type};
    store_field(bytes_, 5, tag);
    return std::move(bytes_);
  }

 private:
  const size_t room_;
  Bytes bytes_;
};

FileServer9p::FileServer9p(const SharedFolderOptions& options, unsigned most_open)
    : folder_(options), most_open_(most_open) {}

FileServer9p::Handler FileServer9p::handler_of(uint8_t type) {
  switch (type) {
    case kStatfs:
      return &FileServer9p::file_system;
    case kOpen:
      return &FileServer9p::open;
    case kCreate:
      return &FileServer9p::create;
    case kSymlink:
      return &FileServer9p::make_link;
    case kMknod:
      return &FileServer9p::make_node;
    case kRename:
      return &FileServer9p::rename;
    case kReadlink:
      return &FileServer9p::read_link;
    case kGetattr:
      return &FileServer9p::get_attributes;
    case kSetattr:
      return &FileServer9p::set_attributes;
    case kXattrwalk:
      return &FileServer9p::walk_attribute;
    case kXattrcreate:
      return &FileServer9p::create_attribute;
    case kReaddir:
      return &FileServer9p::read_folder;
    case kFsync:
      return &FileServer9p::sync;
    case kLock:
      return &FileServer9p::lock;
    case kGetlock:
      return &FileServer9p::get_lock;
    case kLink:
      return &FileServer9p::link;
    case kMkdir:
      return &FileServer9p::make_folder;
    case kRenameat:
      return &FileServer9p::rename_at;
    case kUnlinkat:
      return &FileServer9p::remove_at;
    case kVersion:
      return &FileServer9p::version;
    case kAuth:
      return &FileServer9p::authenticate;
    case kAttach:
      return &FileServer9p::attach;
    case kFlush:
      return &FileServer9p::flush;
    case kWalk:
      return &FileServer9p::walk;
    case kRead:
      return &FileServer9p::read;
    case kWrite:
      return &FileServer9p::write;
    case kClunk:
      return &FileServer9p::clunk;
    case kRemove:
      return &FileServer9p::remove;
    default:
      return nullptr;
  }
}

std::vector<std::byte> FileServer9p::answer(std::span<const std::byte> message, size_t room) {
  Reader in(message);
  const auto length = in.number<uint32_t>();
  const auto type = in.number<uint8_t>();
  const auto tag = in.number<uint16_t>();
  if (in.failed()) return {};
  room = std::min(room, limit_ && type != kVersion ? limit_ : FileServer::kMostMessage);
  Writer out(room);
  int error = EPROTO;
  if (length >= kHeaderBytes && length <= message.size()) {
    Reader body(message.subspan(kHeaderBytes, length - kHeaderBytes));
    const Handler handler = handler_of(type);
    const bool in_session = limit_ != 0 && length <= limit_;
    if (!handler) {
      error = EOPNOTSUPP;
    } else if (in_session || type == kVersion) {
      error = (this->*handler)(body, out);
    }
  }
  if (!error && out.fits()) return out.finish(static_cast<uint8_t>(type + 1), tag);
  if (room < kErrorBytes) return {};
  Writer refusal(room);
  refusal.number(static_cast<uint32_t>(error ? error : EMSGSIZE));
  return refusal.finish(kError + 1, tag);
}

// --- What numbers stand for

size_t FileServer9p::Fid::weight() const {
  constexpr size_t kNode = 64;  // of the map
  return sizeof(Fid) + kNode + path.size() + attribute.size() + std::max(value.size(), value_bytes);
}

FileServer9p::Fid* FileServer9p::find(uint32_t number) {
  const auto at = fids_.find(number);
  return at == fids_.end() ? nullptr : &at->second;
}

int FileServer9p::add(uint32_t number, Fid fid) {
  const size_t weight = fid.weight();
  if (fids_.contains(number)) return EINVAL;
  if (weight > kMostWeight - weight_) return ENOMEM;
  weight_ += weight;
  fids_.emplace(number, std::move(fid));
  return 0;
}

int FileServer9p::set_path(Fid& fid, std::string path) {
  const size_t before = fid.weight();
  if (path.size() > fid.path.size() && path.size() - fid.path.size() > kMostWeight - weight_) return ENOMEM;
  fid.path = std::move(path);
  weight_ += fid.weight() - before;
  return 0;
}

int FileServer9p::give_up(std::map<uint32_t, Fid>::iterator at) {
  const Fid fid = std::move(at->second);
  weight_ -= fid.weight();
  if (fid.opened) open_--;
  fids_.erase(at);
  if (fid.use != Fid::Use::WriteAttribute) return 0;
  // An attribute of no bytes goes away, but one that is to be new.
  if (fid.value.size() != fid.value_bytes) return EINVAL;
  const auto file = folder_.reach(fid.path);
  if (!file) return file.error();
  if (fid.value_bytes == 0 && fid.flags == 0) return folder_.remove_attribute(*file, fid.attribute);
  return folder_.set_attribute(*file, fid.attribute, fid.value, fid.flags);
}

void FileServer9p::reset() {
  fids_.clear();
  weight_ = 0;
  open_ = 0;
  limit_ = 0;
}

// What is open stays what it is, even without a name.
SharedFolder::Result<Descriptor> FileServer9p::target(const Fid& fid) const {
  if (!fid.opened) return folder_.reach(fid.path);
  Descriptor same(fcntl(fid.opened.get(), F_DUPFD_CLOEXEC, 0));
  if (!same) return std::unexpected(errno);
  return same;
}

// Inode numbers are those of a file system; what is mounted below the folder must not look like its own.
uint64_t FileServer9p::qid_path(dev_t device, uint64_t inode) {
  constexpr unsigned kShift = 56;
  constexpr size_t kMostDevices = 256;
  const size_t known = devices_.size();
  const uint64_t number = known < kMostDevices ? devices_.try_emplace(device, known).first->second : 0;
  return inode ^ number << kShift;
}

int FileServer9p::put_qid(Writer& out, const Descriptor& file) {
  const auto seen = folder_.attributes(file);
  if (!seen) return seen.error();
  const auto version = static_cast<uint32_t>(seen->st_mtime ^ seen->st_size << 8);
  out.qid(S_ISDIR(seen->st_mode)   ? kFolderQid
          : S_ISLNK(seen->st_mode) ? kLinkQid
                                   : kFileQid,
          version, qid_path(seen->st_dev, seen->st_ino));
  return 0;
}

int FileServer9p::put_new_qid(Writer& out, const Descriptor& folder, const std::string& name) {
  const auto file = folder_.step(folder, name);
  return file ? put_qid(out, *file) : file.error();
}

int FileServer9p::refusal_to_write() const {
  return folder_.read_only() ? EROFS : 0;
}

// --- The session

int FileServer9p::version(Reader& in, Writer& out) {
  const auto bytes = in.number<uint32_t>();
  const std::string dialect = in.text();
  if (in.failed()) return EPROTO;
  reset();
  if (bytes < kLeastMessage) return EMSGSIZE;
  const size_t limit = std::min<size_t>(bytes, FileServer::kMostMessage);
  const bool known = dialect == kDialect;
  if (known) limit_ = limit;
  out.number(static_cast<uint32_t>(limit));
  out.text(known ? kDialect : "unknown");
  return 0;
}

int FileServer9p::authenticate(Reader&, Writer&) {
  return EOPNOTSUPP;
}

int FileServer9p::attach(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  in.number<uint32_t>();  // no authentication
  in.text();              // the user's name
  in.text();              // which tree: there is one
  const auto user = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  if (const int error = add(number, {.path = {}, .user = user})) return error;
  const auto file = folder_.reach("");
  return file ? put_qid(out, *file) : file.error();
}

// Messages are answered in their order: what it is about has been.
int FileServer9p::flush(Reader& in, Writer&) {
  in.number<uint16_t>();
  return in.failed() ? EPROTO : 0;
}

// Nothing changes unless all names are there; what was found is told.
int FileServer9p::walk(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>(), new_number = in.number<uint32_t>();
  const auto count = in.number<uint16_t>();
  if (count > kMostWalked) return EINVAL;
  std::vector<std::string> names(count);
  for (std::string& name : names) name = in.text();
  if (in.failed()) return EPROTO;
  Fid* const fid = find(number);
  if (!fid) return EBADF;
  const bool same = number == new_number;
  if (same && fid->use != Fid::Use::Name) return EINVAL;
  if (!same && fids_.contains(new_number)) return EINVAL;
  std::string path = fid->path;
  auto at = folder_.reach(path);
  if (!at && count > 0) return at.error();
  Writer found(SIZE_MAX);
  uint16_t walked = 0;
  int error = 0;
  for (const std::string& name : names) {
    if (name == "..") {
      path = parent_of(path);
      at = folder_.reach(path);
    } else {
      path = joined(path, name);
      at = path.size() >= PATH_MAX ? std::unexpected(ENAMETOOLONG) : folder_.step(*at, name);
    }
    error = at ? put_qid(found, *at) : at.error();
    if (error) break;
    walked++;
  }
  if (error && walked == 0) return error;
  if (!error) {
    const int full = same ? set_path(*fid, std::move(path))
                          : add(new_number, {.path = std::move(path), .user = fid->user});
    if (full) return full;
  }
  out.number(walked);
  constexpr size_t kQidBytes = 13;
  const Bytes qids = found.finish(0, 0);
  out.raw(std::span(qids).subspan(kHeaderBytes, walked * kQidBytes));
  return 0;
}

int FileServer9p::clunk(Reader& in, Writer&) {
  const auto at = fids_.find(in.number<uint32_t>());
  if (in.failed()) return EPROTO;
  return at == fids_.end() ? EBADF : give_up(at);
}

// --- Files

int FileServer9p::open(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>(), flags = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  Fid* const fid = find(number);
  if (!fid) return EBADF;
  if (fid->use != Fid::Use::Name) return EINVAL;
  if (writes(flags) && folder_.read_only()) return EROFS;
  if (open_ >= most_open_) return EMFILE;
  const auto file = folder_.reach(fid->path);
  if (!file) return file.error();
  const auto seen = folder_.attributes(*file);
  if (!seen) return seen.error();
  const bool is_folder = S_ISDIR(seen->st_mode);
  auto opened = folder_.open(*file, is_folder ? O_RDONLY | O_DIRECTORY : open_flags(flags));
  if (!opened) return opened.error();
  if (const int error = put_qid(out, *opened)) return error;
  fid->opened = *std::move(opened);
  fid->use = is_folder ? Fid::Use::Folder : Fid::Use::File;
  open_++;
  out.number(uint32_t{0});  // as many bytes at a time as a message holds
  return 0;
}

// The number stands for the new file then.
int FileServer9p::create(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  const std::string name = in.text();
  const auto flags = in.number<uint32_t>(), mode = in.number<uint32_t>(), group = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  Fid* const fid = find(number);
  if (!fid) return EBADF;
  if (fid->use != Fid::Use::Name) return EINVAL;
  if (const int error = refusal_to_write()) return error;
  if (const int error = refusal_of_name(name)) return error;
  if (open_ >= most_open_) return EMFILE;
  std::string path = joined(fid->path, name);
  if (path.size() >= PATH_MAX) return ENAMETOOLONG;
  const auto folder = folder_.reach(fid->path);
  if (!folder) return folder.error();
  auto opened = folder_.create(*folder, name, open_flags(flags & ~kTruncate), mode,
                               {.user = fid->user, .group = group});
  if (!opened && opened.error() == EEXIST && !(flags & kExclusive)) {
    const auto file = folder_.step(*folder, name);
    if (!file) return file.error();
    opened = folder_.open(*file, open_flags(flags));
  }
  if (!opened) return opened.error();
  if (const int error = put_qid(out, *opened)) return error;
  if (const int error = set_path(*fid, std::move(path))) return error;
  fid->opened = *std::move(opened);
  fid->use = Fid::Use::File;
  open_++;
  out.number(uint32_t{0});
  return 0;
}

int FileServer9p::read(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  const auto offset = in.number<uint64_t>();
  const auto count = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  const Fid* const fid = find(number);
  if (!fid) return EBADF;
  if (fid->use == Fid::Use::ReadAttribute) {
    const size_t left = fid->value.size() - std::min<uint64_t>(offset, fid->value.size());
    return out.counted(std::min<size_t>(count, left), [&](std::span<std::byte> to) -> long {
      std::copy_n(fid->value.end() - static_cast<ptrdiff_t>(left), to.size(), to.begin());
      return static_cast<long>(to.size());
    });
  }
  if (fid->use != Fid::Use::File) return EBADF;
  if (offset > INT64_MAX) return EINVAL;
  return out.counted(count, [&](std::span<std::byte> to) -> long {
    const ssize_t got = pread(fid->opened.get(), to.data(), to.size(), static_cast<off_t>(offset));
    return got < 0 ? -errno : got;
  });
}

int FileServer9p::write(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  const auto offset = in.number<uint64_t>();
  const auto data = in.take(in.number<uint32_t>());
  if (in.failed()) return EPROTO;
  Fid* const fid = find(number);
  if (!fid) return EBADF;
  ssize_t written = static_cast<ssize_t>(data.size());
  if (fid->use == Fid::Use::WriteAttribute) {
    if (offset != fid->value.size() || data.size() > fid->value_bytes - fid->value.size()) return ENOSPC;
    fid->value.insert(fid->value.end(), data.begin(), data.end());
  } else if (fid->use != Fid::Use::File) {
    return EBADF;
  } else {
    if (offset > INT64_MAX) return EFBIG;
    written = pwrite(fid->opened.get(), data.data(), data.size(), static_cast<off_t>(offset));
    if (written < 0) return errno;
  }
  out.number(static_cast<uint32_t>(written));
  return 0;
}

// As many entries as there is room for. Each tells where the next one is.
int FileServer9p::read_folder(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  const auto offset = in.number<uint64_t>();
  const auto count = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  const Fid* const fid = find(number);
  if (!fid || fid->use != Fid::Use::Folder) return EBADF;
  if (offset > INT64_MAX) return EINVAL;
  struct stat seen;
  if (fstat(fid->opened.get(), &seen) != 0) return errno;
  if (lseek(fid->opened.get(), static_cast<off_t>(offset), SEEK_SET) < 0) return errno;
  return out.counted(count, [&](std::span<std::byte> to) -> long {
    alignas(dirent64) std::array<char, 32768> entries;
    size_t used = 0;
    while (true) {
      const ssize_t got = getdents64(fid->opened.get(), entries.data(), entries.size());
      if (got < 0) return used ? static_cast<long>(used) : -errno;
      if (got == 0) return static_cast<long>(used);
      for (ssize_t at = 0; at < got;) {
        // SAFETY: the kernel made these entries, each aligned and of d_reclen bytes.
        const auto* const entry = reinterpret_cast<const dirent64*>(entries.data() + at);
        at += entry->d_reclen;
        const std::string_view name = entry->d_name;
        // The folder above is none of the guest's.
        const uint64_t inode = fid->path.empty() && name == ".." ? seen.st_ino : entry->d_ino;
        Writer item(SIZE_MAX);
        item.qid(entry->d_type == DT_DIR   ? kFolderQid
                 : entry->d_type == DT_LNK ? kLinkQid
                                           : kFileQid,
                 0, qid_path(seen.st_dev, inode));
        item.number(static_cast<uint64_t>(entry->d_off));
        // Only its attributes tell what a regular file stands for.
        constexpr uint8_t kUnknown = DT_UNKNOWN;
        item.number(folder_.mapped() && entry->d_type == DT_REG ? kUnknown : uint8_t{entry->d_type});
        item.text(name);
        const Bytes bytes = item.finish(0, 0);
        const auto body = std::span(bytes).subspan(kHeaderBytes);
        if (body.size() > to.size() - used) return used ? static_cast<long>(used) : -EINVAL;
        std::ranges::copy(body, to.begin() + static_cast<ptrdiff_t>(used));
        used += body.size();
      }
    }
  });
}

int FileServer9p::sync(Reader& in, Writer&) {
  const auto number = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  const bool data_only = in.number<uint32_t>() != 0;  // which older clients leave out
  const Fid* const fid = find(number);
  if (!fid || !fid->opened) return EBADF;
  return (data_only ? fdatasync(fid->opened.get()) : fsync(fid->opened.get())) < 0 ? errno : 0;
}

int FileServer9p::file_system(Reader& in, Writer& out) {
  const Fid* const fid = find(in.number<uint32_t>());
  if (in.failed()) return EPROTO;
  if (!fid) return EBADF;
  const auto file = target(*fid);
  if (!file) return file.error();
  const auto seen = folder_.file_system(*file);
  if (!seen) return seen.error();
  uint64_t id = 0;
  static_assert(sizeof id == sizeof seen->f_fsid);
  std::memcpy(&id, &seen->f_fsid, sizeof id);
  out.number(static_cast<uint32_t>(seen->f_type));
  out.number(static_cast<uint32_t>(seen->f_bsize));
  for (const uint64_t value : {uint64_t{seen->f_blocks}, uint64_t{seen->f_bfree}, uint64_t{seen->f_bavail},
                               uint64_t{seen->f_files}, uint64_t{seen->f_ffree}, id})
    out.number(value);
  out.number(static_cast<uint32_t>(seen->f_namelen));
  return 0;
}

int FileServer9p::get_attributes(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  in.number<uint64_t>();  // what is asked for: more may be told
  if (in.failed()) return EPROTO;
  const Fid* const fid = find(number);
  if (!fid) return EBADF;
  const auto file = target(*fid);
  if (!file) return file.error();
  const auto seen = folder_.attributes(*file);
  if (!seen) return seen.error();
  constexpr uint64_t kBasic = 0x7ff;
  out.number(kBasic);
  if (const int error = put_qid(out, *file)) return error;
  out.number(uint32_t{seen->st_mode});
  out.number(uint32_t{seen->st_uid});
  out.number(uint32_t{seen->st_gid});
  for (const uint64_t value :
       {uint64_t{seen->st_nlink}, uint64_t{seen->st_rdev}, static_cast<uint64_t>(seen->st_size),
        static_cast<uint64_t>(seen->st_blksize), static_cast<uint64_t>(seen->st_blocks)})
    out.number(value);
  for (const timespec& time : {seen->st_atim, seen->st_mtim, seen->st_ctim}) {
    out.number(static_cast<uint64_t>(time.tv_sec));
    out.number(static_cast<uint64_t>(time.tv_nsec));
  }
  for (unsigned i = 0; i < 4; i++) out.number(uint64_t{0});  // birth, generation, version: not said
  return 0;
}

int FileServer9p::set_attributes(Reader& in, Writer&) {
  enum : uint32_t {
    kMode = 0x001,
    kUser = 0x002,
    kGroup = 0x004,
    kSize = 0x008,
    kAccessTime = 0x010,
    kModifyTime = 0x020,
    kChangeTime = 0x040,
    kAccessTimeGiven = 0x080,
    kModifyTimeGiven = 0x100
  };
  const auto number = in.number<uint32_t>(), valid = in.number<uint32_t>(), mode = in.number<uint32_t>(),
             user = in.number<uint32_t>(), group = in.number<uint32_t>();
  const auto size = in.number<uint64_t>();
  timespec times[2];
  const std::pair<uint32_t, uint32_t> kTimes[] = {{kAccessTime, kAccessTimeGiven},
                                                  {kModifyTime, kModifyTimeGiven}};
  for (unsigned i = 0; i < 2; i++) {
    const auto seconds = in.number<uint64_t>(), nanoseconds = in.number<uint64_t>();
    times[i].tv_sec = static_cast<time_t>(seconds);
    constexpr uint64_t kSecond = 1'000'000'000;
    const bool given = valid & kTimes[i].second;
    if (valid & kTimes[i].first && given && nanoseconds >= kSecond) return EINVAL;
    times[i].tv_nsec = !(valid & kTimes[i].first) ? UTIME_OMIT
                       : given                    ? static_cast<long>(nanoseconds)
                                                  : UTIME_NOW;
  }
  if (in.failed()) return EPROTO;
  const Fid* const fid = find(number);
  if (!fid) return EBADF;
  if (const int error = refusal_to_write()) return error;
  const auto file = target(*fid);
  if (!file) return file.error();
  int error = valid & kMode ? folder_.set_mode(*file, mode) : 0;
  if (!error && valid & (kAccessTime | kModifyTime)) error = folder_.set_times(*file, times);
  constexpr uint32_t kAsItIs = ~uint32_t{0};
  const bool owner = valid & (kUser | kGroup);
  const bool only_touched = (valid & kChangeTime) && !(valid & (kMode | kSize | kAccessTime | kModifyTime));
  if (!error && (owner || only_touched))
    error = folder_.set_owner(
        *file, {.user = valid & kUser ? user : kAsItIs, .group = valid & kGroup ? group : kAsItIs});
  if (!error && valid & kSize) {
    // Who has opened a file for writing may set its size, whatever its mode says by now.
    const bool done = fid->use == Fid::Use::File && size <= INT64_MAX &&
                      ftruncate(fid->opened.get(), static_cast<off_t>(size)) == 0;
    if (!done) error = folder_.set_size(*file, size);
  }
  return error;
}

int FileServer9p::read_link(Reader& in, Writer& out) {
  const Fid* const fid = find(in.number<uint32_t>());
  if (in.failed()) return EPROTO;
  if (!fid) return EBADF;
  const auto file = folder_.reach(fid->path);
  if (!file) return file.error();
  const auto link_target = folder_.read_link(*file);
  if (!link_target) return link_target.error();
  out.text(*link_target);
  return 0;
}

// --- Names

// `make` is given the folder and the owner.
template <class Make>
int FileServer9p::make_name(uint32_t number, const std::string& name, uint32_t group, Writer& out,
                            Make make) {
  const Fid* const fid = find(number);
  if (!fid) return EBADF;
  if (const int error = refusal_to_write()) return error;
  if (const int error = refusal_of_name(name)) return error;
  const auto folder = folder_.reach(fid->path);
  if (!folder) return folder.error();
  const int error = make(*folder, SharedFolder::Owner{.user = fid->user, .group = group});
  return error ? error : put_new_qid(out, *folder, name);
}

int FileServer9p::make_folder(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  const std::string name = in.text();
  const auto mode = in.number<uint32_t>(), group = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  return make_name(number, name, group, out, [&](const Descriptor& folder, SharedFolder::Owner owner) {
    return folder_.make_folder(folder, name, mode, owner);
  });
}

int FileServer9p::make_link(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  const std::string name = in.text(), link_target = in.text();
  const auto group = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  return make_name(number, name, group, out, [&](const Descriptor& folder, SharedFolder::Owner owner) {
    return folder_.make_link(folder, name, link_target, owner);
  });
}

int FileServer9p::make_node(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  const std::string name = in.text();
  const auto mode = in.number<uint32_t>(), major_number = in.number<uint32_t>(),
             minor_number = in.number<uint32_t>(), group = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  return make_name(number, name, group, out, [&](const Descriptor& folder, SharedFolder::Owner owner) {
    return folder_.make_node(folder, name, mode, makedev(major_number, minor_number), owner);
  });
}

int FileServer9p::link(Reader& in, Writer&) {
  const auto folder_number = in.number<uint32_t>(), number = in.number<uint32_t>();
  const std::string name = in.text();
  if (in.failed()) return EPROTO;
  const Fid *const folder_fid = find(folder_number), *const fid = find(number);
  if (!folder_fid || !fid) return EBADF;
  if (const int error = refusal_to_write()) return error;
  if (const int error = refusal_of_name(name)) return error;
  const auto folder = folder_.reach(folder_fid->path);
  const auto file = target(*fid);
  if (!folder || !file) return folder ? file.error() : folder.error();
  return folder_.link(*file, *folder, name);
}

// Numbers of what was moved, and of what is below it, go with it.
int FileServer9p::move(const std::string& from, const std::string& old_name, const std::string& to,
                       const std::string& new_name) {
  if (const int error = refusal_to_write()) return error;
  for (const std::string* name : {&old_name, &new_name}) {
    if (const int error = refusal_of_name(*name)) return error;
  }
  const std::string old_path = joined(from, old_name), new_path = joined(to, new_name);
  if (new_path.size() >= PATH_MAX) return ENAMETOOLONG;
  const auto moved = [&old_path](const auto& entry) { return is_at_or_below(entry.second.path, old_path); };
  const size_t longer = new_path.size() > old_path.size() ? new_path.size() - old_path.size() : 0;
  if (longer && static_cast<size_t>(std::ranges::count_if(fids_, moved)) > (kMostWeight - weight_) / longer)
    return ENOMEM;
  const auto source = folder_.reach(from), destination = folder_.reach(to);
  if (!source || !destination) return source ? destination.error() : source.error();
  if (const int error = folder_.rename(*source, old_name, *destination, new_name)) return error;
  int error = 0;
  for (auto& entry : fids_) {
    if (moved(entry) && !error)
      error = set_path(entry.second, new_path + entry.second.path.substr(old_path.size()));
  }
  return error;
}

int FileServer9p::rename(Reader& in, Writer&) {
  const auto number = in.number<uint32_t>(), folder_number = in.number<uint32_t>();
  const std::string name = in.text();
  if (in.failed()) return EPROTO;
  const Fid *const fid = find(number), *const folder = find(folder_number);
  if (!fid || !folder) return EBADF;
  if (fid->path.empty()) return EBUSY;
  const std::string path = fid->path, to = folder->path;
  return move(parent_of(path), name_of(path), to, name);
}

int FileServer9p::rename_at(Reader& in, Writer&) {
  const auto old_number = in.number<uint32_t>();
  const std::string old_name = in.text();
  const auto new_number = in.number<uint32_t>();
  const std::string new_name = in.text();
  if (in.failed()) return EPROTO;
  const Fid *const from = find(old_number), *const to = find(new_number);
  if (!from || !to) return EBADF;
  const std::string old_folder = from->path, new_folder = to->path;
  return move(old_folder, old_name, new_folder, new_name);
}

int FileServer9p::removed(const std::string& path, const std::string& name, bool is_folder) {
  if (const int error = refusal_to_write()) return error;
  if (!SharedFolder::is_name(name)) return EINVAL;
  const auto folder = folder_.reach(path);
  return folder ? folder_.remove(*folder, name, is_folder) : folder.error();
}

// The number is given up, whatever becomes of the file.
int FileServer9p::remove(Reader& in, Writer&) {
  const auto at = fids_.find(in.number<uint32_t>());
  if (in.failed()) return EPROTO;
  if (at == fids_.end()) return EBADF;
  const std::string path = at->second.path;
  give_up(at);
  if (path.empty()) return EBUSY;
  const auto file = folder_.reach(path);
  if (!file) return file.error();
  const auto seen = folder_.attributes(*file);
  return seen ? removed(parent_of(path), name_of(path), S_ISDIR(seen->st_mode)) : seen.error();
}

int FileServer9p::remove_at(Reader& in, Writer&) {
  constexpr uint32_t kRemoveFolder = 0x200;
  const auto number = in.number<uint32_t>();
  const std::string name = in.text();
  const auto flags = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  const Fid* const fid = find(number);
  if (!fid) return EBADF;
  if (flags & ~kRemoveFolder) return EINVAL;
  return removed(fid->path, name, flags & kRemoveFolder);
}

// --- Extended attributes: a number stands for one, or for the list of their names

int FileServer9p::walk_attribute(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>(), new_number = in.number<uint32_t>();
  const std::string name = in.text();
  if (in.failed()) return EPROTO;
  const Fid* const fid = find(number);
  if (!fid) return EBADF;
  const auto file = target(*fid);
  if (!file) return file.error();
  auto value = name.empty() ? folder_.attribute_list(*file) : folder_.attribute(*file, name);
  if (!value) return value.error();
  const uint64_t bytes = value->size();
  Fid attribute{.path = fid->path, .user = fid->user, .use = Fid::Use::ReadAttribute};
  attribute.value = *std::move(value);
  if (const int error = add(new_number, std::move(attribute))) return error;
  out.number(bytes);
  return 0;
}

int FileServer9p::create_attribute(Reader& in, Writer&) {
  const auto number = in.number<uint32_t>();
  std::string name = in.text();
  const auto bytes = in.number<uint64_t>();
  const auto flags = in.number<uint32_t>();
  if (in.failed()) return EPROTO;
  Fid* const fid = find(number);
  if (!fid) return EBADF;
  if (const int error = refusal_to_write()) return error;
  constexpr uint32_t kKnownFlags = 3;  // XATTR_CREATE, XATTR_REPLACE
  constexpr uint64_t kMostBytes = 65'536;
  if (fid->use != Fid::Use::Name || name.empty() || flags & ~kKnownFlags) return EINVAL;
  if (bytes > kMostBytes) return E2BIG;
  if (name.size() + bytes > kMostWeight - weight_) return ENOMEM;
  weight_ -= fid->weight();
  fid->use = Fid::Use::WriteAttribute;
  fid->attribute = std::move(name);
  fid->value_bytes = bytes;
  fid->flags = static_cast<int>(flags);
  weight_ += fid->weight();
  return 0;
}

// --- Locks

int FileServer9p::lock(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  in.number<uint8_t>();   // kind
  in.number<uint32_t>();  // flags
  in.number<uint64_t>();  // start
  in.number<uint64_t>();  // length
  in.number<uint32_t>();  // process
  in.text();              // client
  if (in.failed()) return EPROTO;
  const Fid* const fid = find(number);
  if (!fid || !fid->opened) return EBADF;
  constexpr uint8_t kGranted = 0;
  out.number(kGranted);
  return 0;
}

int FileServer9p::get_lock(Reader& in, Writer& out) {
  const auto number = in.number<uint32_t>();
  in.number<uint8_t>();
  const auto start = in.number<uint64_t>(), length = in.number<uint64_t>();
  const auto process = in.number<uint32_t>();
  const std::string client = in.text();
  if (in.failed()) return EPROTO;
  const Fid* const fid = find(number);
  if (!fid || !fid->opened) return EBADF;
  constexpr uint8_t kUnlocked = 2;
  out.number(kUnlocked);
  out.number(start);
  out.number(length);
  out.number(process);
  out.text(client);
  return 0;
}

}  // namespace penumbra
