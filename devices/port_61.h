// Port 61h, the PC's system control port B: speaker and counter 2 of the timer.
//
// 82371SB (PIIX3), NMISC, NMI status and control register. Parity and channel check never happen here, so
// their status bits read as zero; bits 2 and 3, which would enable them, are only stored.
#pragma once

#include <functional>

#include "core/virtual_clock.h"
#include "devices/chip.h"

namespace penumbra {

class Port61 : public ByteDevice {
 public:
  // `gate2`: to GATE of the timer's counter 2. `out2` reads its OUT.
  Port61(VirtualClock& clock, LineOutput gate2, std::function<bool()> out2);

  bool speaker_on() const { return control_ & 2; }  // OUT 2 reaches the speaker

  std::string_view name() const override { return "port_61"; }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 protected:
  uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;

 private:
  VirtualClock& clock_;
  LineOutput gate2_;
  std::function<bool()> out2_;
  uint8_t control_ = 0;
};

}  // namespace penumbra
