#include "devices/io_apic.h"

#include <algorithm>
#include <utility>

namespace penumbra {

namespace {
// Offsets in memory
constexpr uint64_t kSelect = 0x00, kWindow = 0x10, kEoi = 0x40;
// Registers behind the window
constexpr uint8_t kId = 0, kVersion = 1, kArbitration = 2, kEntries = 0x10;
constexpr uint32_t kVersionValue = 0x20 | (IoApic::kInputs - 1) << 16;
// Redirection entries
constexpr uint64_t kVector = 0xff, kLogical = 0x800, kRemoteIrr = 0x4000, kLevel = 0x8000, kMasked = 0x1'0000;
constexpr unsigned kDeliveryShift = 8, kDestinationShift = 56;
constexpr uint64_t kWritable = 0xff00'0000'0001'afff;
}  // namespace

IoApic::IoApic(PhysicalMap& map, ApicMessageSink send) : send_(std::move(send)) {
  map.add_mmio(PhysAddr{kBase}, kBytes, *this, "I/O APIC");
  reset();
}

void IoApic::reset() {
  id_ = select_ = 0;
  entries_.fill(kMasked);
  inputs_ = 0;
}

// --- Interrupts

// 290566, 3.2.4: edges of a masked input are lost.
void IoApic::set_input(unsigned input, bool asserted) {
  if (input >= kInputs) return;
  const uint32_t mask = uint32_t{1} << input;
  const bool was = inputs_ & mask;
  inputs_ = asserted ? inputs_ | mask : inputs_ & ~mask;
  if (entries_[input] & kLevel) {
    deliver_level(input);
  } else if (asserted && !was && !(entries_[input] & kMasked)) {
    deliver(input);
  }
}

// A level-triggered input interrupts again only after the local APIC's EOI.
void IoApic::deliver_level(unsigned input) {
  uint64_t& entry = entries_[input];
  if (!(inputs_ >> input & 1) || entry & (kMasked | kRemoteIrr) || !(entry & kLevel)) return;
  const auto delivery = static_cast<uint8_t>(entry >> kDeliveryShift & 7);
  if (delivery == ApicMessage::kFixed || delivery == ApicMessage::kLowestPriority) entry |= kRemoteIrr;
  deliver(input);
}

void IoApic::deliver(unsigned input) {
  const uint64_t entry = entries_[input];
  send_({.destination = static_cast<uint8_t>(entry >> kDestinationShift),
         .logical = (entry & kLogical) != 0,
         .delivery = static_cast<uint8_t>(entry >> kDeliveryShift & 7),
         .vector = static_cast<uint8_t>(entry & kVector),
         .level = (entry & kLevel) != 0});
}

void IoApic::end_of_interrupt(uint8_t vector) {
  for (unsigned input = 0; input < kInputs; input++) {
    uint64_t& entry = entries_[input];
    if ((entry & kVector) != vector || !(entry & kRemoteIrr)) continue;
    entry &= ~kRemoteIrr;
    deliver_level(input);
  }
}

bool IoApic::routes_nmi() const {
  return std::ranges::any_of(entries_, [](uint64_t entry) {
    return !(entry & kMasked) && (entry >> kDeliveryShift & 7) == ApicMessage::kNmi;
  });
}

// --- Registers

uint64_t IoApic::mmio_read(uint64_t offset, unsigned) {
  switch (offset) {
    case kSelect:
      return select_;
    case kWindow:
      return read_register();
    default:
      return 0;
  }
}

void IoApic::mmio_write(uint64_t offset, unsigned, uint64_t value) {
  switch (offset) {
    case kSelect:
      select_ = static_cast<uint8_t>(value);
      return;
    case kWindow:
      return write_register(static_cast<uint32_t>(value));
    case kEoi:
      return end_of_interrupt(static_cast<uint8_t>(value));
    default:
      return;
  }
}

uint32_t IoApic::read_register() const {
  switch (select_) {
    case kId:
    case kArbitration:
      return uint32_t{id_} << 24;
    case kVersion:
      return kVersionValue;
    default:
      break;
  }
  const unsigned index = select_ - unsigned{kEntries};
  if (select_ < kEntries || index / 2 >= kInputs) return 0;
  return static_cast<uint32_t>(entries_[index / 2] >> (index % 2 ? 32 : 0));
}

void IoApic::write_register(uint32_t value) {
  if (select_ == kId) {
    id_ = value >> 24 & 0x0f;
    return;
  }
  const unsigned index = select_ - unsigned{kEntries};
  if (select_ < kEntries || index / 2 >= kInputs) return;
  write_entry(index / 2, index % 2, value);
}

void IoApic::write_entry(unsigned input, bool high, uint32_t value) {
  uint64_t& entry = entries_[input];
  const uint64_t wanted =
      high ? (entry & 0xffff'ffff) | uint64_t{value} << 32 : (entry & ~uint64_t{0xffff'ffff}) | value;
  entry = (entry & ~kWritable) | (wanted & kWritable);
  // Made edge-triggered, an entry forgets that it waits for an EOI; systems clear it so.
  if (!(entry & kLevel)) entry &= ~kRemoteIrr;
  deliver_level(input);
}

DeviceState IoApic::save() const {
  return {{"version", 1}, {"id", id_}, {"select", select_}, {"entries", entries_}, {"inputs", inputs_}};
}

void IoApic::load(const DeviceState& state) {
  require_version(state, 1, name());
  auto entries = state.at("entries").get<std::array<uint64_t, kInputs>>();
  const auto id = bounded(state, "id", 0x0f), select = bounded(state, "select", 0xff),
             inputs = bounded(state, "inputs", (uint32_t{1} << kInputs) - 1);
  for (uint64_t& entry : entries) entry &= kWritable | kRemoteIrr;
  id_ = static_cast<uint8_t>(id);
  select_ = static_cast<uint8_t>(select);
  entries_ = entries;
  inputs_ = static_cast<uint32_t>(inputs);
}

}  // namespace penumbra
