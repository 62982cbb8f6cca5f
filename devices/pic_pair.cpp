#include "devices/pic_pair.h"

namespace penumbra {

namespace {
// 82371SB, 2.5.5: IRQ 0, 1, 2, 8 and 13 are always edge triggered.
constexpr uint8_t kMasterElcr = 0xf8, kSlaveElcr = 0xde;
}  // namespace

PicPair::PicPair()
    : master_("pic_8259a_master", Pic8259a::Wiring::Master, kMasterElcr,
              [this](bool level) {
                if (listener_) listener_(level);
              }),
      slave_("pic_8259a_slave", Pic8259a::Wiring::Slave, kSlaveElcr,
             [this](bool level) { master_.set_input(kCascadeInput, level); }) {}

void PicPair::set_irq(unsigned irq, bool level) {
  if (irq >= 8) {
    slave_.set_input(irq - 8, level);
  } else if (irq != kCascadeInput) {
    master_.set_input(irq, level);
  }
}

void PicPair::set_level_triggered(unsigned irq) {
  Pic8259a& chip = irq < 8 ? master_ : slave_;
  const uint32_t before = chip.read(Pic8259a::kElcrOffset, 1);
  chip.write(Pic8259a::kElcrOffset, 1, before | 1u << irq % 8);
}

LineOutput PicPair::irq_line(unsigned irq) {
  return [this, irq](bool level) { set_irq(irq, level); };
}

uint8_t PicPair::acknowledge() {
  const auto master = master_.acknowledge();
  if (!master.from_slave) {
    if (!master.spurious && acknowledge_listener_) acknowledge_listener_(master.input);
    return master.vector;
  }
  // No chip drives the data bus when the cascade number is nobody's.
  if (master.input != kCascadeInput || !slave_.answers_to(master.input)) return 0xff;
  const auto slave = slave_.acknowledge();
  if (!slave.spurious && acknowledge_listener_) acknowledge_listener_(8u + slave.input);
  return slave.vector;
}

}  // namespace penumbra
