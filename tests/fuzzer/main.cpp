// Compares the translator with the CPU it runs on: tests/fuzz --help.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <memory>

#include "tests/fuzzer/compare.h"
#include "tests/fuzzer/engine_machine.h"
#include "tests/fuzzer/generator.h"
#include "tests/fuzzer/native_machine.h"
#include "tests/fuzzer/sequence.h"

namespace penumbra::fuzz {
namespace {

constexpr std::array<unsigned, 3> kWidths = {64, 32, 16};
unsigned column_of(unsigned bits) {
  return static_cast<unsigned>(std::ranges::find(kWidths, bits) - kWidths.begin());
}

constexpr std::byte kHalt{0xf4}, kNop{0x90};

struct Options {
  uint64_t seed = 1, cases = 100'000, sequences = 10'000;
  unsigned bits = 0;  // 0: all
  uint64_t max_failures = 20;
  std::string only;  // a mnemonic
  std::string one;   // one case, as a failure names it
  bool coverage = false;
};

struct Mode {
  const char* name;
  const char* switches;
  bool sequences_only = false;
};
constexpr Mode kModes[] = {
    {"default", ""},
    {"windows", "windows"},
    {"callout", "no-soft-tlb,no-flag-liveness"},
    {"one-instruction", "no-long-blocks,no-chain,no-jump-cache,no-flag-liveness"},
    {"no-liveness", "no-flag-liveness", true},
};

class Fuzzer;
Fuzzer* running = nullptr;

class Fuzzer {
 public:
  explicit Fuzzer(Options options) : options_(std::move(options)) {
    running = this;
    renew_engines();
    warm_up();
    native_.install_handlers();
    native_.set_tick([] { running->tick(); });
    native_.set_crash([] { running->crashed(); });
  }

  int run() {
    if (!options_.one.empty()) return run_one();
    for (const unsigned bits : kWidths) {
      if (options_.bits == 0 || options_.bits == bits) run_bits(bits);
    }
    if (options_.coverage) print_coverage();
    fmt::print("{} single instructions and {} sequences, seed {}, {} with a difference\n", cases_, sequences_,
               options_.seed, failures_);
    return failures_ == 0 ? 0 : 1;
  }

 private:
  struct Coverage {
    std::array<uint64_t, kWidths.size()> cases{};
    std::array<bool, kWidths.size()> exists{};
  };

  // Anew now and then: an engine gives up windows where too many faults were (jit/hot_blocks.h).
  void renew_engines() {
    engines_.clear();
    for (const Mode& mode : kModes) {
      engines_.push_back(std::make_unique<EngineMachine>(mode.name, mode.switches));
    }
  }

  // The translator installs its fault handlers with its first run; the native machine's go in front of them.
  void warm_up() {
    Program program;
    program.memory.assign(area::kBytes, kHalt);
    program.start.rip = area::kLow + area::kCode;
    program.start.selectors.fill(selector::kData);
    program.start.selectors[kCs] = selector::kCode64;
    for (auto& engine : engines_) engine->run(program, true);
  }

  void run_bits(unsigned bits) {
    const Generator generator(bits);
    const SequenceGenerator sequences(bits, generator.forms());
    if (bits == 16 && !native_.has_ldt()) {
      fmt::print("no 16-bit code: the host lets no program have segments of its own\n");
      return;
    }
    const unsigned column = column_of(bits);
    for (const ZydisMnemonic mnemonic : generator.mnemonics()) coverage_[mnemonic].exists[column] = true;
    const uint64_t parts = options_.bits == 0 ? kWidths.size() : 1;
    const uint64_t first = mix(options_.seed * kWidths.size() + column);
    const uint64_t most_attempts = 1000 + 10'000 * options_.cases;
    uint64_t attempt = 0;
    for (uint64_t i = 0; i < options_.cases / parts && attempt < most_attempts;) {
      if (failures_ >= options_.max_failures) return;
      if (run_single(generator, bits, first + attempt++)) ++i;
    }
    if (!options_.only.empty()) return;
    for (uint64_t i = 0; i < options_.sequences / parts;) {
      if (failures_ >= options_.max_failures) return;
      if (run_sequence(sequences, bits, first + attempt++)) ++i;
    }
  }

  bool run_single(const Generator& generator, unsigned bits, uint64_t seed) {
    const auto& mnemonics = generator.mnemonics();
    const ZydisMnemonic chosen = mnemonics[mix(seed ^ 0x5bd1) % mnemonics.size()];
    if (!options_.only.empty() && options_.only != ZydisMnemonicGetString(chosen)) return false;
    if (!generator.make_single(chosen, seed, case_)) return false;
    name_ = fmt::format("{}:{:x}", bits, seed);
    ++cases_;
    ++coverage_[case_.mnemonic].cases[column_of(bits)];
    run_case();
    return true;
  }

  bool run_sequence(const SequenceGenerator& generator, unsigned bits, uint64_t seed) {
    if (!generator.make(seed, case_)) return false;
    name_ = fmt::format("{}s:{:x}", bits, seed);
    ++sequences_;
    run_case();
    return true;
  }

  void run_case() {
    if (++since_renewal_ % kRenewal == 0) renew_engines();
    native_outcome_ = native_.run(case_.program);
    for (unsigned i = 0; i < engines_.size(); ++i) {
      if (kModes[i].sequences_only && case_.pieces.empty()) continue;
      if (compare(*engines_[i]).empty()) continue;
      ++failures_;
      if (!case_.pieces.empty()) shrink(*engines_[i]);
      report(engines_[i]->name(), compare(*engines_[i]));
      return;
    }
  }

