#include "frontend/media_drives.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

namespace penumbra {

namespace {

struct CacheMode {
  bool writeback, direct, no_flush;
};

CacheMode cache_mode(ImageOptions::Cache cache) {
  using enum ImageOptions::Cache;
  return {.writeback = cache != Writethrough && cache != Directsync,
          .direct = cache == None || cache == Directsync,
          .no_flush = cache == Unsafe};
}

bool same_file(const std::string& one, const std::string& other) {
  std::error_code error;
  return std::filesystem::equivalent(one, other, error) && !error;
}

}  // namespace

MediaDrives::Drive& MediaDrives::removable(std::string_view name) {
  const auto drive = std::ranges::find_if(
      drives_, [name](const Drive& one) { return !name.empty() && (one.name == name || one.id == name); });
  if (drive == drives_.end()) throw NotFound(fmt::format("Device '{}' not found", name));
  if (!drive->removable) throw std::runtime_error(fmt::format("Device '{}' is not removable", name));
  return *drive;
}

// A guest that has locked the tray is asked to let go.
void MediaDrives::unlock(Drive& drive, bool force) {
  RemovableDevice& device = *drive.removable;
  if (!drive.cdrom || device.tray_open() || !device.tray_locked()) return;
  if (!force) {
    device.request_eject();
    throw std::runtime_error(
        fmt::format("Device '{}' is locked and force was not specified, wait for tray to open and try again",
                    drive.name));
  }
  device.lock_tray(false);
}

void MediaDrives::eject(std::string_view name, bool force) {
  Drive& drive = removable(name);
  unlock(drive, force);
  if (drive.cdrom) drive.removable->move_tray(true);
  drive.removable->change(nullptr);
  drive.image.path.clear();
}

void MediaDrives::change(std::string_view name, const Change& change, bool force) {
  Drive& drive = removable(name);
  ImageOptions image = drive.image;
  image.path = change.path;
  image.format = ImageOptions::Format::Probe;
  if (change.format == "raw") {
    image.format = ImageOptions::Format::Raw;
  } else if (change.format == "qcow2") {
    image.format = ImageOptions::Format::Qcow2;
  } else if (!change.format.empty()) {
    throw std::runtime_error(fmt::format("Unknown driver '{}'", change.format));
  }
  if (change.mode == "read-only") {
    image.read_only = true;
  } else if (change.mode == "read-write") {
    image.read_only = drive.cdrom;
  } else if (!change.mode.empty() && change.mode != "retain") {
    throw std::runtime_error(
        fmt::format("Parameter 'read-only-mode' does not accept value '{}'", change.mode));
  }
  unlock(drive, force);
  // The old medium's lock is not to keep the same file from coming back.
  if (!drive.image.path.empty() && same_file(drive.image.path, image.path)) eject(name, true);
  Medium medium = opener_(image);
  if (drive.cdrom) drive.removable->move_tray(true);
  drive.removable->change(std::move(medium.device));
  drive.image = std::move(image);
  drive.format = medium.format;
  if (drive.cdrom) drive.removable->move_tray(false);
}

std::string MediaDrives::text() const {
  std::string text;
  for (const Drive& drive : drives_) {
    const bool inserted = !drive.image.path.empty();
    if (!text.empty()) text += '\n';
    text += inserted ? fmt::format("{}: {} ({}{})\n", drive.name, drive.image.path, drive.format,
                                   drive.image.read_only ? ", read-only" : "")
                     : fmt::format("{}: [not inserted]\n", drive.name);
    if (drive.removable) {
      text += fmt::format("    Removable device: {}locked, tray {}\n",
                          drive.removable->tray_locked() ? "" : "not ",
                          drive.removable->tray_open() ? "open" : "closed");
    }
    const CacheMode cache = cache_mode(drive.image.cache);
    if (inserted) {
      text += fmt::format("    Cache mode:       {}{}{}\n", cache.writeback ? "writeback" : "writethrough",
                          cache.direct ? ", direct" : "", cache.no_flush ? ", ignore flushes" : "");
    }
  }
  return text;
}

nlohmann::json MediaDrives::description() const {
  nlohmann::json list = nlohmann::json::array();
  for (const Drive& drive : drives_) {
    const RemovableDevice* const device = drive.removable;
    nlohmann::json entry = {{"device", drive.name},
                            {"qdev", drive.id},
                            {"type", "unknown"},
                            {"removable", device != nullptr},
                            {"locked", device && device->tray_locked()}};
    if (device) entry["tray_open"] = device->tray_open();
    if (!drive.image.path.empty()) {
      const CacheMode cache = cache_mode(drive.image.cache);
      entry["inserted"] = {
          {"file", drive.image.path},
          {"drv", drive.format},
          {"ro", drive.image.read_only},
          {"cache",
           {{"writeback", cache.writeback}, {"direct", cache.direct}, {"no-flush", cache.no_flush}}}};
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace penumbra
