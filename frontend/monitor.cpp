#include "frontend/monitor.h"

#include <Zydis/Zydis.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "frontend/balloon_watch.h"
#include "frontend/key_typer.h"
#include "frontend/media_drives.h"
#include "frontend/page_tables.h"
#include "frontend/parse_number.h"
#include "frontend/screen.h"
#include "frontend/state_dump.h"

namespace penumbra {

namespace {

constexpr unsigned kMaxUnits = 65536;

std::string_view take_word(std::string_view& text) {
  const size_t begin = std::min(text.find_first_not_of(" \t"), text.size());
  text.remove_prefix(begin);
  const std::string_view word = text.substr(0, text.find_first_of(" \t"));
  text.remove_prefix(word.size());
  return word;
}

// A word that may have spaces, in double quotes; QEMU's escapes within are \" and \\, and others that nobody
// needs in a path.
std::string take_text(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  if (!text.starts_with('"')) return std::string(take_word(text));
  text.remove_prefix(1);
  std::string result;
  while (!text.empty()) {
    char c = text.front();
    text.remove_prefix(1);
    if (c == '"') break;
    if (c == '\\' && !text.empty()) {
      c = text.front();
      text.remove_prefix(1);
    }
    result += c;
  }
  return result;
}

// The flag -f before other words.
bool take_force(std::string_view& arguments) {
  std::string_view rest = arguments;
  if (take_word(rest) != "-f") return false;
  arguments = rest;
  return true;
}

// As wide as the largest value, so that columns line up, as in QEMU.
std::string unit_text(char letter, unsigned bytes, uint64_t value) {
  const unsigned decimal_digits = (bytes * 80 + 32) / 33, octal_digits = (bytes * 8 + 2) / 3;
  switch (letter) {
    case 'd': {
      const unsigned shift = 64 - bytes * 8;
      return fmt::format(" {:{}}", static_cast<int64_t>(value << shift) >> shift, decimal_digits);
    }
    case 'u':
      return fmt::format(" {:{}}", value, decimal_digits);
    case 'o':
      return fmt::format(" {:#{}o}", value, octal_digits);
    case 'c': {
      const char c = static_cast<char>(value);
      if (c == '\'' || c == '\\') return fmt::format(" '\\{}'", c);
      if (c == '\n') return " '\\n'";
      if (c == '\r') return " '\\r'";
      return c >= ' ' && c <= '~' ? fmt::format(" '{}'", c) : fmt::format(" '\\x{:02x}'", value & 0xff);
    }
    default:
      return fmt::format(" 0x{:0{}x}", value, bytes * 2);
  }
}

}  // namespace

struct Monitor::Command {
  std::string_view name, arguments, help;
  std::string (Monitor::*run)(std::string_view arguments);
};

const std::span<const Monitor::Command> Monitor::kCommands = [] {
  static constexpr Command kTable[] = {
      {"balloon", "MIB", "asks the guest to make do with that much memory", &Monitor::set_balloon},
      {"change", "[-f] DRIVE FILE",
       "another medium; then raw or qcow2, then retain, read-only or read-write; -f: see eject",
       &Monitor::change},
      {"cont", "", "goes on after stop", &Monitor::resume},
      {"eject", "[-f] DRIVE", "takes the medium out; -f: even when the guest has locked the drive",
       &Monitor::eject},
      {"gva2gpa", "ADDRESS", "physical address of a linear one", &Monitor::translate},
      {"help", "", "this list", &Monitor::help},
      {"info", "balloon", "how much memory the guest has, its balloon taken off", &Monitor::info},
      {"info", "block", "drives, and what is in them", &Monitor::info},
      {"info", "mem", "linear memory that the page tables map, by rights", &Monitor::info},
      {"info", "registers", "the vCPU's registers and its last exceptions and interrupts", &Monitor::info},
      {"info", "screen", "the text that the screen shows", &Monitor::info},
      {"info", "status", "running, halted or paused", &Monitor::info},
      {"info", "tlb", "each page that the page tables map: linear, physical, flags", &Monitor::info},
      {"quit", "", "ends the machine", &Monitor::quit},
      {"screendump", "FILE", "the screen as an image: PNG, or PPM when the name says so",
       &Monitor::screendump},
      {"sendkey", "KEYS", "presses keys: a, ret, ctrl-alt-delete; then how many milliseconds (100)",
       &Monitor::send_keys},
      {"stop", "", "pauses the machine", &Monitor::stop},
      {"system_powerdown", "", "presses the power button", &Monitor::power_down},
      {"system_reset", "", "resets the machine", &Monitor::reset},
      {"x", "/FMT ADDRESS",
       "memory at a linear address; FMT is a count, a letter of x d u o c i, a size of b h w g", nullptr},
      {"xp", "/FMT ADDRESS", "the same at a physical address", nullptr},
  };
  return std::span(kTable);
}();

std::string Monitor::execute(std::string_view line) {
  std::string_view word = take_word(line);
  if (word.empty()) return "";
  if (word == "?") word = "help";
  if (word == "q") word = "quit";
  if (word == "c") word = "cont";
  for (const Command& command : kCommands) {
    if (command.name == word && command.run) return (this->*command.run)(line);
  }
  for (const auto& [name, space] :
       {std::pair{"xp", GuestMemory::Space::Physical}, {"x", GuestMemory::Space::Linear}}) {
    if (!word.starts_with(name)) continue;
    const std::string_view format = word.substr(std::string_view(name).size());
    line.remove_prefix(
        std::min(line.find_first_not_of(' '), line.size()));  // "xp /4x ADDRESS", as QEMU's manual has it
    if (format.empty()) return examine(line, space);
    if (format[0] == '/') return examine(std::string(format) + " " + std::string(line), space);
  }
  return fmt::format("unknown command '{}' (try help)\n", word);
}

std::vector<std::string> Monitor::completions(std::string_view line) const {
  const size_t space = line.rfind(' ');
  const std::string_view last = space == std::string_view::npos ? line : line.substr(space + 1);
  const std::string_view before = line.substr(0, line.size() - last.size());
  std::vector<std::string> found;
  for (const Command& command : kCommands) {
    const bool topic = before == "info " && command.name == "info";
    const std::string_view name = topic ? command.arguments : before.empty() ? command.name : "";
    if (name.empty() || !name.starts_with(last)) continue;
    std::string whole = std::string(before) + std::string(name);
    if (found.empty() || found.back() != whole) found.push_back(std::move(whole));
  }
  std::string_view rest = before;
  const std::string_view command = take_word(rest);
  if (command != "eject" && command != "change") return found;
  take_force(rest);
  if (!take_word(rest).empty()) return found;
  for (const MediaDrives::Drive& drive : actions_.drives->all()) {
    if (drive.removable && drive.name.starts_with(last)) found.push_back(std::string(before) + drive.name);
  }
  return found;
}

std::string Monitor::help(std::string_view) {
  std::string text;
  for (const Command& command : kCommands) {
    const std::string_view space = command.arguments.empty() || command.arguments.starts_with('/') ? "" : " ";
    text += fmt::format("{:<24}{}\n", fmt::format("{}{}{}", command.name, space, command.arguments),
                        command.help);
  }
  return text;
}

void Monitor::tell(std::string_view event) {
  if (actions_.event) actions_.event(event, nullptr);
}

std::string Monitor::stop(std::string_view) {
  if (machine_.paused()) return "";
  machine_.pause();
  tell("STOP");
  return "";
}

std::string Monitor::resume(std::string_view) {
  if (!machine_.paused()) return "";
  machine_.resume();
  tell("RESUME");
  return "";
}

std::string Monitor::reset(std::string_view) {
  machine_.request_reset();
  tell("RESET");
  return "";
}

std::string Monitor::power_down(std::string_view) {
  if (!actions_.press_power_button) return "there is no power button\n";
  actions_.press_power_button();
  tell("POWERDOWN");
  return "";
}

std::string Monitor::quit(std::string_view) {
  machine_.request_quit(0);
  return "";
}

std::string Monitor::eject(std::string_view arguments) {
  const bool force = take_force(arguments);
  const std::string_view drive = take_word(arguments);
  if (drive.empty()) return "eject needs a drive\n";
  try {
    actions_.drives->eject(drive, force);
  } catch (const std::runtime_error& error) {
    return fmt::format("Error: {}\n", error.what());
  }
  return "";
}

std::string Monitor::change(std::string_view arguments) {
  const bool force = take_force(arguments);
  const std::string_view drive = take_word(arguments);
  MediaDrives::Change change{.path = take_text(arguments), .format = {}, .mode = {}};
  change.format = take_word(arguments);
  change.mode = take_word(arguments);
  if (change.path.empty()) return "change needs a drive and a file\n";
  try {
    actions_.drives->change(drive, change, force);
  } catch (const std::runtime_error& error) {
    return fmt::format("Error: {}\n", error.what());
  }
  return "";
}

std::string Monitor::send_keys(std::string_view arguments) {
  std::string_view names = take_word(arguments);
  const std::string_view time = take_word(arguments);
  const auto hold = time.empty() ? std::optional<uint64_t>(100) : parse_number(time);
  constexpr uint64_t kLongestHold = 60'000;
  if (names.empty() || !hold || *hold > kLongestHold)
    return "sendkey needs keys, and perhaps up to 60000 milliseconds\n";
  std::vector<KeyCode> keys;
  while (true) {
    const size_t dash = names.find('-');
    const std::string_view name = names.substr(0, dash);
    const auto key = key_named(name);
    if (!key) return fmt::format("unknown key '{}'\n", name);
    keys.push_back(*key);
    if (dash == std::string_view::npos) break;
    names.remove_prefix(dash + 1);
  }
  constexpr Nanoseconds kMillisecond = 1'000'000;
  return actions_.keys && actions_.keys->type(keys, *hold * kMillisecond) ? "" : "too many keys wait\n";
}

std::string Monitor::screendump(std::string_view arguments) {
  const std::string path = take_text(arguments);
  if (path.empty()) return "screendump needs a file\n";
  if (!actions_.screen) return "there is no screen\n";
  try {
    write_image(actions_.screen->image(), path);
  } catch (const std::runtime_error& error) {
    return fmt::format("{}\n", error.what());
  }
  return "";
}

std::string Monitor::set_balloon(std::string_view arguments) {
  const auto mib = parse_number(take_word(arguments));
  constexpr uint64_t kMost = ~uint64_t{0} >> 20;
  if (!mib || *mib == 0 || *mib > kMost) return "balloon needs a number of MiB\n";
  if (!actions_.balloon) return "there is no balloon\n";
  const uint64_t ram = machine_.map().ram_bytes();
  actions_.balloon->balloon().set_wanted(ram - std::min(ram, *mib << 20));
  return "";
}

std::string Monitor::info(std::string_view arguments) {
  const std::string_view what = take_word(arguments);
  const Vcpu& vcpu = machine_.vcpu();
  if (what == "registers") return state_dump(vcpu, machine_.map());
  if (what == "block") return actions_.drives->text();
  if (what == "mem") return mapped_ranges(vcpu, machine_.map());
  if (what == "tlb") return mapping_list(vcpu, machine_.map());
  if (what == "balloon") {
    if (!actions_.balloon) return "there is no balloon\n";
    const uint64_t ram = machine_.map().ram_bytes();
    return fmt::format("balloon: actual={}\n",
                       (ram - std::min(ram, actions_.balloon->balloon().held())) >> 20);
  }
  if (what == "status") {
    return fmt::format("VM status: {}{}\n",
                       actions_.io_error   ? "paused (io-error)"
                       : machine_.paused() ? "paused"
                                           : "running",
                       vcpu.state().halted ? ", CPU halted" : "");
  }
  if (what == "screen") {
    if (!actions_.screen) return "there is no screen\n";
    const std::string text = actions_.screen->text();
    return text.empty() ? "the screen shows no text\n" : text;
  }
  return fmt::format("unknown information '{}' (balloon, block, mem, registers, screen, status, tlb)\n",
                     what);
}

std::string Monitor::translate(std::string_view arguments) {
  const auto address = parse_number(take_word(arguments));
  if (!address) return "gva2gpa needs an address\n";
  const auto physical = PageWalker(machine_.map()).probe(machine_.vcpu().paging_state(), {*address});
  return physical ? fmt::format("gpa: {:#x}\n", physical->value) : "Unmapped\n";
}

std::string Monitor::examine(std::string_view arguments, GuestMemory::Space space) {
  Format format = last_;
  format.count = 1;
  if (arguments.starts_with('/')) {
    std::string_view text = take_word(arguments).substr(1);
    unsigned count = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error == std::errc()) {
      format.count = std::min(count, kMaxUnits);
      text.remove_prefix(static_cast<size_t>(end - text.data()));
    }
    for (const char c : text) {
      switch (c) {
        case 'b':
          format.bytes = 1;
          break;
        case 'h':
          format.bytes = 2;
          break;
        case 'w':
          format.bytes = 4;
          break;
        case 'g':
          format.bytes = 8;
          break;
        case 'x':
        case 'd':
        case 'u':
        case 'o':
        case 'c':
        case 'i':
          format.letter = c;
          if (c == 'c') format.bytes = 1;
          break;
        default:
          return fmt::format("unknown format '{}'\n", c);
      }
    }
  }
  const auto address = parse_number(take_word(arguments));
  if (!address) return "an address is missing\n";
  last_ = format;
  if (format.letter == 'i') return disassemble(space, *address, format.count);

