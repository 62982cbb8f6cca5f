// Small vocabulary for emitting host code around guest instructions: state-block operands, flag spills,
// helpers.
#pragma once

#include <asmjit/x86.h>

#include <cstddef>
#include <cstdint>

#include "core/vcpu_state.h"
#include "jit/block.h"

namespace penumbra::jit {

namespace x86 = asmjit::x86;

// Host registers that hold no guest register (design 3.3): guest r9 to r11 live in VcpuState::gpr.
inline const x86::Gp kHostAddend = x86::r9;  // memory path: host address = kHostAddend + kLinear
inline const x86::Gp kLinear = x86::r10;  // linear address or offset of an access; jump target at block ends
inline const x86::Gp kTemp = x86::r11;

constexpr bool lives_in_memory(unsigned gpr) {
  return gpr >= kR9 && gpr <= kR11;
}

// Uses of VcpuState::scratch by translated code.
enum class Scratch : unsigned { Rax, Continue, Linear, Operand, Rcx, Rdi, Jump, Target };

// SAFETY: gs: holds the address of the VcpuState while translated code runs (Runtime::enter).
inline x86::Mem state_field(size_t offset, uint32_t size) {
  x86::Mem mem = x86::ptr_abs(offset, size);
  mem.setSegment(x86::gs);
  return mem;
}
inline x86::Mem gpr_field(unsigned gpr, uint32_t size = 8) {
  return state_field(offsetof(VcpuState, gpr) + gpr * 8, size);
}
inline x86::Mem scratch_field(Scratch slot, uint32_t size = 8) {
  return state_field(offsetof(VcpuState, scratch) + static_cast<unsigned>(slot) * 8, size);
}
inline x86::Mem segment_base_field(SegmentIndex segment) {
  return state_field(offsetof(VcpuState, segments) + segment * sizeof(Segment) + offsetof(Segment, base), 8);
}

// Host register of a guest register that lives in one.
inline x86::Gp host_gpr(unsigned gpr) {
  return x86::gpq(gpr);
}

// The low 1, 2, 4 or 8 bytes of a register.
inline x86::Gp sized(const x86::Gp& gpr, unsigned bytes) {
  switch (bytes) {
    case 1:
      return gpr.r8();
    case 2:
      return gpr.r16();
    case 4:
      return gpr.r32();
    default:
      return gpr.r64();
  }
}

// Saves the arithmetic flags to the state block, changing no register and no flag.
void emit_spill_flags(x86::Assembler& a);
// The reverse.
void emit_restore_flags(x86::Assembler& a);
// Guest registers that live in host registers, to and from VcpuState::gpr. No flag is changed.
void emit_save_gprs(x86::Assembler& a);
void emit_load_gprs(x86::Assembler& a);

}  // namespace penumbra::jit
