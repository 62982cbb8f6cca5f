#include "devices/virtio_input.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "devices/chip.h"
#include "devices/ps2_mouse.h"

namespace penumbra {

namespace {
// Configuration (5.8.4)
constexpr unsigned kSelectAt = 0, kSubselectAt = 1, kSizeAt = 2, kAnswerAt = 8, kAnswerBytes = 128;

constexpr uint16_t kSync = 0;
constexpr uint16_t kAxisX = 0, kAxisY = 1, kWheel = 8;
constexpr struct {
  uint8_t bit;
  uint16_t code;
} kButtons[] = {{Ps2Mouse::kLeft, 0x110},
                {Ps2Mouse::kRight, 0x111},
                {Ps2Mouse::kMiddle, 0x112},
                {Ps2Mouse::kSide, 0x113},
                {Ps2Mouse::kExtra, 0x114}};

// Linux numbers keys as scan code set 1 does, up to F12, and those with prefix E0h in its own way; 0: no such
// key.
constexpr uint16_t key_code(KeyCode code) {
  constexpr struct {
    KeyCode from;
    uint16_t to;
  } kPrefixed[] = {{0x9c, 96},  {0x9d, 97},  {0xb5, 98},  {0xb7, 99},  {0xb8, 100}, {0xc7, 102}, {0xc8, 103},
                   {0xc9, 104}, {0xcb, 105}, {0xcd, 106}, {0xcf, 107}, {0xd0, 108}, {0xd1, 109}, {0xd2, 110},
                   {0xd3, 111}, {0xc6, 119}, {0xdb, 125}, {0xdc, 126}, {0xdd, 127}};
  constexpr KeyCode kLast = 0x58;
  if (code <= kLast) return code;
  for (const auto& [from, to] : kPrefixed) {
    if (from == code) return to;
  }
  return 0;
}

std::vector<uint8_t> text_answer(std::string_view text) {
  return {text.begin(), text.end()};
}

// Bus type (virtual), vendor, product, version
std::vector<uint8_t> ids_answer(uint8_t product) {
  return {0x06, 0x00, 0x27, 0x06, product, 0x00, 0x01, 0x00};
}
}  // namespace

VirtioInput::Answer VirtioInput::bits(std::span<const uint16_t> numbers) {
  Answer answer;
  for (const uint16_t number : numbers) {
    if (answer.size() <= number / 8u) answer.resize(number / 8u + 1);
    answer[number / 8u] |= bit(number % 8u);
  }
  return answer;
}

uint8_t VirtioInput::read_configuration(unsigned offset) const {
  if (offset == kSelectAt) return select_;
  if (offset == kSubselectAt) return subselect_;
  const Answer given = answer(select_, subselect_);
  if (offset == kSizeAt) return static_cast<uint8_t>(std::min<size_t>(given.size(), kAnswerBytes));
  return offset >= kAnswerAt && offset - kAnswerAt < given.size() ? given[offset - kAnswerAt] : 0;
}

void VirtioInput::write_configuration(unsigned offset, uint8_t value) {
  if (offset == kSelectAt) select_ = value;
  if (offset == kSubselectAt) subselect_ = value;
}

// What the driver says of lights is taken and forgotten.
void VirtioInput::notified(unsigned number) {
  if (number == kEvents) return deliver();
  while (auto buffer = queue(kStatus).take()) give_back(kStatus, *buffer, 0);
}

bool VirtioInput::send(std::span<const Event> events) {
  if (!ready_ || waiting_.size() + events.size() >= kMostWaiting) return false;
  waiting_.insert(waiting_.end(), events.begin(), events.end());
  waiting_.push_back({kSync, 0, 0});
  deliver();
  return true;
}

void VirtioInput::deliver() {
  while (!waiting_.empty()) {
    auto buffer = queue(kEvents).take();
    if (!buffer) return;
    const Event event = waiting_.front();
    waiting_.pop_front();
    const uint64_t fields = event.type | uint64_t{event.code} << 16 | uint64_t{event.value} << 32;
    const auto bytes = std::as_bytes(std::span(&fields, 1));
    give_back(kEvents, *buffer, static_cast<uint32_t>(buffer->write(map_, 0, bytes)));
  }
}

void VirtioInput::reset() {
  ready_ = false;
  select_ = subselect_ = 0;
  waiting_.clear();
}

// Events on their way are not kept: the host's keys are up again by the time of a load.
DeviceState VirtioInput::save() const {
  return {{"ready", ready()}, {"select", select_}, {"subselect", subselect_}};
}

void VirtioInput::load(const DeviceState& state) {
  const bool ready = state.at("ready").get<bool>();
  const auto select = bounded(state, "select", 0xff), subselect = bounded(state, "subselect", 0xff);
  ready_ = ready;
  select_ = static_cast<uint8_t>(select);
  subselect_ = static_cast<uint8_t>(subselect);
  waiting_.clear();
}

// --- keyboard

void VirtioKeyboard::key(KeyCode code, bool down) {
  if (const uint16_t number = key_code(code)) send({{Event{kKey, number, down}}});
}

VirtioInput::Answer VirtioKeyboard::answer(uint8_t select, uint8_t subselect) const {
  if (select == kName) return text_answer("Penumbra virtio keyboard");
  if (select == kDeviceIds) return ids_answer(1);
  if (select != kEventBits) return {};
  if (subselect == kLights) return bits(std::to_array<uint16_t>({0, 1, 2}));
  if (subselect != kKey) return {};
  std::vector<uint16_t> keys;
  for (unsigned code = 1; code < 256; code++) {
    if (const uint16_t number = key_code(static_cast<KeyCode>(code))) keys.push_back(number);
  }
  return bits(keys);
}

// --- tablet

void VirtioTablet::place(uint32_t x, uint32_t y, int wheel, uint8_t buttons) {
  std::vector<Event> events = {{kAbsolute, kAxisX, std::min(x, kMost)},
                               {kAbsolute, kAxisY, std::min(y, kMost)}};
  if (wheel != 0) events.push_back({kRelative, kWheel, static_cast<uint32_t>(-wheel)});
  for (const auto& [mask, code] : kButtons) {
    if ((buttons ^ buttons_) & mask) events.push_back({kKey, code, (buttons & mask) != 0});
  }
  if (send(events)) buttons_ = buttons;
}

void VirtioTablet::reset() {
  VirtioInput::reset();
  buttons_ = 0;
}

VirtioInput::Answer VirtioTablet::answer(uint8_t select, uint8_t subselect) const {
  if (select == kName) return text_answer("Penumbra virtio tablet");
  if (select == kDeviceIds) return ids_answer(3);
  if (select == kAxis && subselect <= kAxisY) {
    Answer axis(20);  // minimum, maximum, fuzz, flat, resolution
    axis[4] = kMost & 0xff;
    axis[5] = kMost >> 8;
    return axis;
  }
  if (select != kEventBits) return {};
  switch (subselect) {
    case kKey: {
      std::vector<uint16_t> buttons;
      for (const auto& button : kButtons) buttons.push_back(button.code);
      return bits(buttons);
    }
    case kRelative:
      return bits(std::to_array<uint16_t>({kWheel}));
    case kAbsolute:
      return bits(std::to_array<uint16_t>({kAxisX, kAxisY}));
    default:
      return {};
  }
}

}  // namespace penumbra