  const unsigned per_line = format.letter == 'c' ? 8 : 16 / format.bytes;
  std::string text;
  for (unsigned i = 0; i < format.count; ++i) {
    const uint64_t at = *address + uint64_t{i} * format.bytes;
    if (i % per_line == 0) text += fmt::format("{}{:016x}:", i == 0 ? "" : "\n", at);
    std::array<uint8_t, 8> bytes{};
    if (memory_.read(space, at, std::span(bytes).first(format.bytes)) != format.bytes) {
      return text + " Cannot access memory\n";
    }
    uint64_t value = 0;
    for (unsigned byte = 0; byte < format.bytes; ++byte) value |= uint64_t{bytes[byte]} << byte * 8;
    text += unit_text(format.letter, format.bytes, value);
  }
  return text + "\n";
}

std::string Monitor::disassemble(GuestMemory::Space space, uint64_t address, unsigned count) {
  const Vcpu& vcpu = machine_.vcpu();
  ZydisDecoder decoder;
  if (vcpu.code64()) {
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  } else if (vcpu.state().mode.has(ModeBits::kCode32)) {
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
  } else {
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
  }
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  std::string text;
  for (unsigned i = 0; i < count; ++i) {
    std::array<uint8_t, ZYDIS_MAX_INSTRUCTION_LENGTH> bytes;
    const size_t got = memory_.read(space, address, bytes);
    if (got == 0) return text + fmt::format("Cannot access memory at {:#x}\n", address);
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    std::array<char, 256> line;
    if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes.data(), got, &instruction, operands)) &&
        ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &instruction, operands,
                                                     instruction.operand_count_visible, line.data(),
                                                     line.size(), address, nullptr))) {
      text += fmt::format("{:#018x}:  {}\n", address, line.data());
      address += instruction.length;
    } else {
      text += fmt::format("{:#018x}:  .byte {:#04x}\n", address, bytes[0]);
      ++address;
    }
  }
  return text;
}

}  // namespace penumbra
