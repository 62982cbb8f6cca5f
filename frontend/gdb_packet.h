// Packets of gdb's remote serial protocol ("Debugging with gdb", appendix E): framing, checksums, escapes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "devices/hex.h"

namespace penumbra {

// What a packet may hold, before escapes. Told to gdb in qSupported.
inline constexpr size_t kGdbPacketBytes = 0x4'0000;

class GdbPacketReader {
 public:
  enum class Event : uint8_t {
    Packet,     // `body` is its content, escapes undone
    Corrupt,    // wrong checksum, or longer than 2 * kGdbPacketBytes
    Interrupt,  // ^C
    Ack,        // "+"
    Resend,     // "-"
  };
  using Sink = std::function<void(Event event, std::string_view body)>;

  void feed(std::span<const uint8_t> bytes, const Sink& sink);

 private:
  enum class State : uint8_t { Idle, Body, Escaped, Checksum1, Checksum2 };
  void start();
  State state_ = State::Idle;
  std::string body_;
  uint8_t sum_ = 0, announced_ = 0;
  bool too_long_ = false;
};

// "$body#sum". Escapes what must be.
std::string gdb_frame(std::string_view body);

// --- the numbers in packets
// Takes a hexadecimal number off the front.
std::optional<uint64_t> take_hex(std::string_view& text);
// Takes this prefix off the front, if it is there.
bool take(std::string_view& text, std::string_view prefix);

}  // namespace penumbra
