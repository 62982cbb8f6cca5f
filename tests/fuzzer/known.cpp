#include "tests/fuzzer/known.h"

#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <stdexcept>

namespace penumbra::fuzz {

std::vector<KnownCase> read_known_cases(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<KnownCase> cases;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line.starts_with("#")) continue;
    KnownCase made;
    std::string kind, form, hex;
    std::istringstream(line) >> made.name >> kind >> form >> hex;
    made.sequence = form == "sequence";
    const std::optional<Kind> known_kind = kind_named(kind);
    for (size_t at = 0; at + 2 <= hex.size(); at += 2) {
      uint8_t byte = 0;
      const auto parsed = std::from_chars(hex.data() + at, hex.data() + at + 2, byte, 16);
      if (parsed.ptr != hex.data() + at + 2) break;
      made.bytes.push_back(byte);
    }
    if (!known_kind || (!made.sequence && form != "single") || made.bytes.empty() ||
        made.bytes.size() * 2 != hex.size()) {
      throw std::runtime_error(path + ": not a case: " + line);
    }
    made.kind = *known_kind;
    cases.push_back(std::move(made));
  }
  return cases;
}

}  // namespace penumbra::fuzz
