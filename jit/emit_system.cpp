// Privileged, critical, string and legacy instructions: a call into the core; or, for those that systems
// execute all the time, host code for the usual case and the call for the rest.
#include "jit/block_translator.h"

namespace penumbra::jit {

void BlockTranslator::emit_system(const GuestInstruction& insn, SystemInstruction system, bool ends) {
  give_up_flags(true);
  const SystemInstruction* const detail = arena_->make(system);
  if (ends) {
    a_.load_address(kTemp, detail);
    a_.jmp(asmjit::Imm(environment_.thunks->system_end));
    block_ended_ = true;
    return;
  }
  emit_callout(environment_.thunks->system, detail);
  // The core has left the flags in the state block, where the thunk's caller finds them.
  flags_ = FlagHome::Spilled;
}

// False, and nothing emitted, when the instruction is left to emit_system(). With the flags out of the host's
// way, the usual case is tested for at run time where it must be.
bool BlockTranslator::emit_system_inline(const GuestInstruction& insn, const SystemInstruction& system) {
  if (!options_.inline_system || one_instruction() || !key_.mode.has(ModeBits::kProtected)) return false;
  const unsigned bytes = insn.zydis.operand_width / 8;
  switch (system.op) {
    case SystemOp::Cld:
    case SystemOp::Std: {
      give_up_flags(true);
      const x86::Mem second_byte = a_.state_field(offsetof(VcpuState, rflags) + 1, 1);
      if (system.op == SystemOp::Cld) {
        a_.and_(second_byte, static_cast<uint8_t>(~(flag::kDf >> 8)));
      } else {
        a_.or_(second_byte, flag::kDf >> 8);
      }
      return true;
    }
    case SystemOp::Cli:
      if (key_.mode.has(ModeBits::kUser)) return false;
      give_up_flags(true);
      a_.cmp(a_.state_field(offsetof(VcpuState, cpl), 1), 0);
      with_rare_case(insn, system, x86::CondCode::kNE, [&] {
        a_.and_(a_.state_field(offsetof(VcpuState, rflags) + 1, 1), static_cast<uint8_t>(~(flag::kIf >> 8)));
      });
      return true;
    case SystemOp::Pushf:
      give_up_flags(true);
      held_ = kNothingHeld;
      a_.movzx(kTemp.r32(), a_.state_field(offsetof(VcpuState, spilled_overflow), 1));
      a_.shl(kTemp.r32(), std::countr_zero(flag::kOf));
      a_.mov(kHostAddend.r32(), a_.state_field(offsetof(VcpuState, rflags), 4));
      a_.and_(kHostAddend.r32(), ~static_cast<uint32_t>(flag::kOf | flag::kVm | flag::kRf));
      a_.or_(kTemp.r32(), kHostAddend.r32());
      a_.mov(a_.scratch_field(Scratch::Operand), kTemp);
      emit_push_slot(bytes);
      return true;
    case SystemOp::Popf:
      if (bytes == 2) return false;
      emit_popf(insn, system, bytes);
      return true;
    case SystemOp::PushSreg:
      if (system.reg > kGs) return false;
      if (bytes == 4 && !key_.mode.has(ModeBits::kAmd)) {
        // ESP moves by 4, and 16 bits are written (SDM vol. 2, PUSH).
        open_stack(-4, 2, AccessKind::Write);
        a_.movzx(kTemp.r32(), selector_field(system.reg));
        a_.mov(host_operand(2), kTemp.r16());
        end_access();
        adjust_stack(-4);
        return true;
      }
      a_.movzx(kTemp.r32(), selector_field(system.reg));
      a_.mov(a_.scratch_field(Scratch::Operand), kTemp);
      emit_push_slot(bytes);
      return true;
    case SystemOp::MovFromSreg:
      if (system.reg > kGs || insn.operands[0].type != ZYDIS_OPERAND_TYPE_REGISTER) return false;
      a_.movzx(kTemp.r32(), selector_field(system.reg));
      set_gpr(gpr_number(insn.operands[0].reg.value), kTemp, insn.operands[0].size / 8);
      return true;
    case SystemOp::Movs:
    case SystemOp::Stos:
    case SystemOp::Lods:
      return emit_string(insn, system);
    default:
      return false;
  }
}

x86::Mem BlockTranslator::selector_field(unsigned segment) const {
  return a_.state_field(
      offsetof(VcpuState, segments) + segment * sizeof(Segment) + offsetof(Segment, selector), 2);
}

// `usual` is what follows unless `condition` holds; then the core executes the instruction.
template <class Usual>
void BlockTranslator::with_rare_case(const GuestInstruction& insn, const SystemInstruction& system,
                                     x86::CondCode condition, Usual usual) {
  const asmjit::Label rare = a_.newLabel(), done = a_.newLabel();
  a_.long_().j(condition, rare);
  usual();
  a_.long_().jmp(done);
  a_.bind(rare);
  record_site(insn.rip);
  emit_system(insn, system, false);
  a_.bind(done);
}

// The usual case: no flag changes that anything but arithmetic and string instructions depend on.
void BlockTranslator::emit_popf(const GuestInstruction& insn, const SystemInstruction& system,
                                unsigned bytes) {
  constexpr auto kPlain = static_cast<uint32_t>(flag::kArithmetic | flag::kDf);
  constexpr auto kReserved = ~static_cast<uint32_t>(flag::kArithmetic | flag::kTf | flag::kIf | flag::kDf |
                                                    flag::kIopl | flag::kNt | flag::kAc | flag::kId);
  give_up_flags(true);
  flags_ = FlagHome::Spilled;
  open_stack(0, bytes, AccessKind::Read);
  a_.mov(kTemp.r32(), host_operand(4));
  held_ = kNothingHeld;
  const x86::Mem rflags = a_.state_field(offsetof(VcpuState, rflags), 4);
  a_.mov(kHostAddend.r32(), rflags);
  a_.mov(kLinear.r32(), kHostAddend.r32());
  a_.xor_(kHostAddend.r32(), kTemp.r32());
  a_.and_(kHostAddend.r32(), ~(kPlain | kReserved));
  // RF, which POPF clears.
  a_.and_(kLinear.r32(), static_cast<uint32_t>(flag::kRf));
  a_.or_(kHostAddend.r32(), kLinear.r32());
  with_rare_case(insn, system, x86::CondCode::kNE, [&] {
    a_.and_(kTemp.r32(), kPlain);
    a_.mov(kHostAddend.r32(), rflags);
    a_.and_(kHostAddend.r32(), ~kPlain);
    a_.or_(kHostAddend.r32(), kTemp.r32());
    a_.mov(rflags, kHostAddend.r32());
    a_.shr(kTemp.r32(), std::countr_zero(flag::kOf));
    a_.mov(a_.state_field(offsetof(VcpuState, spilled_overflow), 1), kTemp.r8());
    adjust_stack(bytes);
  });
}

// MOVS, STOS and LODS upwards: one element through either memory path, repeated ones through windows.
bool BlockTranslator::emit_string(const GuestInstruction& insn, const SystemInstruction& system) {
  if (insn.zydis.address_width == 16) return false;
  const ZydisDecodedOperand* from = nullptr;
  const ZydisDecodedOperand* to = nullptr;
  for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
    const ZydisDecodedOperand& operand = insn.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? to : from) = &operand;
  }
  for (const ZydisDecodedOperand* operand : {from, to}) {
    if (operand && !is_inline(access_of(*operand))) return false;
  }
  const unsigned bytes = (from ? from : to)->size / 8;
  if (system.repeat != SystemInstruction::Repeat::None) {
    return to && emit_repeated_string(insn, system, from, *to, bytes);
  }
  const auto advance = [&](const x86::Gp& pointer) {
    const auto step = static_cast<int32_t>(bytes);
    a_.lea(insn.zydis.address_width == 64 ? pointer : pointer.r32(), x86::ptr(pointer, step));
  };
  give_up_flags(true);
  a_.test(a_.state_field(offsetof(VcpuState, rflags) + 1, 1), flag::kDf >> 8);
  with_rare_case(insn, system, x86::CondCode::kNZ, [&] {
    if (from) {
      open_access(from->mem, insn, access_of(*from));
      a_.mov(sized(kTemp, bytes), host_operand(bytes));
      end_access();
    }
    if (from && to) a_.mov(a_.scratch_field(Scratch::Operand), kTemp);
    if (to) {
      open_access(to->mem, insn, access_of(*to));
      if (from) a_.mov(kTemp, a_.scratch_field(Scratch::Operand));
      a_.mov(host_operand(bytes), sized(from ? kTemp : x86::rax, bytes));
      end_access();
    } else {
      set_gpr(kRax, kTemp, bytes);
    }
    if (from) advance(x86::rsi);
    if (to) advance(x86::rdi);
  });
  return true;
}

