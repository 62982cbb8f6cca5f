#include "devices/dma_8237.h"

#include <algorithm>
#include <utility>

namespace penumbra {

namespace {
// Registers, after the address shift.
constexpr uint16_t kStatus = 8, kCommand = 8, kRequest = 9, kSingleMask = 10, kMode = 11, kClearFlipFlop = 12,
                   kTemporary = 13, kMasterClear = 13, kClearMask = 14, kAllMask = 15;
constexpr uint8_t kSetBit = 0x04;    // request and single mask: set or clear the channel's bit
constexpr uint8_t kDisabled = 0x04;  // command
// Mode
constexpr uint8_t kAutoInitialize = 0x10, kDecrement = 0x20;
constexpr unsigned kWayShift = 2;
// Where the page registers of the channels are, from port 81h on.
constexpr uint8_t kPages[8] = {0x87 - 0x81, 0x83 - 0x81, 0x81 - 0x81, 0x82 - 0x81,
                               0x8f - 0x81, 0x8b - 0x81, 0x89 - 0x81, 0x8a - 0x81};
}  // namespace

uint8_t DmaPageRegisters::page(unsigned channel) const {
  return pages_[kPages[channel & 7]];
}

void DmaPageRegisters::load(const DeviceState& state) {
  require_version(state, 1, name());
  for (unsigned i = 0; i < pages_.size(); i++) state.at("pages").at(i).get_to(pages_[i]);
}

void Dma8237::reset() {
  channels_ = {};
  master_clear();
}

// Clears the command, status, request and temporary registers and the first/last flip-flop, sets the mask.
void Dma8237::master_clear() {
  command_ = requests_ = terminal_counts_ = 0;
  mask_ = 0x0f;
  high_byte_ = false;
}

unsigned Dma8237::next_byte_shift() {
  return std::exchange(high_byte_, !high_byte_) ? 8 : 0;
}

// --- Transfers

// One unit is a byte, or a word on the second controller, whose page has no bit 16. The address stays within
// the page.
template <class Copy>
Dma8237::Moved Dma8237::move(unsigned number, Way way, size_t bytes, Copy copy) {
  Channel& channel = channels_[number];
  const auto programmed = static_cast<Way>(channel.mode >> kWayShift & 3);
  Moved moved;
  if (mask_ & bit(number) || command_ & kDisabled || (programmed != way && programmed != Way::Verify))
    return moved;
  const unsigned unit = first_channel_ ? 2 : 1;
  const uint64_t page =
      uint64_t{pages_.page(first_channel_ + number)} << 16 & ~uint64_t{unit == 2 ? 0x1'ffffu : 0xffffu};
  while (moved.bytes + unit <= bytes && !moved.terminal_count) {
    const bool down = channel.mode & kDecrement;
    // As many as lie in a row.
    size_t units = down ? 1 : std::min<size_t>((bytes - moved.bytes) / unit, 0x1'0000u - channel.address);
    units = std::min<size_t>(units, size_t{channel.count} + 1);
    if (programmed != Way::Verify)
      copy(PhysAddr{page + uint64_t{channel.address} * unit}, moved.bytes, units * unit);
    channel.address = static_cast<uint16_t>(down ? channel.address - 1 : channel.address + units);
    moved.bytes += units * unit;
    moved.terminal_count = units == size_t{channel.count} + 1;
    channel.count = static_cast<uint16_t>(channel.count - units);
  }
  if (moved.terminal_count) {
    terminal_counts_ |= bit(number);
    if (channel.mode & kAutoInitialize) {
      channel.address = channel.base_address;
      channel.count = channel.base_count;
    } else {
      mask_ |= bit(number);
    }
  }
  return moved;
}

Dma8237::Moved Dma8237::to_memory(unsigned channel, std::span<const std::byte> data) {
  return move(channel, Way::ToMemory, data.size(), [&](PhysAddr address, size_t at, size_t bytes) {
    if (map_.is_ram(address, bytes)) map_.write_bytes(address, data.subspan(at, bytes));
  });
}

Dma8237::Moved Dma8237::from_memory(unsigned channel, std::span<std::byte> data) {
  return move(channel, Way::FromMemory, data.size(), [&](PhysAddr address, size_t at, size_t bytes) {
    if (map_.is_ram(address, bytes)) {
      map_.read_bytes(address, data.subspan(at, bytes));
    } else {
      std::ranges::fill(data.subspan(at, bytes), std::byte{0xff});
    }
  });
}

// --- Registers

uint8_t Dma8237::read_byte(uint16_t offset) {
  const auto number = static_cast<uint16_t>(offset >> (first_channel_ ? 1 : 0));
  if (number < 8) {
    const Channel& channel = channels_[number >> 1];
    return static_cast<uint8_t>((number & 1 ? channel.count : channel.address) >> next_byte_shift());
  }
  switch (number) {
    case kStatus:
      return static_cast<uint8_t>(requests_ << 4 | std::exchange(terminal_counts_, uint8_t{0}));
    case kTemporary:
      return 0;
    case kAllMask:  // PIIX3; the 8237A itself has nothing to read here
      return mask_;
    default:
      return 0xff;
  }
}

void Dma8237::write_byte(uint16_t offset, uint8_t value) {
  const auto number = static_cast<uint16_t>(offset >> (first_channel_ ? 1 : 0));
  if (number < 8) {
    Channel& channel = channels_[number >> 1];
    uint16_t& base = number & 1 ? channel.base_count : channel.base_address;
    const unsigned shift = next_byte_shift();
    base = static_cast<uint16_t>((base & 0xff00 >> shift) | value << shift);
    (number & 1 ? channel.count : channel.address) = base;
    return;
  }
  const auto set_or_clear = [value](uint8_t bits) -> uint8_t {
    return value & kSetBit ? bits | bit(value & 3) : bits & ~bit(value & 3);
  };
  switch (number) {
    case kCommand:
      command_ = value;
      break;
    case kRequest:
      requests_ = set_or_clear(requests_);
      break;
    case kSingleMask:
      mask_ = set_or_clear(mask_);
      break;
    case kMode:
      channels_[value & 3].mode = value;
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
  if (listener_) listener_();
}

DeviceState Dma8237::save() const {
  DeviceState channels = DeviceState::array();
  for (const Channel& channel : channels_) {
    channels.push_back({{"base_address", channel.base_address},
                        {"base_count", channel.base_count},
                        {"address", channel.address},
                        {"count", channel.count},
                        {"mode", channel.mode}});
  }
  return {{"version", 2},           {"channels", channels},  {"command", command_},
          {"mask", mask_},          {"requests", requests_}, {"terminal_counts", terminal_counts_},
          {"high_byte", high_byte_}};
}

void Dma8237::load(const DeviceState& state) {
  require_version(state, 2, name_);
  for (unsigned i = 0; i < channels_.size(); i++) {
    const DeviceState& saved = state.at("channels").at(i);
    saved.at("base_address").get_to(channels_[i].base_address);
    saved.at("base_count").get_to(channels_[i].base_count);
    saved.at("address").get_to(channels_[i].address);
    saved.at("count").get_to(channels_[i].count);
    saved.at("mode").get_to(channels_[i].mode);
  }
  command_ = static_cast<uint8_t>(bounded(state, "command", 0xff));
  mask_ = static_cast<uint8_t>(bounded(state, "mask", 0x0f));
  requests_ = static_cast<uint8_t>(bounded(state, "requests", 0x0f));
  terminal_counts_ = static_cast<uint8_t>(bounded(state, "terminal_counts", 0x0f));
  state.at("high_byte").get_to(high_byte_);
}

}  // namespace penumbra
