// The memory path: turns a guest memory operand into a host operand. The other way is jit/emit_window.cpp.
//
// Inline form (software TLB, mmu/soft_tlb.h):            Callout form (design 3.7):
//     entry = tlb_view + (linear >> 12) % kEntries            helper reads the operand into a buffer
//     if (entry.tag != page of the last byte) goto miss       the same instruction runs on the buffer
//     [entry.addend + linear]                                 helper writes the buffer back
// A miss that cannot be filled (MMIO, code page, page crossing) runs the instruction again in callout form.
#include <bit>

#include "jit/block_translator.h"
#include "mmu/soft_tlb.h"

namespace penumbra::jit {

x86::Gp BlockTranslator::read_gpr(unsigned gpr, const x86::Gp& scratch) {
  if (!lives_in_memory(gpr)) return host_gpr(gpr);
  a_.mov(scratch, a_.gpr_field(gpr));
  return scratch;
}

void BlockTranslator::set_gpr(unsigned gpr, const x86::Gp& from, unsigned bytes) {
  if (gpr == kRsp) settle_stack();
  if (lives_in_memory(gpr)) {
    if (bytes == 4) a_.mov(from.r32(), from.r32());
    a_.mov(a_.gpr_field(gpr, bytes == 4 ? 8 : bytes), sized(from, bytes == 4 ? 8 : bytes));
  } else {
    a_.mov(sized(host_gpr(gpr), bytes), sized(from, bytes));
  }
}

// From the host's register.
int64_t BlockTranslator::displacement_of(const ZydisDecodedOperandMem& mem) {
  const int64_t displacement = mem.disp.has_displacement ? mem.disp.value : 0;
  if (base_gpr(mem) != kRsp) return displacement;
  if (const int64_t sum = displacement + stack_step_; sum == static_cast<int32_t>(sum)) return sum;
  settle_stack();
  return displacement;
}

void BlockTranslator::emit_offset(const ZydisDecodedOperandMem& mem, const GuestInstruction& insn) {
  emit_offset(mem, insn, insn.zydis.address_width == 64 ? kLinear : kLinear.r32());
  if (insn.zydis.address_width == 16) a_.movzx(kLinear.r32(), kLinear.r16());
}

void BlockTranslator::emit_offset(const ZydisDecodedOperandMem& mem, const GuestInstruction& insn,
                                  const x86::Gp& to) {
  if (const auto offset = insn.constant_offset(mem)) {
    if (mem.base != ZYDIS_REGISTER_NONE) {
      load_rip(to, to.size() == 8 ? *offset : static_cast<uint64_t>(int64_t{static_cast<int32_t>(*offset)}));
      return;
    }
    a_.mov(to, asmjit::Imm(to.size() == 8 ? *offset : *offset & 0xffff'ffff));
    return;
  }
  const bool has_base = mem.base != ZYDIS_REGISTER_NONE;
  const bool has_index = mem.index != ZYDIS_REGISTER_NONE;
  const int64_t displacement = displacement_of(mem);
  x86::Gp base, index;
  if (has_base) base = read_gpr(gpr_number(mem.base), kLinear);
  if (has_index) index = read_gpr(gpr_number(mem.index), kTemp);
  const auto disp32 = static_cast<int32_t>(displacement);
  if (has_base && !has_index && displacement == 0 && insn.zydis.address_width >= 32) {
    a_.mov(to, sized(base, to.size()));
    return;
  }
  const unsigned shift = has_index ? std::countr_zero(static_cast<unsigned>(mem.scale)) : 0;
  if (has_base && has_index) {
    a_.lea(to, x86::ptr(base, index, shift, disp32));
  } else if (has_base) {
    a_.lea(to, x86::ptr(base, disp32));
  } else {
    a_.lea(to, x86::ptr(static_cast<uint64_t>(static_cast<int64_t>(disp32)), index, shift));
  }
}

MemoryAccess BlockTranslator::access_of(const ZydisDecodedOperand& operand) const {
  const bool writes = operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
  const bool reads = operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ;
  return {.segment = segment_index(operand.mem.segment),
          .kind = writes ? AccessKind::Write : AccessKind::Read,
          // A conditional write leaves the rest of the operand as it was: the buffer needs the old bytes.
          .reads = reads || (operand.actions & ZYDIS_OPERAND_ACTION_CONDWRITE) != 0,
          .aligned = instructions_[current_].needs_alignment(),
          .x87 = instructions_[current_].waits_for_x87(),
          .lane = instructions_[current_].lane_bytes(),
          .size = static_cast<uint16_t>(operand.size / 8),
          .rip = instructions_[current_].rip};
}

bool BlockTranslator::is_inline(const MemoryAccess& access) const {
  if (!options_.soft_tlb || key_.mode.value & (ModeBits::kCallout | ModeBits::kAlignment)) return false;
  if (code64()) return true;
  switch (access.segment) {
    case kCs:
      return access.kind == AccessKind::Read && key_.mode.has(ModeBits::kFlatCs);
    case kDs:
      return key_.mode.has(ModeBits::kFlatDs);
    case kEs:
      return key_.mode.has(ModeBits::kFlatEs);
    case kSs:
      return key_.mode.has(ModeBits::kFlatSs);
    case kFs:
      return key_.mode.has(ModeBits::kOpenFs);
    case kGs:
      return key_.mode.has(ModeBits::kOpenGs);
  }
  return false;
}

void BlockTranslator::open_access(const ZydisDecodedOperandMem& mem, const GuestInstruction& insn,
                                  const MemoryAccess& access) {
  if (is_windowed(access)) {
    access_is_inline_ = true;
    emit_window_operand(mem, insn, access);
    return;
  }
  emit_offset(mem, insn);
  begin_access(access);
}

void BlockTranslator::emit_segment_base(const MemoryAccess& access) {
  if (access.segment != kFs && access.segment != kGs) return;
  a_.mov(kTemp, a_.segment_base_field(access.segment));
  a_.lea(code64() ? kLinear : kLinear.r32(), x86::ptr(kLinear, kTemp));
}

void BlockTranslator::begin_access(MemoryAccess access) {
  access_is_inline_ = is_inline(access);
  if (access_is_inline_) {
    emit_segment_base(access);
    if (is_windowed(access)) {
      emit_window_at_linear(access);
      return;
    }
    settle_stack();
    give_up_flags(live_[current_].before != 0);
    emit_tlb_lookup(access);
    return;
  }
  settle_stack();
  give_up_flags(live_[current_].before != 0);
  access.alone = one_instruction();
  open_access_ = arena_->make(access);
  emit_callout(environment_.thunks->callout_begin, open_access_);
  a_.mov(kHostAddend.r32(), a_.state_address(offsetof(VcpuState, callout_buffer)));
  a_.mov(kLinear.r32(), 0);
  operand_ = x86::ptr(kHostAddend, kLinear);
}

void BlockTranslator::end_access() {
  if (access_is_inline_ || open_access_->kind != AccessKind::Write) return;
  give_up_flags(live_[current_].after != 0);
  emit_callout(environment_.thunks->callout_end, open_access_);
  stored_by_callout_ = true;
}

void BlockTranslator::emit_callout(uint64_t thunk, const void* detail) {
  forget_kept_deltas();
  const asmjit::Label go_on = a_.newLabel();
  a_.load_address(kTemp, detail);
  a_.lea(kHostAddend, x86::ptr(go_on));
  a_.jmp(asmjit::Imm(thunk));
  a_.bind(go_on);
}

void BlockTranslator::emit_tlb_lookup(const MemoryAccess& access) {
  const SlowPath slow{.entry = a_.newLabel(), .found = a_.newLabel(), .access = access};
  record_site(access.rip);
  static_assert(sizeof(TlbEntry) == 32);
  constexpr unsigned kEntryShift = 5;
  const size_t tag =
      access.kind == AccessKind::Write ? offsetof(TlbEntry, write_tag) : offsetof(TlbEntry, read_tag);
  a_.mov(kHostAddend, kLinear);
  if (access.size > 1) {
    a_.lea(kTemp, x86::ptr(kLinear, access.size - 1));
  } else {
    a_.mov(kTemp, kLinear);
  }
  a_.shr(kHostAddend, kPageShift - kEntryShift);
  a_.and_(kTemp, -static_cast<int32_t>(kPageSize));
  a_.and_(kHostAddend.r32(), (SoftTlb::kEntries - 1) << kEntryShift);
  a_.add(kHostAddend, a_.state_field(offsetof(VcpuState, tlb_view), 8));
  a_.cmp(kTemp, x86::ptr(kHostAddend, tag, 8));
  a_.jne(slow.entry);
  a_.mov(kHostAddend, x86::ptr(kHostAddend, offsetof(TlbEntry, addend), 8));
  a_.bind(slow.found);  // further in than kEntryPatchBytes: the block may be dropped while the helper runs
  slow_paths_.push_back(slow);
  held_ = kNothingHeld;
  operand_ = x86::ptr(kHostAddend, kLinear);
}

void BlockTranslator::emit_tlb_miss(const SlowPath& slow) {
  const MemoryAccess& access = slow.access;
  a_.bind(slow.entry);
  a_.lea(kHostAddend, x86::ptr(slow.found));
  a_.mov(kTemp.r32(), access.size | (access.kind == AccessKind::Write ? MissDetail::kWrite : 0) |
                          (access.aligned ? MissDetail::kAligned : 0) | (access.x87 ? MissDetail::kX87 : 0) |
                          (access.lane ? MissDetail::kLanes : 0));
  a_.jmp(asmjit::Imm(environment_.thunks->tlb_miss));
}

}  // namespace penumbra::jit
