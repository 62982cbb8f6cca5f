// Runs cases natively and on every engine; shrinks and reports what differs.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/fuzzer/coverage.h"
#include "tests/fuzzer/engine_machine.h"
#include "tests/fuzzer/generator.h"
#include "tests/fuzzer/known.h"
#include "tests/fuzzer/native_machine.h"
#include "tests/fuzzer/sequence.h"
#include "tests/fuzzer/unicorn_machine.h"

namespace penumbra::fuzz {

struct Options {
  uint64_t seed = 1, cases = 100'000, sequences = 10'000;
  std::optional<Kind> kind;  // none: all
  uint64_t each = 0;         // cases for every row, instead of `cases` for random ones
  uint64_t max_failures = 20;
  std::string only;            // a mnemonic
  std::string one;             // one case, as a failure names it
  std::string known;           // the file of cases that went wrong once
  std::string damage;          // a mnemonic: engines are made to answer wrongly where the code holds it...
  std::string damaged_engine;  // ... or only this one
  bool coverage = false;
  std::string check_coverage;  // the directory with the sources
};

class Fuzzer {
 public:
  explicit Fuzzer(Options options);

  int run();  // 0: no difference

 private:
  struct Generators {
    Generator singles;
    SequenceGenerator sequences;
    explicit Generators(Kind kind) : singles(kind), sequences(kind, singles.forms()) {}
  };

  void renew_engines();
  void warm_up();
  void run_kind(Kind kind);
  void run_each(Kind kind, const Generator& generator, uint64_t seed);
  bool run_single(const Generator& generator, Kind kind, ZydisMnemonic mnemonic, uint64_t seed);
  bool run_sequence(const SequenceGenerator& generator, Kind kind, uint64_t seed);
  int run_one();
  int run_known();
  void run_case();
  bool ends_at_what_is_left_out() const;
  Outcome judge();  // what the bare CPU does, or Unicorn
  std::span<const std::byte> judge_memory() const;
  std::string compare(EngineMachine& engine);  // against native_outcome_
  bool answer_is_open();
  void shrink(EngineMachine& engine);
  bool can_run(Kind kind) const { return kind != Kind::Bits16 || native_.has_ldt(); }

  std::span<const std::byte> code() const;
  std::string disassemble() const;
  void report(std::string_view engine, std::string_view text) const;
  void show_state() const;

  void tick();
  void crashed() const;

  static constexpr unsigned kPatience = 500, kUnicornPatience = 100;  // of 10 ms
  static constexpr uint64_t kRenewal = 20'000;
  Options options_;
  NativeMachine native_;
  UnicornMachine unicorn_;
  std::vector<std::unique_ptr<EngineMachine>> engines_;
  Coverage coverage_;
  uint64_t cases_ = 0, sequences_ = 0, since_renewal_ = 0, unanswered_ = 0, failures_ = 0;
  // The case that runs.
  std::string name_;
  Case case_;
  Outcome native_outcome_;
  EngineMachine* volatile engine_ = nullptr;
  volatile unsigned patience_ = 0;
};

}  // namespace penumbra::fuzz
