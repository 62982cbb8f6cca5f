#include "tests/fuzzer/fuzzer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzzer/compare.h"
#include "tests/fuzzer/descriptors.h"
#include "tests/fuzzer/rows.h"

namespace penumbra::fuzz {

namespace {

constexpr std::byte kHalt{0xf4}, kNop{0x90};

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

Fuzzer* running = nullptr;

ZydisMachineMode machine_mode(Kind kind) {
  const unsigned bits = bits_of(kind);
  return bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
         : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                      : ZYDIS_MACHINE_MODE_LEGACY_16;
}

}  // namespace

Fuzzer::Fuzzer(Options options) : options_(std::move(options)) {
  running = this;
  renew_engines();
  warm_up();
  native_.install_handlers();
  native_.set_tick([] { running->tick(); });
  native_.set_crash([] { running->crashed(); });
}

int Fuzzer::run() {
  if (!options_.one.empty()) return run_one();
  if (!options_.known.empty()) return run_known();
  for (const Kind kind : kKinds) {
    if (!options_.kind || options_.kind == kind) run_kind(kind);
  }
  if (options_.coverage) coverage_.print();
  const unsigned gaps =
      options_.check_coverage.empty() ? 0 : coverage_.print_gaps(options_.check_coverage.c_str());
  fmt::print("{} single instructions and {} sequences, seed {}, {} without an answer, {} with a difference\n",
             cases_, sequences_, options_.seed, unanswered_, failures_);
  return failures_ == 0 && gaps == 0 ? 0 : 1;
}

// Anew now and then: an engine gives up windows where too many faults were (jit/hot_blocks.h).
void Fuzzer::renew_engines() {
  engines_.clear();
  for (const Mode& mode : kModes)
    engines_.push_back(std::make_unique<EngineMachine>(mode.name, mode.switches));
}

// The translator installs its fault handlers with its first run; the native machine's go in front of them.
void Fuzzer::warm_up() {
  Program program;
  program.memory.assign(area::kBytes, kHalt);
  program.start.rip = area::kLow + area::kCode;
  program.start.selectors.fill(selector::kData);
  program.start.selectors[kCs] = selector::kCode64;
  for (auto& engine : engines_) engine->run(program, true);
}

void Fuzzer::run_kind(Kind kind) {
  if (!can_run(kind)) {
    fmt::print("no 16-bit code: the host lets no program have segments of its own\n");
    return;
  }
  const Generators generators(kind);
  coverage_.add_rows(kind, generators.singles.mnemonics());
  const uint64_t first = mix(options_.seed * kKinds.size() + index_of(kind));
  if (options_.each != 0) {
    run_each(kind, generators.singles, first);
    return;
  }
  const uint64_t parts = options_.kind ? 1 : kKinds.size();
  const auto& mnemonics = generators.singles.mnemonics();
  const uint64_t most_attempts = 1000 + 10'000 * options_.cases;
  uint64_t attempt = 0;
  for (uint64_t i = 0;
       i < options_.cases / parts && attempt < most_attempts && failures_ < options_.max_failures;) {
    const uint64_t seed = first + attempt++;
    const ZydisMnemonic chosen = mnemonics[mix(seed ^ 0x5bd1) % mnemonics.size()];
    if (!options_.only.empty() && options_.only != ZydisMnemonicGetString(chosen)) continue;
    i += run_single(generators.singles, kind, chosen, seed);
  }
  // TCG has translated what follows a store into the code already.
  if (!options_.only.empty() || kind == Kind::Real) return;
  const uint64_t sequence_parts = options_.kind ? 1 : kKinds.size() - 1;
  for (uint64_t i = 0; i < options_.sequences / sequence_parts && failures_ < options_.max_failures;) {
    i += run_sequence(generators.sequences, kind, first + attempt++);
  }
}

void Fuzzer::run_each(Kind kind, const Generator& generator, uint64_t seed) {
  for (const ZydisMnemonic mnemonic : generator.mnemonics()) {
    const uint64_t most_attempts = seed + 1000 * options_.each;
    for (uint64_t at = seed; coverage_.cases(kind, mnemonic) < options_.each && at < most_attempts; ++at) {
      if (failures_ >= options_.max_failures) return;
      run_single(generator, kind, mnemonic, at);
    }
  }
}

bool Fuzzer::run_single(const Generator& generator, Kind kind, ZydisMnemonic mnemonic, uint64_t seed) {
  if (!generator.make_single(mnemonic, seed, case_)) return false;
  name_ = fmt::format("{}:{}:{:x}", name_of(kind), ZydisMnemonicGetString(mnemonic), seed);
  ++cases_;
  coverage_.note(kind, case_.mnemonic);
  run_case();
  return true;
}

bool Fuzzer::run_sequence(const SequenceGenerator& generator, Kind kind, uint64_t seed) {
  if (!generator.make(seed, case_)) return false;
  name_ = fmt::format("{}:sequence:{:x}", name_of(kind), seed);
  ++sequences_;
  run_case();
  return true;
}

Outcome Fuzzer::judge() {
  if (case_.program.kind != Kind::Real) return native_.run(case_.program);
  patience_ = kUnicornPatience;
  const Outcome outcome = unicorn_.run(case_.program);
  patience_ = 0;
  return outcome;
}

std::span<const std::byte> Fuzzer::judge_memory() const {
  return case_.program.kind == Kind::Real ? unicorn_.memory() : native_.memory();
}

// Code that a store or a jump has made of other code: SLDT, say, which the host's kernel answers for.
bool Fuzzer::ends_at_what_is_left_out() const {
  if (case_.program.kind == Kind::Real) return false;
  const MachineState& end = native_outcome_.state;
  const uint64_t at = (end.rip + descriptor_of(end.selectors[kCs]).base()) & (area::kBytes - 1);
  ZydisDisassembledInstruction text;
  return ZYAN_SUCCESS(ZydisDisassembleIntel(machine_mode(case_.program.kind), end.rip, &judge_memory()[at],
                                            area::kBytes - at, &text)) &&
         reason_not_native(text.info.mnemonic);
}

void Fuzzer::run_case() {
  if (++since_renewal_ % kRenewal == 0) renew_engines();
  native_outcome_ = judge();
  if (native_outcome_.timeout || native_outcome_.unmapped || ends_at_what_is_left_out()) {
    ++unanswered_;
    return;
  }
  for (unsigned i = 0; i < engines_.size(); ++i) {
    if (kModes[i].sequences_only && case_.pieces.empty()) continue;
    std::string text = compare(*engines_[i]);
    if (text.empty()) continue;
    if (answer_is_open()) {
      ++unanswered_;
      return;
    }
    ++failures_;
    if (!case_.pieces.empty()) {
      shrink(*engines_[i]);
      text = compare(*engines_[i]);
    }
    report(engines_[i]->name(), text);
    return;
  }
}

std::string Fuzzer::compare(EngineMachine& engine) {
  engine_ = &engine;
  patience_ = kPatience;
  Outcome outcome = engine.run(case_.program, case_.cold_tlb);
  patience_ = 0;
  engine_ = nullptr;
  const bool damaged = options_.damaged_engine.empty() || options_.damaged_engine == engine.name();
  if (!options_.damage.empty() && damaged && disassemble().find(options_.damage + ' ') != std::string::npos) {
    outcome.state.gpr[kRbx] ^= 1;
  }
  // The HLT at the end, and no other fault.
  const uint64_t at = native_outcome_.state.rip & (area::kBytes - 1);
  const bool halted = native_outcome_.vector == vector::kGp &&
                      native_outcome_.state.rip != case_.program.start.rip && judge_memory()[at] == kHalt;
  return difference(case_, native_outcome_, judge_memory(), outcome, engine.memory(),
                    {.fault_flags = halted || engine.exact_fault_flags()});
}

// A repeated string instruction that stores over itself: when the CPU sees it is open. At 8.1.3 in volume 3
// the SDM wants a jump between such a store and what it made. An interrupt in the middle makes the CPU fetch
// the new bytes; without one, it has been seen to go on with the old ones behind the instruction, and with
// the new ones. A jump into its own bytes, where Unicorn judges: they may be an instruction that leaves flags
// undefined.
bool Fuzzer::answer_is_open() {
  engine_ = engines_.front().get();
  patience_ = kPatience;
  const EngineMachine::Trace seen = engine_->trace(case_.program, case_.code_bytes);
  patience_ = 0;
  engine_ = nullptr;
  return seen.repeat_overwrites_itself || (case_.program.kind == Kind::Real && seen.enters_itself);
}

// Turns instructions of a sequence into NOPs as long as there is a difference.
void Fuzzer::shrink(EngineMachine& engine) {
  uint64_t at = case_.code;
  for (const auto& [length, stored_into] : case_.pieces) {
    std::byte* const bytes = case_.program.memory.data() + at;
    at += length;
    if (*bytes == kHalt || stored_into) continue;
    const std::vector<std::byte> old(bytes, bytes + length);
    std::fill(bytes, bytes + length, kNop);
    native_outcome_ = judge();
    if (native_outcome_.timeout || compare(engine).empty() || answer_is_open())
      std::copy(old.begin(), old.end(), bytes);
  }
  native_outcome_ = judge();
}

// "64:add:1234", "32:sequence:5678"
int Fuzzer::run_one() {
  const std::string& name = options_.one;
  const size_t first = name.find(':'), last = name.rfind(':');
  const std::optional<Kind> named = kind_named(name.substr(0, first));
  if (first == last || !named || !can_run(*named)) {
    fmt::print("no such case: {}\n", name);
    return 2;
  }
  const Kind kind = *named;
  const std::string row = name.substr(first + 1, last - first - 1);
  const uint64_t seed = std::strtoull(name.c_str() + last + 1, nullptr, 16);
  const Generators generators(kind);
  if (row == "sequence" && kind != Kind::Real) {
    run_sequence(generators.sequences, kind, seed);
  } else {
    for (const ZydisMnemonic one : generators.singles.mnemonics()) {
      if (row == ZydisMnemonicGetString(one)) run_single(generators.singles, kind, one, seed);
    }
  }
  if (cases_ + sequences_ == 0) {
    fmt::print("no such case: {}\n", name);
    return 2;
  }
  show_state();
  if (failures_ == 0) fmt::print("no difference\n");
  return failures_ == 0 ? 0 : 1;
}

// Ends with a line "N passed, N failed".
int Fuzzer::run_known() {
  constexpr uint64_t kStates = 1000;
  unsigned passed = 0, failed = 0;
  std::array<std::unique_ptr<Generators>, kKinds.size()> generators;
  for (const KnownCase& known : read_known_cases(options_.known)) {
    if (!can_run(known.kind)) continue;
    auto& made = generators[index_of(known.kind)];
    if (!made) made = std::make_unique<Generators>(known.kind);
    uint64_t ran = 0;
    const uint64_t before = failures_;
    for (uint64_t seed = 0; seed < kStates && failures_ == before; ++seed) {
      const bool good = known.sequence
                            ? made->sequences.make_fixed(known.bytes, mix(options_.seed) + seed, case_)
                            : made->singles.make_fixed(known.bytes, mix(options_.seed) + seed, case_);
      if (!good) continue;
      name_ = known.name;
      ++ran;
      run_case();
    }
    const bool good = ran > kStates / 10 && failures_ == before;
    if (!good) fmt::print("FAIL {}: {} states\n", known.name, ran);
    (good ? passed : failed)++;
  }
  fmt::print("{} passed, {} failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

std::span<const std::byte> Fuzzer::code() const {
  const uint64_t size = std::min<uint64_t>(case_.code_bytes, area::kBytes - case_.code);
  return std::span(case_.program.memory).subspan(case_.code, size);
}

// Instructions but NOPs.
std::string Fuzzer::disassemble() const {
  std::string out;
  uint64_t rip = case_.program.start.rip;
  for (std::span<const std::byte> rest = code(); !rest.empty();) {
    ZydisDisassembledInstruction text;
    if (!ZYAN_SUCCESS(
            ZydisDisassembleIntel(machine_mode(case_.program.kind), rip, rest.data(), rest.size(), &text))) {
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

void Fuzzer::report(std::string_view engine, std::string_view text) const {
  fmt::print(
      "FAIL {}\n  at {:#x}: {}\n  {} engine: {}\n"
      "  natively: exception {} at {:#x}, error code {:#x}, cr2 {:#x}\n  again: tests/fuzz --case {}\n",
      disassemble(), case_.program.start.rip, hex_bytes(code()), engine, text, native_outcome_.vector,
      native_outcome_.state.rip, native_outcome_.error_code, native_outcome_.cr2, name_);
  std::fflush(stdout);
}

void Fuzzer::show_state() const {
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

void Fuzzer::tick() {
  if (patience_ == 0) return;
  patience_ = patience_ - 1;
  if (patience_ != 0) return;
  if (engine_) {
    engine_->give_up();
  } else {
    unicorn_.give_up();
  }
}

void Fuzzer::crashed() const {
  report(engine_ ? engine_->name() : "no", "a host fault that is nobody's");
}

}  // namespace penumbra::fuzz
