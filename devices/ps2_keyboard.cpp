#include "devices/ps2_keyboard.h"

#include <array>

namespace penumbra {

namespace {

enum Command : uint8_t {
  kSetLights = 0xed,
  kEcho = 0xee,
  kSelectSet = 0xf0,
  kSetTypematic = 0xf3,
  kAllKeysFirst = 0xf7,  // to fah: what all keys of set 3 send
  kAllKeysLast = 0xfa,
  kOneKeyFirst = 0xfb,  // to fdh: with a key as parameter
  kOneKeyLast = 0xfd,
};

constexpr uint8_t kPrefix = 0xe0, kRelease = 0xf0, kExtended = 0x80;
constexpr uint8_t kDefaultTypematic = 0x2b;  // 500 ms, 10.9 a second

// Scan code set 2 to set 1: the keyboard controller's table.
constexpr std::array<uint8_t, 128> kTranslation{
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54};
constexpr uint8_t kF7 = 0x83, kSystemRequest = 0x84;  // beyond the table

// The other way; a key that set 2 lacks is 0.
constexpr std::array<uint8_t, 128> kSet2 = [] {
  std::array<uint8_t, 128> codes{};
  for (unsigned i = 1; i < kTranslation.size(); ++i) codes[kTranslation[i] & 0x7f] = static_cast<uint8_t>(i);
  codes[0x41] = kF7;
  codes[0x54] = kSystemRequest;
  return codes;
}();

}  // namespace

uint8_t Ps2Keyboard::translate(uint8_t set2) {
  if (set2 == kF7) return 0x41;
  if (set2 == kSystemRequest) return 0x54;
  return set2 < kTranslation.size() ? kTranslation[set2] : set2;
}

Ps2Keyboard::Ps2Keyboard(VirtualClock& clock) : clock_(clock), repeat_timer_(clock, [this] { repeat(); }) {
  reset();
}

void Ps2Keyboard::reset() {
  Ps2Device::reset();
  set_defaults();
  lights_ = 0;
  awaiting_ = 0;
}

void Ps2Keyboard::set_defaults() {
  enabled_ = true;
  set_ = 2;
  typematic_ = kDefaultTypematic;
  repeating_ = 0;
  repeat_timer_.cancel();
}

Nanoseconds Ps2Keyboard::repeat_delay() const {
  constexpr Nanoseconds kQuarter = 250'000'000;
  return ((typematic_ >> 5 & 3) + 1u) * kQuarter;
}

// (8 + A) * 2^B * 4.17 ms
Nanoseconds Ps2Keyboard::repeat_interval() const {
  constexpr Nanoseconds kUnit = 4'170'000;
  return ((8u + (typematic_ & 7)) << (typematic_ >> 3 & 3)) * kUnit;
}

void Ps2Keyboard::key(KeyCode code, bool down) {
  if (!enabled_) return;
  send_key(code, down);
  if (down && code != kKeyPause) {
    repeating_ = code;
    repeat_timer_.arm(clock_.now() + repeat_delay());
  } else if (code == repeating_) {
    repeat_timer_.cancel();
  }
}

void Ps2Keyboard::repeat() {
  // Who does not read gets no more than one.
  if (waiting() == 0) send_key(repeating_, true);
  repeat_timer_.arm(clock_.now() + repeat_interval());
}

void Ps2Keyboard::send_key(KeyCode code, bool down) {
  const bool first = set_ == 1;
  if (code == kKeyPause) {  // makes and breaks at once
    if (!down) return;
    return first ? send({0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5})
                 : send({0xe1, 0x14, 0x77, 0xe1, kRelease, 0x14, kRelease, 0x77});
  }
  if (code == kKeyPrint) {  // with a shift of its own
    if (first) return down ? send({kPrefix, 0x2a, kPrefix, 0x37}) : send({kPrefix, 0xb7, kPrefix, 0xaa});
    return down ? send({kPrefix, 0x12, kPrefix, 0x7c})
                : send({kPrefix, kRelease, 0x7c, kPrefix, kRelease, 0x12});
  }
  const bool extended = code & kExtended;
  const uint8_t plain = code & 0x7f;
  if (first) {
    const auto byte = static_cast<uint8_t>(down ? plain : plain | 0x80);
    return extended ? send({kPrefix, byte}) : send({byte});
  }
  const uint8_t byte = kSet2[plain];
  if (byte == 0) return;
  if (down) return extended ? send({kPrefix, byte}) : send({byte});
  extended ? send({kPrefix, kRelease, byte}) : send({kRelease, byte});
}

void Ps2Keyboard::receive(uint8_t byte) {
  const uint8_t command = std::exchange(awaiting_, uint8_t{0});
  if (command != 0 && byte < kSetLights) {
    switch (command) {
      case kSetLights:
        lights_ = byte & 7;
        break;
      case kSetTypematic:
        typematic_ = byte & 0x7f;
        break;
      case kSelectSet:
        if (byte == 0) return send({kAcknowledge, set_});
        if (byte == 1 || byte == 2) set_ = byte;
        break;
      default:
        break;
    }
    return send({kAcknowledge});
  }
  // A command ends what the keyboard was sending.
  if (byte != kResendCommand) forget_output();
  switch (byte) {
    case kEcho:
      return send({kEcho});
    case kSetLights:
    case kSelectSet:
    case kSetTypematic:
      awaiting_ = byte;
      break;
    case kReadId:
      return send({kAcknowledge, 0xab, 0x83});
    case kEnable:
      enabled_ = true;
      break;
    case kDisable:
      set_defaults();
      enabled_ = false;
      break;
    case kSetDefaults:
      set_defaults();
      break;
    case kResendCommand:
      return send_again();
    case kReset:
      reset();
      return send({kAcknowledge, kSelfTestPassed});
    default:
      if (byte >= kOneKeyFirst && byte <= kOneKeyLast) {
        awaiting_ = byte;
      } else if (byte < kAllKeysFirst || byte > kAllKeysLast) {
        return send({kResend});
      }
  }
  send({kAcknowledge});
}

DeviceState Ps2Keyboard::save() const {
  DeviceState state = Ps2Device::save();
  state.update({{"enabled", enabled_},
                {"set", set_},
                {"lights", lights_},
                {"typematic", typematic_},
                {"awaiting", awaiting_},
                {"repeating", repeating_},
                {"repeats", repeat_timer_.armed()},
                {"repeat_time", repeat_timer_.armed() ? repeat_timer_.deadline() : 0}});
  return state;
}

void Ps2Keyboard::load(const DeviceState& state) {
  const bool enabled = state.at("enabled").get<bool>(), repeats = state.at("repeats").get<bool>();
  const auto set = bounded(state, "set", 2), lights = bounded(state, "lights", 7),
             typematic = bounded(state, "typematic", 0x7f), awaiting = bounded(state, "awaiting", 0xff),
             repeating = bounded(state, "repeating", 0xff);
  const auto repeat_time = state.at("repeat_time").get<Nanoseconds>();
  Ps2Device::load(state);
  enabled_ = enabled;
  set_ = set == 1 ? 1 : 2;
  lights_ = static_cast<uint8_t>(lights);
  typematic_ = static_cast<uint8_t>(typematic);
  awaiting_ = static_cast<uint8_t>(awaiting);
  repeating_ = static_cast<KeyCode>(repeating);
  repeats ? repeat_timer_.arm(repeat_time) : repeat_timer_.cancel();
}

}  // namespace penumbra
