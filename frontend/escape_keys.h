// The keys that are for the VMM and not for the guest: Ctrl-A and one more.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace penumbra {

class EscapeKeys {
 public:
  enum class Action : uint8_t { None, Send, Quit, Help, Monitor };
  struct Result {
    Action action;
    uint8_t byte;  // Send: for the guest
  };

  Result feed(uint8_t byte) {
    if (!escaped_) {
      escaped_ = byte == kEscape;
      return {escaped_ ? Action::None : Action::Send, byte};
    }
    escaped_ = false;
    switch (byte) {
      case kEscape:
      case 'a':
      case 'A':
        return {Action::Send, kEscape};
      case 'x':
      case 'X':
        return {Action::Quit, 0};
      case 'h':
      case 'H':
      case '?':
        return {Action::Help, 0};
      case 'c':
      case 'C':
        return {Action::Monitor, 0};
      default:
        return {Action::None, 0};
    }
  }

  static constexpr std::string_view kHelp =
      "\nCtrl-A X  end the machine\nCtrl-A A  send Ctrl-A to the guest (Ctrl-A Ctrl-A does, too)\n"
      "Ctrl-A C  the monitor, and back to the guest\nCtrl-A H  this help\n";

 private:
  static constexpr uint8_t kEscape = 1;  // Ctrl-A
  bool escaped_ = false;
};

}  // namespace penumbra
