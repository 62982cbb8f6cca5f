#include "jit/options.h"

#include <stdexcept>

namespace penumbra::jit {

std::span<const TranslatorSwitch> translator_switches() {
  static constexpr TranslatorSwitch kSwitches[] = {
      {"chain", &TranslatorOptions::chain, "patch direct jumps within a page to their target block"},
      {"jump-cache", &TranslatorOptions::jump_cache,
       "find other jump targets without leaving translated code"},
      {"flag-liveness", &TranslatorOptions::flag_liveness, "clobber arithmetic flags that are dead"},
      {"soft-tlb", &TranslatorOptions::soft_tlb, "inline TLB lookup (off: callout for every memory operand)"},
      {"long-blocks", &TranslatorOptions::long_blocks, "blocks of many instructions (off: one a block)"},
      {"shared-blocks", &TranslatorOptions::shared_blocks,
       "64-bit user code is translated once for all addresses that it is mapped at"},
      {"superblocks", &TranslatorOptions::superblocks,
       "blocks with windows go on after conditional jumps, through direct ones and calls"},
      {"swap-registers", &TranslatorOptions::swap_registers,
       "loops have all registers that they write in host registers"},
      {"carry-deltas", &TranslatorOptions::carry_deltas,
       "loops find the windows of their base registers before the first round"},
      {"warm-entries", &TranslatorOptions::warm_entries,
       "blocks with windows hand the windows of base registers on to the blocks that they jump to"},
      {"step-stack", &TranslatorOptions::step_stack,
       "blocks with windows add up what they push and pop, and move RSP where it is needed"},
      {"inline-system", &TranslatorOptions::inline_system,
       "the usual case of CLI, PUSHF, MOVS and the like without a call into the core"},
      {"record-blocks", &TranslatorOptions::record_blocks,
       "note the blocks entered last, for the dump of a triple fault"},
  };
  return kSwitches;
}

TranslatorOptions::Mmu mmu_named(std::string_view name) {
  if (name == "tlb") return TranslatorOptions::Mmu::Tlb;
  if (name == "windows") return TranslatorOptions::Mmu::Windows;
  if (name == "auto") return TranslatorOptions::Mmu::Auto;
  throw std::invalid_argument("--mmu: '" + std::string(name) + "' is not tlb, windows or auto");
}

void apply_switches(TranslatorOptions& options, std::string_view list) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const std::string_view word = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
    const bool on = !word.starts_with("no-");
    const std::string_view name = on ? word : word.substr(3);
    bool known = false;
    for (const TranslatorSwitch& candidate : translator_switches()) {
      if (candidate.name != name) continue;
      options.*candidate.member = on;
      known = true;
    }
    if (!known) throw std::invalid_argument("--jit: unknown switch '" + std::string(word) + "'");
  }
}

}  // namespace penumbra::jit