// The host's own instruction on the windows of both sides. What faults half-way goes on where it stopped once
// the page is there, or in the core, with the registers as after the elements that are done.
bool BlockTranslator::emit_repeated_string(const GuestInstruction& insn, const SystemInstruction& system,
                                           const ZydisDecodedOperand* from, const ZydisDecodedOperand& to,
                                           unsigned bytes) {
  if (insn.zydis.address_width != (code64() ? 64 : 32) || window_use_.wraps) return false;
  for (const ZydisDecodedOperand* operand : {from, &to}) {
    if (!operand) continue;
    const MemoryAccess access = access_of(*operand);
    if (!is_windowed(access) || access.segment == kFs || access.segment == kGs) return false;
  }
  // Interrupts wait for so many; and they stay within a window's guards.
  constexpr uint32_t kMostElements = 1u << 20;
  static_assert(kMostElements * 8 < ShadowWindows::kGuardBytes / 2);
  give_up_flags(true);
  const asmjit::Label rare = a_.newLabel(), done = a_.newLabel();
  a_.test(a_.state_field(offsetof(VcpuState, rflags) + 1, 1), flag::kDf >> 8);
  a_.long_().jnz(rare);
  a_.cmp(x86::rcx, kMostElements);
  a_.long_().ja(rare);
  if (code64()) {
    open_access(to.mem, insn, access_of(to));
    if (from) {
      a_.mov(a_.scratch_field(Scratch::Target), kHostAddend);
      open_access(from->mem, insn, access_of(*from));
      a_.mov(kLinear, kHostAddend);
      a_.mov(kTemp, a_.scratch_field(Scratch::Target));
    } else {
      a_.mov(kTemp, kHostAddend);
    }
  } else {
    a_.mov(kTemp, a_.state_field(offsetof(VcpuState, windows) + offsetof(WindowState, flat), 8));
    if (from) a_.mov(kLinear, kTemp);
  }
  if (!from) a_.mov(kLinear.r32(), 0);
  add_site(insn.rip - key_.rip, SiteKind::String);
  a_.add(x86::rdi, kTemp);
  if (from) a_.add(x86::rsi, kLinear);
  const uint8_t opcode = (from ? 0xa4 : 0xaa) | (bytes > 1);
  const uint8_t prefix = bytes == 2 ? 0x66 : 0x48;  // operand size or REX.W
  a_.db(0xf3);
  if (bytes == 2 || bytes == 8) a_.db(prefix);
  a_.db(opcode);
  a_.sub(x86::rdi, kTemp);
  if (from) a_.sub(x86::rsi, kLinear);
  if (!code64()) {
    a_.mov(x86::edi, x86::edi);
    if (from) a_.mov(x86::esi, x86::esi);
  }
  record_site(insn.rip);
  a_.long_().jmp(done);
  a_.bind(rare);
  emit_system(insn, system, false);
  a_.bind(done);
  return true;
}

}  // namespace penumbra::jit
