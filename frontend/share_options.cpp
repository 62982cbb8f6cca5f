#include "frontend/share_options.h"

#include <algorithm>
#include <utility>

#include "devices/virtio_9p.h"
#include "frontend/option_properties.h"

namespace penumbra {

namespace {

// QEMU's flag "readonly" may stand alone.
std::string with_value(std::string text) {
  constexpr std::string_view kFlag = ",readonly";
  const size_t at = text.find(kFlag), end = at + kFlag.size();
  if (at != std::string::npos && (end == text.size() || text[end] == ',')) text.insert(end, "=on");
  return text;
}

}  // namespace

SharedFolderOptions ShareReader::read_folder(const std::string& option, Properties& properties) {
  using enum SharedFolderOptions::Security;
  if (properties.head != "local") refuse("{}: only folders of the kind local are there", option);
  SharedFolderOptions folder{.path = properties.need("path")};
  if (folder.path.empty()) refuse("{}: path= is empty", option);
  const std::string model = properties.need("security_model");
  if (model == "mapped-xattr" || model == "mapped") {
    folder.security = Mapped;
  } else if (model == "passthrough") {
    folder.security = Passthrough;
  } else if (model != "none") {
    refuse("{}: security_model={}: not one of none, passthrough, mapped-xattr", option, model);
  }
  if (const auto value = properties.take("readonly")) folder.read_only = on_off(option, "readonly", *value);
  if (const auto value = properties.take("multidevs"); value && *value != "remap")
    refuse("{}: multidevs={}: only remap is there", option, *value);
  return folder;
}

void ShareReader::add(const std::string& option, SharedFolderOptions folder, std::string tag) {
  if (tag.empty() || tag.size() > Virtio9p::kLongestTag)
    refuse("{}: mount_tag={}: not of 1 to {} bytes", option, tag, Virtio9p::kLongestTag);
  if (std::ranges::find(shares_, tag, &ShareOptions::tag) != shares_.end())
    refuse("{}: the mount tag '{}' is taken", option, tag);
  shares_.push_back({.folder = std::move(folder), .tag = std::move(tag)});
}

void ShareReader::add_virtfs(const std::string& text) {
  const std::string option = "-virtfs " + text;
  Properties properties("-virtfs", with_value(text));
  SharedFolderOptions folder = read_folder(option, properties);
  std::string tag = properties.need("mount_tag");
  properties.take("id");  // nothing refers to it
  properties.done();
  add(option, std::move(folder), std::move(tag));
}

void ShareReader::add_fsdev(const std::string& text) {
  const std::string option = "-fsdev " + text;
  Properties properties("-fsdev", with_value(text));
  SharedFolderOptions folder = read_folder(option, properties);
  const std::string id = properties.need("id");
  properties.done();
  if (!folders_.emplace(id, std::move(folder)).second) refuse("{}: the id '{}' is taken", option, id);
}

bool ShareReader::add_device(const std::string& text, const std::string& driver, Properties& properties) {
  if (driver != "virtio-9p-pci" && driver != "virtio-9p") return false;
  const std::string option = "-device " + text, id = properties.need("fsdev");
  std::string tag = properties.need("mount_tag");
  properties.take("id");  // nothing refers to it
  const auto folder = folders_.find(id);
  if (folder == folders_.end()) refuse("{}: there is no -fsdev with id '{}'", option, id);
  add(option, folder->second, std::move(tag));
  return true;
}

}  // namespace penumbra
