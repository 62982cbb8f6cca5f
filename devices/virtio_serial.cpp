#include "devices/virtio_serial.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "core/little_endian.h"

namespace penumbra {

namespace {
// Queues (5.3.2)
enum : unsigned { kReceiveQueue, kTransmitQueue, kControlReceiveQueue, kControlTransmitQueue, kFirstOfPort1 };
constexpr uint16_t kQueueSize = 128;
// Features (5.3.3)
constexpr uint64_t kMultiport = 1u << 1, kEmergencyWrite = 1u << 2;
// The configuration (5.3.4): columns, rows, how many ports, emergency write
constexpr unsigned kPortCount = 4, kEmergency = 8;
// Control messages (5.3.6.2): number (4 bytes), event, value (2 bytes each), then a name's text
constexpr size_t kControlBytes = 8;
enum : uint16_t {
  kDeviceReady,
  kDeviceAdd,
  kDeviceRemove,
  kPortReady,
  kConsolePort,
  kResize,
  kPortOpen,
  kPortName
};
// More wait only where the driver asks again and again and takes no answer.
constexpr size_t kMostMessages = 1024;

unsigned receive_queue(unsigned number) {
  return number == 0 ? kReceiveQueue : kFirstOfPort1 + 2 * (number - 1);
}
unsigned number_of(unsigned queue) {
  return queue < kFirstOfPort1 ? 0 : (queue - kFirstOfPort1) / 2 + 1;
}
}  // namespace

VirtioSerial::VirtioSerial(PhysicalMap& map, std::vector<Port> ports) : map_(map), ports_(std::move(ports)) {
  uint32_t seen = 0;
  for (const Port& each : ports_) {
    if (each.number >= kMostPorts || seen & 1u << each.number)
      throw std::invalid_argument("virtio_serial: port " + std::to_string(each.number) +
                                  " is taken or beyond the last one");
    seen |= 1u << each.number;
  }
}

unsigned VirtioSerial::most_ports() const {
  unsigned most = 1;
  for (const Port& each : ports_) most = std::max(most, each.number + 1);
  return most;
}

const VirtioSerial::Port* VirtioSerial::port(unsigned number) const {
  const auto found = std::ranges::find(ports_, number, &Port::number);
  return found == ports_.end() ? nullptr : &*found;
}

uint64_t VirtioSerial::features() const {
  return kMultiport | kEmergencyWrite;
}

std::vector<uint16_t> VirtioSerial::queue_sizes() const {
  return std::vector<uint16_t>(kFirstOfPort1 + 2 * (most_ports() - 1), kQueueSize);
}

uint8_t VirtioSerial::read_configuration(unsigned offset) const {
  return offset == kPortCount ? static_cast<uint8_t>(most_ports()) : 0;
}

void VirtioSerial::write_configuration(unsigned offset, uint8_t value) {
  const Port* const console = port(0);
  if (offset == kEmergency && console && console->out) console->out(value);
}

void VirtioSerial::start(uint64_t features) {
  running_ = true;
  multiport_ = features & kMultiport;
  if (!multiport_) open_ = 1;  // nobody says so of the only one
}

void VirtioSerial::notified(unsigned number) {
  switch (number) {
    case kControlReceiveQueue:
      return flush_control();
    case kControlTransmitQueue:
      return take_control();
    default:
      if (number % 2 == kTransmitQueue) return transmit(number);
      if (room_listener_) room_listener_();
  }
}

// --- Bytes

void VirtioSerial::transmit(unsigned number) {
  const Port* const from = port(number_of(number));
  std::array<std::byte, 4096> bytes;
  while (auto buffer = queue(number).take()) {
    size_t offset = 0;
    while (const size_t got = buffer->read(map_, offset, bytes)) {
      for (size_t i = 0; from && from->out && i < got; i++) from->out(static_cast<uint8_t>(bytes[i]));
      offset += got;
    }
    give_back(number, *buffer, 0);
  }
}

bool VirtioSerial::receive(unsigned number, uint8_t byte) {
  if (!running_ || !(open_ & 1u << number)) return false;
  auto buffer = queue(receive_queue(number)).take();
  if (!buffer) return false;
  const std::array bytes = {static_cast<std::byte>(byte)};
  const size_t written = buffer->write(map_, 0, bytes);
  give_back(receive_queue(number), *buffer, static_cast<uint32_t>(written));
  return true;
}

// --- Control messages (5.3.6.2)

void VirtioSerial::take_control() {
  while (auto buffer = queue(kControlTransmitQueue).take()) {
    std::array<std::byte, kControlBytes> bytes{};
    const bool whole = buffer->read(map_, 0, bytes) == bytes.size();
    give_back(kControlTransmitQueue, *buffer, 0);
    if (!whole || !multiport_) continue;
    control(load_field<uint32_t>(bytes, 0), load_field<uint16_t>(bytes, 4), load_field<uint16_t>(bytes, 6));
  }
  flush_control();
}

void VirtioSerial::control(uint32_t number, uint16_t event, uint16_t value) {
  if (event == kDeviceReady) {
    if (!value) return;
    for (const Port& each : ports_) tell(each.number, kDeviceAdd, 1);
    return;
  }
  const Port* const of = port(number);
  if (!of) return;
  if (event == kPortReady && value) {
    if (of->console) tell(number, kConsolePort, 1);
    if (!of->name.empty()) tell(number, kPortName, 1, of->name);
    tell(number, kPortOpen, 1);  // the host's side always is
  }
  if (event == kPortOpen) {
    open_ = (open_ & ~(1u << number)) | uint32_t{value != 0} << number;
    if (value && room_listener_) room_listener_();
  }
}

void VirtioSerial::tell(uint32_t number, uint16_t event, uint16_t value, std::string_view text) {
  if (messages_.size() >= kMostMessages) return;
  std::string message;
  const auto put = [&message](uint32_t field, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) message += static_cast<char>(field >> 8 * i);
  };
  put(number, 4);
  put(event, 2);
  put(value, 2);
  message += text;
  messages_.push_back(std::move(message));
}

void VirtioSerial::flush_control() {
  while (!messages_.empty()) {
    auto buffer = queue(kControlReceiveQueue).take();
    if (!buffer) return;
    const size_t written = buffer->write(map_, 0, std::as_bytes(std::span(messages_.front())));
    messages_.pop_front();
    give_back(kControlReceiveQueue, *buffer, static_cast<uint32_t>(written));
  }
}

// --- State

void VirtioSerial::reset() {
  running_ = multiport_ = false;
  open_ = 0;
  messages_.clear();
}

DeviceState VirtioSerial::save() const {
  DeviceState messages = DeviceState::array();
  for (const std::string& message : messages_)
    messages.push_back(std::vector<uint8_t>(message.begin(), message.end()));
  return {{"running", running_}, {"multiport", multiport_}, {"open", open_}, {"messages", messages}};
}

void VirtioSerial::load(const DeviceState& state) {
  const auto open = static_cast<uint32_t>(bounded(state, "open", UINT32_MAX));
  std::deque<std::string> messages;
  for (const DeviceState& saved : state.at("messages")) {
    const auto bytes = saved.get<std::vector<uint8_t>>();
    messages.emplace_back(bytes.begin(), bytes.end());
  }
  if (messages.size() > kMostMessages)
    throw std::invalid_argument("virtio_serial: more saved messages than may wait");
  const bool running = state.at("running").get<bool>(), multiport = state.at("multiport").get<bool>();
  running_ = running;
  multiport_ = multiport;
  open_ = open;
  messages_ = std::move(messages);
}

}  // namespace penumbra
