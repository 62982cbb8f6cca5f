// Reset, the derived mode state, and the dispatch of instructions and interrupts.
#include "core/vcpu.h"

#include "core/descriptor.h"
#include "core/host_vector_scope.h"

namespace penumbra {

Vcpu::Vcpu(VcpuState& state, PhysicalMap& map, SoftTlb& tlb, IoBus& io, const CpuModel& model)
    : state_(state), map_(map), tlb_(tlb), io_(io), model_(model), walker_(map), debug_(state, tlb) {
  amd_ = model.is_amd();
  reset();
}

void Vcpu::reset() {
  HostVectorScope scope(state_);
  VcpuState& s = state_;
  s.gpr = {};
  s.gpr[kRdx] = model_.leaf(1, 0).eax;
  s.rip = 0xfff0;
  s.rflags = flag::kFixed1;
  s.segments.fill({.base = 0, .limit = 0xffff, .selector = 0, .attributes = 0x93});
  s.segments[kCs] = {.base = 0xffff'0000, .limit = 0xffff, .selector = 0xf000, .attributes = 0x9b};
  s.ldtr = {.base = 0, .limit = 0xffff, .selector = 0, .attributes = 0x82};
  s.tr = {.base = 0, .limit = 0xffff, .selector = 0, .attributes = 0x8b};
  s.gdtr = s.idtr = {.base = 0, .limit = 0xffff};
  s.cr0 = cr0::kCd | cr0::kNw | cr0::kEt;
  s.cr2 = s.cr3 = s.cr4 = s.cr8 = s.efer = 0;
  s.xcr0 = 1;
  s.pdpte = {};
  s.dr = {};
  s.dr[6] = 0xffff'0ff0;
  s.dr[7] = 0x400;
  s.cpl = 0;
  s.star = s.lstar = s.cstar = s.sfmask = s.kernel_gs_base = 0;
  s.sysenter_cs = s.sysenter_esp = s.sysenter_eip = 0;
  s.tsc_adjust = s.tsc_aux = 0;
  reset_msrs();
  s.pat = 0x0007'0406'0007'0406;
  s.interrupt_shadow = s.debug_shadow = s.nmi_blocked = s.halted = false;

  s.guest_vector_state.fill(std::byte{0});
  const uint16_t fcw = 0x0040;  // SDM vol. 3, table 9-1, power-up
  const uint32_t mxcsr = 0x1f80;
  __builtin_memcpy(&s.guest_vector_state[0], &fcw, sizeof(fcw));
  __builtin_memcpy(&s.guest_vector_state[24], &mxcsr, sizeof(mxcsr));
  s.guest_vector_state[512] = std::byte{3};  // XSTATE_BV: the x87 and SSE images above are valid

  triple_fault_ = nmi_pending_ = interrupt_waiting_ = false;
  event_total_ = 0;
  debug_.forget_accesses();
  debug_.registers_changed();
  tlb_.flush_all();
  tlb_.switch_space(0, false);
  update_mode();
}

LinearAddr Vcpu::code_address() const {
  return wrap(code64() ? state_.rip : state_.segments[kCs].base + state_.rip);
}

uint64_t Vcpu::code_mask() const {
  return state_.mode.has(ModeBits::kCode64)   ? ~uint64_t{0}
         : state_.mode.has(ModeBits::kCode32) ? 0xffff'ffff
                                              : 0xffff;
}

uint64_t Vcpu::stack_mask() const {
  return state_.mode.has(ModeBits::kCode64)    ? ~uint64_t{0}
         : state_.mode.has(ModeBits::kStack32) ? 0xffff'ffff
                                               : 0xffff;
}

PagingState Vcpu::paging_state() const {
  PagingState paging;
  paging.physical_bits = model_.physical_bits();
  if (!(state_.cr0 & cr0::kPg)) return paging;
  if (!(state_.cr4 & cr4::kPae)) {
    paging.mode = PagingMode::Bits32;
    paging.root = state_.cr3 & 0xffff'f000;
    paging.page_size_ext = state_.cr4 & cr4::kPse;
  } else if (long_mode()) {
    paging.mode = PagingMode::Levels4;
    paging.root = state_.cr3 & 0x000f'ffff'ffff'f000;
  } else {
    paging.mode = PagingMode::Pae;
    paging.root = state_.cr3 & 0xffff'ffe0;
    for (unsigned i = 0; i < 4; ++i) paging.pdpte[i] = state_.pdpte[i];
  }
  paging.write_protect = state_.cr0 & cr0::kWp;
  paging.global_pages = state_.cr4 & cr4::kPge;
  paging.no_execute = state_.efer & efer::kNxe;
  paging.smep = state_.cr4 & cr4::kSmep;
  paging.smap = state_.cr4 & cr4::kSmap;
  return paging;
}

// Without SMAP both supervisor views hold the same, and one of them stays empty.
TlbView Vcpu::current_view() const {
  if (state_.cpl == 3) return TlbView::User;
  return state_.cr4 & cr4::kSmap && state_.rflags & flag::kAc ? TlbView::SupervisorAc : TlbView::Supervisor;
}

namespace {

constexpr bool is_flat(const Segment& segment) {
  return segment.base == 0 && segment.limit == 0xffff'ffff;
}

// Present, readable, writable, expand-up data.
constexpr bool is_plain_data(const Segment& segment) {
  return (segment.attributes & (Segment::kPresent | Segment::kS | 14)) ==
         (Segment::kPresent | Segment::kS | 2);
}

constexpr uint32_t legacy_segment_bits(const VcpuState& state) {
  const auto& segments = state.segments;
  uint32_t bits = 0;
  if (segments[kCs].big()) bits |= ModeBits::kCode32;
  if (segments[kSs].big()) bits |= ModeBits::kStack32;
  if (is_flat(segments[kCs]) && (segments[kCs].attributes & 10) != 8) bits |= ModeBits::kFlatCs;
  if (is_flat(segments[kDs]) && is_plain_data(segments[kDs])) bits |= ModeBits::kFlatDs;
  if (is_flat(segments[kEs]) && is_plain_data(segments[kEs])) bits |= ModeBits::kFlatEs;
  if (is_flat(segments[kSs]) && is_plain_data(segments[kSs])) bits |= ModeBits::kFlatSs;
  if (segments[kFs].limit == 0xffff'ffff && is_plain_data(segments[kFs])) bits |= ModeBits::kOpenFs;
  if (segments[kGs].limit == 0xffff'ffff && is_plain_data(segments[kGs])) bits |= ModeBits::kOpenGs;
  return bits;
}

}  // namespace

// kOneInstruction and kCallout are not state of the CPU: the translator adds them to its block keys.
void Vcpu::update_mode() {
  VcpuState& s = state_;
  uint32_t bits;
  if (s.efer & efer::kLma && s.segments[kCs].is_long()) {
    // Segmentation does nothing here: constant bits, so that DS and ES values do not split the block cache.
    bits = ModeBits::kCode64 | ModeBits::kFlatCs | ModeBits::kFlatDs | ModeBits::kFlatEs | ModeBits::kFlatSs |
           ModeBits::kOpenFs | ModeBits::kOpenGs | ModeBits::kProtected;
  } else {
    bits = legacy_segment_bits(s);
    if (!(s.cr0 & cr0::kPe)) {
      s.cpl = 0;
    } else if (s.rflags & flag::kVm) {
      s.cpl = 3;
    } else {
      bits |= ModeBits::kProtected;
    }
  }
  if (s.cpl == 3) {
    bits |= ModeBits::kUser;
    if (s.cr0 & cr0::kAm && s.rflags & flag::kAc) bits |= ModeBits::kAlignment;
  }
  if (!(s.cr0 & cr0::kTs)) {
    if (!(s.cr0 & cr0::kEm)) {
      bits |= ModeBits::kX87;
      if (s.cr4 & cr4::kOsfxsr) bits |= ModeBits::kSse;
    }
    // VEX encodings are #UD in real and virtual-8086 mode (SDM vol. 2, 2.3.1).
    if (s.cr4 & cr4::kOsxsave && (s.xcr0 & 6) == 6 && bits & ModeBits::kProtected) bits |= ModeBits::kAvx;
  }
  if (s.rflags & flag::kTf) bits |= ModeBits::kSingleStep;
  if (amd_) bits |= ModeBits::kAmd;
  s.mode.value = bits;
  select_view();
  if (mode_listener_) mode_listener_->mode_changed();
}

Result<Outcome> Vcpu::execute(const SystemInstruction& insn) {
  switch (insn.op) {
    case SystemOp::MovToSreg:
    case SystemOp::MovFromSreg:
    case SystemOp::PushSreg:
    case SystemOp::PopSreg:
    case SystemOp::LoadFarPointer:
    case SystemOp::Lar:
    case SystemOp::Lsl:
    case SystemOp::Verr:
    case SystemOp::Verw:
    case SystemOp::Arpl:
      return execute_segment(insn);
    case SystemOp::Sgdt:
    case SystemOp::Sidt:
    case SystemOp::Sldt:
    case SystemOp::Str:
    case SystemOp::Smsw:
    case SystemOp::Lgdt:
    case SystemOp::Lidt:
    case SystemOp::Lldt:
    case SystemOp::Ltr:
    case SystemOp::Lmsw:
    case SystemOp::Clts:
      return execute_table_register(insn);
    case SystemOp::MovToCr:
    case SystemOp::MovFromCr:
    case SystemOp::MovToDr:
    case SystemOp::MovFromDr:
      return execute_control_register(insn);
    case SystemOp::CallFar:
    case SystemOp::JmpFar:
    case SystemOp::RetFar:
    case SystemOp::Int:
    case SystemOp::Int1:
    case SystemOp::Int3:
    case SystemOp::Into:
    case SystemOp::Iret:
      return execute_far_transfer(insn);
    case SystemOp::Syscall:
    case SystemOp::Sysret:
    case SystemOp::Sysenter:
    case SystemOp::Sysexit:
      return execute_fast_call(insn);
    case SystemOp::Pushf:
    case SystemOp::Popf:
    case SystemOp::Cli:
    case SystemOp::Sti:
    case SystemOp::Cld:
    case SystemOp::Std:
    case SystemOp::Clac:
    case SystemOp::Stac:
      return execute_flags(insn);
    case SystemOp::In:
    case SystemOp::Out:
    case SystemOp::Ins:
    case SystemOp::Outs:
      return execute_io(insn);
    case SystemOp::Hlt:
    case SystemOp::Cpuid:
    case SystemOp::Rdtsc:
    case SystemOp::Rdtscp:
    case SystemOp::Rdpmc:
    case SystemOp::Rdpid:
    case SystemOp::Invlpg:
    case SystemOp::Invpcid:
    case SystemOp::Invd:
    case SystemOp::Wbinvd:
    case SystemOp::Monitor:
    case SystemOp::Mwait:
    case SystemOp::Ud:
    case SystemOp::TooLong:
    case SystemOp::FpuUnavailable:
      return execute_processor(insn);
    case SystemOp::Rdmsr:
    case SystemOp::Wrmsr:
    case SystemOp::Swapgs:
    case SystemOp::Rdfsbase:
    case SystemOp::Rdgsbase:
    case SystemOp::Wrfsbase:
    case SystemOp::Wrgsbase:
      return execute_msr(insn);
    case SystemOp::Xgetbv:
    case SystemOp::Xsetbv:
    case SystemOp::Fxsave:
    case SystemOp::Fxrstor:
    case SystemOp::Xsave:
    case SystemOp::Xsavec:
    case SystemOp::Xsaveopt:
    case SystemOp::Xsaves:
    case SystemOp::Xrstor:
    case SystemOp::Xrstors:
      return execute_state_image(insn);
    case SystemOp::Movs:
    case SystemOp::Stos:
    case SystemOp::Lods:
    case SystemOp::Scas:
    case SystemOp::Cmps:
      return execute_string(insn);
    case SystemOp::Enter:
    case SystemOp::Pusha:
    case SystemOp::Popa:
    case SystemOp::Bound:
    case SystemOp::Aaa:
    case SystemOp::Aas:
    case SystemOp::Aam:
    case SystemOp::Aad:
    case SystemOp::Daa:
    case SystemOp::Das:
    case SystemOp::Salc:
      return execute_legacy(insn);
  }
  return raise(vector::kUd);
}

void Vcpu::set_interrupt_source(InterruptSource* source) {
  interrupt_source_ = source;
  apic_ = source ? source->apic() : nullptr;
}

void Vcpu::request_nmi() {
  nmi_pending_ = true;
  attend(attention::kInterrupt);
}

bool Vcpu::take_interrupt() {
  if (state_.interrupt_shadow) {
    interrupt_waiting_ = true;  // unknown: interrupts_opened() asks again after the shadow
    return false;
  }
  if (nmi_pending_ && !state_.nmi_blocked) {
    nmi_pending_ = false;
    deliver_interrupt(vector::kNmi, true);
    // INTR may be pending too, and attention was for both.
    if (interrupt_source_) attend(attention::kInterrupt);
    return true;
  }
  if (!interrupt_source_) return false;
  uint8_t number;
  {
    HostVectorScope scope(state_);
    interrupt_waiting_ = interrupt_source_->pending();
    if (!interrupt_waiting_ || !(state_.rflags & flag::kIf)) return false;
    number = interrupt_source_->acknowledge();
    interrupt_waiting_ = interrupt_source_->pending();
  }
  deliver_interrupt(number, false);
  if (interrupt_waiting_ && state_.rflags & flag::kIf) attend(attention::kInterrupt);
  return true;
}

unsigned Vcpu::event_count() const {
  return event_total_ < kEventRecords ? static_cast<unsigned>(event_total_) : kEventRecords;
}

const EventRecord& Vcpu::event(unsigned age) const {
  return events_[(event_total_ - 1 - age) % kEventRecords];
}

}  // namespace penumbra
