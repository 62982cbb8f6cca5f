// The two 8259As of a PC: the slave's INT feeds the master's IR2, the master's INT is the CPU's INTR.
#pragma once

#include <functional>
#include <vector>

#include "core/interrupt_source.h"
#include "devices/pic_8259a.h"

namespace penumbra {

class PicPair : public InterruptSource {
 public:
  PicPair();

  // Level of ISA interrupt line `irq`, 0 to 15. Line 2 is the cascade: calls for it are ignored.
  void set_irq(unsigned irq, bool level);
  LineOutput irq_line(unsigned irq);
  // What firmware writes into the ELCR for a line that PCI uses.
  void set_level_triggered(unsigned irq);

  bool pending() const override { return master_.interrupt(); }
  uint8_t acknowledge() override;

  // Told when INTR changes.
  void set_interrupt_listener(std::function<void(bool level)> listener) { listener_ = std::move(listener); }
  // Told which line the CPU has just taken; spurious ones don't count.
  void set_acknowledge_listener(std::function<void(unsigned irq)> listener) {
    acknowledge_listener_ = std::move(listener);
  }
  // After load(): tells the listener the level of INTR, which may have changed without an edge.
  void announce() const {
    if (listener_) listener_(pending());
  }

  Pic8259a& master() { return master_; }
  Pic8259a& slave() { return slave_; }

 private:
  static constexpr unsigned kCascadeInput = 2;
  std::function<void(bool level)> listener_;
  std::function<void(unsigned irq)> acknowledge_listener_;
  Pic8259a master_;
  Pic8259a slave_;
};

}  // namespace penumbra
