// How many cases each row of the instruction table had, by kind of code.
#pragma once

#include <array>
#include <cstdint>

#include "tests/fuzzer/generator.h"
#include "tests/fuzzer/rows.h"

namespace penumbra::fuzz {

class Coverage {
 public:
  // The rows that have an encoding there.
  void add_rows(Kind kind, const std::vector<ZydisMnemonic>& mnemonics);
  void note(Kind kind, ZydisMnemonic mnemonic) { ++rows_[mnemonic].cases[index_of(kind)]; }
  uint64_t cases(Kind kind, ZydisMnemonic mnemonic) const { return rows_[mnemonic].cases[index_of(kind)]; }

  // One line a row: class, cases by kind ("-": no encoding there), and why there are none or what else tests
  // it.
  void print() const;
  // Prints the rows that have an encoding but neither a case nor a reason, and reasons that name a file which
  // does not exist below `sources`; how many there are.
  unsigned print_gaps(const char* sources) const;

 private:
  struct Row {
    std::array<uint64_t, kKinds.size()> cases{};
    std::array<bool, kKinds.size()> exists{};
  };
  std::array<Row, ZYDIS_MNEMONIC_MAX_VALUE + 1> rows_{};
};

}  // namespace penumbra::fuzz
