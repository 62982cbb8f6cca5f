// Port 80h: firmware writes its progress codes (POST codes) here, and operating systems any byte for a short
// delay. On a PC it is a spare page register of the DMA controllers, so it reads back.
#pragma once

#include "devices/chip.h"

namespace penumbra {

class PostPort : public ByteDevice {
 public:
  uint8_t code() const { return code_; }  // the last one written

  std::string_view name() const override { return "post_port"; }
  void reset() override { code_ = 0; }
  DeviceState save() const override { return {{"version", 1}, {"code", code_}}; }
  void load(const DeviceState& state) override {
    require_version(state, 1, name());
    state.at("code").get_to(code_);
  }

 protected:
  uint8_t read_byte(uint16_t offset) override { return offset == 0 ? code_ : 0xff; }
  void write_byte(uint16_t offset, uint8_t value) override {
    if (offset == 0) code_ = value;
  }

 private:
  uint8_t code_ = 0;
};

}  // namespace penumbra
