#include "devices/uart_16550a.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace penumbra {

namespace {
enum Register : uint16_t { kRbrThr, kIer, kIirFcr, kLcr, kMcr, kLsr, kMsr, kScr };

constexpr uint8_t kIerReceived = 0x01, kIerTransmitter = 0x02, kIerLineStatus = 0x04, kIerModemStatus = 0x08;
// IIR (Interrupt Control Functions)
constexpr uint8_t kIirModemStatus = 0x00, kIirNone = 0x01, kIirTransmitter = 0x02, kIirReceived = 0x04,
                  kIirLineStatus = 0x06, kIirTimeout = 0x0c, kIirFifos = 0xc0;
constexpr uint8_t kFcrEnable = 0x01, kFcrResetReceiver = 0x02, kFcrDmaMode = 0x08, kFcrTrigger = 0xc0;
constexpr uint8_t kLcrWordLength = 0x03, kLcrStopBits = 0x04, kLcrParity = 0x08, kLcrDivisorAccess = 0x80;
constexpr uint8_t kMcrDtr = 0x01, kMcrRts = 0x02, kMcrOut1 = 0x04, kMcrOut2 = 0x08, kMcrLoop = 0x10,
                  kMcrBits = 0x1f;
constexpr uint8_t kLsrDataReady = 0x01, kLsrOverrun = 0x02, kLsrParity = 0x04, kLsrFraming = 0x08,
                  kLsrBreak = 0x10, kLsrTransmitterEmpty = 0x60, kLsrErrorInFifo = 0x80;
constexpr uint8_t kLsrCharacterErrors = kLsrParity | kLsrFraming | kLsrBreak;
constexpr uint8_t kMsrTrailingEdgeRi = 0x04;

constexpr unsigned kFifoSize = 16;
constexpr uint64_t kBaudBase = 115'200;     // 1.8432 MHz / 16
constexpr uint16_t kPowerOnDivisor = 12;    // 9600 baud; the chip promises nothing
constexpr unsigned kTimeoutCharacters = 4;  // FIFO Interrupt Mode Operation
}  // namespace

Uart16550a::Uart16550a(std::string name, VirtualClock& clock, LineOutput interrupt, ByteSink out)
    : name_(std::move(name)),
      clock_(clock),
      interrupt_(std::move(interrupt)),
      out_(std::move(out)),
      timeout_timer_(clock,
                     [this] {
                       timeout_ = true;
                       update();
                     }),
      divisor_(kPowerOnDivisor) {}

// What master reset does (UART Reset Configuration); the registers that it leaves alone start as after
// power-on.
void Uart16550a::reset() {
  received_.clear();
  timeout_timer_.cancel();
  last_read_ = line_errors_ = 0;
  timeout_ = transmitter_pending_ = false;
  interrupt_enable_ = fifo_control_ = line_control_ = modem_control_ = scratch_ = 0;
  divisor_ = kPowerOnDivisor;
  modem_lines_ = modem_inputs_;
  modem_deltas_ = 0;
  update();
  announce_room();
}

bool Uart16550a::fifo_enabled() const {
  return fifo_control_ & kFcrEnable;
}
bool Uart16550a::divisor_access() const {
  return line_control_ & kLcrDivisorAccess;
}
bool Uart16550a::loopback() const {
  return modem_control_ & kMcrLoop;
}

unsigned Uart16550a::trigger_level() const {
  if (!fifo_enabled()) return 1;
  constexpr uint8_t kLevels[] = {1, 4, 8, 14};
  return kLevels[fifo_control_ >> 6];
}

// Interrupt Control Functions, in order of priority. IIR bit 3 is set along with bit 2 when a timeout is
// pending, whatever the fill level is.
uint8_t Uart16550a::interrupt_id() const {
  if ((interrupt_enable_ & kIerLineStatus) && line_errors_) return kIirLineStatus;
  if (interrupt_enable_ & kIerReceived) {
    if (timeout_) return kIirTimeout;
    if (received_.size() >= trigger_level()) return kIirReceived;
  }
  if ((interrupt_enable_ & kIerTransmitter) && transmitter_pending_) return kIirTransmitter;
  if ((interrupt_enable_ & kIerModemStatus) && modem_deltas_) return kIirModemStatus;
  return kIirNone;
}

