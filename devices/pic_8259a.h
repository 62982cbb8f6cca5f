// 8259A programmable interrupt controller: eight inputs with priorities, one INT output.
//
// Intel 8259A datasheet (order number 231468); the edge/level control register (ELCR) is the one of the
// 82371SB (PIIX3), 2.5.5.
//
// One object is one chip; PicPair cascades two of them. The chip is silent until its initialisation command
// words are complete. Not modelled: MCS-80/85 mode (ICW4.uPM clear behaves as 8086 mode) and buffered mode,
// which changes only a pin.
#pragma once

#include <optional>
#include <string>

#include "devices/chip.h"

namespace penumbra {

class Pic8259a : public ByteDevice {
 public:
  enum class Wiring : uint8_t { Master, Slave };  // level of the SP/EN pin

  // `elcr_writable`: inputs that the ELCR may switch to level triggering. `interrupt` is the INT pin.
  Pic8259a(std::string name, Wiring wiring, uint8_t elcr_writable, LineOutput interrupt);

  // Level of input IR0 to IR7.
  void set_input(unsigned input, bool level);

  bool interrupt() const { return interrupt_level_; }  // level of INT

  // The two INTA cycles. A request that went away before them is answered with IR7 and no in-service bit.
  struct Acknowledgement {
    uint8_t vector;
    uint8_t input;
    bool spurious;
    bool from_slave;  // the slave on `input` gives the vector
  };
  Acknowledgement acknowledge();

  // A slave: whether ICW3 made it listen to this number on the cascade lines.
  bool answers_to(unsigned cascade_number) const { return (icw3_ & 7) == cascade_number; }

  // Offsets: 0 and 1 as the chip's A0; 2 is the ELCR.
  static constexpr uint16_t kElcrOffset = 2;

  std::string_view name() const override { return name_; }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 protected:
  uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;

 private:
  enum class Expect : uint8_t { Operation, Icw2, Icw3, Icw4 };  // meaning of the next write with A0 set

  void initialise(uint8_t icw1);
  void next_initialisation_word(uint8_t value);
  void finish_initialisation();
  void operation_word_2(uint8_t value);
  void operation_word_3(uint8_t value);
  void end_of_interrupt(unsigned input, bool rotate);
  std::optional<unsigned> highest_in_service() const;
  std::optional<unsigned> candidate() const;
  void take(unsigned input);
  uint8_t poll();
  uint8_t level_inputs() const;
  uint8_t requests() const { return edges_ | (inputs_ & level_inputs()); }  // the IRR
  void update();

  const std::string name_;
  const Wiring wiring_;
  const uint8_t elcr_writable_;
  LineOutput interrupt_;

  uint8_t inputs_ = 0;  // levels of the IR pins
  uint8_t edges_ = 0;   // requests that an edge latched
  uint8_t in_service_ = 0;
  uint8_t mask_ = 0;
  uint8_t elcr_ = 0;
  uint8_t icw1_ = 0, icw2_ = 0, icw3_ = 0, icw4_ = 0;
  uint8_t lowest_priority_ = 7;
  Expect expect_ = Expect::Operation;
  bool initialised_ = false;
  bool read_in_service_ = false;  // A0 = 0 reads the ISR, else the IRR
  bool poll_ = false;             // the next read is a poll
  bool special_mask_ = false;
  bool rotate_on_auto_eoi_ = false;
  bool interrupt_level_ = false;
};

}  // namespace penumbra
