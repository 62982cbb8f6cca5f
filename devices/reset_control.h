// Port CF9h, the reset control register: a rising edge of bit 2 resets the machine.
//
// 82371SB (PIIX3), RC, reset control register.
#pragma once

#include <functional>

#include "core/device.h"

namespace penumbra {

class ResetControl : public Device {
 public:
  explicit ResetControl(std::function<void()> reset_request);

  // Offset 0 is port CF8h, so that the chip sees wider accesses as such: a doubleword at CF8h is the address
  // of a PCI configuration access and doesn't reach this register, whatever its second byte is.
  static constexpr uint16_t kOffset = 1;

  std::string_view name() const override { return "reset_control"; }
  uint32_t read(uint16_t offset, unsigned size) override;
  void write(uint16_t offset, unsigned size, uint32_t value) override;
  void reset() override { value_ = 0; }
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  std::function<void()> reset_request_;
  uint8_t value_ = 0;
};

}  // namespace penumbra
