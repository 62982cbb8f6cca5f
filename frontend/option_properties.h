// QEMU's "driver,key=value,key=value", taken apart.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "frontend/parse_number.h"
#include "frontend/user_error.h"

namespace penumbra {

// QEMU's lists: ",," is a comma within a piece.
std::vector<std::string> split_at_commas(std::string_view text);

template <class... Arguments>
[[noreturn]] void refuse(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  throw UserError(fmt::format(format, std::forward<Arguments>(arguments)...));
}

inline bool on_off(std::string_view option, std::string_view key, std::string_view value) {
  if (value == "on" || value == "yes" || value == "y") return true;
  if (value != "off" && value != "no" && value != "n")
    refuse("{}: {}={}: neither on nor off", option, key, value);
  return false;
}

// "driver,key=value,key=value"; a comma within a value is written twice.
struct Properties {
  std::string head;
  std::multimap<std::string, std::string, std::less<>> values;

  Properties(std::string_view option, std::string_view text) : option_(option) {
    const std::vector<std::string> pieces = split_at_commas(text);
    for (size_t i = 0; i < pieces.size(); ++i) {
      const size_t equals = pieces[i].find('=');
      if (equals != std::string::npos) {
        values.emplace(pieces[i].substr(0, equals), pieces[i].substr(equals + 1));
      } else if (i == 0) {
        head = pieces[i];
      } else {
        refuse("{}: '{}' has no value", option_, pieces[i]);
      }
    }
  }

  // Of one that is given more than once, the last one counts.
  std::optional<std::string> take(std::string_view key) {
    std::vector<std::string> all = take_all(key);
    if (all.empty()) return std::nullopt;
    return std::move(all.back());
  }

  std::vector<std::string> take_all(std::string_view key) {
    std::vector<std::string> all;
    const auto [first, last] = values.equal_range(key);
    for (auto at = first; at != last; ++at) all.push_back(std::move(at->second));
    values.erase(first, last);
    return all;
  }

  std::string need(std::string_view key) {
    auto value = take(key);
    if (!value) refuse("{}: {} needs {}=", option_, head, key);
    return *std::move(value);
  }

  // Ports: from 0 to FFFF.
  std::optional<uint16_t> take_port(std::string_view key) {
    const auto text = take(key);
    if (!text) return std::nullopt;
    const auto number = parse_number(*text);
    if (!number || *number > 0xffff) refuse("{}: {}={} is no port number", option_, key, *text);
    return static_cast<uint16_t>(*number);
  }

  // The place in the firmware's boot order.
  std::optional<unsigned> take_boot_index() {
    const auto text = take("bootindex");
    if (!text || *text == "-1") return std::nullopt;
    const auto number = parse_number(*text);
    if (!number || *number > INT32_MAX) refuse("{}: bootindex={}: not a number from 0 on", option_, *text);
    return static_cast<unsigned>(*number);
  }

  void done() const {
    if (!values.empty()) refuse("{}: unknown property '{}' of '{}'", option_, values.begin()->first, head);
  }

 private:
  std::string option_;
};

}  // namespace penumbra
