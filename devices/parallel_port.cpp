#include "devices/parallel_port.h"

#include <utility>

namespace penumbra {

namespace {
constexpr uint16_t kData = 0, kStatus = 1, kControl = 2;
// A printer that is selected, has paper, no error, and is never busy.
constexpr uint8_t kIdle = 0xd8;
constexpr uint8_t kStrobe = 0x01, kNotInit = 0x04, kInterruptEnable = 0x10, kControlBits = 0x3f,
                  kControlUnused = 0xc0;
}  // namespace

ParallelPort::ParallelPort(LineOutput interrupt, ByteSink out)
    : interrupt_(std::move(interrupt)), out_(std::move(out)) {
  reset();
}

void ParallelPort::reset() {
  data_ = 0;
  control_ = kNotInit;
}

uint8_t ParallelPort::read_byte(uint16_t offset) {
  switch (offset) {
    case kData:
      return data_;
    case kStatus:
      return kIdle;
    case kControl:
      return control_ | kControlUnused;
    default:
      return 0xff;
  }
}

// The printer takes the data when STROBE begins, and acknowledges at once: an edge of the interrupt line.
void ParallelPort::write_byte(uint16_t offset, uint8_t value) {
  if (offset == kData) data_ = value;
  if (offset != kControl) return;
  const bool strobe = value & ~control_ & kStrobe;
  control_ = value & kControlBits;
  if (!strobe || !(control_ & kNotInit)) return;
  out_(data_);
  if (!(control_ & kInterruptEnable)) return;
  interrupt_(true);
  interrupt_(false);
}

DeviceState ParallelPort::save() const {
  return {{"version", 1}, {"data", data_}, {"control", control_}};
}

void ParallelPort::load(const DeviceState& state) {
  require_version(state, 1, name());
  const auto data = bounded(state, "data", 0xff);
  control_ = static_cast<uint8_t>(bounded(state, "control", kControlBits));
  data_ = static_cast<uint8_t>(data);
}

}  // namespace penumbra
