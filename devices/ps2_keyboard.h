// The keyboard on the PS/2 port.
//
// IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)": scan code sets 1 and 2,
// typematic, lights. Not modelled: scan code set 3 and its commands for single keys (they are acknowledged).
#pragma once

#include <cstdint>
#include <functional>

#include "core/virtual_clock.h"
#include "devices/ps2_device.h"

namespace penumbra {

// A key by its code of scan code set 1, as PCs have numbered them since the first; those with prefix E0h have
// bit 7 set.
using KeyCode = uint8_t;
inline constexpr KeyCode kKeyPrint = 0xb7, kKeyPause = 0xc6;

class Ps2Keyboard final : public Ps2Device {
 public:
  explicit Ps2Keyboard(VirtualClock& clock);

  // Someone presses or releases a key.
  void key(KeyCode code, bool down);
  // Bit 0 scroll lock, bit 1 num lock, bit 2 caps lock.
  uint8_t lights() const { return lights_; }

  void receive(uint8_t byte) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

  // Code of scan code set 1 for one of set 2: what the keyboard controller translates.
  static uint8_t translate(uint8_t set2);

 private:
  void set_defaults();
  void send_key(KeyCode code, bool down);
  void repeat();
  Nanoseconds repeat_delay() const;
  Nanoseconds repeat_interval() const;

  VirtualClock& clock_;
  Timer repeat_timer_;
  bool enabled_ = true;
  uint8_t set_ = 2;
  uint8_t lights_ = 0;
  uint8_t typematic_ = 0;
  uint8_t awaiting_ = 0;  // the command whose parameter comes next; 0: none
  KeyCode repeating_ = 0;
};

}  // namespace penumbra
