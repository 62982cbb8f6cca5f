// Compares the translator with the CPU it runs on: tests/fuzz --help.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "tests/fuzzer/compare.h"
#include "tests/fuzzer/engine_machine.h"
#include "tests/fuzzer/generator.h"
#include "tests/fuzzer/native_machine.h"

namespace penumbra::fuzz {
namespace {

constexpr uint8_t kHalt = 0xf4;

struct Options {
  uint64_t seed = 1, cases = 100'000;
  unsigned bits = 0;  // 0: all
  uint64_t max_failures = 20;
  std::string only;  // a mnemonic
  std::string one;   // BITS:SEED of one case
  bool coverage = false;
};

struct Mode {
  const char* name;
  const char* switches;
};
constexpr Mode kModes[] = {
    {"default", ""},
    {"callout", "no-soft-tlb,no-flag-liveness"},
    {"one-instruction", "no-long-blocks,no-chain,no-jump-cache,no-flag-liveness"},
};

class Fuzzer;
Fuzzer* running = nullptr;

class Fuzzer {
 public:
  explicit Fuzzer(Options options) : options_(std::move(options)) {
    running = this;
    for (const Mode& mode : kModes)
      engines_.push_back(std::make_unique<EngineMachine>(mode.name, mode.switches));
    warm_up();
    native_.install_handlers();
    native_.set_tick([] { running->tick(); });
    native_.set_crash([] { running->crashed(); });
  }

  int run() {
    if (!options_.one.empty()) return run_one();
    for (const unsigned bits : {64u, 32u}) {
      if (options_.bits == 0 || options_.bits == bits) run_bits(bits);
    }
    if (options_.coverage) print_coverage();
    fmt::print("{} cases, seed {}, {} with a difference\n", cases_, options_.seed, failures_);
    return failures_ == 0 ? 0 : 1;
  }

 private:
  struct Coverage {
    std::array<uint64_t, 2> cases{};  // 64 and 32 bits
    std::array<bool, 2> exists{};
    uint64_t failures = 0;
  };

  // The translator installs its fault handlers with its first run; the native machine's go in front of them.
  void warm_up() {
    Program program;
    program.memory.assign(area::kBytes, std::byte{kHalt});
    program.start.rip = area::kLow + area::kCode;
    for (auto& engine : engines_) engine->run(program, true);
  }

  void run_bits(unsigned bits) {
    const Generator generator(bits);
    const unsigned column = bits == 64 ? 0 : 1;
    const auto& mnemonics = generator.mnemonics();
    for (const ZydisMnemonic mnemonic : mnemonics) coverage_[mnemonic].exists[column] = true;
    const uint64_t share = options_.bits == 0 ? options_.cases / 2 : options_.cases;
    for (uint64_t i = 0; i < share && failures_ < options_.max_failures;) {
      const uint64_t seed = mix(options_.seed * 2 + column) + attempts_++;
      if (run_case(generator, mnemonics, bits, seed)) ++i;
      if (attempts_ > 100 + 50 * share) break;
    }
  }

  static ZydisMnemonic choose(const std::vector<ZydisMnemonic>& mnemonics, uint64_t seed) {
    return mnemonics[mix(seed ^ 0x5bd1) % mnemonics.size()];
  }

  bool run_case(const Generator& generator, const std::vector<ZydisMnemonic>& mnemonics, unsigned bits,
                uint64_t seed) {
    const ZydisMnemonic chosen = choose(mnemonics, seed);
    if (!options_.only.empty() && options_.only != ZydisMnemonicGetString(chosen)) return false;
    bits_ = bits;
    seed_ = seed;
    if (!generator.make_single(chosen, seed, case_)) return false;
    ++cases_;
    Coverage& coverage = coverage_[case_.mnemonic];
    ++coverage.cases[bits == 64 ? 0 : 1];
    native_outcome_ = native_.run(case_.program);
    if (native_outcome_.timeout) return true;
    // A fault of the case's own, not the HLT after it.
    const uint64_t at = native_outcome_.state.rip & (area::kBytes - 1);
    const bool halted =
        native_outcome_.vector == vector::kGp && at != case_.code && native_.memory()[at] == std::byte{kHalt};
    for (auto& engine : engines_) {
      engine_ = engine.get();
      patience_ = kPatience;
      const Outcome outcome = engine->run(case_.program, case_.cold_tlb);
      engine_ = nullptr;
      const std::string text = difference(case_, native_outcome_, native_.memory(), outcome, engine->memory(),
                                          {.fault_flags = halted || engine->exact_fault_flags()});
      if (text.empty()) continue;
      ++coverage.failures;
      ++failures_;
      report(engine->name(), text);
      break;
    }
    return true;
  }

  int run_one() {
    const size_t colon = options_.one.find(':');
    const auto bits = static_cast<unsigned>(std::strtoul(options_.one.c_str(), nullptr, 10));
    const uint64_t seed = std::strtoull(options_.one.c_str() + colon + 1, nullptr, 16);
    const Generator generator(bits);
    run_case(generator, generator.mnemonics(), bits, seed);
    show_state();
    fmt::print("{}\n", failures_ == 0 ? "no difference" : "");
    return failures_ == 0 ? 0 : 1;
  }

