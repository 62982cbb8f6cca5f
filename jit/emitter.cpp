#include "jit/emitter.h"

namespace penumbra::jit {

void emit_spill_flags(x86::Assembler& a) {
  a.mov(scratch_field(Scratch::Rax), x86::rax);
  a.lahf();
  a.mov(state_field(offsetof(VcpuState, rflags), 1), x86::ah);
  a.seto(state_field(offsetof(VcpuState, spilled_overflow), 1));
  a.mov(x86::rax, scratch_field(Scratch::Rax));
}

void emit_restore_flags(x86::Assembler& a) {
  a.mov(scratch_field(Scratch::Rax), x86::rax);
  a.mov(x86::al, state_field(offsetof(VcpuState, spilled_overflow), 1));
  a.mov(x86::ah, state_field(offsetof(VcpuState, rflags), 1));
  a.add(x86::al, 0x7f);  // 1 + 127 overflows, 0 + 127 does not: sets OF; SAHF leaves OF alone
  a.sahf();
  a.mov(x86::rax, scratch_field(Scratch::Rax));
}

void emit_save_gprs(x86::Assembler& a) {
  for (unsigned gpr = 0; gpr < 16; ++gpr) {
    if (!lives_in_memory(gpr)) a.mov(gpr_field(gpr), host_gpr(gpr));
  }
}

void emit_load_gprs(x86::Assembler& a) {
  for (unsigned gpr = 0; gpr < 16; ++gpr) {
    if (!lives_in_memory(gpr)) a.mov(host_gpr(gpr), gpr_field(gpr));
  }
}

}  // namespace penumbra::jit
