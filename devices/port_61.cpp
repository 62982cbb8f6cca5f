#include "devices/port_61.h"

#include <utility>

namespace penumbra {

namespace {
constexpr uint8_t kGate2 = 0x01, kWritable = 0x0f, kRefreshToggle = 0x10, kOut2 = 0x20;

// The refresh request comes every 18 CLK pulses of the timer whether or not counter 1 was programmed:
// programs measure short delays with the toggle, and without firmware nobody programs that counter.
constexpr Nanoseconds kRefreshPeriod = 15'085;
}  // namespace

Port61::Port61(VirtualClock& clock, LineOutput gate2, std::function<bool()> out2)
    : clock_(clock), gate2_(std::move(gate2)), out2_(std::move(out2)) {
  gate2_(false);
}

void Port61::reset() {
  control_ = 0;
  gate2_(false);
}

uint8_t Port61::read_byte(uint16_t offset) {
  if (offset != 0) return 0xff;
  uint8_t value = control_;
  if (clock_.now() / kRefreshPeriod % 2) value |= kRefreshToggle;
  if (out2_()) value |= kOut2;
  return value;
}

void Port61::write_byte(uint16_t offset, uint8_t value) {
  if (offset != 0) return;
  control_ = value & kWritable;
  gate2_(control_ & kGate2);
}

DeviceState Port61::save() const {
  return {{"version", 1}, {"control", control_}};
}

void Port61::load(const DeviceState& state) {
  require_version(state, 1, name());
  control_ = static_cast<uint8_t>(bounded(state, "control", kWritable));
}

}  // namespace penumbra
