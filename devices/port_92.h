// Port 92h, the PS/2's system control port A: fast reset (bit 0) and A20 gate (bit 1).
//
// 82371SB (PIIX3), P92, port 92 register.
#pragma once

#include <functional>

#include "devices/chip.h"

namespace penumbra {

class Port92 : public ByteDevice {
 public:
  // `reset_request` is called when bit 0 rises; `a20` is told each change of bit 1.
  Port92(std::function<void()> reset_request, LineOutput a20);

  std::string_view name() const override { return "port_92"; }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 protected:
  uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;

 private:
  void set(uint8_t value);

  std::function<void()> reset_request_;
  LineOutput a20_;
  uint8_t value_ = 0;
};

}  // namespace penumbra
