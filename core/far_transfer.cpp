// Far CALL, JMP and RET through segments and gates, software interrupts, IRET (SDM vol. 2; vol. 3, 5.8).
#include "core/descriptor.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

constexpr uint64_t size_mask(unsigned bytes) {
  return bytes == 8 ? ~uint64_t{0} : (uint64_t{1} << bytes * 8) - 1;
}

}  // namespace

// The target must lie in the new code segment: limit, or canonical form in 64-bit mode.
Result<void> Vcpu::check_offset(const Descriptor& code, uint64_t offset) const {
  const bool is_long = long_mode() && code.is_long();
  if (is_long ? !is_canonical(offset) : offset > code.limit()) return raise(vector::kGp, 0);
  return {};
}

// What a CALL or JMP that stays at its privilege level demands of the code segment.
Result<void> Vcpu::check_jump_code(const Descriptor& code, uint16_t selector, uint64_t offset) const {
  const uint32_t error = selector_error(selector);
  if (!code.is_code()) return raise(vector::kGp, error);
  const bool privileged =
      code.conforming() ? code.dpl() > state_.cpl : rpl_of(selector) > state_.cpl || code.dpl() != state_.cpl;
  if (privileged) return raise(vector::kGp, error);
  if (long_mode() && code.is_long() && code.big()) return raise(vector::kGp, error);
  if (!code.present()) return raise(vector::kNp, error);
  return check_offset(code, offset);
}

Result<void> Vcpu::set_segment_register(SegmentIndex index, uint16_t selector) {
  if (index != kCs || !protected_mode()) {
    if (auto done = load_segment(index, selector); !done) return done;
    update_mode();
    return {};
  }
  if (is_null(selector)) return raise(vector::kGp, 0);
  auto code = read_descriptor(selector, vector::kGp);
  if (!code) return std::unexpected(code.error());
  if (auto done = check_jump_code(*code, selector, state_.rip); !done) return done;
  if (auto done = set_accessed(*code); !done) return done;
  return_to(*code, static_cast<uint16_t>((selector & 0xfffc) | state_.cpl), state_.rip);
  return {};
}

Result<Outcome> Vcpu::transfer_real(const SystemInstruction& insn, uint16_t selector, uint64_t offset) {
  Segment& cs = state_.segments[kCs];
  const Segment target = v8086() ? v8086_segment(selector) : real_segment(cs, selector);
  if (offset > target.limit) return raise(vector::kGp, 0);
  if (insn.op == SystemOp::CallFar) {
    const uint64_t frame[2] = {cs.selector, insn.next_rip() & code_mask()};
    auto sp = write_frame({state_.segments[kSs], stack_mask(), current_view(), 0, true}, state_.gpr[kRsp],
                          frame, 2, insn.operand_bytes);
    if (!sp) return std::unexpected(sp.error());
    set_sp(*sp);
  }
  cs = target;
  state_.rip = offset;
  update_mode();
  return Outcome::Redirect;
}

Result<Outcome> Vcpu::transfer_far(const SystemInstruction& insn) {
  uint16_t selector = insn.selector;
  uint64_t offset = insn.immediate & size_mask(insn.operand_bytes);
  if (!insn.immediate_present) {
    if (insn.rm != SystemInstruction::kNoRegister) return raise(vector::kUd);
    const auto pointer = read_far_pointer(insn);
    if (!pointer) return std::unexpected(pointer.error());
    selector = pointer->selector;
    offset = pointer->offset;
  }
  if (!protected_mode()) return transfer_real(insn, selector, offset);

  const bool call = insn.op == SystemOp::CallFar;
  const uint32_t error = selector_error(selector);
  if (is_null(selector)) return raise(vector::kGp, 0);
  auto code = read_descriptor(selector, vector::kGp);
  if (!code) return std::unexpected(code.error());

  if (!code->is_segment()) {
    const unsigned dpl = code->dpl();
    const bool reachable = dpl >= state_.cpl && dpl >= rpl_of(selector);
    const auto gate_or_task = [&]() -> Result<Outcome> {
      switch (code->type()) {
        case system_type::kCallGate32:
          return transfer_gate(insn, selector, *code);
        case system_type::kCallGate16:
          if (long_mode()) break;
          return transfer_gate(insn, selector, *code);
        case system_type::kTaskGate:
          if (long_mode()) break;
          if (!code->present()) return raise(vector::kNp, error);
          return transfer_task(insn, code->gate_selector());
        case system_type::kTss16:
        case system_type::kTss32:
          if (long_mode()) break;
          return transfer_task(insn, selector);
      }
      return raise(vector::kGp, error);
    };
    if (!reachable) return raise(vector::kGp, error);
    return gate_or_task();
  }

  if (auto done = check_jump_code(*code, selector, offset); !done) return std::unexpected(done.error());
  if (auto done = set_accessed(*code); !done) return std::unexpected(done.error());
  if (call) {
    // Of AMD's CPUs, REX.W widens what is pushed, and not the pointer.
    const unsigned bytes = insn.rex_w ? 8 : insn.operand_bytes;
    const uint64_t frame[2] = {state_.segments[kCs].selector, insn.next_rip() & code_mask()};
    auto sp = write_frame({state_.segments[kSs], stack_mask(), current_view(), 0, true}, state_.gpr[kRsp],
                          frame, 2, bytes);
    if (!sp) return std::unexpected(sp.error());
    set_sp(*sp);
  }
  return_to(*code, static_cast<uint16_t>((selector & 0xfffc) | state_.cpl), offset);
  return Outcome::Redirect;
}

