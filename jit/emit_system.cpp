// Privileged, critical, string and legacy instructions: a call into the core.
#include "jit/block_translator.h"

namespace penumbra::jit {

void BlockTranslator::emit_system(const GuestInstruction& insn, SystemInstruction system, bool ends) {
  give_up_flags(true);
  const auto detail = reinterpret_cast<uint64_t>(arena_->make(system));
  if (ends) {
    a_.mov(kTemp, asmjit::Imm(detail));
    a_.jmp(asmjit::Imm(environment_.thunks->system_end));
    block_ended_ = true;
    return;
  }
  emit_callout(environment_.thunks->system, detail);
  // The core has left the flags in the state block, where the thunk's caller finds them.
  flags_ = FlagHome::Spilled;
}

}  // namespace penumbra::jit
