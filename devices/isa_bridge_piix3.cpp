#include "devices/isa_bridge_piix3.h"

#include <utility>

#include "devices/chip.h"

namespace penumbra {

namespace {
constexpr uint8_t kPirqRoute = 0x60;  // PIRQRC[A:D]
constexpr uint8_t kNotRouted = 0x80, kIrqBits = 0x0f;
// IRQ 3 to 7, 9 to 12, 14 and 15; the other values are reserved.
constexpr uint16_t kRoutable = 0xdef8;
}  // namespace

IsaBridgePiix3::IsaBridgePiix3(std::function<void(unsigned irq, bool level)> irq)
    : PciFunction({.vendor = 0x8086,
                   .device = 0x7000,
                   .revision = 0,
                   .class_code = 0x06'01'00,
                   .subsystem_vendor = 0x1af4,
                   .subsystem = 0x1100,
                   .multifunction = true}),
      irq_(std::move(irq)) {
  config_.define(PciConfig::kCommand, 2, 0x0007, 0x0108);
  config_.define(PciConfig::kStatus, 2, 0x0200, 0, 0x7800);
  config_.define(0x4c, 1, 0x4d, 0xff);      // IORT
  config_.define(0x4e, 2, 0x0003, 0x07ff);  // XBCS
  config_.define(kPirqRoute, 4, 0x8080'8080, 0x8f8f'8f8f);
  config_.define(0x69, 1, 0x02, 0xfe);       // TOM
  config_.define(0x6a, 2, 0, 0x9004);        // MSTAT
  config_.define(0x70, 2, 0x8080, 0xefef);   // MBIRQ
  config_.define(0x76, 2, 0x0c0c, 0x8f8f);   // MBDMA
  config_.define(0x78, 2, 0x0002, 0xffff);   // PCSC
  config_.define(0x80, 1, 0, 0x7f);          // APICBASE
  config_.define(0x82, 1, 0, 0x0f);          // DLC
  config_.define(0xa0, 4, 0x08, 0xff'00ff);  // SMICNTL, SMIEN
  config_.define(0xa4, 4, 0, 0xffff'ffff);   // SEE
  config_.define(0xa8, 4, 0x0f, 0xff'00ff);  // FTMR, SMIREQ
  config_.define(0xac, 4, 0, 0xff'00ff);     // CTLTMR, CTHTMR
  config_.set_write_listener([this](unsigned, unsigned) { update(); });
}

uint16_t IsaBridgePiix3::irqs() const {
  uint16_t irqs = 0;
  for (unsigned pirq = 0; pirq < PciBus::kPirqs; pirq++) {
    const uint8_t route = config_.byte(static_cast<uint8_t>(kPirqRoute + pirq));
    if (pirqs_ & bit(pirq) && !(route & kNotRouted)) irqs |= static_cast<uint16_t>(1u << (route & kIrqBits));
  }
  return irqs & kRoutable;
}

void IsaBridgePiix3::update() {
  const uint16_t now = irqs(), changed = now ^ driven_;
  driven_ = now;
  for (unsigned irq = 0; irq < 16; irq++) {
    if (changed >> irq & 1) irq_(irq, now >> irq & 1);
  }
}

void IsaBridgePiix3::set_pirq(unsigned pirq, bool level) {
  pirqs_ = static_cast<uint8_t>(level ? pirqs_ | bit(pirq) : pirqs_ & ~bit(pirq));
  update();
}

void IsaBridgePiix3::route(unsigned pirq, uint8_t irq) {
  config_.write(kPirqRoute + pirq, 1, irq);
}

void IsaBridgePiix3::reset() {
  config_.reset();
}

DeviceState IsaBridgePiix3::save() const {
  return {{"version", 1}, {"config", config_.save()}, {"pirqs", pirqs_}};
}

void IsaBridgePiix3::load(const DeviceState& state) {
  require_version(state, 1, name());
  const auto pirqs = bounded(state, "pirqs", (1u << PciBus::kPirqs) - 1);
  config_.load(state.at("config"));
  pirqs_ = static_cast<uint8_t>(pirqs);
  driven_ = irqs();
}

}  // namespace penumbra
