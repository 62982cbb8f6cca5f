// Privileged, critical, string and legacy instructions: a call into the core.
#include "jit/block_translator.h"

namespace penumbra::jit {

void BlockTranslator::emit_system(const GuestInstruction& insn, SystemInstruction system, bool ends) {
  give_up_flags(true);
  block_->system.push_back(system);
  emit_callout(environment_.thunks->system, reinterpret_cast<uint64_t>(&block_->system.back()));
  // The core has left the flags in the state block, where the thunk's caller finds them.
  flags_ = FlagHome::Spilled;
  if (ends) {
    // The core never goes on here: it redirects or raises.
    a_.ud2();
    block_ended_ = true;
  }
}

}  // namespace penumbra::jit