// Call gates, for CALL and JMP: SDM vol. 3, 5.8.3 to 5.8.5.
Result<Outcome> Vcpu::transfer_gate(const SystemInstruction& insn, uint16_t selector,
                                    const Descriptor& gate) {
  const bool call = insn.op == SystemOp::CallFar;
  if (!gate.present()) return raise(vector::kNp, selector_error(selector));
  uint64_t offset = gate.gate_offset();
  unsigned bytes = 4;
  if (long_mode()) {
    auto upper = read_descriptor_upper(selector, vector::kGp);
    if (!upper) return std::unexpected(upper.error());
    if (*upper >> 40 & 0x1f) return raise(vector::kGp, selector_error(selector));
    offset |= *upper << 32;
    bytes = 8;
  } else if (gate.type() == system_type::kCallGate16) {
    offset &= 0xffff;
    bytes = 2;
  }

  const uint16_t target = gate.gate_selector();
  const uint32_t error = selector_error(target);
  if (is_null(target)) return raise(vector::kGp, 0);
  auto code = read_descriptor(target, vector::kGp);
  if (!code) return std::unexpected(code.error());
  if (!code->is_code() || code->dpl() > state_.cpl) return raise(vector::kGp, error);
  if (!call && !code->conforming() && code->dpl() != state_.cpl) return raise(vector::kGp, error);
  if (long_mode() && (!code->is_long() || code->big())) return raise(vector::kGp, error);
  if (!code->present()) return raise(vector::kNp, error);
  if (auto done = check_offset(*code, offset); !done) return std::unexpected(done.error());

  const bool inward = call && !code->conforming() && code->dpl() < state_.cpl;
  const unsigned new_cpl = inward ? code->dpl() : state_.cpl;
  const uint64_t return_rip = insn.next_rip() & code_mask();
  uint64_t frame[kMaxFrameItems];
  unsigned items = 0;

  if (inward) {
    StackTarget stack{.segment = null_segment(static_cast<uint16_t>(new_cpl)),
                      .mask = ~uint64_t{0},
                      .view = TlbView::Supervisor,
                      .error_code = 0};
    uint64_t sp;
    unsigned parameters = 0;
    if (long_mode()) {
      auto inner = read_tss64_stack(4 + new_cpl * 8, 0);
      if (!inner) return std::unexpected(inner.error());
      sp = *inner;
    } else {
      auto inner = read_tss_stack(new_cpl, 0);
      if (!inner) return std::unexpected(inner.error());
      sp = inner->sp;
      stack.segment = inner->segment;
      stack.mask = inner->segment.big() ? 0xffff'ffff : 0xffff;
      stack.error_code = selector_error(inner->segment.selector);
      parameters = gate.gate_parameters();
    }
    frame[items++] = state_.segments[kSs].selector;
    frame[items++] = state_.gpr[kRsp];
    for (unsigned i = parameters; i-- != 0;) {  // the last parameter lies lowest
      auto value = read_stack(uint64_t{i} * bytes, bytes);
      if (!value) return std::unexpected(value.error());
      frame[items++] = *value;
    }
    frame[items++] = state_.segments[kCs].selector;
    frame[items++] = return_rip;
    if (auto done = set_accessed(*code); !done) return std::unexpected(done.error());
    auto new_sp = write_frame(stack, sp, frame, items, bytes);
    if (!new_sp) return std::unexpected(new_sp.error());
    state_.segments[kSs] = stack.segment;
    state_.gpr[kRsp] = stack.mask == 0xffff ? (sp & 0xffff'0000) | *new_sp : *new_sp;
    state_.cpl = static_cast<uint8_t>(new_cpl);
  } else {
    if (auto done = set_accessed(*code); !done) return std::unexpected(done.error());
    if (call) {
      frame[items++] = state_.segments[kCs].selector;
      frame[items++] = return_rip;
      auto sp = write_frame({state_.segments[kSs], stack_mask(), current_view(), 0, true}, state_.gpr[kRsp],
                            frame, items, bytes);
      if (!sp) return std::unexpected(sp.error());
      set_sp(*sp);
    }
  }
  return_to(*code, static_cast<uint16_t>((target & 0xfffc) | new_cpl), offset);
  return Outcome::Redirect;
}

Result<Outcome> Vcpu::transfer_task(const SystemInstruction& insn, uint16_t selector) {
  const auto source = insn.op == SystemOp::CallFar ? TaskSwitchSource::Call : TaskSwitchSource::Jump;
  auto done = switch_task({.selector = selector,
                           .source = source,
                           .return_rip = insn.next_rip() & code_mask(),
                           .flags = state_.rflags});
  if (!done) return std::unexpected(done.error());
  return Outcome::Redirect;
}

// Loads CS and RIP; the caller has set the CPL and the stack.
void Vcpu::return_to(const Descriptor& code, uint16_t selector, uint64_t offset) {
  state_.segments[kCs] = code.segment(selector);
  state_.rip = offset;
  update_mode();
}

// What RET and IRET demand of the CS selector on the stack.
Result<Descriptor> Vcpu::check_return_code(uint16_t selector) {
  if (is_null(selector)) return raise(vector::kGp, 0);
  const uint32_t error = selector_error(selector);
  auto code = read_descriptor(selector, vector::kGp);
  if (!code) return code;
  const unsigned rpl = rpl_of(selector);
  if (!code->is_code() || rpl < state_.cpl) return raise(vector::kGp, error);
  if (code->conforming() ? code->dpl() > rpl : code->dpl() != rpl) return raise(vector::kGp, error);
  if (long_mode() && code->is_long() && code->big()) return raise(vector::kGp, error);
  if (!code->present()) return raise(vector::kNp, error);
  if (auto done = set_accessed(*code); !done) return std::unexpected(done.error());
  return code;
}

// ... and of the SS selector; `cpl` is the privilege returned to.
Result<Segment> Vcpu::check_return_stack(uint16_t selector, const Descriptor& code, unsigned cpl) {
  if (is_null(selector) && long_mode() && code.is_long() && cpl != 3 && rpl_of(selector) == cpl) {
    return null_segment(selector);
  }
  return check_stack_segment(selector, cpl, vector::kGp, 0);
}

Result<Outcome> Vcpu::return_far(const SystemInstruction& insn) {
  const unsigned bytes = insn.operand_bytes;
  const uint64_t released = insn.immediate_present ? insn.immediate & 0xffff : 0;
  uint64_t frame[2];
  if (auto done = read_stack_frame(0, frame, 2, bytes); !done) return std::unexpected(done.error());
  const uint64_t offset = frame[0];
  const auto selector = static_cast<uint16_t>(frame[1]);

  if (!protected_mode()) {
    Segment& cs = state_.segments[kCs];
    const Segment target = v8086() ? v8086_segment(selector) : real_segment(cs, selector);
    if (offset > target.limit) return raise(vector::kGp, 0);
    drop(2 * bytes + released);
    cs = target;
    state_.rip = offset;
    update_mode();
    return Outcome::Redirect;
  }

  auto code = check_return_code(selector);
  if (!code) return std::unexpected(code.error());
  const unsigned cpl = rpl_of(selector);
  if (cpl == state_.cpl) {
    if (auto done = check_offset(*code, offset); !done) return std::unexpected(done.error());
    drop(2 * bytes + released);
    return_to(*code, selector, offset);
    return Outcome::Redirect;
  }

  uint64_t outer[2];  // SP, SS
  if (auto done = read_stack_frame(2 * bytes + released, outer, 2, bytes); !done) {
    return std::unexpected(done.error());
  }
  auto stack = check_return_stack(static_cast<uint16_t>(outer[1]), *code, cpl);
  if (!stack) return std::unexpected(stack.error());
  if (auto done = check_offset(*code, offset); !done) return std::unexpected(done.error());
  state_.cpl = static_cast<uint8_t>(cpl);
  state_.segments[kSs] = *stack;
  return_to(*code, selector, offset);
  set_sp(outer[0] + released);
  drop_privileged_segments();
  update_mode();
  return Outcome::Redirect;
}

void Vcpu::load_flags(uint64_t value, uint64_t mask) {
  const bool was_open = state_.rflags & flag::kIf;
  // RF matters to instruction breakpoints only. Kept clear otherwise, so that translated code has nothing to
  // clear after each instruction.
  if (!(state_.dr[7] & 0xff)) value &= ~flag::kRf;
  state_.rflags = (state_.rflags & ~mask) | (value & mask) | flag::kFixed1;
  if (!was_open && state_.rflags & flag::kIf) interrupts_opened();
}

void Vcpu::unblock_nmi() {
  if (!state_.nmi_blocked) return;
  state_.nmi_blocked = false;
  interrupts_opened();
}

namespace {

constexpr uint64_t kFlagsAlways = flag::kArithmetic | flag::kTf | flag::kDf | flag::kNt;
constexpr uint64_t kFlagsWide = flag::kRf | flag::kAc | flag::kId;

}  // namespace

// Real mode, and virtual-8086 mode with IOPL 3 or CR4.VME.
Result<Outcome> Vcpu::iret_real(const SystemInstruction& insn) {
  const unsigned bytes = insn.operand_bytes;
  const bool v86 = v8086();
  const bool full = (state_.rflags & flag::kIopl) == flag::kIopl;
  if (v86 && !full && !(state_.cr4 & cr4::kVme && bytes == 2)) return raise(vector::kGp, 0);

  uint64_t frame[3];
  if (auto done = read_stack_frame(0, frame, 3, bytes); !done) return std::unexpected(done.error());
  uint64_t flags = frame[2];
  const auto selector = static_cast<uint16_t>(frame[1]);
  const Segment target = v86 ? v8086_segment(selector) : real_segment(state_.segments[kCs], selector);
  if (frame[0] > target.limit) return raise(vector::kGp, 0);

  uint64_t mask = kFlagsAlways | flag::kIf | (v86 ? 0 : flag::kIopl) | (bytes == 4 ? kFlagsWide : 0);
  if (v86 && !full) {
    // VME: the popped IF goes to VIF (SDM vol. 2, IRET, "RETURN-FROM-VIRTUAL-8086-MODE").
    if (flags & flag::kTf || (flags & flag::kIf && state_.rflags & flag::kVip)) return raise(vector::kGp, 0);
    mask = (mask & ~flag::kIf) | flag::kVif;
    flags = (flags & ~flag::kVif) | (flags & flag::kIf ? flag::kVif : 0);
  }
  drop(3 * bytes);
  state_.segments[kCs] = target;
  state_.rip = frame[0];
  load_flags(flags, mask);
  unblock_nmi();
  update_mode();
  return Outcome::Redirect;
}

// Frame from the lowest address: EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS.
Result<Outcome> Vcpu::iret_to_v8086(const uint64_t (&frame)[9]) {
  if (frame[0] > 0xffff) return raise(vector::kGp, 0);
  static constexpr SegmentIndex kOrder[] = {kSs, kEs, kDs, kFs, kGs};
  for (unsigned i = 0; i < 5; ++i) {
    state_.segments[kOrder[i]] = v8086_segment(static_cast<uint16_t>(frame[4 + i]));
  }
  state_.segments[kCs] = v8086_segment(static_cast<uint16_t>(frame[1]));
  state_.gpr[kRsp] = frame[3];
  state_.rip = frame[0];
  state_.cpl = 3;
  load_flags(frame[2],
             kFlagsAlways | kFlagsWide | flag::kIf | flag::kIopl | flag::kVm | flag::kVif | flag::kVip);
  unblock_nmi();
  update_mode();
  return Outcome::Redirect;
}

Result<Outcome> Vcpu::iret(const SystemInstruction& insn) {
  if (!protected_mode()) return iret_real(insn);
  const unsigned bytes = insn.operand_bytes;
  if (state_.rflags & flag::kNt) {
    if (long_mode()) return raise(vector::kGp, 0);
    auto link = read_linear(wrap(state_.tr.base), 2, TlbView::Supervisor);
    if (!link) return std::unexpected(link.error());
    auto done = switch_task({.selector = static_cast<uint16_t>(*link),
                             .source = TaskSwitchSource::Iret,
                             .return_rip = insn.next_rip() & code_mask(),
                             .flags = state_.rflags & ~flag::kNt});
    if (!done) return std::unexpected(done.error());
    unblock_nmi();
    return Outcome::Redirect;
  }

  // In 64-bit mode SS:RSP is always popped, elsewhere only on the way outward.
  const bool from_64 = code64();
  uint64_t frame[9];
  if (auto done = read_stack_frame(0, frame, from_64 ? 5 : 3, bytes); !done)
    return std::unexpected(done.error());
  const uint64_t offset = frame[0];
  const auto selector = static_cast<uint16_t>(frame[1]);
  const uint64_t flags = frame[2];

  if (flags & flag::kVm && state_.cpl == 0 && bytes == 4 && !long_mode()) {
    if (auto done = read_stack_frame(3 * bytes, frame + 3, 6, bytes); !done)
      return std::unexpected(done.error());
    return iret_to_v8086(frame);
  }

  auto code = check_return_code(selector);
  if (!code) return std::unexpected(code.error());
  if (auto done = check_offset(*code, offset); !done) return std::unexpected(done.error());

  const unsigned old_cpl = state_.cpl;
  const unsigned cpl = rpl_of(selector);
  const bool outward = cpl > old_cpl;
  uint64_t mask = kFlagsAlways | (bytes != 2 ? kFlagsWide : 0);
  if (old_cpl <= (state_.rflags & flag::kIopl) >> 12) mask |= flag::kIf;
  if (old_cpl == 0) mask |= flag::kIopl | (bytes != 2 ? flag::kVif | flag::kVip : 0);

  if (from_64 || outward) {
    if (!from_64) {
      if (auto done = read_stack_frame(3 * bytes, frame + 3, 2, bytes); !done) {
        return std::unexpected(done.error());
      }
    }
    auto stack = check_return_stack(static_cast<uint16_t>(frame[4]), *code, cpl);
    if (!stack) return std::unexpected(stack.error());
    state_.cpl = static_cast<uint8_t>(cpl);
    state_.segments[kSs] = *stack;
    const bool to_64 = long_mode() && code->is_long();
    if (to_64) {
      state_.gpr[kRsp] = frame[3];
    } else if (stack->big()) {
      state_.gpr[kRsp] = frame[3] & 0xffff'ffff;
    } else {
      // The upper half of ESP stays: the leak that operating systems know as espfix.
      state_.gpr[kRsp] = (state_.gpr[kRsp] & ~uint64_t{0xffff}) | (frame[3] & 0xffff);
    }
    if (outward) drop_privileged_segments();
  } else {
    drop(3 * bytes);
  }
  load_flags(flags, mask);
  unblock_nmi();
  return_to(*code, selector, offset);
  return Outcome::Redirect;
}

Result<Outcome> Vcpu::execute_far_transfer(const SystemInstruction& insn) {
  switch (insn.op) {
    case SystemOp::CallFar:
    case SystemOp::JmpFar:
      return transfer_far(insn);
    case SystemOp::RetFar:
      return return_far(insn);
    case SystemOp::Iret:
      return iret(insn);
    case SystemOp::Int:
      return software_interrupt(insn, static_cast<uint8_t>(insn.immediate));
    case SystemOp::Int1:
      return software_interrupt(insn, vector::kDb);
    case SystemOp::Int3:
      return software_interrupt(insn, vector::kBp);
    default:  // INTO
      if (code64()) return raise(vector::kUd);
      if (!(state_.rflags & flag::kOf)) return advance(insn);
      return software_interrupt(insn, vector::kOf);
  }
}

}  // namespace penumbra
