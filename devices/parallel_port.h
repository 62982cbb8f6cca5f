// Parallel port with a printer that takes every byte: IBM PS/2 Hardware Interface Technical Reference,
// "Parallel Port Controller", compatible mode. Not modelled: bidirectional and extended modes, the printer's
// own time.
#pragma once

#include "devices/chip.h"

namespace penumbra {

class ParallelPort : public ByteDevice {
 public:
  ParallelPort(LineOutput interrupt, ByteSink out);

  // Offsets: 0 data, 1 status, 2 control.
  std::string_view name() const override { return "parallel_port"; }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;

  LineOutput interrupt_;
  ByteSink out_;
  uint8_t data_ = 0, control_ = 0;
};

}  // namespace penumbra
