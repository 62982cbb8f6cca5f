// Delivery of exceptions and interrupts (SDM vol. 3, chapter 6; vol. 2, INT n).
#include "core/descriptor.h"
#include "core/event.h"
#include "core/host_vector_scope.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

enum class Severity : uint8_t { Benign, Contributory, PageFault };

// SDM vol. 3, table 6-4.
constexpr Severity severity(uint8_t number) {
  switch (number) {
    case vector::kDe:
    case vector::kTs:
    case vector::kNp:
    case vector::kSs:
    case vector::kGp:
      return Severity::Contributory;
    case vector::kPf:
      return Severity::PageFault;
    default:
      return Severity::Benign;
  }
}

// SDM vol. 3, table 6-5.
constexpr bool makes_double_fault(Severity first, Severity second) {
  return (first == Severity::Contributory && second == Severity::Contributory) ||
         (first == Severity::PageFault && second != Severity::Benign);
}

namespace debug_status {
inline constexpr uint64_t kBreakpoints = 0xf, kAccessDetected = 1u << 13, kFixed = 0xffff'0ff0;
}

}  // namespace

void Vcpu::record(const Event& event, int16_t during, bool lost) {
  EventRecord& made = events_[event_total_ % kEventRecords];
  made = {.vector = event.vector,
          .interrupt = event.kind != Event::Kind::Exception,
          .software = event.kind == Event::Kind::Software,
          .external = event.kind == Event::Kind::Interrupt,
          .has_error_code = event.has_error_code,
          .lost = lost,
          .cpl = state_.cpl,
          .during = during,
          .error_code = event.error_code,
          .cs = state_.segments[kCs].selector,
          .rip = event.return_rip,
          .rsp = state_.gpr[kRsp],
          .cr2 = state_.cr2};
  ++event_total_;
  if (!event_listener_) return;
  const HostVectorScope scope(state_);
  event_listener_->event_delivered(made);
}

// Sets CR2 and DR6 as a side effect: they change even when delivery ends in a double fault.
Vcpu::Event Vcpu::exception_event(const Exception& exception) {
  bool fault = !exception.trap && exception.vector != vector::kDf && exception.vector != vector::kMc;
  if (exception.vector == vector::kPf) state_.cr2 = exception.cr2;
  if (exception.vector == vector::kDb) {
    // A trap reports the data breakpoints that the instruction met, too.
    const uint64_t met = exception.trap ? debug_.take_traps() : 0;
    state_.dr[6] = (state_.dr[6] & ~debug_status::kBreakpoints) | debug_status::kFixed | exception.dr6 | met;
    state_.dr[7] &= ~(uint64_t{1} << 13);  // GD: the handler may use the debug registers
    // An instruction breakpoint pushes RF as it is: the handler decides (SDM vol. 3, 17.3.1.1).
    if (!(exception.dr6 & debug_status::kAccessDetected)) fault = false;
  }
  return {.kind = Event::Kind::Exception,
          .vector = exception.vector,
          .has_error_code = exception.has_error_code,
          .error_code = exception.error_code,
          .return_rip = state_.rip,
          .flags = fault ? state_.rflags | flag::kRf : state_.rflags};
}

void Vcpu::deliver(const Exception& exception) {
  if (exception.vector < 32) ++stats_.exceptions[exception.vector];
  if (!exception.trap) debug_.forget_accesses();  // the instruction runs again and meets them again
  deliver_event(exception_event(exception));
}

Vcpu::BreakpointVerdict Vcpu::check_breakpoint(bool may_stop) {
  const LinearAddr address = code_address();
  if (may_stop && debug_.stops_at(address)) {
    debug_.note_stop(address);
    return BreakpointVerdict::Stopped;
  }
  if (state_.rflags & flag::kRf) {
    state_.rflags &= ~flag::kRf;
    return BreakpointVerdict::RunOne;
  }
  if (const uint64_t met = state_.debug_shadow ? 0 : debug_.instruction_traps(address)) {
    deliver({.vector = vector::kDb, .dr6 = met});
    return BreakpointVerdict::Trapped;
  }
  return BreakpointVerdict::Run;
}

