// QEMU's pc-testdev (hw/misc/pc-testdev.c): what bare-metal test programs poke to see port and memory
// accesses come back, and to raise interrupt lines.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>

#include "devices/chip.h"
#include "mmu/physical_map.h"

namespace penumbra {

class PcTestdev : public Device {
 public:
  // Offsets: interrupt lines, a latch, a port that does nothing (QEMU forgets translations), a latch that is
  // written by bytes.
  static constexpr uint16_t kLines = 0, kLineCount = 24, kLatch = 0x20, kByteLatch = 0x28, kLatchPorts = 4;

  PcTestdev(PhysicalMap& map, std::function<void(unsigned line, bool level)> interrupt);

  std::string_view name() const override { return "pc_testdev"; }
  uint32_t read(uint16_t offset, unsigned size) override;
  void write(uint16_t offset, unsigned size, uint32_t value) override;
  void reset() override;
  DeviceState save() const override;  // without its memory
  void load(const DeviceState& state) override;

 private:
  void drive(unsigned line, bool level);

  std::function<void(unsigned line, bool level)> interrupt_;
  uint32_t lines_ = 0;  // that are raised
  std::array<uint8_t, 2 * kLatchPorts> latches_{};
  std::atomic<bool> written_ = false;  // its memory; nobody asks
};

}  // namespace penumbra
