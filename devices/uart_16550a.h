// 16550A serial port: UART with 16-byte FIFOs, modem control and loopback.
//
// National Semiconductor PC16550D datasheet, "Registers"; clocked with 1.8432 MHz as in a PC, whose OUT2 pin
// also gates the interrupt line.
//
// Bytes leave at the moment they are written and arrive when the outside has them, so that a console is as
// fast as the host: the transmitter is empty unless the outside takes no more, and the baud rate counts only
// for the character timeout interrupt. A byte written to a transmitter that is not empty leaves all the same.
// Bytes pass whole: word length and parity change nothing on the line. Not modelled: the RXRDY and TXRDY pins
// (DMA mode, FCR bit 3), a break sent by the guest (LCR bit 6), writes to LSR and MSR (factory test).
#pragma once

#include <deque>
#include <functional>
#include <string>

#include "core/virtual_clock.h"
#include "devices/chip.h"

namespace penumbra {

class Uart16550a : public ByteDevice {
 public:
  // Levels of the modem inputs, as bits of the MSR.
  static constexpr uint8_t kCts = 0x10, kDsr = 0x20, kRi = 0x40, kDcd = 0x80;

  // `interrupt` is INTR behind the OUT2 gate. A terminal that is ready holds CTS, DSR and DCD.
  Uart16550a(std::string name, VirtualClock& clock, LineOutput interrupt, ByteSink out);

  // A byte that arrives on SIN. False when there is no room for it: the caller keeps it and tries again when
  // the room listener calls, so that a paste is never overrun.
  [[nodiscard]] bool receive(uint8_t byte) { return arrive({.data = byte, .errors = 0}); }
  // A break that arrives on SIN; false as for receive().
  [[nodiscard]] bool receive_break();
  // How many bytes receive() would take now. None in loopback, which cuts SIN off.
  unsigned receive_room() const;
  // Called when room appeared because of something the guest did. May call receive().
  void set_room_listener(std::function<void()> listener) { room_listener_ = std::move(listener); }

  // The outside takes no more for now: holding and shift register show as full until it does.
  void set_transmitter_blocked(bool blocked);

  // kCts, kDsr, kRi, kDcd of those that are active.
  void set_modem_inputs(uint8_t active);

  std::string_view name() const override { return name_; }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 protected:
  uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;

 private:
  struct Character {
    uint8_t data;
    uint8_t errors;  // LSR bits that come with it
  };

  bool fifo_enabled() const;
  bool divisor_access() const;
  bool loopback() const;
  unsigned trigger_level() const;
  uint8_t interrupt_id() const;
  uint8_t line_status() const;

  uint8_t read_receiver_buffer();
  uint8_t read_interrupt_id();
  uint8_t read_line_status();
  uint8_t read_modem_status();
  void transmit(uint8_t value);
  void write_interrupt_enable(uint8_t value);
  void write_fifo_control(uint8_t value);
  void write_modem_control(uint8_t value);

  bool arrive(Character character);
  void enqueue(Character character);
  void reveal_errors();
  void clear_receiver();
  void restart_timeout();
  Nanoseconds character_time() const;
  void sample_modem_lines();
  bool interrupt_level() const;
  void update();
  bool transmitter_empty() const { return !transmitter_blocked_ || loopback(); }
  void request_transmitter_interrupt();
  void announce_room() const {
    if (room_listener_) room_listener_();
  }

  const std::string name_;
  VirtualClock& clock_;
  LineOutput interrupt_;
  ByteSink out_;
  std::function<void()> room_listener_;
  Timer timeout_timer_;

  std::deque<Character> received_;    // RCVR FIFO; at most one character in 16450 mode
  uint8_t last_read_ = 0;             // what the receiver buffer shows while nothing is received
  uint8_t line_errors_ = 0;           // LSR bits 1 to 4
  bool timeout_ = false;              // character timeout interrupt pending
  bool transmitter_pending_ = false;  // THRE interrupt pending
  bool transmitter_blocked_ = false;  // the outside's state, not the chip's
  uint8_t interrupt_enable_ = 0;
  uint8_t fifo_control_ = 0;
  uint8_t line_control_ = 0;
  uint8_t modem_control_ = 0;
  uint8_t scratch_ = 0;
  uint16_t divisor_;
  uint8_t modem_inputs_ = kCts | kDsr | kDcd;  // levels of the pins
  uint8_t modem_lines_ = modem_inputs_;        // what the MSR shows of them
  uint8_t modem_deltas_ = 0;                   // MSR bits 0 to 3
  bool interrupt_level_ = false;
};

}  // namespace penumbra
