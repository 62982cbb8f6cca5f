// Instructions on RFLAGS whose effect depends on the privilege (SDM vol. 2: PUSHF, POPF, CLI, STI; vol.
// 3, 20.3).
#include "core/register_access.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

constexpr unsigned iopl_of(uint64_t flags) {
  return (flags >> 12) & 3;
}

// What POPF can ever change; the rest is reserved, or VM, VIF, VIP and RF.
constexpr uint64_t kPoppable =
    flag::kArithmetic | flag::kTf | flag::kIf | flag::kDf | flag::kIopl | flag::kNt | flag::kAc | flag::kId;

}  // namespace

Result<Outcome> Vcpu::execute_flags(const SystemInstruction& insn) {
  switch (insn.op) {
    case SystemOp::Pushf:
      return push_flags(insn);
    case SystemOp::Popf:
      return pop_flags(insn);
    case SystemOp::Cli:
      return clear_interrupt_flag(insn);
    case SystemOp::Sti:
      return set_interrupt_flag(insn);
    case SystemOp::Cld:
      state_.rflags &= ~flag::kDf;
      return advance(insn);
    case SystemOp::Std:
      state_.rflags |= flag::kDf;
      return advance(insn);
    case SystemOp::Clac:
    case SystemOp::Stac:
      if (state_.cpl != 0 || !model_.has_smap()) return raise(vector::kUd);
      if (insn.op == SystemOp::Stac) {
        state_.rflags |= flag::kAc;
      } else {
        state_.rflags &= ~flag::kAc;
      }
      // All that depends on AC at CPL 0; CLAC and STAC are too frequent for update_mode().
      select_view();
      return advance(insn);
    default:
      return raise(vector::kUd);
  }
}

Result<Outcome> Vcpu::push_flags(const SystemInstruction& insn) {
  uint64_t value = state_.rflags & ~(flag::kVm | flag::kRf);
  if (v8086() && iopl_of(state_.rflags) < 3) {
    if (!(state_.cr4 & cr4::kVme) || insn.operand_bytes != 2) return raise(vector::kGp, 0);
    // VME: the guest sees its virtual interrupt flag and IOPL 3.
    value = (value & ~flag::kIf) | flag::kIopl | (state_.rflags & flag::kVif ? flag::kIf : 0);
  }
  if (auto done = push(value & size_mask(insn.operand_bytes), insn.operand_bytes); !done) {
    return std::unexpected(done.error());
  }
  return advance(insn);
}

Result<Outcome> Vcpu::pop_flags(const SystemInstruction& insn) {
  const unsigned bytes = insn.operand_bytes, iopl = iopl_of(state_.rflags);
  const bool virtual_interrupts = v8086() && iopl < 3;
  if (virtual_interrupts && (!(state_.cr4 & cr4::kVme) || bytes != 2)) return raise(vector::kGp, 0);
  auto popped = read_stack(0, bytes);
  if (!popped) return std::unexpected(popped.error());

  const uint64_t old = state_.rflags;
  uint64_t mask = kPoppable;
  if (v8086() || state_.cpl != 0) mask &= ~flag::kIopl;
  if (!v8086() && state_.cpl > iopl) mask &= ~flag::kIf;
  if (bytes == 2) mask &= 0xffff;
  uint64_t kept = old;
  if (bytes != 2) kept &= ~flag::kRf;
  if (virtual_interrupts) {
    if (*popped & flag::kTf || (old & flag::kVip && *popped & flag::kIf)) return raise(vector::kGp, 0);
    mask &= ~flag::kIf;
    kept = (kept & ~flag::kVif) | (*popped & flag::kIf ? flag::kVif : 0);
  }
  state_.rflags = (kept & ~mask) | (*popped & mask);
  drop(bytes);
  advance(insn);

  const uint64_t changed = old ^ state_.rflags;
  const ModeBits mode = state_.mode;
  if (changed & (flag::kTf | flag::kAc)) update_mode();
  if (changed & state_.rflags & flag::kIf) {
    interrupts_opened();
    return Outcome::Redirect;
  }
  // The rest of the block was translated for the old mode.
  return state_.mode == mode ? Outcome::Next : Outcome::Redirect;
}

Result<Outcome> Vcpu::clear_interrupt_flag(const SystemInstruction& insn) {
  const unsigned iopl = iopl_of(state_.rflags);
  if (v8086() ? iopl == 3 : state_.cpl <= iopl) {
    state_.rflags &= ~flag::kIf;
  } else if (v8086() ? state_.cr4 & cr4::kVme : state_.cpl == 3 && state_.cr4 & cr4::kPvi) {
    state_.rflags &= ~flag::kVif;
  } else {
    return raise(vector::kGp, 0);
  }
  return advance(insn);
}

Result<Outcome> Vcpu::set_interrupt_flag(const SystemInstruction& insn) {
  const unsigned iopl = iopl_of(state_.rflags);
  if (v8086() ? iopl == 3 : state_.cpl <= iopl) {
    if (state_.rflags & flag::kIf) return advance(insn);
    state_.rflags |= flag::kIf;
    state_.interrupt_shadow = true;
    advance(insn);
    return Outcome::Redirect;
  }
  if (v8086() ? state_.cr4 & cr4::kVme : state_.cpl == 3 && state_.cr4 & cr4::kPvi) {
    if (state_.rflags & flag::kVip) return raise(vector::kGp, 0);
    state_.rflags |= flag::kVif;
    return advance(insn);
  }
  return raise(vector::kGp, 0);
}

}  // namespace penumbra
