// The mouse on the PS/2 port.
//
// IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft's IntelliMouse (wheel) and IntelliMouse
// Explorer (two more buttons), which appear after their sequences of sample rates. Not modelled: the time
// between two samples, 2:1 scaling, the resolution's effect (both are stored and reported).
#pragma once

#include <array>
#include <cstdint>

#include "devices/ps2_device.h"

namespace penumbra {

class Ps2Mouse final : public Ps2Device {
 public:
  enum Button : uint8_t { kLeft = 1, kRight = 2, kMiddle = 4, kSide = 8, kExtra = 16 };

  Ps2Mouse() { reset(); }

  // Someone moves the mouse, `x` to the right, `y` towards the user, `wheel` towards the user, with these
  // buttons down.
  void move(int x, int y, int wheel, uint8_t buttons);

  void receive(uint8_t byte) override;
  std::optional<uint8_t> take() override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  enum Id : uint8_t { kPlain = 0, kWheel = 3, kExplorer = 4 };
  void set_defaults();
  void command(uint8_t byte);
  void set_rate(uint8_t rate);
  void send_packet();
  void report();
  bool moved() const { return x_ || y_ || wheel_ || buttons_ != sent_buttons_; }

  bool reporting_, remote_, wrap_, scaling_;
  uint8_t resolution_, rate_;
  uint8_t id_;
  std::array<uint8_t, 2> earlier_rates_;
  uint8_t awaiting_;   // the command whose parameter comes next; 0: none
  int x_, y_, wheel_;  // not reported yet
  uint8_t buttons_, sent_buttons_;
};

}  // namespace penumbra
