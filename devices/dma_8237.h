// 8237A DMA controller and the PC's DMA page registers: the registers only.
//
// Intel 8237A datasheet (order number 231466). No chip of this board has a DMA request line, so nothing is
// ever transferred, also not memory to memory, and no terminal count is reached. What is here is what
// programs need that look for the controllers or set them up; commands and modes have no effect.
#pragma once

#include <array>
#include <string>

#include "devices/chip.h"

namespace penumbra {

class Dma8237 : public ByteDevice {
 public:
  // `address_shift`: by how many bits the board shifts the address lines; 1 for the second controller.
  Dma8237(std::string name, unsigned address_shift);

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
    uint16_t address = 0;  // base and current register: they differ only during transfers
    uint16_t count = 0;
  };
  void master_clear();
  uint16_t& counter_register(unsigned number);
  unsigned next_byte_shift();

  const std::string name_;
  const unsigned address_shift_;
  std::array<Channel, 4> channels_;
  uint8_t mask_ = 0x0f;
  uint8_t requests_ = 0;    // by software
  bool high_byte_ = false;  // first/last flip-flop
};

// Ports 81h to 8Fh: bits 16 to 23 of the channels' addresses; some are spare.
class DmaPageRegisters : public ByteDevice {
 public:
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

}  // namespace penumbra
