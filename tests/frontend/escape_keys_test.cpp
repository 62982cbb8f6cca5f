#include "frontend/escape_keys.h"

#include <gtest/gtest.h>

#include <string>

namespace penumbra {
namespace {

// What the guest gets, with <X> for each of the VMM's actions.
std::string type(EscapeKeys& keys, std::string_view text) {
  std::string result;
  for (const char key : text) {
    const auto [action, byte] = keys.feed(static_cast<uint8_t>(key));
    switch (action) {
      case EscapeKeys::Action::None:
        break;
      case EscapeKeys::Action::Send:
        result += static_cast<char>(byte);
        break;
      case EscapeKeys::Action::Quit:
        result += "<quit>";
        break;
      case EscapeKeys::Action::Help:
        result += "<help>";
        break;
      case EscapeKeys::Action::Monitor:
        result += "<monitor>";
        break;
    }
  }
  return result;
}

TEST(EscapeKeys, OrdinaryKeysAreTheGuests) {
  EscapeKeys keys;
  EXPECT_EQ(type(keys, "ls -l\r\x03\x1b[A\xff x h"), "ls -l\r\x03\x1b[A\xff x h");
}

TEST(EscapeKeys, CtrlAAndALetter) {
  EscapeKeys keys;
  EXPECT_EQ(type(keys, "a\x01xb"), "a<quit>b");
  EXPECT_EQ(type(keys, "\x01X\x01h\x01?\x01\x63"), "<quit><help><help><monitor>");
  EXPECT_EQ(type(keys, "\x01zok"), "ok");
}

TEST(EscapeKeys, CtrlAItself) {
  EscapeKeys keys;
  EXPECT_EQ(type(keys, "\x01\x01x"), "\x01x");
  EXPECT_EQ(type(keys,
                 "\x01"
                 "ax"),
            "\x01x");
}

TEST(EscapeKeys, ThePairMayComeInTwoReads) {
  EscapeKeys keys;
  EXPECT_EQ(type(keys, "\x01"), "");
  EXPECT_EQ(type(keys, "x"), "<quit>");
}

}  // namespace
}  // namespace penumbra
