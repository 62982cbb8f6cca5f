#include "jit/emitter.h"

namespace penumbra::jit {

void Emitter::spill_flags() {
  mov(scratch_field(Scratch::Rax), x86::rax);
  lahf();
  mov(state_field(offsetof(VcpuState, rflags), 1), x86::ah);
  seto(state_field(offsetof(VcpuState, spilled_overflow), 1));
  mov(x86::rax, scratch_field(Scratch::Rax));
}

void Emitter::restore_flags() {
  mov(scratch_field(Scratch::Rax), x86::rax);
  mov(x86::al, state_field(offsetof(VcpuState, spilled_overflow), 1));
  mov(x86::ah, state_field(offsetof(VcpuState, rflags), 1));
  add(x86::al, 0x7f);  // 1 + 127 overflows, 0 + 127 does not: sets OF; SAHF leaves OF alone
  sahf();
  mov(x86::rax, scratch_field(Scratch::Rax));
}

void Emitter::save_gprs() {
  for (unsigned gpr = 0; gpr < 16; ++gpr) {
    if (!usually_in_memory(gpr)) mov(gpr_field(gpr), host_gpr(gpr));
  }
}

void Emitter::load_gprs() {
  for (unsigned gpr = 0; gpr < 16; ++gpr) {
    if (!usually_in_memory(gpr)) mov(host_gpr(gpr), gpr_field(gpr));
  }
}

}  // namespace penumbra::jit
