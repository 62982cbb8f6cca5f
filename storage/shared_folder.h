// A folder of the host that a guest uses as its own. Functions block, and return what they are asked for or
// an errno.
//
// A guest cannot leave it: a path is followed name by name, from the folder's descriptor, with O_NOFOLLOW,
// and no name is ".." or has a slash. Symbolic links are the guest's to resolve, among its own files. Only
// regular files and folders are ever opened, once they were seen to be such: a device or FIFO of the host is
// not.
#pragma once

#include <sys/stat.h>
#include <sys/statfs.h>

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <expected>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/descriptor.h"

namespace penumbra {

struct SharedFolderOptions {
  // QEMU's security_model=: where owners and modes that the guest sets go.
  enum class Security : uint8_t {
    Passthrough,  // to the files, as far as the host lets this process; else the guest is refused
    None,         // the same, but that an owner cannot be set is ignored
    Mapped,  // to extended attributes (user.virtfs.*, as QEMU's); links and devices are regular files with
             // such
  };
  std::string path;
  Security security = Security::None;
  bool read_only = false;
};

class SharedFolder {
 public:
  template <class Value>
  using Result = std::expected<Value, int>;
  using Bytes = std::vector<std::byte>;
  struct Owner {
    uint32_t user, group;  // all ones: as it is
  };

  // Throws std::runtime_error with one line.
  explicit SharedFolder(const SharedFolderOptions& options);

  bool read_only() const { return read_only_; }
  // A regular file may stand for something else, which attributes() tells.
  bool mapped() const { return security_ == SharedFolderOptions::Security::Mapped; }
  // Whether the guest may use it in a folder.
  static bool is_name(std::string_view name);

  // A handle on a file (O_PATH), by its names from the folder on, with slashes between them; empty: the
  // folder itself.
  Result<Descriptor> reach(std::string_view path) const;
  // The same for a name in a folder. An errno for what is no folder.
  Result<Descriptor> step(const Descriptor& folder, const std::string& name) const;

  // Of files, by any descriptor. Those that change something leave it to the caller to look at read_only().
  Result<struct stat> attributes(const Descriptor& file) const;
  Result<struct statfs> file_system(const Descriptor& file) const;
  Result<std::string> read_link(const Descriptor& link) const;
  // `flags`: open(2)'s access mode, and O_TRUNC, O_APPEND, O_SYNC, O_DSYNC.
  Result<Descriptor> open(const Descriptor& file, int flags) const;
  int set_mode(const Descriptor& file, uint32_t mode) const;
  int set_owner(const Descriptor& file, Owner owner) const;
  int set_times(const Descriptor& file, const timespec (&times)[2]) const;
  int set_size(const Descriptor& file, uint64_t bytes) const;

  // Extended attributes that a guest may see; list: names, each with a NUL behind it.
  Result<Bytes> attribute_list(const Descriptor& file) const;
  Result<Bytes> attribute(const Descriptor& file, std::string_view name) const;
  int set_attribute(const Descriptor& file, std::string_view name, std::span<const std::byte> value,
                    int flags) const;
  int remove_attribute(const Descriptor& file, std::string_view name) const;

  // Of names in folders. They must not be there, but rename()'s second.
  Result<Descriptor> create(const Descriptor& folder, const std::string& name, int flags, uint32_t mode,
                            Owner owner) const;
  int make_folder(const Descriptor& folder, const std::string& name, uint32_t mode, Owner owner) const;
  int make_link(const Descriptor& folder, const std::string& name, const std::string& target,
                Owner owner) const;
  int make_node(const Descriptor& folder, const std::string& name, uint32_t mode, dev_t device,
                Owner owner) const;
  int link(const Descriptor& file, const Descriptor& folder, const std::string& name) const;
  int rename(const Descriptor& from, const std::string& old_name, const Descriptor& to,
             const std::string& new_name) const;
  int remove(const Descriptor& folder, const std::string& name, bool is_folder) const;

 private:
  Result<std::string> host_attribute(std::string_view name) const;
  int settle(const Descriptor& file, uint32_t mode, Owner owner, dev_t device = 0) const;
  int settle_new(const Descriptor& folder, const std::string& name, uint32_t mode, Owner owner,
                 dev_t device = 0) const;
  Result<Descriptor> create_plain(const Descriptor& folder, const std::string& name, int flags,
                                  uint32_t mode) const;

  Descriptor root_;
  SharedFolderOptions::Security security_;
  bool read_only_;
};

}  // namespace penumbra
