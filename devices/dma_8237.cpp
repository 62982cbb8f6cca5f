#include "devices/dma_8237.h"

#include <utility>

namespace penumbra {

namespace {
// Registers, after the address shift. 8 and 11 are the command and mode registers.
constexpr uint16_t kRequest = 9, kSingleMask = 10, kClearFlipFlop = 12, kMasterClear = 13, kClearMask = 14,
                   kAllMask = 15;
constexpr uint16_t kStatus = 8, kTemporary = 13;
constexpr uint8_t kSetBit = 0x04;  // request and single mask: set or clear the channel's bit
}  // namespace

Dma8237::Dma8237(std::string name, unsigned address_shift)
    : name_(std::move(name)), address_shift_(address_shift) {}

void Dma8237::reset() {
  channels_ = {};
  master_clear();
}

// Clears the command, status, request and temporary registers and the first/last flip-flop, sets the mask.
void Dma8237::master_clear() {
  requests_ = 0;
  mask_ = 0x0f;
  high_byte_ = false;
}

uint16_t& Dma8237::counter_register(unsigned number) {
  Channel& channel = channels_[number >> 1 & 3];
  return number & 1 ? channel.count : channel.address;
}

unsigned Dma8237::next_byte_shift() {
  return std::exchange(high_byte_, !high_byte_) ? 8 : 0;
}

uint8_t Dma8237::read_byte(uint16_t offset) {
  const auto number = static_cast<uint16_t>(offset >> address_shift_);
  if (number < 8) return static_cast<uint8_t>(counter_register(number) >> next_byte_shift());
  switch (number) {
    case kStatus:
      return static_cast<uint8_t>(requests_ << 4);
    case kTemporary:
      return 0;
    case kAllMask:  // PIIX3; the 8237A itself has nothing to read here
      return mask_;
    default:
      return 0xff;
  }
}

void Dma8237::write_byte(uint16_t offset, uint8_t value) {
  const auto number = static_cast<uint16_t>(offset >> address_shift_);
  if (number < 8) {
    uint16_t& target = counter_register(number);
    const unsigned shift = next_byte_shift();
    target = static_cast<uint16_t>((target & 0xff00 >> shift) | value << shift);
    return;
  }
  const auto set_or_clear = [value](uint8_t bits) -> uint8_t {
    return value & kSetBit ? bits | bit(value & 3) : bits & ~bit(value & 3);
  };
  switch (number) {
    case kRequest:
      requests_ = set_or_clear(requests_);
      break;
    case kSingleMask:
      mask_ = set_or_clear(mask_);
      break;
    case kClearFlipFlop:
      high_byte_ = false;
      break;
    case kMasterClear:
      master_clear();
      break;
    case kClearMask:
      mask_ = 0;
      break;
    case kAllMask:
      mask_ = value & 0x0f;
      break;
    default:
      break;
  }
}

DeviceState Dma8237::save() const {
  DeviceState channels = DeviceState::array();
  for (const Channel& channel : channels_) {
    channels.push_back({{"address", channel.address}, {"count", channel.count}});
  }
  return {{"version", 1},
          {"channels", channels},
          {"mask", mask_},
          {"requests", requests_},
          {"high_byte", high_byte_}};
}

void Dma8237::load(const DeviceState& state) {
  require_version(state, 1, name_);
  for (unsigned i = 0; i < channels_.size(); i++) {
    const DeviceState& saved = state.at("channels").at(i);
    saved.at("address").get_to(channels_[i].address);
    saved.at("count").get_to(channels_[i].count);
  }
  mask_ = static_cast<uint8_t>(bounded(state, "mask", 0x0f));
  requests_ = static_cast<uint8_t>(bounded(state, "requests", 0x0f));
  state.at("high_byte").get_to(high_byte_);
}

void DmaPageRegisters::load(const DeviceState& state) {
  require_version(state, 1, name());
  for (unsigned i = 0; i < pages_.size(); i++) state.at("pages").at(i).get_to(pages_[i]);
}

}  // namespace penumbra
