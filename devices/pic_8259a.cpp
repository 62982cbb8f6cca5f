#include "devices/pic_8259a.h"

#include <utility>

namespace penumbra {

namespace {
// ICW1
constexpr uint8_t kIcw4Needed = 0x01, kSingle = 0x02, kLevelTriggered = 0x08, kIsIcw1 = 0x10;
// ICW4
constexpr uint8_t kAutoEoi = 0x02, kSpecialFullyNested = 0x10;
// OCW2
constexpr uint8_t kEoi = 0x20, kSpecific = 0x40, kRotate = 0x80;
// OCW3
constexpr uint8_t kIsOcw3 = 0x08, kReadIsr = 0x01, kReadRegister = 0x02, kPoll = 0x04, kSpecialMask = 0x20,
                  kSetSpecialMask = 0x40;
}  // namespace

Pic8259a::Pic8259a(std::string name, Wiring wiring, uint8_t elcr_writable, LineOutput interrupt)
    : name_(std::move(name)),
      wiring_(wiring),
      elcr_writable_(elcr_writable),
      interrupt_(std::move(interrupt)) {}

void Pic8259a::reset() {
  edges_ = in_service_ = mask_ = elcr_ = 0;
  icw1_ = icw2_ = icw3_ = icw4_ = 0;
  lowest_priority_ = 7;
  expect_ = Expect::Operation;
  initialised_ = read_in_service_ = poll_ = special_mask_ = rotate_on_auto_eoi_ = false;
  update();
}

// With the ELCR, ICW1.LTIM is a wish for all inputs at once.
uint8_t Pic8259a::level_inputs() const {
  return icw1_ & kLevelTriggered ? 0xff : elcr_;
}

void Pic8259a::set_input(unsigned input, bool level) {
  const uint8_t mask = bit(input);
  if (level == ((inputs_ & mask) != 0)) return;
  inputs_ ^= mask;
  if (level && !(level_inputs() & mask)) edges_ |= mask;
  // "If the IR input goes low before [the first INTA] a DEFAULT IR7 will occur": a request does not outlive
  // its level (datasheet, edge and level triggered modes).
  if (!level) edges_ &= ~mask;
  update();
}

std::optional<unsigned> Pic8259a::highest_in_service() const {
  // An input that is masked in special mask mode keeps its in-service bit at a non-specific EOI.
  const uint8_t in_service = special_mask_ ? in_service_ & ~mask_ : in_service_;
  for (unsigned i = 1; i <= 8; i++) {
    const unsigned input = (lowest_priority_ + i) & 7;
    if (in_service & bit(input)) return input;
  }
  return std::nullopt;
}

// The input that INT speaks for.
std::optional<unsigned> Pic8259a::candidate() const {
  if (!initialised_) return std::nullopt;
  const uint8_t wanted = requests() & ~mask_;
  if (!wanted) return std::nullopt;
  const uint8_t blocking = special_mask_ ? in_service_ & ~mask_ : in_service_;
  for (unsigned i = 1; i <= 8; i++) {
    const unsigned input = (lowest_priority_ + i) & 7;
    if (blocking & bit(input)) {
      // Special fully nested mode: "when an interrupt request from a certain slave is in service this slave
      // is not locked out from the master's priority logic".
      const bool nested = wiring_ == Wiring::Master && (icw4_ & kSpecialFullyNested) && (icw3_ & bit(input));
      if (nested && (wanted & bit(input))) return input;
      return std::nullopt;
    }
    if (wanted & bit(input)) return input;
  }
  return std::nullopt;
}

void Pic8259a::update() {
  const bool level = candidate().has_value();
  if (level == interrupt_level_) return;
  interrupt_level_ = level;
  if (interrupt_) interrupt_(level);
}

void Pic8259a::take(unsigned input) {
  edges_ &= ~bit(input);
  if (!(icw4_ & kAutoEoi)) {
    in_service_ |= bit(input);
  } else if (rotate_on_auto_eoi_) {
    lowest_priority_ = static_cast<uint8_t>(input);
  }
  // INT falls during INTA even when another request is waiting: the master's cascade input, which is edge
  // triggered, would miss that request otherwise.
  if (interrupt_level_) {
    interrupt_level_ = false;
    if (interrupt_) interrupt_(false);
  }
  update();
}

Pic8259a::Acknowledgement Pic8259a::acknowledge() {
  const auto input = candidate();
  const auto number = static_cast<uint8_t>(input.value_or(7));
  if (input) take(*input);
  const bool from_slave = input && wiring_ == Wiring::Master && !(icw1_ & kSingle) && (icw3_ & bit(number));
  return {.vector = static_cast<uint8_t>((icw2_ & 0xf8) | number),
          .input = number,
          .spurious = !input,
          .from_slave = from_slave};
}

uint8_t Pic8259a::poll() {
  poll_ = false;
  const auto input = candidate();
  if (!input) return 0;
  take(*input);
  return static_cast<uint8_t>(0x80 | *input);
}

uint8_t Pic8259a::read_byte(uint16_t offset) {
  if (offset == kElcrOffset) return elcr_;
  if (offset > kElcrOffset) return 0xff;
  if (poll_) return poll();
  if (offset == 1) return mask_;
  return read_in_service_ ? in_service_ : requests();
}

void Pic8259a::write_byte(uint16_t offset, uint8_t value) {
  if (offset == kElcrOffset) {
    elcr_ = value & elcr_writable_;
    edges_ &= ~elcr_;
    update();
  } else if (offset == 1) {
    if (expect_ != Expect::Operation) return next_initialisation_word(value);
    mask_ = value;  // OCW1
    update();
  } else if (offset == 0) {
    if (value & kIsIcw1) return initialise(value);
    if (value & kIsOcw3) return operation_word_3(value);
    operation_word_2(value);
  }
}

// Datasheet, "Initialization Command Words": what ICW1 does at once.
void Pic8259a::initialise(uint8_t icw1) {
  icw1_ = icw1;
  icw3_ = wiring_ == Wiring::Slave ? 7 : 0;
  icw4_ = 0;
  edges_ = 0;  // an input must make a low-to-high transition to generate an interrupt
  in_service_ = 0;
  mask_ = 0;
  lowest_priority_ = 7;
  special_mask_ = read_in_service_ = poll_ = rotate_on_auto_eoi_ = false;
  initialised_ = false;
  expect_ = Expect::Icw2;
  update();
}

void Pic8259a::next_initialisation_word(uint8_t value) {
  switch (expect_) {
    case Expect::Icw2:
      icw2_ = value;
      if (!(icw1_ & kSingle)) {
        expect_ = Expect::Icw3;
        return;
      }
      break;
    case Expect::Icw3:
      icw3_ = value;
      break;
    case Expect::Icw4:
      icw4_ = value;
      return finish_initialisation();
    case Expect::Operation:
      return;
  }
  if (icw1_ & kIcw4Needed) {
    expect_ = Expect::Icw4;
  } else {
    finish_initialisation();
  }
}

void Pic8259a::finish_initialisation() {
  expect_ = Expect::Operation;
  initialised_ = true;
  update();
}

void Pic8259a::end_of_interrupt(unsigned input, bool rotate) {
  in_service_ &= ~bit(input);
  if (rotate) lowest_priority_ = static_cast<uint8_t>(input);
}

void Pic8259a::operation_word_2(uint8_t value) {
  const unsigned input = value & 7;
  const bool rotate = value & kRotate;
  switch (value & (kEoi | kSpecific)) {
    case kEoi:
      if (const auto highest = highest_in_service()) end_of_interrupt(*highest, rotate);
      break;
    case kEoi | kSpecific:
      end_of_interrupt(input, rotate);
      break;
    case kSpecific:
      if (rotate) lowest_priority_ = static_cast<uint8_t>(input);  // set priority; else no operation
      break;
    case 0:
      rotate_on_auto_eoi_ = rotate;
      break;
  }
  update();
}

void Pic8259a::operation_word_3(uint8_t value) {
  poll_ = value & kPoll;
  if (value & kReadRegister) read_in_service_ = value & kReadIsr;
  if (value & kSetSpecialMask) special_mask_ = value & kSpecialMask;
  update();
}

DeviceState Pic8259a::save() const {
  return {{"version", 1},
          {"inputs", inputs_},
          {"edges", edges_},
          {"in_service", in_service_},
          {"mask", mask_},
          {"elcr", elcr_},
          {"icw", {icw1_, icw2_, icw3_, icw4_}},
          {"lowest_priority", lowest_priority_},
          {"expect", static_cast<unsigned>(expect_)},
          {"initialised", initialised_},
          {"read_in_service", read_in_service_},
          {"poll", poll_},
          {"special_mask", special_mask_},
          {"rotate_on_auto_eoi", rotate_on_auto_eoi_}};
}

void Pic8259a::load(const DeviceState& state) {
  require_version(state, 1, name_);
  state.at("inputs").get_to(inputs_);
  state.at("edges").get_to(edges_);
  state.at("in_service").get_to(in_service_);
  state.at("mask").get_to(mask_);
  elcr_ = state.at("elcr").get<uint8_t>() & elcr_writable_;
  const DeviceState& icw = state.at("icw");
  icw.at(0).get_to(icw1_);
  icw.at(1).get_to(icw2_);
  icw.at(2).get_to(icw3_);
  icw.at(3).get_to(icw4_);
  lowest_priority_ = static_cast<uint8_t>(bounded(state, "lowest_priority", 7));
  expect_ = static_cast<Expect>(bounded(state, "expect", static_cast<unsigned>(Expect::Icw4)));
  state.at("initialised").get_to(initialised_);
  state.at("read_in_service").get_to(read_in_service_);
  state.at("poll").get_to(poll_);
  state.at("special_mask").get_to(special_mask_);
  state.at("rotate_on_auto_eoi").get_to(rotate_on_auto_eoi_);
  // A line that a load changes is saved by whoever it goes to; only INTR, which leaves the board, must be
  // told, and the board does that.
  interrupt_level_ = candidate().has_value();
}

}  // namespace penumbra