bool Vcpu::take_debug_trap() {
  if (!debug_.trap_pending() || state_.debug_shadow) return false;
  deliver({.vector = vector::kDb, .trap = true});
  return true;
}

void Vcpu::deliver_interrupt(uint8_t vector, bool nmi) {
  ++stats_.interrupts;
  deliver_event({.kind = nmi ? Event::Kind::Nmi : Event::Kind::Interrupt,
                 .vector = vector,
                 .return_rip = state_.rip,
                 .flags = state_.rflags});
  if (nmi) state_.nmi_blocked = true;
}

void Vcpu::deliver_event(Event event) {
  state_.interrupt_shadow = state_.debug_shadow = false;
  state_.halted = false;
  int16_t during = EventRecord::kNoException;
  for (;;) {
    record(event, during);
    const auto delivered = inject(event);
    if (delivered) return;
    const Exception& nested = delivered.error();
    if (nested.vector < 32) ++stats_.exceptions[nested.vector];
    const Event second = exception_event(nested);
    const bool first_is_exception = event.kind == Event::Kind::Exception;
    during = first_is_exception ? event.vector : EventRecord::kNoException;
    if (first_is_exception && event.vector == vector::kDf && severity(nested.vector) != Severity::Benign) {
      record(second, during, true);
      triple_fault_ = true;
      attend(attention::kStop);
      return;
    }
    const Severity first = first_is_exception ? severity(event.vector) : Severity::Benign;
    if (makes_double_fault(first, severity(nested.vector))) {
      record(second, during, true);
      ++stats_.exceptions[vector::kDf];
      event = {.kind = Event::Kind::Exception,
               .vector = vector::kDf,
               .has_error_code = true,
               .error_code = 0,
               .return_rip = state_.rip,
               .flags = state_.rflags};
    } else {
      event = second;
    }
  }
}

Result<void> Vcpu::inject(const Event& event) {
  if (long_mode()) return inject_long(event);
  if (state_.cr0 & cr0::kPe) return inject_protected(event);
  return inject_real(event);
}

// SDM vol. 3, 20.1.4.
Result<void> Vcpu::inject_real(const Event& event) {
  const uint32_t offset = event.vector * 4u;
  if (offset + 3 > state_.idtr.limit) return raise(vector::kGp, event.idt_error());
  auto entry = read_linear(wrap(state_.idtr.base + offset), 4, TlbView::Supervisor);
  if (!entry) return std::unexpected(entry.error());

  const uint64_t frame[3] = {event.flags, state_.segments[kCs].selector, event.return_rip};
  auto sp =
      write_frame({state_.segments[kSs], stack_mask(), current_view(), 0}, state_.gpr[kRsp], frame, 3, 2);
  if (!sp) return std::unexpected(sp.error());
  set_sp(*sp);
  state_.segments[kCs] = real_segment(state_.segments[kCs], static_cast<uint16_t>(*entry >> 16));
  state_.rip = *entry & 0xffff;
  state_.rflags &= ~(flag::kIf | flag::kTf | flag::kAc | flag::kRf);
  update_mode();
  return {};
}

Result<Vcpu::TssStack> Vcpu::read_tss_stack(unsigned cpl, uint32_t external) {
  const bool wide = (state_.tr.type() & ~system_type::kBusy) == system_type::kTss32;
  const uint32_t offset = wide ? 4 + cpl * 8 : 2 + cpl * 4;
  const unsigned bytes = wide ? 6 : 4;
  if (!state_.tr.present() || offset + bytes - 1 > state_.tr.limit) {
    return raise(vector::kTs, selector_error(state_.tr.selector, external));
  }
  const LinearAddr address = wrap(state_.tr.base + offset);
  auto sp = read_linear(address, wide ? 4 : 2, TlbView::Supervisor);
  if (!sp) return std::unexpected(sp.error());
  auto selector = read_linear(wrap(address.value + (wide ? 4 : 2)), 2, TlbView::Supervisor);
  if (!selector) return std::unexpected(selector.error());
  const auto ss = static_cast<uint16_t>(*selector);
  auto segment = check_stack_segment(ss, cpl, vector::kTs, external);
  if (!segment) return std::unexpected(segment.error());
  return TssStack{.segment = *segment, .sp = *sp};
}

