// 8254 programmable interval timer: three 16-bit down counters with a CLK of 1.193182 MHz.
//
// Intel 8254 datasheet (order number 231164). A counter is silent until its control word and its count are
// written. Counters don't tick: the chip remembers the CLK pulse at which a count was loaded and works out
// the rest when it is asked. Only OUT of counter 0 is a line with edges; the others are read with output().
//
// State is in CLK pulses since the virtual clock's zero, so a saved state belongs to the clock's time.
#pragma once

#include <array>
#include <optional>

#include "core/virtual_clock.h"
#include "devices/chip.h"

namespace penumbra {

class Pit8254 : public ByteDevice {
 public:
  static constexpr uint64_t kClkHz = 1'193'182;  // 14.31818 MHz / 12

  Pit8254(VirtualClock& clock, LineOutput out0);

  // Level of a counter's GATE pin. They are high until this is called.
  void set_gate(unsigned counter, bool level);
  bool output(unsigned counter);

  // Offsets: 0 to 2 the counters, 3 the control word.
  std::string_view name() const override { return "pit_8254"; }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 protected:
  uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;

 private:
  using Pulse = int64_t;  // number of a CLK pulse

  enum class Phase : uint8_t {
    Unprogrammed,
    AwaitCount,    // after a control word
    AwaitTrigger,  // modes 1 and 5: a count, but no rising edge of GATE yet
    Running,
  };

  struct Counter {
    // Registers.
    uint8_t control = 0;             // low six bits of the control word, as written
    uint16_t count_register = 0;     // CR, as written
    bool count_waits = false;        // CR is newer than the count that runs
    std::optional<Pulse> reload_at;  // modes 2 and 3: end of the cycle, where it takes over
    bool gate = true;

    // The counting element (CE).
    Phase phase = Phase::Unprogrammed;
    uint16_t held = 0;     // CE while it is not Running
    uint32_t initial = 1;  // the count that was loaded, 1 to 65536
    Pulse origin = 0;      // when it was loaded
    bool paused = false;   // GATE is low in a mode where that stops counting
    Pulse elapsed = 0;     // pulses counted before the pause

    // Access to the registers a byte at a time.
    std::optional<uint8_t> low_byte;  // of a count of which the high byte is still to come
    bool read_high = false;           // the next read gives the high byte
    std::optional<uint16_t> latched_count;
    std::optional<uint8_t> latched_status;

    unsigned mode() const;
    unsigned access() const { return control >> 4 & 3; }  // the RW bits
    bool bcd() const { return control & 1; }
    bool periodic() const { return mode() == 2 || mode() == 3; }
    bool triggered() const { return mode() == 1 || mode() == 5; }
    uint32_t modulus() const { return bcd() ? 10'000 : 65'536; }
    uint32_t programmed_count() const;
    Pulse elapsed_at(Pulse now) const;
    uint16_t value_at(Pulse now) const;
    bool output_at(Pulse now) const;
    uint8_t status_at(Pulse now) const;
    // First edge of OUT after `pulse`. Of a low strobe of one CLK only the rising edge counts.
    std::optional<Pulse> edge_after(Pulse pulse) const;
    // Modes 2 and 3, running: the end of the cycle or half cycle in which `now` is.
    Pulse cycle_end(Pulse now) const;
    Pulse high_half() const { return (initial + 1) / 2; }

    void start(Pulse load_pulse);
    void reload(Pulse boundary);
  };

  // An access, a gate's change and the timer each look at the clock once, with look(): an edge that fell
  // between two looks would be lost.
  void look();
  Pulse now() const { return now_; }
  Nanoseconds time_of(Pulse pulse) const;
  Counter& up_to_date(unsigned number);
  void control_word(uint8_t value);
  void read_back(uint8_t value);
  void latch_count(Counter& counter);
  void write_count(unsigned number, uint8_t value);
  void count_written(Counter& counter);
  uint8_t read_counter(Counter& counter);

  void drive(bool level);
  void drive_edge(bool level);
  void finish_late_edge();
  void follow(unsigned number);
  void edge();

  VirtualClock& clock_;
  Pulse now_ = 0;
  LineOutput out0_;
  std::array<Counter, 3> counters_;
  bool out0_level_ = false;
  std::optional<Pulse> next_edge_;  // of OUT 0; the timer is armed for it
  Timer timer_;
};

}  // namespace penumbra