// In loopback the modem control outputs are forced inactive (MCR, bit 4), OUT2 too: a PC then sees no
// interrupt.
bool Uart16550a::interrupt_level() const {
  return interrupt_id() != kIirNone && (modem_control_ & kMcrOut2) && !loopback();
}

void Uart16550a::update() {
  const bool level = interrupt_level();
  if (level == interrupt_level_) return;
  interrupt_level_ = level;
  if (interrupt_) interrupt_(level);
}

uint8_t Uart16550a::read_byte(uint16_t offset) {
  switch (offset) {
    case kRbrThr:
      return divisor_access() ? static_cast<uint8_t>(divisor_) : read_receiver_buffer();
    case kIer:
      return divisor_access() ? static_cast<uint8_t>(divisor_ >> 8) : interrupt_enable_;
    case kIirFcr:
      return read_interrupt_id();
    case kLcr:
      return line_control_;
    case kMcr:
      return modem_control_;
    case kLsr:
      return read_line_status();
    case kMsr:
      return read_modem_status();
    case kScr:
      return scratch_;
    default:
      return 0xff;
  }
}

void Uart16550a::write_byte(uint16_t offset, uint8_t value) {
  switch (offset) {
    case kRbrThr:
      if (!divisor_access()) return transmit(value);
      divisor_ = static_cast<uint16_t>((divisor_ & 0xff00) | value);
      return;
    case kIer:
      if (!divisor_access()) return write_interrupt_enable(value);
      divisor_ = static_cast<uint16_t>((divisor_ & 0x00ff) | value << 8);
      return;
    case kIirFcr:
      return write_fifo_control(value);
    case kLcr:
      line_control_ = value;
      return;
    case kMcr:
      return write_modem_control(value);
    case kScr:
      scratch_ = value;
      return;
    default:
      return;
  }
}

// --- Receiver

unsigned Uart16550a::receive_room() const {
  if (loopback()) return 0;
  const size_t capacity = fifo_enabled() ? kFifoSize : 1;
  return static_cast<unsigned>(capacity - received_.size());
}

bool Uart16550a::receive_break() {
  // The stop bit of a break is a space as well.
  return arrive({.data = 0, .errors = kLsrBreak | kLsrFraming});
}

bool Uart16550a::arrive(Character character) {
  if (receive_room() == 0) return false;
  enqueue(character);
  return true;
}

// LSR, bit 1: a full FIFO keeps what it holds, the receiver buffer of 16450 mode takes the new character.
void Uart16550a::enqueue(Character character) {
  if (received_.size() >= (fifo_enabled() ? kFifoSize : 1)) {
    line_errors_ |= kLsrOverrun;
    if (!fifo_enabled()) received_.back() = character;
  } else {
    received_.push_back(character);
  }
  reveal_errors();
  restart_timeout();
  update();
}

// LSR, bits 2 to 4: an error "is revealed to the CPU when its associated character is at the top of the
// FIFO".
void Uart16550a::reveal_errors() {
  if (received_.empty()) return;
  line_errors_ |= std::exchange(received_.front().errors, uint8_t{0});
}

void Uart16550a::clear_receiver() {
  received_.clear();
  line_errors_ &= kLsrOverrun;
  timeout_ = false;
  timeout_timer_.cancel();
}

// FIFO Interrupt Mode Operation: a character in the FIFO, and four character times since the last one came or
// was read.
void Uart16550a::restart_timeout() {
  if (!fifo_enabled() || received_.empty()) return timeout_timer_.cancel();
  if (!timeout_) timeout_timer_.arm(clock_.now() + kTimeoutCharacters * character_time());
}

