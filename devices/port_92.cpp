#include "devices/port_92.h"

#include <utility>

namespace penumbra {

namespace {
constexpr uint8_t kFastReset = 0x01, kA20 = 0x02, kWritable = 0x03;
}

Port92::Port92(std::function<void()> reset_request, LineOutput a20)
    : reset_request_(std::move(reset_request)), a20_(std::move(a20)) {}

void Port92::set(uint8_t value) {
  const uint8_t changed = value ^ value_;
  value_ = value;
  if (changed & kA20) a20_(value & kA20);
}

void Port92::reset() {
  set(0);
}

uint8_t Port92::read_byte(uint16_t offset) {
  return offset == 0 ? value_ : 0xff;
}

void Port92::write_byte(uint16_t offset, uint8_t value) {
  if (offset != 0) return;
  // A program that sets the A20 bit with a read, an OR and a write must not reset the machine with a bit 0
  // that was set before.
  const bool reset_wanted = value & ~value_ & kFastReset;
  set(value & kWritable);
  if (reset_wanted) reset_request_();
}

DeviceState Port92::save() const {
  return {{"version", 1}, {"value", value_}};
}

void Port92::load(const DeviceState& state) {
  require_version(state, 1, name());
  value_ = static_cast<uint8_t>(bounded(state, "value", kWritable));
}

}  // namespace penumbra
