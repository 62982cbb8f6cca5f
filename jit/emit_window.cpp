// Memory operands through the shadow windows (mmu/shadow_windows.h).
//
// 64-bit code, an operand [base + displacement] whose base's region is not known yet:
//     rorx  r9, base, 32
//     cmp   r9d, [tag]                 a guess, corrected by Translator::window_select
//     jne   other                      out of line
//     mov   r9, [delta]
//     op    [base + r9 + displacement]
// Further operands with that base need no check: the displacement, and the constants that the block adds to
// the base, stay within the guards. Their delta is in r9 still, or in WindowState::kept. Where the flags are
// in use, the delta comes from the table instead, without a comparison.
//
// 32-bit code: gs:[base + index * scale + displacement].
#include <bit>
#include <cstdlib>

#include "jit/block_translator.h"

namespace penumbra::jit {

namespace {

constexpr size_t window_offset(size_t field) {
  return offsetof(VcpuState, windows) + field;
}

constexpr int64_t kFarthest = int64_t{1} << 30;

bool is_near(uint64_t address, uint64_t other) {
  return address - other + kFarthest <= 2 * kFarthest;
}

}  // namespace

// What an instruction adds to `bits` of a register, if that is all it does with it.
std::optional<int64_t> BlockTranslator::constant_step(const GuestInstruction& insn, unsigned gpr, unsigned bits) {
  const auto names = [&](const ZydisDecodedOperand& operand) {
    return operand.type == ZYDIS_OPERAND_TYPE_REGISTER && operand.size == bits &&
           gpr_number(operand.reg.value) == gpr;
  };
  const unsigned bytes = insn.zydis.operand_width / 8;
  switch (insn.zydis.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
      if (!names(insn.operands[0]) || insn.operands[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return std::nullopt;
      return insn.zydis.mnemonic == ZYDIS_MNEMONIC_ADD ? insn.operands[1].imm.value.s
                                                       : -insn.operands[1].imm.value.s;
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
      if (!names(insn.operands[0])) return std::nullopt;
      return insn.zydis.mnemonic == ZYDIS_MNEMONIC_INC ? 1 : -1;
    case ZYDIS_MNEMONIC_LEA: {
      const ZydisDecodedOperandMem& mem = insn.operands[1].mem;
      if (!names(insn.operands[0]) || insn.zydis.address_width != bits || mem.base != insn.operands[0].reg.value ||
          mem.index != ZYDIS_REGISTER_NONE) {
        return std::nullopt;
      }
      return mem.disp.has_displacement ? mem.disp.value : 0;
    }
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_CALL:
      if (gpr != kRsp) return std::nullopt;
      return -static_cast<int64_t>(bytes);
    case ZYDIS_MNEMONIC_POP:
      if (gpr != kRsp || names(insn.operands[0])) return std::nullopt;
      return bytes;
    default:
      return std::nullopt;
  }
}

bool BlockTranslator::is_windowed(const MemoryAccess& access) const {
  return block_->windows && access.window && is_inline(access);
}

// The operand where the host can address it as the guest does: 32-bit code, with no segment base, that does
// not wrap.
std::optional<x86::Mem> BlockTranslator::flat_operand(const ZydisDecodedOperandMem& mem,
                                                      const GuestInstruction& insn,
                                                      const MemoryAccess& access) const {
  if (insn.zydis.address_width != 32 || access.segment == kFs || access.segment == kGs || window_use_.wraps) {
    return std::nullopt;
  }
  const int64_t displacement = static_cast<int32_t>(mem.disp.has_displacement ? mem.disp.value : 0);
  const bool has_base = mem.base != ZYDIS_REGISTER_NONE, has_index = mem.index != ZYDIS_REGISTER_NONE;
  // A large negative one stands for an address in the upper half, to which a register is added.
  constexpr int64_t kSmall = 1 << 16;
  if (displacement < (has_base || has_index ? -kSmall : 0)) return std::nullopt;
  const auto disp32 = static_cast<int32_t>(displacement + (has_base && gpr_number(mem.base) == kRsp ? stack_step_ : 0));
  const unsigned shift = has_index ? std::countr_zero(static_cast<unsigned>(mem.scale)) : 0;
  x86::Mem operand;
  if (has_base && has_index) {
    operand = x86::ptr(host_gpr(gpr_number(mem.base)), host_gpr(gpr_number(mem.index)), shift, disp32);
  } else if (has_base) {
    operand = x86::ptr(host_gpr(gpr_number(mem.base)), disp32);
  } else if (has_index) {
    operand = x86::ptr(static_cast<uint64_t>(displacement), host_gpr(gpr_number(mem.index)), shift);
  } else {
    operand = x86::ptr_abs(static_cast<uint64_t>(displacement));
  }
  operand.setSegment(x86::gs);
  return operand;
}

void BlockTranslator::emit_window_operand(const ZydisDecodedOperandMem& mem, const GuestInstruction& insn,
                                          const MemoryAccess& access) {
  if (!code64()) {
    if (const auto operand = flat_operand(mem, insn, access)) {
      record_access(access);
      operand_ = *operand;
      return;
    }
  } else if (access.segment != kFs && access.segment != kGs && insn.zydis.address_width == 64 &&
             base_gpr(mem) && mem.index == ZYDIS_REGISTER_NONE) {
    const int64_t displacement = displacement_of(mem);
    emit_window_by_register(*base_gpr(mem), static_cast<int32_t>(displacement), access);
    return;
  } else if (const auto address = insn.constant_offset(mem); address && access.segment != kFs && access.segment != kGs) {
    emit_window_at_constant(*address, access);
    return;
  }
  emit_offset(mem, insn);
  emit_segment_base(access);
  emit_window_at_linear(access);
}

void BlockTranslator::emit_window_by_register(unsigned gpr, int32_t displacement,
                                              const MemoryAccess& access) {
  const x86::Gp base = read_gpr(gpr, kLinear);
  hold_window_delta(gpr, base, access);
  operand_ = x86::ptr(base, kHostAddend, 0, displacement);
}

void BlockTranslator::emit_window_at_constant(uint64_t address, const MemoryAccess& access) {
  if (!kept_[kConstant].known || !is_near(address, constant_)) {
    kept_[kConstant].known = false;
    constant_ = address;
  }
  hold_window_delta(kConstant, std::nullopt, access);
  if (const auto disp32 = static_cast<int32_t>(address); static_cast<uint64_t>(int64_t{disp32}) == address) {
    operand_ = x86::ptr(kHostAddend, disp32);
  } else {
    a_.mov(kLinear, asmjit::Imm(address));
    operand_ = x86::ptr(kLinear, kHostAddend);
  }
}

void BlockTranslator::hold_window_delta(unsigned gpr, const std::optional<x86::Gp>& base, const MemoryAccess& access) {
  const KeptDelta& kept = kept_[gpr];
  record_access(access);
  if (!kept.known || (!kept.stored && held_ != kept.home)) {
    emit_window_delta(gpr, base, used_again(gpr));
    record_access(access);
  } else if (held_ != kept.home) {
    a_.mov(kHostAddend, kept_field(kept.home));
    held_ = kept.home;
  }
}

void BlockTranslator::emit_window_delta(unsigned gpr, const std::optional<x86::Gp>& base, bool store) {
  const uint64_t address = !base ? constant_ : window_use_.hints ? window_use_.hints[gpr] : 0;
  if (may_clobber_flags()) {
    emit_window_check(base, address);
  } else {
    emit_window_lookup(base, address);
  }
  for (KeptDelta& other : kept_) {
    if (other.home == static_cast<int>(gpr)) other.known = false;
  }
  kept_[gpr] = {.known = true, .stored = store, .home = static_cast<int8_t>(gpr), .drift = 0};
  if (store) a_.mov(kept_field(static_cast<int>(gpr)), kHostAddend);
  held_ = static_cast<int>(gpr);
}

// The linear address is in kLinear.
void BlockTranslator::emit_window_at_linear(const MemoryAccess& access) {
  record_access(access);
  if (!code64()) {
    operand_ = x86::ptr(kLinear);
    operand_.setSegment(x86::gs);
    return;
  }
  held_ = kNothingHeld;
  if (may_clobber_flags()) {
    emit_window_check(kLinear, 0);
    record_access(access);
  } else {
    emit_window_lookup(kLinear, 0);
  }
  operand_ = x86::ptr(kLinear, kHostAddend);
}

// The delta of the base's region into kHostAddend, without a comparison.
void BlockTranslator::emit_window_lookup(const std::optional<x86::Gp>& base, uint64_t address) {
  static_assert(ShadowWindows::kRegionShift == 32);
  a_.mov(kTemp, a_.state_field(window_offset(offsetof(WindowState, table)), 8));
  if (base) {
    a_.rorx(kHostAddend, *base, ShadowWindows::kRegionShift);
    a_.mov(kHostAddend.r32(), kHostAddend.r32());
  } else {
    a_.mov(kHostAddend.r32(), asmjit::Imm(address >> ShadowWindows::kRegionShift));
  }
  a_.mov(kHostAddend, x86::ptr(kTemp, kHostAddend, 3, 0, 8));
}

bool BlockTranslator::may_clobber_flags() const {
  return flags_ != FlagHome::Host || live_[current_].before == 0;
}

// The delta of the base's region into kHostAddend. `hint`: an address that may be in that region.
void BlockTranslator::emit_window_check(const std::optional<x86::Gp>& base, uint64_t address) {
  give_up_flags(false);
  WindowSite* const site = arena_->make<WindowSite>({.block = block_});
  const WindowCheck check{a_.newLabel(),
                          a_.newLabel(),
                          base,
                          address,
                          site,
                          flags_,
                          static_cast<uint16_t>(instructions_[current_].rip - key_.rip),
                          sites_.back().site_kind(),
                          stack_step_};
  window_checks_.push_back(check);
  const uint64_t region = address >> ShadowWindows::kRegionShift;
  const WindowSlotFields fields = WindowSlotFields::of(region, key_.mode);
  if (base) {
    a_.rorx(kHostAddend, *base, ShadowWindows::kRegionShift);
    a_.cmp(kHostAddend.r32(), a_.state_field(fields.tag, 4));
    site->tag_offset = static_cast<uint32_t>(a_.offset()) - 4;
  } else {
    const auto immediate = static_cast<int32_t>(region);
    a_.long_().cmp(a_.state_field(fields.tag, 4), immediate);
    site->tag_offset = static_cast<uint32_t>(a_.offset()) - 8;
  }
  a_.long_().jne(check.other);
  site->jump_offset = static_cast<uint32_t>(a_.offset()) - 4;
  a_.mov(kHostAddend, a_.state_field(fields.delta, 8));
  site->delta_offset = static_cast<uint32_t>(a_.offset()) - 4;
  a_.bind(check.selected);
}

WindowSlotFields WindowSlotFields::of(uint64_t region, ModeBits mode) {
  const unsigned slot = WindowState::slot_of(region);
  const bool user = mode.has(ModeBits::kUser);
  // The upper half's chunks are the supervisor's: a user's address must not even be compared with their tags.
  const bool upper = region >> 31 && !user;
  const size_t tags = upper  ? offsetof(WindowState, upper_tag)
                      : user ? offsetof(WindowState, user_tag)
                             : offsetof(WindowState, lifted_tag);
  const size_t deltas = upper ? offsetof(WindowState, upper_delta) : offsetof(WindowState, lower_delta);
  return {.tag = window_offset(tags + slot * sizeof(uint32_t)),
          .delta = window_offset(deltas + slot * sizeof(uint64_t))};
}

void BlockTranslator::emit_window_out_of_line(const WindowCheck& check) {
  flags_ = check.flags;
  stack_step_ = check.stack_step;
  a_.bind(check.other);
  if (!check.base) {
    a_.mov(kLinear, asmjit::Imm(check.address));
  } else if (check.base->id() != kLinear.id()) {
    a_.mov(kLinear, *check.base);
  }
  a_.mov(kTemp, asmjit::Imm(reinterpret_cast<uint64_t>(check.site)));
  a_.lea(kHostAddend, x86::ptr(check.selected));
  a_.jmp(asmjit::Imm(environment_.thunks->window_select));
  // Where the guess keeps failing: the table.
  check.site->search_offset = static_cast<uint32_t>(a_.offset());
  add_site(check.guest, check.kind);
  stack_step_ = 0;
  a_.mov(kTemp, a_.state_field(window_offset(offsetof(WindowState, table)), 8));
  if (check.base) {
    a_.mov(kHostAddend.r32(), kHostAddend.r32());
  } else {
    a_.mov(kHostAddend.r32(), asmjit::Imm(check.address >> ShadowWindows::kRegionShift));
  }
  a_.mov(kHostAddend, x86::ptr(kTemp, kHostAddend, 3, 0, 8));
  a_.mov(kTemp, asmjit::Imm(ShadowWindows::kNoChunk));
  a_.cmp(kHostAddend, kTemp);
  a_.jne(check.selected);
  a_.jmp(check.other);
}

x86::Mem BlockTranslator::kept_field(int home) const {
  return a_.state_field(window_offset(offsetof(WindowState, kept) + static_cast<unsigned>(home) * 8), 8);
}

void BlockTranslator::forget_kept_deltas() {
  kept_ = {};
  held_ = kNothingHeld;
}

// Whether a later instruction of the block has a memory operand with this base, unchanged but for constants.
bool BlockTranslator::used_again(unsigned gpr) const {
  for (size_t i = current_ + 1; i < instructions_.size(); ++i) {
    const GuestInstruction& insn = instructions_[i];
    if (insn.row.action == Action::System) return false;
    for (unsigned j = 0; j < insn.zydis.operand_count; ++j) {
      const ZydisDecodedOperand& operand = insn.operands[j];
      if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
      if (const auto address = insn.constant_offset(operand.mem)) {
        if (gpr == kConstant && is_near(*address, constant_)) return true;
      } else if (operand.mem.index == ZYDIS_REGISTER_NONE && base_gpr(operand.mem) == gpr) {
        return true;
      }
    }
    if (writes_gpr(insn, gpr) && !constant_step(insn, gpr, 64)) return false;
  }
  return false;
}

// The registers of a loop whose delta, found before the first round, is good for all rounds: bases of operands that no round
// changes, or changes by so little that the address of the next round is near that of this one, which was accessed.
uint32_t BlockTranslator::carried_deltas() const {
  constexpr int64_t kNear = 1 << 20;
  static_assert(4 * kNear < static_cast<int64_t>(ShadowWindows::kGuardBytes));
  uint32_t carried = 0;
  for (unsigned gpr = 0; gpr < 16; ++gpr) {
    bool accessed = false, near = true;
    int64_t steps = 0;
    for (const GuestInstruction& insn : instructions_) {
      const ZydisDecodedOperand* const memory = insn.memory_operand();
      if (memory && base_gpr(memory->mem) == gpr &&
          memory->mem.index == ZYDIS_REGISTER_NONE && insn.zydis.address_width == 64 &&
          memory->mem.segment != ZYDIS_REGISTER_FS && memory->mem.segment != ZYDIS_REGISTER_GS) {
        accessed = true;
        near = near && std::abs(memory->mem.disp.has_displacement ? memory->mem.disp.value : 0) < kNear;
      }
      if (!writes_gpr(insn, gpr)) continue;
      const auto step = constant_step(insn, gpr, 64);
      near = near && step && std::abs(*step) < kNear;
      if (near) steps += std::abs(*step);
    }
    if (accessed && near && steps < kNear) carried |= 1u << gpr;
  }
  return carried;
}

void BlockTranslator::carry_deltas(uint32_t carried) {
  current_ = 0;
  record_site(key_.rip);
  for (unsigned gpr = 0; gpr < 16; ++gpr) {
    if (carried & 1u << gpr) emit_window_delta(gpr, read_gpr(gpr, kLinear), true);
  }
  if (std::has_single_bit(carried)) {
    loop_held_ = held_;
  } else {
    held_ = kNothingHeld;
  }
}

bool BlockTranslator::writes_gpr(const GuestInstruction& insn, unsigned gpr) {
  for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
    const ZydisDecodedOperand& operand = insn.operands[i];
    if (!is_gpr(operand) || !(operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) continue;
    constexpr unsigned kAh = 4;  // AH, CH, DH and BH are numbered behind AL, CL, DL and BL
    const ZydisRegister reg = operand.reg.value;
    if (gpr_number(reg) - (is_high_byte(reg) ? kAh : 0) == gpr) return true;
  }
  return false;
}

// After an instruction: which registers still are near the address that was checked.
void BlockTranslator::follow_kept_deltas(const GuestInstruction& insn) {
  if (!block_->windows || !code64()) return;
  // With a displacement, ShadowWindows::kGuardBytes must hold both.
  static_assert(kFarthest + (int64_t{1} << 31) < static_cast<int64_t>(ShadowWindows::kGuardBytes));
  if (insn.zydis.mnemonic == ZYDIS_MNEMONIC_MOV && insn.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
      insn.operands[0].size == 64 && is_gpr(insn.operands[0]) && is_gpr(insn.operands[1])) {
    kept_[gpr_number(insn.operands[0].reg.value)] = kept_[gpr_number(insn.operands[1].reg.value)];
    return;
  }
  for (unsigned gpr = 0; gpr < 16; ++gpr) {
    KeptDelta& kept = kept_[gpr];
    if (!kept.known || !writes_gpr(insn, gpr)) continue;
    const auto step = constant_step(insn, gpr, 64);
    if (step) kept.drift += *step;
    if (!step || kept.drift > kFarthest || kept.drift < -kFarthest) kept.known = false;
  }
}

}  // namespace penumbra::jit
