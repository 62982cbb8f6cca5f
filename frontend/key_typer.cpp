#include "frontend/key_typer.h"

#include <algorithm>
#include <charconv>
#include <iterator>

namespace penumbra {

namespace {

// QEMU's qapi/ui.json, QKeyCode.
// clang-format off
constexpr struct {
  std::string_view name;
  KeyCode code;
} kNames[] = {
    {"esc", 0x01}, {"1", 0x02}, {"2", 0x03}, {"3", 0x04}, {"4", 0x05}, {"5", 0x06}, {"6", 0x07}, {"7", 0x08}, {"8", 0x09},
    {"9", 0x0a}, {"0", 0x0b}, {"minus", 0x0c}, {"equal", 0x0d}, {"backspace", 0x0e}, {"tab", 0x0f}, {"q", 0x10},
    {"w", 0x11}, {"e", 0x12}, {"r", 0x13}, {"t", 0x14}, {"y", 0x15}, {"u", 0x16}, {"i", 0x17}, {"o", 0x18}, {"p", 0x19},
    {"bracket_left", 0x1a}, {"bracket_right", 0x1b}, {"ret", 0x1c}, {"ctrl", 0x1d}, {"a", 0x1e}, {"s", 0x1f}, {"d", 0x20},
    {"f", 0x21}, {"g", 0x22}, {"h", 0x23}, {"j", 0x24}, {"k", 0x25}, {"l", 0x26}, {"semicolon", 0x27},
    {"apostrophe", 0x28}, {"grave_accent", 0x29}, {"shift", 0x2a}, {"backslash", 0x2b}, {"z", 0x2c}, {"x", 0x2d},
    {"c", 0x2e}, {"v", 0x2f}, {"b", 0x30}, {"n", 0x31}, {"m", 0x32}, {"comma", 0x33}, {"dot", 0x34}, {"slash", 0x35},
    {"shift_r", 0x36}, {"asterisk", 0x37}, {"kp_multiply", 0x37}, {"alt", 0x38}, {"spc", 0x39}, {"caps_lock", 0x3a},
    {"f1", 0x3b}, {"f2", 0x3c}, {"f3", 0x3d}, {"f4", 0x3e}, {"f5", 0x3f}, {"f6", 0x40}, {"f7", 0x41}, {"f8", 0x42},
    {"f9", 0x43}, {"f10", 0x44}, {"num_lock", 0x45}, {"scroll_lock", 0x46}, {"kp_7", 0x47}, {"kp_8", 0x48},
    {"kp_9", 0x49}, {"kp_subtract", 0x4a}, {"kp_4", 0x4b}, {"kp_5", 0x4c}, {"kp_6", 0x4d}, {"kp_add", 0x4e},
    {"kp_1", 0x4f}, {"kp_2", 0x50}, {"kp_3", 0x51}, {"kp_0", 0x52}, {"kp_decimal", 0x53}, {"sysrq", 0x54},
    {"less", 0x56}, {"f11", 0x57}, {"f12", 0x58}, {"kp_enter", 0x9c}, {"ctrl_r", 0x9d}, {"kp_divide", 0xb5},
    {"print", kKeyPrint}, {"alt_r", 0xb8}, {"pause", kKeyPause}, {"home", 0xc7}, {"up", 0xc8}, {"pgup", 0xc9},
    {"left", 0xcb}, {"right", 0xcd}, {"end", 0xcf}, {"down", 0xd0}, {"pgdn", 0xd1}, {"insert", 0xd2}, {"delete", 0xd3},
    {"meta_l", 0xdb}, {"meta_r", 0xdc}, {"menu", 0xdd},
};
// clang-format on

}  // namespace

std::optional<KeyCode> key_named(std::string_view name) {
  const auto known = std::ranges::find(kNames, name, [](const auto& row) { return row.name; });
  if (known != std::end(kNames)) return known->code;
  if (!name.starts_with("0x")) return std::nullopt;
  unsigned code = 0;
  const auto [end, error] = std::from_chars(name.data() + 2, name.data() + name.size(), code, 16);
  if (error != std::errc() || end != name.data() + name.size() || code == 0 || code > 0xff)
    return std::nullopt;
  return static_cast<KeyCode>(code);
}

bool KeyTyper::type(const std::vector<KeyCode>& keys, Nanoseconds hold) {
  if (steps_.size() + 2 * keys.size() > kMostSteps) return false;
  const bool idle = steps_.empty() && !timer_.armed();
  for (size_t i = 0; i < keys.size(); ++i) steps_.push_back({keys[i], true, i + 1 == keys.size() ? hold : 0});
  for (size_t i = keys.size(); i-- > 0;) steps_.push_back({keys[i], false, i == 0 ? hold : 0});
  if (idle) next();
  return true;
}

void KeyTyper::next() {
  while (!steps_.empty()) {
    const Step step = steps_.front();
    steps_.pop_front();
    key_(step.code, step.down);
    if (step.wait == 0) continue;
    timer_.arm(clock_.now() + step.wait);
    return;
  }
}

}  // namespace penumbra
