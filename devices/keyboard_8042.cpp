#include "devices/keyboard_8042.h"

#include <utility>

#include "devices/ps2_keyboard.h"

namespace penumbra {

namespace {
constexpr uint16_t kData = 0, kCommandStatus = 4;

enum Command : uint8_t {
  kReadCommandByte = 0x20,
  kWriteCommandByte = 0x60,
  kDisableMouse = 0xa7,
  kEnableMouse = 0xa8,
  kTestMousePort = 0xa9,
  kSelfTest = 0xaa,
  kTestKeyboardPort = 0xab,
  kDisableKeyboard = 0xad,
  kEnableKeyboard = 0xae,
  kReadInputPort = 0xc0,
  kReadOutputPort = 0xd0,
  kWriteOutputPort = 0xd1,
  kWriteKeyboardBuffer = 0xd2,
  kWriteMouseBuffer = 0xd3,
  kWriteMouse = 0xd4,
  kCloseA20 = 0xdd,
  kOpenA20 = 0xdf,
  kReadTestInputs = 0xe0,
  kPulseOutputPort = 0xf0,  // to ffh
};

constexpr uint8_t kOutputFull = 0x01, kSystemFlag = 0x04, kCommandLast = 0x08, kNotLocked = 0x10,
                  kMouseByte = 0x20, kTimeout = 0x40;
// Command byte; bit 2 is the status register's system flag.
constexpr uint8_t kKeyboardInterrupt = 0x01, kMouseInterrupt = 0x02, kKeyboardDisabled = 0x10,
                  kMouseDisabled = 0x20, kTranslate = 0x40, kCommandByteBits = 0x7f;
// Output port
constexpr uint8_t kResetHigh = 0x01, kA20 = 0x02, kKeyboardIrq = 0x10, kMouseIrq = 0x20;

constexpr uint8_t kSelfTestPassed = 0x55, kPortTestPassed = 0x00, kResend = 0xfe, kBreakPrefix = 0xf0;
constexpr uint8_t kInputPortUnlocked = 0x80;

bool takes_parameter(uint8_t command) {
  return command == kWriteCommandByte || (command >= kWriteOutputPort && command <= kWriteMouse);
}
}  // namespace

Keyboard8042::Keyboard8042(LineOutput keyboard_irq, LineOutput mouse_irq, std::function<void()> reset_request,
                           std::function<void(bool)> a20)
    : keyboard_{.source = Source::Keyboard, .disable_bit = kKeyboardDisabled, .irq = std::move(keyboard_irq)},
      mouse_{.source = Source::Mouse, .disable_bit = kMouseDisabled, .irq = std::move(mouse_irq)},
      reset_request_(std::move(reset_request)) {
  reset();
  a20_ = std::move(a20);
}

void Keyboard8042::plug(Ps2Device* keyboard, Ps2Device* mouse) {
  keyboard_.device = keyboard;
  mouse_.device = mouse;
  for (Ps2Device* device : {keyboard, mouse}) {
    if (device) device->set_listener([this] { fill_output_buffer(); });
  }
}

// No interrupt before firmware or a driver wrote the command byte; the output port's pins float high.
void Keyboard8042::reset() {
  command_byte_ = 0;
  output_port_ = static_cast<uint8_t>(~(kKeyboardIrq | kMouseIrq));
  data_ = 0;
  output_full_ = timeout_ = last_was_command_ = break_prefix_ = false;
  source_ = Source::Keyboard;
  awaiting_parameter_.reset();
  keyboard_.timeout_waiting = mouse_.timeout_waiting = false;
  for (Port* port : {&keyboard_, &mouse_}) {
    if (port->device) port->device->reset();
  }
  update();
  drive_a20(true);
}

bool Keyboard8042::irq_wanted(const Port& port) const {
  const uint8_t enable = port.source == Source::Keyboard ? kKeyboardInterrupt : kMouseInterrupt;
  return output_full_ && source_ == port.source && (command_byte_ & enable);
}

void Keyboard8042::update() {
  for (Port* port : {&keyboard_, &mouse_}) {
    const bool level = irq_wanted(*port);
    if (level == port->irq_level) continue;
    port->irq_level = level;
    if (port->irq) port->irq(level);
  }
}

void Keyboard8042::drive_a20(bool level) {
  output_port_ = level ? output_port_ | kA20 : output_port_ & ~kA20;
  if (a20_) a20_(level);
}

uint8_t Keyboard8042::read_byte(uint16_t offset) {
  if (offset == kData) return read_data();
  if (offset == kCommandStatus) return status();
  return 0xff;
}

void Keyboard8042::write_byte(uint16_t offset, uint8_t value) {
  if (offset == kData) write_data(value);
  if (offset == kCommandStatus) command(value);
}

// The input buffer never shows as full: a byte is worked off at once.
uint8_t Keyboard8042::status() const {
  uint8_t status = kNotLocked | (command_byte_ & kSystemFlag);
  if (output_full_) status |= kOutputFull;
  if (last_was_command_) status |= kCommandLast;
  if (output_full_ && source_ == Source::Mouse) status |= kMouseByte;
  if (output_full_ && timeout_) status |= kTimeout;
  return status;
}

uint8_t Keyboard8042::read_data() {
  const uint8_t value = data_;
  output_full_ = false;
  // The line falls between two bytes: the edge-triggered interrupt controller would miss the second.
  update();
  fill_output_buffer();
  return value;
}

// Puts a byte into the output buffer. The controller's own answers replace what was not read.
void Keyboard8042::answer(uint8_t value, Source source, bool timeout) {
  output_full_ = false;
  update();
  data_ = value;
  source_ = source;
  timeout_ = timeout;
  output_full_ = true;
  update();
}

// Where no device clocks the byte out, the controller puts FEh into the output buffer after its time limit
// and sets the time-out bit. Sending to a port enables it.
void Keyboard8042::send(Port& port, uint8_t value) {
  command_byte_ &= ~port.disable_bit;
  if (port.device) {
    port.device->receive(value);
  } else {
    port.timeout_waiting = true;
  }
  fill_output_buffer();
}

void Keyboard8042::fill_output_buffer() {
  if (filling_) return;
  filling_ = true;
  for (Port* port : {&keyboard_, &mouse_}) {
    if (output_full_) break;
    if (std::exchange(port->timeout_waiting, false)) {
      answer(kResend, port->source, true);
    } else {
      fill_from(*port);
    }
  }
  filling_ = false;
}

// A disabled port's clock is held low: the device keeps its bytes.
void Keyboard8042::fill_from(Port& port) {
  if (!port.device || command_byte_ & port.disable_bit) return;
  while (const auto byte = port.device->take()) {
    if (port.source == Source::Mouse || !(command_byte_ & kTranslate)) {
      return answer(*byte, port.source);
    }
    if (*byte == kBreakPrefix) {
      break_prefix_ = true;
      continue;
    }
    const uint8_t code = Ps2Keyboard::translate(*byte);
    return answer(std::exchange(break_prefix_, false) ? code | 0x80 : code, port.source);
  }
}

void Keyboard8042::write_data(uint8_t value) {
  last_was_command_ = false;
  if (const auto of_command = std::exchange(awaiting_parameter_, std::nullopt)) {
    return parameter(*of_command, value);
  }
  send(keyboard_, value);
}

void Keyboard8042::parameter(uint8_t of_command, uint8_t value) {
  switch (of_command) {
    case kWriteCommandByte:
      command_byte_ = value & kCommandByteBits;
      update();
      return fill_output_buffer();
    case kWriteOutputPort:
      return write_output_port(value);
    case kWriteKeyboardBuffer:
      return answer(value, Source::Keyboard);
    case kWriteMouseBuffer:
      return answer(value, Source::Mouse);
    case kWriteMouse:
      return send(mouse_, value);
    default:
      return;
  }
}

uint8_t Keyboard8042::output_port() const {
  uint8_t value = output_port_;
  if (keyboard_.irq_level) value |= kKeyboardIrq;
  if (mouse_.irq_level) value |= kMouseIrq;
  return value;
}

void Keyboard8042::write_output_port(uint8_t value) {
  output_port_ = static_cast<uint8_t>(value & ~(kKeyboardIrq | kMouseIrq));
  drive_a20(value & kA20);
  if (!(value & kResetHigh) && reset_request_) reset_request_();
}

// Unknown commands do nothing.
void Keyboard8042::command(uint8_t value) {
  last_was_command_ = true;
  awaiting_parameter_.reset();
  if (takes_parameter(value)) {
    awaiting_parameter_ = value;
    return;
  }
  if (value >= kPulseOutputPort) {
    if (!(value & kResetHigh) && reset_request_) reset_request_();
    return;
  }
  switch (value) {
    case kReadCommandByte:
      return answer(command_byte_);
    case kDisableMouse:
      command_byte_ |= kMouseDisabled;
      return;
    case kEnableMouse:
      command_byte_ &= ~kMouseDisabled;
      return fill_output_buffer();
    case kTestMousePort:
    case kTestKeyboardPort:
      return answer(kPortTestPassed);
    case kSelfTest:
      command_byte_ |= kSystemFlag;
      return answer(kSelfTestPassed);
    case kDisableKeyboard:
      command_byte_ |= kKeyboardDisabled;
      return;
    case kEnableKeyboard:
      command_byte_ &= ~kKeyboardDisabled;
      return fill_output_buffer();
    case kReadInputPort:
      return answer(kInputPortUnlocked);
    case kReadOutputPort:
      return answer(output_port());
    case kCloseA20:
      return drive_a20(false);
    case kOpenA20:
      return drive_a20(true);
    case kReadTestInputs: {
      // The clock lines, which a disabled port holds low.
      const bool keyboard_clock = !(command_byte_ & kKeyboardDisabled);
      const bool mouse_clock = !(command_byte_ & kMouseDisabled);
      return answer(static_cast<uint8_t>(keyboard_clock | mouse_clock << 1));
    }
    default:
      return;
  }
}

DeviceState Keyboard8042::save() const {
  const auto saved = [](const Ps2Device* device) { return device ? device->save() : DeviceState(nullptr); };
  return {{"version", 2},
          {"keyboard", saved(keyboard_.device)},
          {"mouse", saved(mouse_.device)},
          {"break_prefix", break_prefix_},
          {"command_byte", command_byte_},
          {"output_port", output_port_},
          {"data", data_},
          {"output_full", output_full_},
          {"timeout", timeout_},
          {"source", static_cast<unsigned>(source_)},
          {"last_was_command", last_was_command_},
          {"awaiting_parameter", awaiting_parameter_.value_or(0)},
          {"keyboard_timeout_waiting", keyboard_.timeout_waiting},
          {"mouse_timeout_waiting", mouse_.timeout_waiting}};
}

void Keyboard8042::load(const DeviceState& state) {
  require_version(state, 2, name());
  if (keyboard_.device) keyboard_.device->load(state.at("keyboard"));
  if (mouse_.device) mouse_.device->load(state.at("mouse"));
  state.at("break_prefix").get_to(break_prefix_);
  command_byte_ = state.at("command_byte").get<uint8_t>() & kCommandByteBits;
  output_port_ = static_cast<uint8_t>(state.at("output_port").get<uint8_t>() & ~(kKeyboardIrq | kMouseIrq));
  state.at("data").get_to(data_);
  state.at("output_full").get_to(output_full_);
  state.at("timeout").get_to(timeout_);
  source_ = static_cast<Source>(bounded(state, "source", static_cast<unsigned>(Source::Mouse)));
  state.at("last_was_command").get_to(last_was_command_);
  const auto awaiting = state.at("awaiting_parameter").get<uint8_t>();
  awaiting_parameter_ = takes_parameter(awaiting) ? std::optional(awaiting) : std::nullopt;
  state.at("keyboard_timeout_waiting").get_to(keyboard_.timeout_waiting);
  state.at("mouse_timeout_waiting").get_to(mouse_.timeout_waiting);
  // The interrupt controller and the physical map have their own states.
  for (Port* port : {&keyboard_, &mouse_}) port->irq_level = irq_wanted(*port);
}

}  // namespace penumbra