Nanoseconds Uart16550a::character_time() const {
  const unsigned data_bits = 5 + (line_control_ & kLcrWordLength);
  const unsigned parity_bits = line_control_ & kLcrParity ? 1 : 0;
  // LCR, bit 2: one, two, or one and a half for words of five bits.
  const unsigned stop_half_bits = !(line_control_ & kLcrStopBits) ? 2 : data_bits == 5 ? 3 : 4;
  const uint64_t half_bits = 2 * (1 + data_bits + parity_bits) + stop_half_bits;
  return half_bits * std::max<uint16_t>(divisor_, 1) * 1'000'000'000 / (2 * kBaudBase);
}

uint8_t Uart16550a::read_receiver_buffer() {
  if (received_.empty()) return last_read_;
  last_read_ = received_.front().data;
  received_.pop_front();
  reveal_errors();
  timeout_ = false;
  restart_timeout();
  update();
  const uint8_t value = last_read_;  // the listener may bring the next character
  announce_room();
  return value;
}

uint8_t Uart16550a::line_status() const {
  uint8_t status = line_errors_;
  if (transmitter_empty()) status |= kLsrTransmitterEmpty;
  if (!received_.empty()) status |= kLsrDataReady;
  const bool errors = (line_errors_ & kLsrCharacterErrors) ||
                      std::ranges::any_of(
                          received_, [](uint8_t bits) { return bits != 0; }, &Character::errors);
  if (fifo_enabled() && errors) status |= kLsrErrorInFifo;
  return status;
}

uint8_t Uart16550a::read_line_status() {
  const uint8_t status = line_status();
  line_errors_ = 0;
  update();
  return status;
}

// --- Transmitter

void Uart16550a::transmit(uint8_t value) {
  // The interrupt falls with the write and rises when the holding register is empty again, which is mostly at
  // once: an edge-triggered interrupt controller would miss the second request without the edge.
  transmitter_pending_ = false;
  update();
  if (loopback()) {
    enqueue({.data = value, .errors = 0});
  } else if (out_) {
    out_(value);
  }
  request_transmitter_interrupt();
}

void Uart16550a::request_transmitter_interrupt() {
  transmitter_pending_ = transmitter_empty() && (interrupt_enable_ & kIerTransmitter);
  update();
}

void Uart16550a::set_transmitter_blocked(bool blocked) {
  if (std::exchange(transmitter_blocked_, blocked) != blocked) request_transmitter_interrupt();
}

void Uart16550a::write_interrupt_enable(uint8_t value) {
  const uint8_t before = interrupt_enable_;
  interrupt_enable_ = value & 0x0f;
  // Enabling the interrupt with an empty holding register requests one, even if reading the IIR had answered
  // an earlier one. The datasheet doesn't say so, but Linux' tests for broken THRE interrupts and FreeBSD's
  // probe expect it.
  if ((before ^ interrupt_enable_) & kIerTransmitter) return request_transmitter_interrupt();
  update();
}

uint8_t Uart16550a::read_interrupt_id() {
  const uint8_t id = interrupt_id();
  if (id == kIirTransmitter) {
    transmitter_pending_ = false;
    update();
  }
  return fifo_enabled() ? id | kIirFifos : id;
}

// FIFO Control Register
void Uart16550a::write_fifo_control(uint8_t value) {
  const bool was_enabled = fifo_enabled();
  // Bit 0 must be set for the other bits to be programmed.
  fifo_control_ = value & kFcrEnable ? value & (kFcrEnable | kFcrDmaMode | kFcrTrigger) : 0;
  const bool cleared = was_enabled != fifo_enabled() || (fifo_enabled() && (value & kFcrResetReceiver));
  if (cleared) clear_receiver();
  update();
  if (cleared) announce_room();
}

// --- Modem

void Uart16550a::write_modem_control(uint8_t value) {
  const bool was_loopback = loopback();
  modem_control_ = value & kMcrBits;
  sample_modem_lines();
  update();
  if (was_loopback && !loopback()) announce_room();
}

void Uart16550a::set_modem_inputs(uint8_t active) {
  modem_inputs_ = active & (kCts | kDsr | kRi | kDcd);
  sample_modem_lines();
  update();
}

