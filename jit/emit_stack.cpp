// PUSH, POP, LEAVE and the stack side of CALL and RET. RSP moves only after the access has succeeded.
//
// In blocks that use the windows the host's RSP is left behind (stack_step_) and catches up where it is
// needed: a chain of PUSHes would else be as long as its additions, which hosts do not have in theirs.
#include <algorithm>
#include <utility>

#include "jit/block_translator.h"

namespace penumbra::jit {

namespace {

// As a register, not as the base of an address.
bool names_rsp(const GuestInstruction& insn) {
  return std::ranges::any_of(insn.operands, insn.operands + insn.zydis.operand_count_visible,
                             [](const ZydisDecodedOperand& operand) {
                               return is_gpr(operand) && !is_high_byte(operand.reg.value) &&
                                      gpr_number(operand.reg.value) == kRsp;
                             });
}

}  // namespace

void BlockTranslator::emit_stack_offset(int64_t displacement) {
  const auto disp32 = static_cast<int32_t>(displacement + stack_step_);
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
  const auto disp32 = static_cast<int32_t>(displacement + stack_step_);
  if (code64()) {
    emit_window_by_register(kRsp, disp32, access);
    return;
  }
  record_access(access);
  operand_ = x86::ptr(x86::rsp, disp32);
  operand_.setSegment(x86::gs);
}

bool BlockTranslator::may_step_stack(int64_t bytes) const {
  constexpr int64_t kFarthest = 1 << 14;
  const int64_t sum = stack_step_ + bytes;
  return options_.step_stack && block_->windows && stack_bytes() != 2 && sum >= -kFarthest &&
         sum <= kFarthest;
}

void BlockTranslator::adjust_stack(int64_t bytes) {
  if (keeps_stack_step(instructions_[current_]) && may_step_stack(bytes)) {
    stack_step_ = static_cast<int16_t>(stack_step_ + bytes);
    return;
  }
  settle_stack();
  move_stack(bytes);
}

// Makes the host's RSP the guest's.
void BlockTranslator::settle_stack() {
  if (stack_step_ == 0) return;
  move_stack(std::exchange(stack_step_, int16_t{0}));
  record_site(instructions_[std::min(current_, instructions_.size() - 1)].rip);
}

// Whether the instruction runs, and faults, with any step.
bool BlockTranslator::keeps_stack_step(const GuestInstruction& insn) const {
  switch (insn.row.action) {
    case Action::Ret:
    case Action::Leave:
      return true;
    case Action::Push:
    case Action::Pop:
      return insn.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ||
             (is_gpr(insn.operands[0]) && !names_rsp(insn));
    case Action::Call:
    case Action::Jmp:
    case Action::Mov:
    case Action::Generic:
    case Action::Lea:
      return !names_rsp(insn);
    default:
      return false;
  }
}

// ADD, SUB or LEA that does nothing but move RSP by a constant, where no flag is read: at no cost, as with
// PUSH and POP.
bool BlockTranslator::step_stack(const GuestInstruction& insn) {
  const ZydisDecodedOperand& to = insn.operands[0];
  const auto step = constant_step(insn, kRsp, stack_bytes() * 8);
  if (!step || insn.row.action == Action::Push || insn.row.action == Action::Pop ||
      insn.row.action == Action::Call || to.size != stack_bytes() * 8 ||
      insn.flags_touched & live_[current_].after || !may_step_stack(*step)) {
    return false;
  }
  stack_step_ = static_cast<int16_t>(stack_step_ + *step);
  return true;
}

void BlockTranslator::move_stack(int64_t bytes) {
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
  const int to = operand.type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_number(operand.reg.value) : -1;
  if (to >= 0 && to != kRsp && !lives_in_memory(static_cast<unsigned>(to)) && stack_bytes() != 2) {
    a_.mov(sized(host_gpr(static_cast<unsigned>(to)), bytes), host_operand(bytes));
    adjust_stack(bytes);
    return;
  }
  a_.mov(sized(kTemp, bytes), host_operand(bytes));
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    const auto gpr = static_cast<unsigned>(to);
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
  if (base_gpr(mem) == kRsp) {
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
      stack_step_ = 0;
      a_.lea(x86::rsp, x86::ptr(x86::rbp, step));
      break;
    case 4:
      stack_step_ = 0;
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