Result<uint64_t> Vcpu::read_tss64_stack(unsigned offset, uint32_t external) {
  if (!state_.tr.present() || offset + 7 > state_.tr.limit) {
    return raise(vector::kTs, selector_error(state_.tr.selector, external));
  }
  auto sp = read_linear(wrap(state_.tr.base + offset), 8, TlbView::Supervisor);
  if (sp && !is_canonical(*sp)) return raise(vector::kSs, external);
  return sp;
}

// Protected mode and virtual-8086 mode: SDM vol. 3, 6.12 and 20.3; vol. 2, INT n.
Result<void> Vcpu::inject_protected(const Event& event) {
  const uint32_t external = event.external();
  const uint32_t offset = event.vector * 8u;
  if (offset + 7 > state_.idtr.limit) return raise(vector::kGp, event.idt_error());
  auto raw = read_linear(wrap(state_.idtr.base + offset), 8, TlbView::Supervisor);
  if (!raw) return std::unexpected(raw.error());
  const Descriptor gate{.raw = *raw};

  const unsigned type = gate.type();
  const bool task_gate = type == system_type::kTaskGate;
  const bool narrow = type == system_type::kInterruptGate16 || type == system_type::kTrapGate16;
  const bool wide = type == system_type::kInterruptGate32 || type == system_type::kTrapGate32;
  if (gate.is_segment() || !(task_gate || narrow || wide)) return raise(vector::kGp, event.idt_error());
  if (event.kind == Event::Kind::Software && gate.dpl() < state_.cpl)
    return raise(vector::kGp, event.idt_error());
  if (!gate.present()) return raise(vector::kNp, event.idt_error());

  const uint16_t selector = gate.gate_selector();
  if (task_gate) {
    return switch_task({.selector = selector,
                        .source = TaskSwitchSource::Call,
                        .external = external,
                        .has_error_code = event.has_error_code,
                        .error_code = event.error_code,
                        .return_rip = event.return_rip,
                        .flags = event.flags});
  }

  if (is_null(selector)) return raise(vector::kGp, external);
  auto code = read_descriptor(selector, vector::kGp, external);
  if (!code) return std::unexpected(code.error());
  const uint32_t code_error = selector_error(selector, external);
  if (!code->is_code() || code->dpl() > state_.cpl) return raise(vector::kGp, code_error);
  if (!code->present()) return raise(vector::kNp, code_error);

  const bool from_v8086 = v8086();
  const unsigned old_cpl = state_.cpl;
  const unsigned new_cpl = code->conforming() ? old_cpl : code->dpl();
  const bool inward = new_cpl < old_cpl;
  if (from_v8086 && (!inward || new_cpl != 0)) return raise(vector::kGp, code_error);

  const uint64_t target = narrow ? gate.gate_offset() & 0xffff : gate.gate_offset();
  if (target > code->limit()) return raise(vector::kGp, external);

  StackTarget stack{
      .segment = state_.segments[kSs], .mask = stack_mask(), .view = current_view(), .error_code = external};
  uint64_t sp = state_.gpr[kRsp];
  uint64_t frame[10];
  unsigned items = 0;
  if (inward) {
    auto inner = read_tss_stack(new_cpl, external);
    if (!inner) return std::unexpected(inner.error());
    stack = {.segment = inner->segment,
             .mask = inner->segment.big() ? 0xffff'ffff : 0xffff,
             .view = TlbView::Supervisor,
             .error_code = selector_error(inner->segment.selector, external)};
    sp = inner->sp;
    if (from_v8086) {
      for (SegmentIndex index : {kGs, kFs, kDs, kEs}) frame[items++] = state_.segments[index].selector;
    }
    frame[items++] = state_.segments[kSs].selector;
    frame[items++] = state_.gpr[kRsp];
  }
  frame[items++] = event.flags;
  frame[items++] = state_.segments[kCs].selector;
  frame[items++] = event.return_rip;
  if (event.has_error_code) frame[items++] = event.error_code;

  if (auto done = set_accessed(*code); !done) return done;
  auto new_sp = write_frame(stack, sp, frame, items, wide ? 4 : 2);
  if (!new_sp) return std::unexpected(new_sp.error());

  if (inward) {
    state_.segments[kSs] = stack.segment;
    // The other half of a 16-bit stack pointer comes from the TSS, which a 32-bit one defines.
    state_.gpr[kRsp] = (sp & ~stack.mask & 0xffff'ffff) | *new_sp;
    if (from_v8086) {
      for (SegmentIndex index : {kGs, kFs, kDs, kEs}) state_.segments[index] = null_segment(0);
    }
  } else {
    set_sp(*new_sp);
  }
  state_.segments[kCs] = code->segment(static_cast<uint16_t>((selector & 0xfffc) | new_cpl));
  state_.cpl = static_cast<uint8_t>(new_cpl);
  state_.rip = target;
  const bool interrupt_gate = !(type & 1);
  state_.rflags &= ~(flag::kTf | flag::kNt | flag::kRf | flag::kVm | (interrupt_gate ? flag::kIf : 0));
  update_mode();
  return {};
}

// SDM vol. 3, 6.14.
Result<void> Vcpu::inject_long(const Event& event) {
  const uint32_t external = event.external();
  const uint32_t offset = event.vector * 16u;
  if (offset + 15 > state_.idtr.limit) return raise(vector::kGp, event.idt_error());
  uint64_t raw[2];
  if (auto done = read_linear(LinearAddr{state_.idtr.base + offset}, raw, 16, TlbView::Supervisor); !done)
    return done;
  const Descriptor gate{.raw = raw[0]};

  if (gate.is_segment() || (gate.type() & 14) != system_type::kInterruptGate32) {
    return raise(vector::kGp, event.idt_error());
  }
  if (event.kind == Event::Kind::Software && gate.dpl() < state_.cpl)
    return raise(vector::kGp, event.idt_error());
  if (!gate.present()) return raise(vector::kNp, event.idt_error());

  const uint16_t selector = gate.gate_selector();
  if (is_null(selector)) return raise(vector::kGp, external);
  auto code = read_descriptor(selector, vector::kGp, external);
  if (!code) return std::unexpected(code.error());
  const uint32_t code_error = selector_error(selector, external);
  if (!code->is_code() || code->dpl() > state_.cpl || !code->is_long() || code->big()) {
    return raise(vector::kGp, code_error);
  }
  if (!code->present()) return raise(vector::kNp, code_error);
  const uint64_t target = gate.gate_offset() | raw[1] << 32;
  if (!is_canonical(target)) return raise(vector::kGp, external);

  const unsigned new_cpl = code->conforming() ? state_.cpl : code->dpl();
  const bool inward = new_cpl < state_.cpl;
  uint64_t sp = state_.gpr[kRsp];
  if (gate.gate_ist() != 0 || inward) {
    const unsigned slot = gate.gate_ist() != 0 ? 0x24 + (gate.gate_ist() - 1) * 8 : 4 + new_cpl * 8;
    auto stack = read_tss64_stack(slot, external);
    if (!stack) return std::unexpected(stack.error());
    sp = *stack;
  }
  sp &= ~uint64_t{15};

  // Lowest address first: the error code is there or not.
  const unsigned first = event.has_error_code ? 0 : 1;
  const uint64_t frame[6] = {event.error_code, event.return_rip, state_.segments[kCs].selector,
                             event.flags,      state_.gpr[kRsp], state_.segments[kSs].selector};
  const unsigned bytes = (6 - first) * 8;
  const uint64_t bottom = sp - bytes;
  if (!is_canonical(bottom) || !is_canonical(sp - 1)) return raise(vector::kSs, external);
  if (auto done = set_accessed(*code); !done) return done;
  const TlbView view = inward ? (new_cpl == 3 ? TlbView::User : TlbView::Supervisor) : current_view();
  if (auto done = write_linear(LinearAddr{bottom}, frame + first, bytes, view); !done) {
    return first_push_fault(LinearAddr{sp}, 6 - first, 8, view, done.error());
  }

  state_.gpr[kRsp] = bottom;
  state_.segments[kCs] = code->segment(static_cast<uint16_t>((selector & 0xfffc) | new_cpl));
  if (inward) state_.segments[kSs] = null_segment(static_cast<uint16_t>(new_cpl));
  state_.cpl = static_cast<uint8_t>(new_cpl);
  state_.rip = target;
  const bool interrupt_gate = !(gate.type() & 1);
  state_.rflags &= ~(flag::kTf | flag::kNt | flag::kRf | flag::kVm | (interrupt_gate ? flag::kIf : 0));
  update_mode();
  return {};
}

// INT n in virtual-8086 mode with CR4.VME: a clear bit in the TSS' redirection map sends the interrupt to the
// 8086 program's own handler (SDM vol. 3, 20.3.3). True when it was.
Result<bool> Vcpu::redirect_v8086_interrupt(const Event& event) {
  if ((state_.tr.type() & ~system_type::kBusy) != system_type::kTss32 || state_.tr.limit < 0x67) {
    return raise(vector::kGp, 0);
  }
  auto io_map = read_linear(wrap(state_.tr.base + 0x66), 2, TlbView::Supervisor);
  if (!io_map) return std::unexpected(io_map.error());
  if (*io_map < 32 || *io_map - 32 + event.vector / 8u > state_.tr.limit) return raise(vector::kGp, 0);
  auto bits = read_linear(wrap(state_.tr.base + *io_map - 32 + event.vector / 8u), 1, TlbView::Supervisor);
  if (!bits) return std::unexpected(bits.error());
  if (*bits >> (event.vector & 7) & 1) return false;

  auto entry = read_linear(LinearAddr{event.vector * 4u}, 4, TlbView::User);
  if (!entry) return std::unexpected(entry.error());
  const bool full = (state_.rflags & flag::kIopl) == flag::kIopl;
  uint64_t image = event.flags;
  if (!full) {
    image = (image & ~flag::kIf) | flag::kIopl | (state_.rflags & flag::kVif ? flag::kIf : 0);
  }
  const uint64_t frame[3] = {image, state_.segments[kCs].selector, event.return_rip};
  auto sp =
      write_frame({state_.segments[kSs], stack_mask(), TlbView::User, 0}, state_.gpr[kRsp], frame, 3, 2);
  if (!sp) return std::unexpected(sp.error());
  set_sp(*sp);
  state_.segments[kCs] = v8086_segment(static_cast<uint16_t>(*entry >> 16));
  state_.rip = *entry & 0xffff;
  state_.rflags &= ~(flag::kTf | flag::kNt | flag::kRf | (full ? flag::kIf : flag::kVif));
  update_mode();
  return true;
}

Result<Outcome> Vcpu::software_interrupt(const SystemInstruction& insn, uint8_t vector) {
  const Event event{.kind = insn.op == SystemOp::Int1 ? Event::Kind::Int1 : Event::Kind::Software,
                    .vector = vector,
                    .return_rip = insn.next_rip() & code_mask(),
                    .flags = state_.rflags & ~flag::kRf};
  // Only INT n is sensitive to IOPL; INT3, INTO and INT1 go to the protected-mode handler.
  if (v8086() && insn.op == SystemOp::Int) {
    if (state_.cr4 & cr4::kVme) {
      auto redirected = redirect_v8086_interrupt(event);
      if (!redirected) return std::unexpected(redirected.error());
      if (*redirected) return Outcome::Redirect;
    }
    if ((state_.rflags & flag::kIopl) != flag::kIopl) return raise(vector::kGp, 0);
  }
  record(event);
  if (auto done = inject(event); !done) return std::unexpected(done.error());
  return Outcome::Redirect;
}

}  // namespace penumbra