  // Against native_outcome_.
  std::string compare(EngineMachine& engine) {
    if (native_outcome_.timeout) return {};
    engine_ = &engine;
    patience_ = kPatience;
    const Outcome outcome = engine.run(case_.program, case_.cold_tlb);
    engine_ = nullptr;
    // The HLT at the end, and no other fault.
    const uint64_t at = native_outcome_.state.rip & (area::kBytes - 1);
    const bool halted = native_outcome_.vector == vector::kGp &&
                        native_outcome_.state.rip != case_.program.start.rip && native_.memory()[at] == kHalt;
    return difference(case_, native_outcome_, native_.memory(), outcome, engine.memory(),
                      {.fault_flags = halted || engine.exact_fault_flags()});
  }

  // Turns instructions of a sequence into NOPs as long as there is a difference.
  void shrink(EngineMachine& engine) {
    uint64_t at = case_.code;
    for (const auto& [length, stored_into] : case_.pieces) {
      std::byte* const bytes = case_.program.memory.data() + at;
      at += length;
      if (*bytes == kHalt || stored_into) continue;
      const std::vector<std::byte> old(bytes, bytes + length);
      std::fill(bytes, bytes + length, kNop);
      native_outcome_ = native_.run(case_.program);
      if (compare(engine).empty()) std::copy(old.begin(), old.end(), bytes);
    }
    native_outcome_ = native_.run(case_.program);
  }

  int run_one() {
    const size_t colon = options_.one.find(':');
    const auto bits = static_cast<unsigned>(std::strtoul(options_.one.c_str(), nullptr, 10));
    const uint64_t seed = std::strtoull(options_.one.c_str() + colon + 1, nullptr, 16);
    const Generator generator(bits);
    if (options_.one.find('s') < colon) {
      run_sequence(SequenceGenerator(bits, generator.forms()), bits, seed);
    } else {
      run_single(generator, bits, seed);
    }
    show_state();
    if (failures_ == 0) fmt::print("no difference\n");
    return failures_ == 0 ? 0 : 1;
  }

  // Instructions but NOPs.
  std::string disassemble() const {
    const ZydisMachineMode mode = case_.program.bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                                  : case_.program.bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                                             : ZYDIS_MACHINE_MODE_LEGACY_16;
    std::string out;
    uint64_t rip = case_.program.start.rip;
    for (std::span<const std::byte> rest = code(); !rest.empty();) {
      ZydisDisassembledInstruction text;
      if (!ZYAN_SUCCESS(ZydisDisassembleIntel(mode, rip, rest.data(), rest.size(), &text))) {
        return out + "(not an instruction to Zydis)";
      }
      if (rest[0] != kNop) {
        if (!out.empty()) out += fmt::format("; {:x}: ", rip & 0xffff);
        out += text.text;
      }
      rest = rest.subspan(text.info.length);
      rip += text.info.length;
    }
    return out;
  }

  std::span<const std::byte> code() const {
    const uint64_t size = std::min<uint64_t>(case_.code_bytes, area::kBytes - case_.code);
    return std::span(case_.program.memory).subspan(case_.code, size);
  }

  void report(std::string_view engine, std::string_view text) const {
    fmt::print(
        "FAIL {}\n  at {:#x}: {}\n  {} engine: {}\n"
        "  natively: exception {} at {:#x}, error code {:#x}, cr2 {:#x}\n  again: tests/fuzz --case {}\n",
        disassemble(), case_.program.start.rip, hex_bytes(code()), engine, text, native_outcome_.vector,
        native_outcome_.state.rip, native_outcome_.error_code, native_outcome_.cr2, name_);
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
    fmt::print("{}\n{}\n", hex_bytes(code()), disassemble());
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
      if (!reason && std::ranges::none_of(coverage.exists, std::identity())) note = "Zydis knows no encoding of it";
      fmt::print("{:<18} {:<10} {:>8} {:>8} {:>8}  {}\n", ZydisMnemonicGetString(mnemonic),
                 jit::name_of(row.instruction_class), coverage.cases[0], coverage.cases[1], coverage.cases[2], note);
    }
  }

  void tick() {
    if (!engine_ || patience_ == 0) return;
    patience_ = patience_ - 1;
    if (patience_ == 0) engine_->give_up();
  }
  void crashed() const { report(engine_ ? engine_->name() : "no", "a host fault that is nobody's"); }

  static constexpr unsigned kPatience = 500;  // of 10 ms
  static constexpr uint64_t kRenewal = 20'000;
  Options options_;
  NativeMachine native_;
  std::vector<std::unique_ptr<EngineMachine>> engines_;
  std::array<Coverage, ZYDIS_MNEMONIC_MAX_VALUE + 1> coverage_{};
  uint64_t cases_ = 0, sequences_ = 0, since_renewal_ = 0, failures_ = 0;
  // The case that runs.
  std::string name_;
  Case case_;
  Outcome native_outcome_;
  EngineMachine* volatile engine_ = nullptr;
  volatile unsigned patience_ = 0;
};

}  // namespace
}  // namespace penumbra::fuzz

int main(int argc, char** argv) {
  penumbra::fuzz::Options options;
  CLI::App app("Compares the translator with the CPU it runs on, one random program at a time.");
  app.add_option("--seed", options.seed, "what the cases follow from");
  app.add_option("--cases", options.cases, "how many single instructions");
  app.add_option("--sequences", options.sequences, "how many sequences of instructions");
  app.add_option("--bits", options.bits, "64, 32 or 16 only");
  app.add_option("--only", options.only, "one mnemonic only, in lower case");
  app.add_option("--case", options.one, "one case, as a failure names it");
  app.add_option("--max-failures", options.max_failures, "when to stop");
  app.add_flag("--coverage", options.coverage, "how many cases each row of the instruction table had");
  CLI11_PARSE(app, argc, argv);
  return penumbra::fuzz::Fuzzer(options).run();
}
