// 8042 keyboard controller of a PC: the two PS/2 ports, the A20 gate and the reset line.
//
// IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller"; commands DDh
// and DFh (A20 gate) as AMI's firmware and QEMU have them.
//
// Where nothing is plugged into a port, a byte that is sent there is answered as the controller itself
// answers when no device clocks the byte out, with FEh and the time-out bit. The controller's own commands
// work for both ports, so that probes find a sound controller and give the devices up at once. Not modelled:
// the keyboard lock, the pulse of output port bits other than reset, and the time that a byte takes.
#pragma once

#include <functional>
#include <optional>

#include "devices/chip.h"
#include "devices/ps2_device.h"

namespace penumbra {

class Keyboard8042 : public ByteDevice {
 public:
  // Offsets: 0 is port 60h (data), 4 is port 64h (status and command).
  // `reset_request` is the output port's reset bit going low, `a20` is told the level of its A20 bit.
  Keyboard8042(LineOutput keyboard_irq, LineOutput mouse_irq, std::function<void()> reset_request,
               std::function<void(bool)> a20);

  // Either may be null. They outlive this chip, and are reset, saved and loaded with it.
  void plug(Ps2Device* keyboard, Ps2Device* mouse);

  std::string_view name() const override { return "keyboard_8042"; }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 protected:
  uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;

 private:
  // What sent the byte in the output buffer; the controller's own answers count as the keyboard's.
  enum class Source : uint8_t { Keyboard, Mouse };
  // One of the two PS/2 ports.
  struct Port {
    Source source;
    uint8_t disable_bit;  // in the command byte
    LineOutput irq;
    Ps2Device* device = nullptr;
    bool timeout_waiting = false;  // an answer that waits for the output buffer
    bool irq_level = false;
  };

  uint8_t status() const;
  uint8_t read_data();
  void write_data(uint8_t value);
  void command(uint8_t value);
  void parameter(uint8_t of_command, uint8_t value);
  void answer(uint8_t value, Source source = Source::Keyboard, bool timeout = false);
  void send(Port& port, uint8_t value);
  void fill_output_buffer();
  void fill_from(Port& port);
  void write_output_port(uint8_t value);
  uint8_t output_port() const;
  void drive_a20(bool level);
  bool irq_wanted(const Port& port) const;
  void update();

  Port keyboard_;
  Port mouse_;
  std::function<void()> reset_request_;
  std::function<void(bool)> a20_;

  uint8_t command_byte_;
  uint8_t output_port_;  // but for the two interrupt bits
  uint8_t data_;         // output buffer
  bool output_full_;
  bool timeout_;
  bool break_prefix_;     // scan code translation has met F0h
  bool filling_ = false;  // a device tells of its next byte while one is taken
  Source source_;
  bool last_was_command_;
  std::optional<uint8_t> awaiting_parameter_;  // the command whose parameter the next data byte is
};

}  // namespace penumbra
