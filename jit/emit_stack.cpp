// PUSH, POP, LEAVE and the stack side of CALL and RET. RSP moves only after the access has succeeded.
#include "jit/block_translator.h"

namespace penumbra::jit {

void BlockTranslator::emit_stack_offset(int64_t displacement) {
  const auto disp32 = static_cast<int32_t>(displacement);
  switch (stack_bytes()) {
    case 8:
      a_.lea(kLinear, x86::ptr(x86::rsp, disp32));
      break;
    case 4:
      a_.lea(kLinear.r32(), x86::ptr(x86::rsp, disp32));
      break;
    default:
      a_.lea(kLinear.r32(), x86::ptr(x86::rsp, disp32));
      a_.movzx(kLinear.r32(), kLinear.r16());
      break;
  }
}

void BlockTranslator::open_stack(int64_t displacement, unsigned bytes, AccessKind kind) {
  const MemoryAccess access{
      .segment = kSs, .kind = kind, .size = static_cast<uint16_t>(bytes), .rip = instructions_[current_].rip};
  if (stack_bytes() == 2 || !is_windowed(access)) {
    emit_stack_offset(displacement);
    begin_access(access);
    return;
  }
  access_is_inline_ = true;
  const auto disp32 = static_cast<int32_t>(displacement);
  if (code64()) {
    emit_window_by_register(kRsp, disp32, access);
    return;
  }
  record_access(access);
  operand_ = x86::ptr(x86::rsp, disp32);
  operand_.setSegment(x86::gs);
}

void BlockTranslator::adjust_stack(int64_t bytes) {
  const auto disp32 = static_cast<int32_t>(bytes);
  switch (stack_bytes()) {
    case 8:
      a_.lea(x86::rsp, x86::ptr(x86::rsp, disp32));
      break;
    case 4:
      a_.lea(x86::esp, x86::ptr(x86::rsp, disp32));
      break;
    default:
      a_.lea(kTemp.r32(), x86::ptr(x86::rsp, disp32));
      a_.mov(x86::sp, kTemp.r16());
      break;
  }
}

void BlockTranslator::emit_push_value(const x86::Gp& value, unsigned bytes) {
  open_stack(-static_cast<int64_t>(bytes), bytes, AccessKind::Write);
  a_.mov(host_operand(bytes), sized(value, bytes));
  end_access();
  adjust_stack(-static_cast<int64_t>(bytes));
}

void BlockTranslator::emit_push_slot(unsigned bytes) {
  open_stack(-static_cast<int64_t>(bytes), bytes, AccessKind::Write);
  a_.mov(sized(kTemp, bytes), a_.scratch_field(Scratch::Operand, bytes));
  a_.mov(host_operand(bytes), sized(kTemp, bytes));
  end_access();
  adjust_stack(-static_cast<int64_t>(bytes));
}

void BlockTranslator::emit_push(const GuestInstruction& insn) {
  const unsigned bytes = insn.zydis.operand_width / 8;
  const ZydisDecodedOperand& operand = insn.operands[0];
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    const unsigned gpr = gpr_number(operand.reg.value);
    if (!lives_in_memory(gpr)) {
      emit_push_value(host_gpr(gpr), bytes);
      return;
    }
    a_.mov(kTemp, a_.gpr_field(gpr));
    a_.mov(a_.scratch_field(Scratch::Operand), kTemp);
  } else if (operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
    open_stack(-static_cast<int64_t>(bytes), bytes, AccessKind::Write);
    a_.mov(host_operand(bytes), asmjit::Imm(static_cast<int32_t>(operand.imm.value.s)));
    end_access();
    adjust_stack(-static_cast<int64_t>(bytes));
    return;
  } else {
    MemoryAccess source = access_of(operand);
    source.size = static_cast<uint16_t>(bytes);
    open_access(operand.mem, insn, source);
    a_.mov(sized(kTemp, bytes), host_operand(bytes));
    a_.mov(a_.scratch_field(Scratch::Operand), kTemp);
    end_access();
  }
  emit_push_slot(bytes);
}

void BlockTranslator::emit_pop(const GuestInstruction& insn) {
  const unsigned bytes = insn.zydis.operand_width / 8;
  const ZydisDecodedOperand& operand = insn.operands[0];
  open_stack(0, bytes, AccessKind::Read);
  a_.mov(sized(kTemp, bytes), host_operand(bytes));
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    const unsigned gpr = gpr_number(operand.reg.value);
    if (stack_bytes() == 2) {
      a_.mov(a_.scratch_field(Scratch::Operand), kTemp);
      adjust_stack(bytes);
      a_.mov(kTemp, a_.scratch_field(Scratch::Operand));
    } else {
      adjust_stack(bytes);
    }
    set_gpr(gpr, kTemp, bytes);
    return;
  }
  a_.mov(a_.scratch_field(Scratch::Operand), kTemp);
  ZydisDecodedOperandMem mem = operand.mem;
  if (mem.base != ZYDIS_REGISTER_NONE && mem.base != ZYDIS_REGISTER_RIP && mem.base != ZYDIS_REGISTER_EIP &&
      gpr_number(mem.base) == kRsp) {
    // The address is computed with RSP as it is after the pop (SDM vol. 2, POP).
    mem.disp.value = (mem.disp.has_displacement ? mem.disp.value : 0) + bytes;
    mem.disp.has_displacement = true;
  }
  MemoryAccess destination = access_of(operand);
  destination.size = static_cast<uint16_t>(bytes);
  open_access(mem, insn, destination);
  a_.mov(sized(kTemp, bytes), a_.scratch_field(Scratch::Operand, bytes));
  a_.mov(host_operand(bytes), sized(kTemp, bytes));
  end_access();
  adjust_stack(bytes);
}

void BlockTranslator::emit_leave(const GuestInstruction& insn) {
  const unsigned bytes = insn.zydis.operand_width / 8;
  switch (stack_bytes()) {
    case 8:
      a_.mov(kLinear, x86::rbp);
      break;
    case 4:
      a_.mov(kLinear.r32(), x86::ebp);
      break;
    default:
      a_.movzx(kLinear.r32(), x86::bp);
      break;
  }
  begin_access(
      {.segment = kSs, .kind = AccessKind::Read, .size = static_cast<uint16_t>(bytes), .rip = insn.rip});
  a_.mov(sized(kTemp, bytes), host_operand(bytes));
  const auto step = static_cast<int32_t>(bytes);
  switch (stack_bytes()) {
    case 8:
      a_.lea(x86::rsp, x86::ptr(x86::rbp, step));
      break;
    case 4:
      a_.lea(x86::esp, x86::ptr(x86::rbp, step));
      break;
    default:
      a_.lea(kLinear.r32(), x86::ptr(x86::rbp, step));
      a_.mov(x86::sp, kLinear.r16());
      break;
  }
  set_gpr(kRbp, kTemp, bytes);
}

}  // namespace penumbra::jit
