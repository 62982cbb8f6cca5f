// Runs the reference data taken from an 80286 through the translator: silicon_tests [--mode NAME] [FORM...].
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string_view>
#include <thread>

#include "tests/silicon/real_mode_machine.h"

namespace penumbra::test {
namespace {

using namespace std::chrono_literals;

constexpr int kSkipped = 77;  // for ctest's SKIP_RETURN_CODE

struct Mode {
  std::string_view name;
  bool to_halt;  // whole blocks, as run() makes them, up to the HLT; else one step()
  std::string_view switches;
};
constexpr Mode kModes[] = {
    {"step", false, ""},
    {"step-no-soft-tlb", false, "no-soft-tlb"},
    {"block", true, ""},
    {"block-no-flag-liveness", true, "no-flag-liveness"},
};

struct Counts {
  unsigned passed = 0, failed = 0, undefined = 0;
  unsigned stray = 0;  // forms of which a case stored where none should: failures as well
  std::array<unsigned, kRules> by_rule{};
  unsigned of(Rule rule) const { return by_rule[static_cast<unsigned>(rule)]; }
};

// Kicks the machine now and then, so that code that ran away comes back.
class Watchdog {
 public:
  explicit Watchdog(RealModeMachine& machine)
      : thread_([this, &machine] {
          while (!stop_) {
            std::this_thread::sleep_for(20ms);
            machine.interrupt();
          }
        }) {}
  ~Watchdog() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

std::string hex(const std::vector<uint8_t>& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

void run_case(RealModeMachine& machine, const Mode& mode, const std::string& form, const MooCase& made,
              Counts& counts) {
  constexpr unsigned kMaxShown = 40;
  // No HLT follows where the later chips go elsewhere, and a #DB follows it when TF was loaded.
  const bool halts = expectation_of(made, true).rule == Rule::AsOn286 && !(made.after[kMooFlags] & flag::kTf);
  const bool to_halt = mode.to_halt && halts;
  const Expectation expected = expectation_of(made, to_halt);
  machine.load(made);
  std::string difference;
  if (!to_halt) {
    machine.step();
  } else if (!machine.run_to_halt()) {
    difference = "    the HLT is not reached\n";
  }
  difference += machine.compare(expected);
  machine.clear(expected);

  ++counts.by_rule[static_cast<unsigned>(expected.rule)];
  counts.undefined += expected.undefined_flags != 0;
  if (difference.empty()) {
    ++counts.passed;
  } else if (counts.failed++ < kMaxShown) {
    fmt::print("{} case {}: {} ({}), {}\n{}", form, made.index, made.name, hex(made.bytes),
               describe(expected.rule), difference);
  }
}

Counts run_mode(const Mode& mode, const std::vector<std::filesystem::path>& files) {
  jit::TranslatorOptions options;
  options.code_cache_bytes = 16 << 20;
  if (!mode.switches.empty()) apply_switches(options, mode.switches);
  RealModeMachine machine(options);
  std::optional<Watchdog> watchdog;
  if (mode.to_halt) watchdog.emplace(machine);
  Counts counts;
  for (const std::filesystem::path& file : files) {
    const std::string form = file.stem().stem().string();
    const std::vector<MooCase> cases = read_moo_file(file);
    for (const MooCase& made : cases) run_case(machine, mode, form, made, counts);
    if (const auto address = machine.take_stray_byte()) {
      ++counts.failed;
      ++counts.stray;
      fmt::print("{}: a case stored to {:05x}, which none names\n", form, *address);
    }
  }
  return counts;
}

void summarize(const Mode& mode, const Counts& counts, double seconds) {
  const unsigned as_on_286 = counts.of(Rule::AsOn286) + counts.of(Rule::LockRaisesUd);
  fmt::print("{}: {} passed, {} failed in {:.1f} s\n", mode.name, counts.passed, counts.failed, seconds);
  fmt::print("  {:6} compared with the silicon, under the two filters:\n", as_on_286);
  fmt::print("    {:6} {}\n", counts.of(Rule::LockRaisesUd), describe(Rule::LockRaisesUd));
  fmt::print("    {:6} without the flags that later chips leave undefined; all: without flag bits 12 to 15\n",
             counts.undefined);
  fmt::print("  {:6} compared with the manual, where the 80286 differs from every later chip:\n",
             counts.passed + counts.failed - counts.stray - as_on_286);
  for (const Rule rule : {Rule::StackFault, Rule::StringFault, Rule::LongInstruction, Rule::FsGs}) {
    fmt::print("    {:6} {}\n", counts.of(rule), describe(rule));
  }
}

int run(int argc, char** argv) {
  std::string_view wanted_mode;
  std::vector<std::string_view> forms;
  for (int i = 1; i < argc; ++i) {
    if (argv[i] == std::string_view("--mode") && i + 1 < argc) {
      wanted_mode = argv[++i];
    } else {
      forms.emplace_back(argv[i]);
    }
  }

  const char* from_environment = std::getenv("PENUMBRA_DATA");
  const std::filesystem::path data =
      std::filesystem::path(from_environment ? from_environment : PENUMBRA_DATA) / "i286-real-mode";
  if (!std::filesystem::is_directory(data)) {
    fmt::print(
        "{} is not there: the comparison with silicon is left out (PENUMBRA_DATA says where to look)\n",
        data.string());
    return kSkipped;
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(data)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".MOO.gz")) continue;
    const std::string_view form = std::string_view(name).substr(0, name.size() - 7);
    if (forms.empty() || std::ranges::find(forms, form) != forms.end()) files.push_back(entry.path());
  }
  std::ranges::sort(files);

  unsigned failed = 0, run = 0;
  for (const Mode& mode : kModes) {
    if (!wanted_mode.empty() && wanted_mode != mode.name) continue;
    const auto began = std::chrono::steady_clock::now();
    const Counts counts = run_mode(mode, files);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - began;
    summarize(mode, counts, seconds.count());
    failed += counts.failed;
    run += counts.passed + counts.failed;
  }
  if (run == 0) {
    fmt::print("no such form or mode\n");
    return 1;
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace penumbra::test

int main(int argc, char** argv) {
  try {
    return penumbra::test::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print("{}\n", error.what());
    return 1;
  }
}