  std::string disassemble(std::span<const std::byte> bytes) const {
    ZydisDisassembledInstruction text;
    const ZydisMachineMode mode = bits_ == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LEGACY_32;
    if (!ZYAN_SUCCESS(
            ZydisDisassembleIntel(mode, case_.program.start.rip, bytes.data(), bytes.size(), &text))) {
      return "(not an instruction to Zydis)";
    }
    return text.text;
  }

  std::span<const std::byte> code() const {
    return std::span(case_.program.memory)
        .subspan(case_.code, std::min<uint64_t>(case_.code_bytes, area::kBytes - case_.code));
  }

  void report(std::string_view engine, std::string_view text) const {
    fmt::print(
        "FAIL {}\n  {} bits at {:#x}: {}\n  {} engine: {}\n  natively: exception {} at {:#x}, error code "
        "{:#x}, cr2 {:#x}\n"
        "  again: tests/fuzz --case {}:{:x}\n",
        disassemble(code()), bits_, case_.program.start.rip, hex_bytes(code()), engine, text,
        native_outcome_.vector, native_outcome_.state.rip, native_outcome_.error_code, native_outcome_.cr2,
        bits_, seed_);
    std::fflush(stdout);
  }

  void show_state() const {
    const auto show = [](const char* title, const MachineState& state) {
      fmt::print("{}: rip {:#x} rflags {:#x} fs {:#x} gs {:#x} mxcsr {:#x} fcw {:#x} fsw {:#x} tags {:#x}\n",
                 title, state.rip, state.rflags, state.fs_base, state.gs_base, state.vector.mxcsr,
                 state.vector.fcw, state.vector.fsw, state.vector.tags);
      for (unsigned i = 0; i < 16; ++i) {
        fmt::print("  r{:<2} {:016x}  ymm{:<2} {:016x}_{:016x}_{:016x}_{:016x}\n", i, state.gpr[i], i,
                   state.vector.ymm[i][3], state.vector.ymm[i][2], state.vector.ymm[i][1],
                   state.vector.ymm[i][0]);
      }
    };
    fmt::print("{}\n{}\n", hex_bytes(code()), disassemble(code()));
    show("start", case_.program.start);
    show("natively at the end", native_outcome_.state);
  }

  void print_coverage() const {
    for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; ++i) {
      const auto mnemonic = static_cast<ZydisMnemonic>(i);
      const jit::InstructionRow& row = jit::instruction_row(mnemonic);
      if (row.action == jit::Action::None) continue;
      const Coverage& coverage = coverage_[mnemonic];
      const char* reason = reason_not_native(mnemonic);
      std::string note = reason ? reason : "";
      if (!reason && !coverage.exists[0] && !coverage.exists[1]) note = "Zydis knows no encoding of it";
      fmt::print("{:<18} {:<10} {:>8} {:>8}  {}\n", ZydisMnemonicGetString(mnemonic),
                 jit::name_of(row.instruction_class), coverage.cases[0], coverage.cases[1], note);
    }
  }

  void tick() {
    if (!engine_ || patience_ == 0) return;
    patience_ = patience_ - 1;
    if (patience_ == 0) engine_->give_up();
  }
  void crashed() const { report(engine_ ? engine_->name() : "no", "a host fault that is nobody's"); }

  static constexpr unsigned kPatience = 100;  // of 10 ms
  Options options_;
  NativeMachine native_;
  std::vector<std::unique_ptr<EngineMachine>> engines_;
  std::array<Coverage, ZYDIS_MNEMONIC_MAX_VALUE + 1> coverage_{};
  uint64_t cases_ = 0, attempts_ = 0, failures_ = 0;
  // The case that runs.
  unsigned bits_ = 64;
  uint64_t seed_ = 0;
  Case case_;
  Outcome native_outcome_;
  EngineMachine* volatile engine_ = nullptr;
  volatile unsigned patience_ = 0;
};

}  // namespace
}  // namespace penumbra::fuzz

int main(int argc, char** argv) {
  penumbra::fuzz::Options options;
  CLI::App app("Compares the translator with the CPU it runs on, one random instruction at a time.");
  app.add_option("--seed", options.seed, "what the cases follow from");
  app.add_option("--cases", options.cases, "how many");
  app.add_option("--bits", options.bits, "64 or 32 only");
  app.add_option("--only", options.only, "one mnemonic only, in lower case");
  app.add_option("--case", options.one, "BITS:SEED of one case, as a failure prints it");
  app.add_option("--max-failures", options.max_failures, "when to stop");
  app.add_flag("--coverage", options.coverage, "how many cases each row of the instruction table had");
  CLI11_PARSE(app, argc, argv);
  return penumbra::fuzz::Fuzzer(options).run();
}
