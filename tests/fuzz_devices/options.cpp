// The command line: words that end with a line each.
#include <string>
#include <vector>

#include "frontend/options.h"
#include "frontend/user_error.h"
#include "tests/fuzz_devices/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  std::vector<std::string> lines(1);
  for (const char c : Input(data, size).text()) {
    if (c == '\n') {
      lines.emplace_back();
    } else if (c != '\0') {
      lines.back() += c;
    }
  }
  std::vector<const char*> words;
  for (const std::string& line : lines) words.push_back(line.c_str());
  try {
    parse_qemu_command_line(words);
  } catch (const UserError& error) {
    if (std::string_view(error.what()).empty()) __builtin_trap();
  }
  return 0;
}
