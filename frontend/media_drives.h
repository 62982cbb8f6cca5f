// The machine's drives as its monitors show them, and what a person does to the media of those that let go of
// them. vCPU thread.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "storage/disk_image.h"
#include "storage/removable_device.h"

namespace penumbra {

class MediaDrives {
 public:
  struct Medium {
    std::unique_ptr<BlockDevice> device;
    std::string_view format;
  };
  using Opener = std::function<Medium(const ImageOptions& image)>;  // throws std::runtime_error
  struct Drive {
    std::string name, id;                  // QEMU's, and that of its -device
    ImageOptions image;                    // no path: no medium
    std::string_view format;               // of the medium
    RemovableDevice* removable = nullptr;  // null: its medium stays
    bool cdrom = false;                    // it has a tray, which can be locked, and does not write
  };
  // Another medium, in QEMU's words; empty ones were not given.
  struct Change {
    std::string path;
    std::string_view format, mode;  // raw, qcow2; retain, read-only, read-write
  };
  class NotFound : public std::runtime_error {
    using std::runtime_error::runtime_error;
  };

  explicit MediaDrives(Opener opener) : opener_(std::move(opener)) {}
  void add(Drive drive) { drives_.push_back(std::move(drive)); }

  // By name or id. `force`: even when the guest has locked the tray. What cannot be is a std::runtime_error
  // with QEMU's words.
  void eject(std::string_view name, bool force);
  // When the file cannot be opened, the old medium stays.
  void change(std::string_view name, const Change& change, bool force);

  const std::vector<Drive>& all() const { return drives_; }
  std::string text() const;            // of "info block"
  nlohmann::json description() const;  // of query-block

 private:
  Drive& removable(std::string_view name);
  static void unlock(Drive& drive, bool force);

  const Opener opener_;
  std::vector<Drive> drives_;
};

}  // namespace penumbra
