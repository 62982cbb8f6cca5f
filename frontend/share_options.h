// -virtfs, -fsdev, -device virtio-9p-pci: QEMU's words for folders that are shared with the guest.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "storage/shared_folder.h"

namespace penumbra {

struct Properties;

struct ShareOptions {
  SharedFolderOptions folder;
  std::string tag;  // by which the guest mounts it
};

// All of it throws UserError.
class ShareReader {
 public:
  explicit ShareReader(std::vector<ShareOptions>& shares) : shares_(shares) {}

  void add_virtfs(const std::string& text);
  void add_fsdev(const std::string& text);
  // Whether `driver` is such a device; then `properties` are those of the -device option `text`.
  bool add_device(const std::string& text, const std::string& driver, Properties& properties);

 private:
  void add(const std::string& option, SharedFolderOptions folder, std::string tag);
  static SharedFolderOptions read_folder(const std::string& option, Properties& properties);

  std::vector<ShareOptions>& shares_;
  std::map<std::string, SharedFolderOptions, std::less<>> folders_;  // by the id of their -fsdev
};

}  // namespace penumbra
