#include "devices/ps2_device.h"

#include <stdexcept>

namespace penumbra {

std::optional<uint8_t> Ps2Device::take() {
  if (output_.empty()) return std::nullopt;
  last_ = output_.front();
  output_.pop_front();
  return last_;
}

// All of them or none: half a packet would leave its reader out of step.
void Ps2Device::send(std::initializer_list<uint8_t> bytes) {
  if (output_.size() + bytes.size() > kRoom) return;
  output_.insert(output_.end(), bytes);
  if (listener_) listener_();
}

void Ps2Device::reset() {
  output_.clear();
  last_ = 0;
}

DeviceState Ps2Device::save() const {
  return {{"output", output_}, {"last", last_}};
}

void Ps2Device::load(const DeviceState& state) {
  const auto output = state.at("output").get<std::deque<uint8_t>>();
  if (output.size() > kRoom) throw std::invalid_argument("PS/2 device: saved state: too much output");
  last_ = static_cast<uint8_t>(bounded(state, "last", 0xff));
  output_ = output;
}

}  // namespace penumbra
