// MC146818 real-time clock with 128 bytes of battery-backed memory (CMOS).
//
// Motorola MC146818 data sheet (ADI-856); the century byte at 32h is the PC's convention, kept by the chip
// here as in QEMU and Bochs. The time of day is worked out from the virtual clock when it is asked for; only
// enabled interrupts need a timer. Not modelled: daylight saving time, the square wave, and crystals other
// than 32,768 Hz (all dividers but the stopped ones count as that one).
#pragma once

#include <array>
#include <optional>

#include "core/virtual_clock.h"
#include "devices/chip.h"

namespace penumbra {

class RtcMc146818 : public ByteDevice {
 public:
  // `start_time`: Unix seconds when the virtual clock reads zero. `interrupt` is the IRQ pin, active high.
  RtcMc146818(VirtualClock& clock, int64_t start_time, LineOutput interrupt);

  // The memory above the clock's registers, for the board's configuration bytes; `index` is 0Eh to 7Fh and
  // not the century.
  void set_memory(uint8_t index, uint8_t value) { memory_.at(index) = value; }

  // Offsets: 0 the index (port 70h), 1 the data (port 71h).
  std::string_view name() const override { return "rtc_mc146818"; }
  void reset() override;  // the RESET pin: time and memory stay
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 protected:
  uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;

 private:
  using Instant = int64_t;  // nanoseconds of the divider chain; whole seconds are multiples of 10^9

  uint8_t read_register(uint8_t index);
  void write_register(uint8_t index, uint8_t value);
  void write_a(uint8_t value);
  void write_b(uint8_t value);

  bool divider_runs() const;
  bool updates() const;  // the time of day goes on
  Instant instant() const;
  int64_t seconds_at(Instant instant) const;  // Unix seconds of the time of day
  bool update_in_progress() const;

  uint8_t encode(unsigned value) const;
  unsigned decode(uint8_t value, unsigned lowest, unsigned highest) const;
  unsigned decode_hour(uint8_t value) const;
  void store_time();
  int64_t stored_time() const;
  void set_time(int64_t unix_seconds);

  unsigned period_clocks() const;
  std::optional<int64_t> next_alarm(int64_t after) const;
  std::optional<Instant> next_event() const;
  void account();
  void arm(std::optional<Instant> event);
  void update_interrupt();

  VirtualClock& clock_;
  LineOutput interrupt_;

  std::array<uint8_t, 128> memory_{};
  uint8_t index_ = 0;
  // Time of day: base_ plus the seconds of the divider chain, which was zero at virtual time epoch_.
  int64_t base_;
  int64_t epoch_ = 0;
  uint8_t weekday_shift_ = 0;  // a program may call any day of the week 1
  Instant accounted_ = 0;      // register C holds the events until then
  bool interrupt_level_ = false;
  Timer timer_;
};

}  // namespace penumbra
