#include "devices/reset_control.h"

#include <utility>

#include "devices/chip.h"

namespace penumbra {

namespace {
// Bit 1 chooses between a hard and a soft reset, which are the same here.
constexpr uint8_t kHardReset = 0x02, kResetCpu = 0x04;
}  // namespace

ResetControl::ResetControl(std::function<void()> reset_request) : reset_request_(std::move(reset_request)) {}

uint32_t ResetControl::read(uint16_t offset, unsigned size) {
  return offset == kOffset && size == 1 ? value_ : 0xffff'ffff;
}

void ResetControl::write(uint16_t offset, unsigned size, uint32_t value) {
  if (offset != kOffset || size != 1) return;
  const bool rises = value & ~uint32_t{value_} & kResetCpu;
  value_ = value & (kHardReset | kResetCpu);
  if (rises) reset_request_();
}

DeviceState ResetControl::save() const {
  return {{"version", 1}, {"value", value_}};
}

void ResetControl::load(const DeviceState& state) {
  require_version(state, 1, name());
  value_ = static_cast<uint8_t>(bounded(state, "value", kHardReset | kResetCpu));
}

}  // namespace penumbra
