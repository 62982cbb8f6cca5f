// Compares the translator with the CPU it runs on: tests/fuzz --help.
#include <CLI/CLI.hpp>

#include "tests/fuzzer/fuzzer.h"

int main(int argc, char** argv) {
  penumbra::fuzz::Options options;
  std::string kind;
  CLI::App app("Compares the translator with the CPU it runs on, one random program at a time.");
  app.add_option("--seed", options.seed, "what the cases follow from");
  app.add_option("--cases", options.cases, "how many single instructions");
  app.add_option("--sequences", options.sequences, "how many sequences of instructions");
  app.add_option("--kind", kind, "one kind of code only: 64, 32, 16 (protected mode) or real")
      ->check(CLI::IsMember({"64", "32", "16", "real"}));
  app.add_option("--each", options.each, "this many cases for every row of the instruction table instead");
  app.add_option("--only", options.only, "one mnemonic only, in lower case");
  app.add_option("--case", options.one, "one case, as a failure names it");
  app.add_option("--known", options.known,
                 "the cases of a file like tests/fuzzer/known.txt, with many states each");
  app.add_option("--max-failures", options.max_failures, "when to stop");
  app.add_option("--damage", options.damage,
                 "engines answer wrongly where the code holds this mnemonic: do differences show?");
  app.add_option("--damaged-engine", options.damaged_engine, "the one engine that does");
  app.add_flag("--coverage", options.coverage, "how many cases each row of the instruction table had");
  app.add_option(
      "--check-coverage", options.check_coverage,
      "fails if a row has neither a case nor a reason; the directory of the sources that reasons name");
  CLI11_PARSE(app, argc, argv);
  if (!kind.empty()) options.kind = penumbra::fuzz::kind_named(kind);
  return penumbra::fuzz::Fuzzer(options).run();
}
