// 8237A DMA controller and the PC's DMA page registers.
//
// Intel 8237A datasheet (order number 231466). A chip that asks for a transfer gets as much at once as its
// channel allows. Not modelled: memory to memory, which a PC does not wire, cascading, requests by software,
// time on the bus.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include "devices/chip.h"
#include "mmu/physical_map.h"

namespace penumbra {

// Ports 81h to 8Fh: bits 16 to 23 of the channels' addresses; some are spare.
class DmaPageRegisters : public ByteDevice {
 public:
  // Of channel 0 to 7; 4 has none.
  uint8_t page(unsigned channel) const;

  std::string_view name() const override { return "dma_page_registers"; }
  void reset() override { pages_ = {}; }
  DeviceState save() const override { return {{"version", 1}, {"pages", pages_}}; }
  void load(const DeviceState& state) override;

 protected:
  uint8_t read_byte(uint16_t offset) override { return offset < pages_.size() ? pages_[offset] : 0xff; }
  void write_byte(uint16_t offset, uint8_t value) override {
    if (offset < pages_.size()) pages_[offset] = value;
  }

 private:
  std::array<uint8_t, 15> pages_{};
};

class Dma8237 : public ByteDevice {
 public:
  // `first_channel`: 0 or, for the second controller, whose address lines the board shifts by one, 4.
  Dma8237(std::string name, unsigned first_channel, PhysicalMap& map, const DmaPageRegisters& pages)
      : name_(std::move(name)), first_channel_(first_channel), map_(map), pages_(pages) {}

  // --- For a chip on `channel` (0 to 3): between `data` and memory, in the direction that the channel was
  // programmed for, as many bytes as it takes. None: the channel is masked or programmed for the other
  // direction.
  struct Moved {
    size_t bytes = 0;
    bool terminal_count = false;
  };
  Moved to_memory(unsigned channel, std::span<const std::byte> data);
  Moved from_memory(unsigned channel, std::span<std::byte> data);
  // Called when software has written a register that may let a channel go on.
  void set_listener(std::function<void()> listener) { listener_ = std::move(listener); }

  // Offsets, after the shift: 0 to 7 address and count of the channels, 8 to 15 commands.
  std::string_view name() const override { return name_; }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 protected:
  uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;

 private:
  struct Channel {
    uint16_t base_address = 0, base_count = 0, address = 0, count = 0;
    uint8_t mode = 0;
  };
  enum class Way : uint8_t { Verify, ToMemory, FromMemory, Illegal };
  template <class Copy>
  Moved move(unsigned channel, Way way, size_t bytes, Copy copy);
  void master_clear();
  unsigned next_byte_shift();

  const std::string name_;
  const unsigned first_channel_;
  PhysicalMap& map_;
  const DmaPageRegisters& pages_;
  std::function<void()> listener_;
  std::array<Channel, 4> channels_;
  uint8_t command_ = 0;
  uint8_t mask_ = 0x0f;
  uint8_t requests_ = 0;         // by software
  uint8_t terminal_counts_ = 0;  // reached since the status was read
  bool high_byte_ = false;       // first/last flip-flop
};

}  // namespace penumbra
