// Run-time switches of the translator. Each optimisation can be turned off on its own, to bisect a
// misbehaving guest: `--jit no-chain,no-flag-liveness`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace penumbra::jit {

struct TranslatorOptions {
  bool chain = true;          // patch direct jumps within a page to jump straight to the target block
  bool jump_cache = true;     // find targets of indirect and cross-page jumps without leaving translated code
  bool flag_liveness = true;  // clobber arithmetic flags where no later instruction reads them
  bool soft_tlb = true;       // inline TLB lookup; off: every memory operand in callout form
  bool long_blocks = true;    // off: one guest instruction a block
  bool shared_blocks =
      true;  // user code is translated once for all linear addresses at which its page is mapped
  bool superblocks =
      true;  // blocks for the shadow windows go on after conditional jumps, through direct ones and calls
  bool swap_registers = true;  // loops have all registers that they write in host registers
  bool carry_deltas = true;    // loops find the region deltas of their base registers before the first round
  bool warm_entries =
      true;  // jumps skip the checks at their target's entry that the block they come from has made
  bool step_stack =
      true;  // blocks for the shadow windows add up what they push and pop, and move RSP where it is needed
  bool inline_system = true;   // the usual case of CLI, PUSHF, MOVS and the like without a call into the core
  bool record_blocks = false;  // blocks note that they are entered, for Translator::recent_blocks()

  // How code reaches memory: the software TLB, shadow windows (mmu/shadow_windows.h), or the TLB at first
  // and windows for the blocks where the time goes.
  enum class Mmu : uint8_t { Tlb, Windows, Auto };
  Mmu mmu = Mmu::Auto;

  uint64_t code_cache_bytes = 128ull << 20;  // 1 MiB to 1 GiB

  std::optional<std::string>
      perf_map;  // name blocks for perf (jit/perf_map.h), with this System.map unless empty

  // Trace what is translated and run (-d); see core/trace_log.h for where it goes.
  bool trace_guest_code = false;  // in_asm
  bool trace_host_code = false;   // out_asm
  bool trace_execution = false;   // exec, cpu: no jump bypasses the dispatcher
};

// One switch as the command line names it: NAME turns it on, no-NAME off.
struct TranslatorSwitch {
  std::string_view name;
  bool TranslatorOptions::*member;
  std::string_view help;
};
std::span<const TranslatorSwitch> translator_switches();

// "tlb", "windows" or "auto". Throws std::invalid_argument for anything else.
TranslatorOptions::Mmu mmu_named(std::string_view name);

// Applies a comma-separated list of switches. Throws std::invalid_argument naming an unknown one.
void apply_switches(TranslatorOptions& options, std::string_view list);

}  // namespace penumbra::jit
