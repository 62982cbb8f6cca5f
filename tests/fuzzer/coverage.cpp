#include "tests/fuzzer/coverage.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <sstream>

namespace penumbra::fuzz {

namespace {

template <class Visit>
void each_row(Visit visit) {
  for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; ++i) {
    const auto mnemonic = static_cast<ZydisMnemonic>(i);
    const jit::InstructionRow& row = jit::instruction_row(mnemonic);
    if (row.action != jit::Action::None) visit(mnemonic, row);
  }
}

// Paths that a reason names.
unsigned missing_files(const char* reason, const char* sources) {
  unsigned missing = 0;
  std::istringstream words(reason);
  for (std::string word; words >> word;) {
    if (!word.starts_with("tests/") || std::filesystem::exists(std::filesystem::path(sources) / word))
      continue;
    fmt::print("GAP a reason names {}, which does not exist\n", word);
    ++missing;
  }
  return missing;
}

}  // namespace

void Coverage::add_rows(Kind kind, const std::vector<ZydisMnemonic>& mnemonics) {
  for (const ZydisMnemonic mnemonic : mnemonics) rows_[mnemonic].exists[index_of(kind)] = true;
}

void Coverage::print() const {
  fmt::print("{:<18} {:<10} {:>8} {:>8} {:>8} {:>8}\n", "row", "class", "64", "32", "16", "real");
  each_row([&](ZydisMnemonic mnemonic, const jit::InstructionRow& row) {
    const Row& counted = rows_[mnemonic];
    const auto cell = [&](unsigned column) {
      return counted.exists[column] ? fmt::to_string(counted.cases[column]) : "-";
    };
    const char* note = reason_not_native(mnemonic);
    if (!note) note = privileged_test(mnemonic);
    fmt::print("{:<18} {:<10} {:>8} {:>8} {:>8} {:>8}  {}\n", ZydisMnemonicGetString(mnemonic),
               jit::name_of(row.instruction_class), cell(0), cell(1), cell(2), cell(3), note ? note : "");
  });
}

unsigned Coverage::print_gaps(const char* sources) const {
  unsigned gaps = 0;
  each_row([&](ZydisMnemonic mnemonic, const jit::InstructionRow&) {
    const Row& counted = rows_[mnemonic];
    if (const char* reason = reason_not_native(mnemonic)) {
      gaps += missing_files(reason, sources);
      return;
    }
    if (const char* test = privileged_test(mnemonic)) gaps += missing_files(test, sources);
    const bool anywhere = std::ranges::any_of(counted.exists, std::identity());
    if (!anywhere)
      fmt::print("GAP {} has a row, but no encoding in any code size\n", ZydisMnemonicGetString(mnemonic));
    gaps += !anywhere;
    for (unsigned column = 0; column < kKinds.size(); ++column) {
      if (!counted.exists[column] || counted.cases[column] != 0) continue;
      fmt::print("GAP {} has no case in {}\n", ZydisMnemonicGetString(mnemonic), name_of(kKinds[column]));
      ++gaps;
    }
  });
  return gaps;
}

}  // namespace penumbra::fuzz
