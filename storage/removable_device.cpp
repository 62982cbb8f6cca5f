#include "storage/removable_device.h"

#include <cerrno>

namespace penumbra {

void RemovableDevice::change(std::unique_ptr<BlockDevice> medium) {
  leaving_.push_back(std::exchange(medium_, {}));
  medium_.device = std::move(medium);
  eject_requested_ = false;
  generation_++;
  forget_idle();
}

void RemovableDevice::move_tray(bool open) {
  if (open == open_) return;
  open_ = open;
  eject_requested_ = false;
  generation_++;
  if (tray_listener_) tray_listener_(open);
}

void RemovableDevice::forget_idle() {
  std::erase_if(leaving_, [](const Medium& medium) { return *medium.under_way == 0; });
}

void RemovableDevice::submit(std::unique_ptr<BlockRequest> request) {
  if (!there()) {
    request->error = ENOMEDIUM;
    return request->done(*request);
  }
  ++*medium_.under_way;
  request->done = [this, under_way = medium_.under_way,
                   done = std::move(request->done)](BlockRequest& ended) {
    done(ended);
    // Not at once: this is a call of the medium's own. When the queue is full, the next change does it.
    if (--*under_way == 0 && !leaving_.empty()) [[maybe_unused]]
      const bool posted = events_.post([this] { forget_idle(); });
  };
  medium_.device->submit(std::move(request));
}

}  // namespace penumbra
