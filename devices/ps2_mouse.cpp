#include "devices/ps2_mouse.h"

#include <algorithm>
#include <utility>

namespace penumbra {

namespace {

enum Command : uint8_t {
  kScale1 = 0xe6,
  kScale2 = 0xe7,
  kSetResolution = 0xe8,
  kStatus = 0xe9,
  kStream = 0xea,
  kReadData = 0xeb,
  kEndWrap = 0xec,
  kBeginWrap = 0xee,
  kRemote = 0xf0,
  kSetRate = 0xf3,
};

constexpr int kMostMovement = 255, kMostWheel = 7, kMostKept = 1 << 20;
constexpr uint8_t kAlwaysOne = 0x08, kNegativeX = 0x10, kNegativeY = 0x20;

}  // namespace

void Ps2Mouse::reset() {
  Ps2Device::reset();
  set_defaults();
  id_ = kPlain;
  earlier_rates_ = {};
  wrap_ = false;
  awaiting_ = 0;
  x_ = y_ = wheel_ = 0;
  buttons_ = sent_buttons_ = 0;
}

void Ps2Mouse::set_defaults() {
  reporting_ = remote_ = scaling_ = false;
  resolution_ = 2;
  rate_ = 100;
}

void Ps2Mouse::move(int x, int y, int wheel, uint8_t buttons) {
  const auto add = [](int& sum, int more) {
    sum = std::clamp(sum + std::clamp(more, -kMostKept, kMostKept), -kMostKept, kMostKept);
  };
  add(x_, x);
  add(y_, -y);  // the mouse counts away from the user
  add(wheel_, wheel);
  buttons_ = buttons & (kLeft | kRight | kMiddle | kSide | kExtra);
  report();
}

// A packet at a time: what happens meanwhile goes into the next one.
void Ps2Mouse::report() {
  if (reporting_ && !remote_ && !wrap_ && waiting() == 0 && moved()) send_packet();
}

std::optional<uint8_t> Ps2Mouse::take() {
  if (waiting() == 0) return std::nullopt;
  const auto byte = Ps2Device::take();
  report();
  return byte;
}

void Ps2Mouse::send_packet() {
  const int x = std::clamp(x_, -kMostMovement, kMostMovement),
            y = std::clamp(y_, -kMostMovement, kMostMovement);
  x_ -= x;
  y_ -= y;
  sent_buttons_ = buttons_;
  const auto head =
      static_cast<uint8_t>(kAlwaysOne | (buttons_ & 7) | (x < 0 ? kNegativeX : 0) | (y < 0 ? kNegativeY : 0));
  const auto low_x = static_cast<uint8_t>(x), low_y = static_cast<uint8_t>(y);
  if (id_ == kPlain) {
    wheel_ = 0;
    return send({head, low_x, low_y});
  }
  const int wheel = std::clamp(wheel_, -kMostWheel, kMostWheel);
  wheel_ -= wheel;
  if (id_ == kWheel) return send({head, low_x, low_y, static_cast<uint8_t>(wheel)});
  send({head, low_x, low_y, static_cast<uint8_t>((wheel & 0x0f) | (buttons_ >> 3 & 3) << 4)});
}

void Ps2Mouse::set_rate(uint8_t rate) {
  const bool wheel = earlier_rates_ == std::array<uint8_t, 2>{200, 100} && rate == 80;
  const bool explorer = earlier_rates_ == std::array<uint8_t, 2>{200, 200} && rate == 80;
  if (wheel && id_ == kPlain) id_ = kWheel;
  if (explorer && id_ == kWheel) id_ = kExplorer;
  earlier_rates_ = {earlier_rates_[1], rate};
  rate_ = rate;
}

void Ps2Mouse::receive(uint8_t byte) {
  if (wrap_ && byte != kEndWrap && byte != kReset) return send({byte});
  switch (std::exchange(awaiting_, uint8_t{0})) {
    case kSetRate:
      set_rate(byte);
      return send({kAcknowledge});
    case kSetResolution:
      resolution_ = byte & 3;
      return send({kAcknowledge});
    default:
      return command(byte);
  }
}

void Ps2Mouse::command(uint8_t byte) {
  if (byte != kResendCommand) forget_output();
  switch (byte) {
    case kScale1:
    case kScale2:
      scaling_ = byte == kScale2;
      break;
    case kSetResolution:
    case kSetRate:
      awaiting_ = byte;
      break;
    case kStatus: {
      const auto buttons = static_cast<uint8_t>((buttons_ & kLeft ? 4 : 0) | (buttons_ & kMiddle ? 2 : 0) |
                                                (buttons_ & kRight ? 1 : 0));
      const auto status = static_cast<uint8_t>(buttons | (scaling_ ? 0x10 : 0) | (reporting_ ? 0x20 : 0) |
                                               (remote_ ? 0x40 : 0));
      return send({kAcknowledge, status, resolution_, rate_});
    }
    case kStream:
      remote_ = false;
      break;
    case kReadData:
      send({kAcknowledge});
      return send_packet();
    case kEndWrap:
      wrap_ = false;
      break;
    case kBeginWrap:
      wrap_ = true;
      break;
    case kRemote:
      remote_ = true;
      break;
    case kReadId:
      return send({kAcknowledge, id_});
    case kEnable:
      reporting_ = true;
      break;
    case kDisable:
      reporting_ = false;
      break;
    case kSetDefaults:
      set_defaults();
      break;
    case kResendCommand:
      return send_again();
    case kReset:
      reset();
      return send({kAcknowledge, kSelfTestPassed, id_});
    default:
      return send({kResend});
  }
  send({kAcknowledge});
}

DeviceState Ps2Mouse::save() const {
  DeviceState state = Ps2Device::save();
  state.update({{"reporting", reporting_},
                {"remote", remote_},
                {"wrap", wrap_},
                {"scaling", scaling_},
                {"resolution", resolution_},
                {"rate", rate_},
                {"id", id_},
                {"earlier_rates", earlier_rates_},
                {"awaiting", awaiting_},
                {"x", x_},
                {"y", y_},
                {"wheel", wheel_},
                {"buttons", buttons_},
                {"sent_buttons", sent_buttons_}});
  return state;
}

void Ps2Mouse::load(const DeviceState& state) {
  Ps2Mouse loaded;
  loaded.reporting_ = state.at("reporting").get<bool>();
  loaded.remote_ = state.at("remote").get<bool>();
  loaded.wrap_ = state.at("wrap").get<bool>();
  loaded.scaling_ = state.at("scaling").get<bool>();
  loaded.resolution_ = static_cast<uint8_t>(bounded(state, "resolution", 3));
  loaded.rate_ = static_cast<uint8_t>(bounded(state, "rate", 0xff));
  loaded.id_ = static_cast<uint8_t>(bounded(state, "id", kExplorer));
  state.at("earlier_rates").get_to(loaded.earlier_rates_);
  loaded.awaiting_ = static_cast<uint8_t>(bounded(state, "awaiting", 0xff));
  const auto distance = [&state](const char* name) {
    return static_cast<int>(std::clamp<int64_t>(state.at(name).get<int64_t>(), -kMostKept, kMostKept));
  };
  loaded.x_ = distance("x");
  loaded.y_ = distance("y");
  loaded.wheel_ = distance("wheel");
  loaded.buttons_ = static_cast<uint8_t>(bounded(state, "buttons", 0x1f));
  loaded.sent_buttons_ = static_cast<uint8_t>(bounded(state, "sent_buttons", 0x1f));
  Ps2Device::load(state);
  reporting_ = loaded.reporting_, remote_ = loaded.remote_, wrap_ = loaded.wrap_, scaling_ = loaded.scaling_;
  resolution_ = loaded.resolution_, rate_ = loaded.rate_, id_ = loaded.id_;
  earlier_rates_ = loaded.earlier_rates_, awaiting_ = loaded.awaiting_;
  x_ = loaded.x_, y_ = loaded.y_, wheel_ = loaded.wheel_;
  buttons_ = loaded.buttons_, sent_buttons_ = loaded.sent_buttons_;
}

}  // namespace penumbra
