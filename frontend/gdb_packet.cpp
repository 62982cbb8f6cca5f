#include "frontend/gdb_packet.h"

#include <charconv>

namespace penumbra {

namespace {

constexpr char kEscape = '}';
constexpr uint8_t kEscapeBit = 0x20;
constexpr uint8_t kInterruptByte = 3;

}  // namespace

void GdbPacketReader::start() {
  state_ = State::Body;
  body_.clear();
  sum_ = 0;
  too_long_ = false;
}

void GdbPacketReader::feed(std::span<const uint8_t> bytes, const Sink& sink) {
  for (const uint8_t byte : bytes) {
    const char c = static_cast<char>(byte);
    switch (state_) {
      case State::Idle:
        if (c == '$') {
          start();
        } else if (byte == kInterruptByte) {
          sink(Event::Interrupt, {});
        } else if (c == '+') {
          sink(Event::Ack, {});
        } else if (c == '-') {
          sink(Event::Resend, {});
        }
        break;
      case State::Body:
      case State::Escaped:
        if (c == '#') {
          state_ = State::Checksum1;
          break;
        }
        if (c == '$') {  // the rest of the packet before was lost
          start();
          break;
        }
        sum_ = static_cast<uint8_t>(sum_ + byte);
        if (state_ == State::Body && c == kEscape) {
          state_ = State::Escaped;
          break;
        }
        if (body_.size() < 2 * kGdbPacketBytes) {
          body_ += state_ == State::Escaped ? static_cast<char>(byte ^ kEscapeBit) : c;
        } else {
          too_long_ = true;
        }
        state_ = State::Body;
        break;
      case State::Checksum1:
        announced_ = static_cast<uint8_t>(hex_digit(c) << 4);
        state_ = State::Checksum2;
        break;
      case State::Checksum2:
        announced_ = static_cast<uint8_t>(announced_ | hex_digit(c));
        state_ = State::Idle;
        sink(announced_ == sum_ && !too_long_ ? Event::Packet : Event::Corrupt, body_);
        break;
    }
  }
}

std::string gdb_frame(std::string_view body) {
  std::string frame = "$";
  frame.reserve(body.size() + 4);
  uint8_t sum = 0;
  const auto put = [&](char c) {
    frame += c;
    sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(c));
  };
  for (const char c : body) {
    // "*" would be taken for a run length.
    if (c == '$' || c == '#' || c == kEscape || c == '*') {
      put(kEscape);
      put(static_cast<char>(static_cast<uint8_t>(c) ^ kEscapeBit));
    } else {
      put(c);
    }
  }
  frame += '#';
  frame += to_hex(std::span(&sum, 1));
  return frame;
}

std::optional<uint64_t> take_hex(std::string_view& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace penumbra