// MCR, bit 4: in loopback DTR, RTS, OUT1 and OUT2 take the places of DSR, CTS, RI and DCD.
void Uart16550a::sample_modem_lines() {
  uint8_t lines = modem_inputs_;
  if (loopback()) {
    lines = 0;
    if (modem_control_ & kMcrDtr) lines |= kDsr;
    if (modem_control_ & kMcrRts) lines |= kCts;
    if (modem_control_ & kMcrOut1) lines |= kRi;
    if (modem_control_ & kMcrOut2) lines |= kDcd;
  }
  const uint8_t changed = lines ^ modem_lines_;
  modem_lines_ = lines;
  modem_deltas_ |= (changed & (kCts | kDsr | kDcd)) >> 4;
  if ((changed & kRi) && !(lines & kRi)) modem_deltas_ |= kMsrTrailingEdgeRi;
}

uint8_t Uart16550a::read_modem_status() {
  const uint8_t status = modem_lines_ | modem_deltas_;
  modem_deltas_ = 0;
  update();
  return status;
}

// --- State

DeviceState Uart16550a::save() const {
  DeviceState received = DeviceState::array();
  for (const Character& character : received_) received.push_back({character.data, character.errors});
  DeviceState state = {{"version", 1},
                       {"received", std::move(received)},
                       {"last_read", last_read_},
                       {"line_errors", line_errors_},
                       {"timeout", timeout_},
                       {"transmitter_pending", transmitter_pending_},
                       {"interrupt_enable", interrupt_enable_},
                       {"fifo_control", fifo_control_},
                       {"line_control", line_control_},
                       {"modem_control", modem_control_},
                       {"scratch", scratch_},
                       {"divisor", divisor_},
                       {"modem_inputs", modem_inputs_},
                       {"modem_lines", modem_lines_},
                       {"modem_deltas", modem_deltas_}};
  if (timeout_timer_.armed()) state["timeout_at"] = timeout_timer_.deadline();
  return state;
}

void Uart16550a::load(const DeviceState& state) {
  require_version(state, 1, name_);
  fifo_control_ = state.at("fifo_control").get<uint8_t>() & (kFcrEnable | kFcrDmaMode | kFcrTrigger);
  const DeviceState& received = state.at("received");
  if (received.size() > (fifo_enabled() ? kFifoSize : 1)) {
    throw std::invalid_argument(name_ + ": saved state: more characters than the receiver holds");
  }
  received_.clear();
  for (const DeviceState& character : received) {
    received_.push_back(
        {.data = character.at(0).get<uint8_t>(),
         .errors = static_cast<uint8_t>(character.at(1).get<uint8_t>() & kLsrCharacterErrors)});
  }
  state.at("last_read").get_to(last_read_);
  line_errors_ = state.at("line_errors").get<uint8_t>() & (kLsrOverrun | kLsrCharacterErrors);
  state.at("timeout").get_to(timeout_);
  state.at("transmitter_pending").get_to(transmitter_pending_);
  interrupt_enable_ = state.at("interrupt_enable").get<uint8_t>() & 0x0f;
  state.at("line_control").get_to(line_control_);
  modem_control_ = state.at("modem_control").get<uint8_t>() & kMcrBits;
  state.at("scratch").get_to(scratch_);
  state.at("divisor").get_to(divisor_);
  modem_inputs_ = state.at("modem_inputs").get<uint8_t>() & (kCts | kDsr | kRi | kDcd);
  modem_lines_ = state.at("modem_lines").get<uint8_t>() & (kCts | kDsr | kRi | kDcd);
  modem_deltas_ = state.at("modem_deltas").get<uint8_t>() & 0x0f;
  if (const auto deadline = state.find("timeout_at"); deadline != state.end()) {
    timeout_timer_.arm(deadline->get<Nanoseconds>());
  } else {
    timeout_timer_.cancel();
  }
  interrupt_level_ = interrupt_level();  // the interrupt controller's own state has the line
}

}  // namespace penumbra
