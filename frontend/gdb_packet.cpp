#include "frontend/gdb_packet.h"

#include <charconv>

namespace penumbra {

namespace {

constexpr char kEscape = '}';
constexpr uint8_t kEscapeBit = 0x20;
constexpr uint8_t kInterruptByte = 3;

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

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
        announced_ = static_cast<uint8_t>(digit(c) << 4);
        state_ = State::Checksum2;
        break;
      case State::Checksum2:
        announced_ = static_cast<uint8_t>(announced_ | digit(c));
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

std::string to_hex(std::span<const uint8_t> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string to_hex(std::string_view bytes) {
  // SAFETY: char and uint8_t alias anything.
  return to_hex(std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
}

std::optional<std::string> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  bytes.reserve(text.size() / 2);
  for (size_t i = 0; i < text.size(); i += 2) {
    const int high = digit(text[i]), low = digit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes += static_cast<char>(high << 4 | low);
  }
  return bytes;
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
