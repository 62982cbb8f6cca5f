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
// in use, the delta comes from the table instead, without a comparison. Constant addresses have a base in
// common: the first of them, or, in shared blocks, the page of the code, whose host address is kept instead
// of its delta.
//
// 32-bit code: gs:[base + index * scale + displacement].
#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdlib>
#include <span>

#include "jit/block_translator.h"

namespace penumbra::jit {

namespace {

constexpr size_t window_offset(size_t field) {
  return offsetof(VcpuState, windows) + field;
}

// How far from its region a base may be. From one block to the next, and from one round of a loop to the
// next: near.
constexpr int64_t kFarthest = int64_t{1} << 30;
constexpr int64_t kNear = 1 << 20;
constexpr uint64_t kNearAtEntry = 4 * kNear;

// A displacement so large is the address itself, and the register beside it an index: a kernel's static
// arrays.
bool is_address(const ZydisDecodedOperandMem& mem) {
  return mem.disp.has_displacement && std::abs(mem.disp.value) > kFarthest;
}

bool is_within(uint64_t address, uint64_t other, int64_t farthest) {
  return address - other + static_cast<uint64_t>(farthest) <= 2 * static_cast<uint64_t>(farthest);
}

}  // namespace

// What an instruction adds to `bits` of a register, if that is all it does with it.
std::optional<int64_t> BlockTranslator::constant_step(const GuestInstruction& insn, unsigned gpr,
                                                      unsigned bits) {
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
      if (!names(insn.operands[0]) || insn.zydis.address_width != bits ||
          mem.base != insn.operands[0].reg.value || mem.index != ZYDIS_REGISTER_NONE) {
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
  const auto disp32 =
      static_cast<int32_t>(displacement + (has_base && gpr_number(mem.base) == kRsp ? stack_step_ : 0));
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
             base_gpr(mem) && mem.index == ZYDIS_REGISTER_NONE && !is_address(mem)) {
    const int64_t displacement = displacement_of(mem);
    emit_window_by_register(*base_gpr(mem), static_cast<int32_t>(displacement), access);
    return;
  } else if (const auto address = constant_with_base(mem, insn);
             address && access.segment != kFs && access.segment != kGs) {
    emit_window_at_constant(*address, access);
    return;
  }
  emit_offset(mem, insn);
  emit_segment_base(access);
  emit_window_at_linear(access, is_address(mem) ? static_cast<uint64_t>(mem.disp.value) : 0);
}

void BlockTranslator::emit_window_by_register(unsigned gpr, int32_t displacement,
                                              const MemoryAccess& access) {
  const x86::Gp base = read_gpr(gpr, kLinear);
  hold_window_delta(gpr, base, displacement, access);
  operand_ = x86::ptr(base, kHostAddend, 0, displacement);
}

void BlockTranslator::emit_window_at_constant(uint64_t address, const MemoryAccess& access) {
  if (key_.shared()) {
    hold_window_delta(kConstantBase, std::nullopt, static_cast<int64_t>(address), access);
    operand_ = x86::ptr(kHostAddend, static_cast<int32_t>(address));
    return;
  }
  if (!kept_[kConstantBase].known || !is_within(address, constant_, kFarthest)) {
    kept_[kConstantBase].known = false;
    constant_ = address;
  }
  hold_window_delta(kConstantBase, std::nullopt, static_cast<int64_t>(address - constant_), access);
  if (const auto disp32 = static_cast<int32_t>(address); static_cast<uint64_t>(int64_t{disp32}) == address) {
    operand_ = x86::ptr(kHostAddend, disp32);
  } else {
    a_.mov(kLinear, asmjit::Imm(address));
    operand_ = x86::ptr(kLinear, kHostAddend);
  }
}

void BlockTranslator::hold_window_delta(unsigned gpr, const std::optional<x86::Gp>& base, int64_t offset,
                                        const MemoryAccess& access) {
  KeptDelta& kept = kept_[gpr];
  record_access(access);
  if (!kept.known || (!kept.stored && held_ != kept.home)) {
    emit_window_delta(gpr, base, worth_keeping(gpr));
    record_access(access);
  } else if (held_ != kept.home) {
    a_.mov(kHostAddend, kept_field(kept.home));
    held_ = kept.home;
  }
  // Once it has been made. (The host's RSP may be some KiB from the guest's: stack_step_.)
  if (access.lane == 0) kept.reach = std::min(kept.reach, static_cast<uint64_t>(std::abs(offset)));
}

void BlockTranslator::emit_window_delta(unsigned gpr, const std::optional<x86::Gp>& base, bool store) {
  const bool code_page = key_.shared() && gpr == kConstantBase;
  if (code_page) a_.mov(kLinear, a_.state_field(offsetof(VcpuState, code_page), 8));
  const uint64_t address = code_page           ? window_use_.code_page
                           : !base             ? constant_
                           : window_use_.hints ? window_use_.hints[gpr]
                                               : 0;
  const std::optional<x86::Gp> checked = code_page ? std::optional(kLinear) : base;
  if (may_clobber_flags()) {
    emit_window_check(checked, address);
  } else {
    emit_window_lookup(checked, address);
  }
  if (code_page) a_.lea(kHostAddend, x86::ptr(kHostAddend, kLinear));
  for (KeptDelta& other : kept_) {
    if (other.home == static_cast<int>(gpr)) other.known = false;
  }
  kept_[gpr] = {.known = true, .stored = store, .home = static_cast<int8_t>(gpr), .reach = 0};
  if (store) a_.mov(kept_field(static_cast<int>(gpr)), kHostAddend);
  held_ = static_cast<int>(gpr);
}

// The linear address is in kLinear.
void BlockTranslator::emit_window_at_linear(const MemoryAccess& access, uint64_t hint) {
  record_access(access);
  if (!code64()) {
    operand_ = x86::ptr(kLinear);
    operand_.setSegment(x86::gs);
    return;
  }
  held_ = kNothingHeld;
  if (may_clobber_flags()) {
    emit_window_check(kLinear, hint);
    record_access(access);
  } else {
    emit_window_lookup(kLinear, hint);
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
  a_.load_address(kTemp, check.site);
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

// The operand's address if it is constant and has kConstantBase for a base; in a shared block, from the page
// of the code.
std::optional<uint64_t> BlockTranslator::constant_with_base(const ZydisDecodedOperandMem& mem,
                                                            const GuestInstruction& insn) const {
  const auto address = insn.constant_offset(mem);
  if (key_.shared() && (insn.zydis.address_width != 64 || (address && !is_within(*address, 0, kFarthest))))
    return std::nullopt;
  return address;
}

uint64_t BlockTranslator::first_constant() const {
  if (key_.shared()) return 0;
  for (const GuestInstruction& insn : instructions_) {
    const ZydisDecodedOperand* const memory = insn.memory_operand();
    if (!memory || memory->mem.segment == ZYDIS_REGISTER_FS || memory->mem.segment == ZYDIS_REGISTER_GS)
      continue;
    if (const auto address = insn.constant_offset(memory->mem)) return *address;
  }
  return 0;
}

// Whether the operand is one with this base and nothing that varies.
bool BlockTranslator::is_base(const GuestInstruction& insn, const ZydisDecodedOperand& operand,
                              unsigned gpr) const {
  if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.segment == ZYDIS_REGISTER_FS ||
      operand.mem.segment == ZYDIS_REGISTER_GS) {
    return false;
  }
  if (const auto address = constant_with_base(operand.mem, insn)) {
    return gpr == kConstantBase && is_within(*address, constant_, kFarthest);
  }
  return operand.mem.index == ZYDIS_REGISTER_NONE && insn.zydis.address_width == 64 &&
         base_gpr(operand.mem) == gpr && !is_address(operand.mem);
}

// Whether there is use for the delta of this base later in the block or, unchanged but for constants, in the
// next one.
bool BlockTranslator::worth_keeping(unsigned gpr) const {
  for (size_t i = current_ + 1; i < instructions_.size(); ++i) {
    const GuestInstruction& insn = instructions_[i];
    if (insn.row.action == Action::System) return false;
    for (unsigned j = 0; j < insn.zydis.operand_count; ++j) {
      if (is_base(insn, insn.operands[j], gpr)) return true;
    }
    if (options_.warm_entries && insn.row.action == Action::Jcc) return true;
    if (writes_gpr(insn, gpr) && !constant_step(insn, gpr, 64)) return false;
  }
  // Where a jump goes through the jump cache, only that of RSP is passed on.
  const GuestInstruction& last = instructions_.back();
  const bool direct = !last.ends_block() || last.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
  return options_.warm_entries && (direct || gpr == kRsp);
}

// The bases of a loop whose delta, found before the first round, is good for all rounds: those that no round
// changes, or changes by so little that the address of the next round is near that of this one, which was
// accessed.
KeptDeltas BlockTranslator::carried_deltas() const {
  KeptDeltas carried = 0;
  for (unsigned gpr = 0; gpr <= kConstantBase; ++gpr) {
    bool accessed = false, near = true;
    int64_t steps = 0;
    for (const GuestInstruction& insn : instructions_) {
      const ZydisDecodedOperand* const memory = insn.memory_operand();
      if (memory && is_base(insn, *memory, gpr)) {
        accessed = true;
        near = near && (gpr == kConstantBase ||
                        std::abs(memory->mem.disp.has_displacement ? memory->mem.disp.value : 0) < kNear);
      } else if (memory && gpr == kConstantBase && insn.constant_offset(memory->mem)) {
        near = false;  // from another region, perhaps
      }
      if (!writes_gpr(insn, gpr)) continue;
      const auto step = constant_step(insn, gpr, 64);
      near = near && step && std::abs(*step) < kNear;
      if (near) steps += std::abs(*step);
    }
    if (accessed && near && steps < kNear) carried |= KeptDeltas{1} << gpr;
  }
  return carried;
}

// The bases through which the block accesses memory before it may be left.
KeptDeltas BlockTranslator::first_deltas() const {
  KeptDeltas first = 0;
  for (unsigned gpr = 0; gpr <= kConstantBase; ++gpr) {
    for (const GuestInstruction& insn : instructions_) {
      if (insn.row.action == Action::System || insn.row.action == Action::None) break;
      const bool found =
          std::any_of(insn.operands, insn.operands + insn.zydis.operand_count,
                      [&](const ZydisDecodedOperand& operand) { return is_base(insn, operand, gpr); });
      switch (insn.row.action) {
        case Action::Generic:
        case Action::Mov:
        case Action::Push:
        case Action::Pop:
        case Action::Call:
        case Action::Ret:
        case Action::Jmp:
          if (found) first |= KeptDeltas{1} << gpr;
          break;
        default:
          break;
      }
      const auto step = writes_gpr(insn, gpr) ? constant_step(insn, gpr, 64) : 0;
      if (found || insn.row.action == Action::Jcc || !step || std::abs(*step) > kNear) break;
    }
  }
  return first;
}

// Finds these deltas at the block's entry. A jump that knows some of them goes to an entry behind the checks
// that it needs no more: RSP is the first, since it is known most often; calls preserve those after the
// constants'.
void BlockTranslator::check_first(KeptDeltas deltas) {
  static constexpr uint8_t kOrder[] = {kRsp, kConstantBase, 3, 5, 12, 13, 14, 15, 7, 6, 2, 1, 0, 8, 9, 10,
                                       11};
  static_assert(std::size(kOrder) == WindowState::kKept);
  static_assert(kFarthest + kNearAtEntry + (int64_t{1} << 31) < ShadowWindows::kGuardBytes);
  current_ = 0;
  record_site(key_.rip);
  block_->constant = constant_;
  WarmEntry warm;
  for (const unsigned gpr : kOrder) {
    if (!(deltas & KeptDeltas{1} << gpr)) continue;
    emit_window_delta(gpr, gpr == kConstantBase ? std::nullopt : std::optional(read_gpr(gpr, kLinear)), true);
    kept_[gpr].reach = kNearAtEntry;
    warm.known |= KeptDeltas{1} << gpr;
    warm.host_offset = static_cast<uint32_t>(a_.offset());
    warm_entries_.push_back(warm);
    if (gpr == kRsp && key_.shared() && options_.warm_entries && swaps_.empty()) {
      stack_entry_ = a_.newLabel();
      a_.bind(stack_entry_);
    }
  }
  if (!options_.warm_entries || !swaps_.empty()) warm_entries_.clear();
  held_ = kNothingHeld;
  // kill_block() writes over the entry, and lets what leads here end.
  assert(warm_entries_.empty() || warm_entries_.front().host_offset >= kEntryPatchBytes);
}

uint64_t Block::entry_with(KeptDeltas known, uint64_t other_constant) const {
  if (!is_within(constant, other_constant, kNear)) known &= ~(KeptDeltas{1} << kConstantBase);
  uint64_t entry = host + linked_offset;
  for (const WarmEntry& at : std::span(warm, warm_count)) {
    if (at.known & ~known) break;
    entry = host + at.host_offset;
  }
  return entry;
}

uint64_t Block::entry_with_stack() const {
  if (!key.shared()) return entry_with(kStackDelta, 0);
  return host + stack_entry_offset;
}

// What a jump may take for known at its target.
KeptDeltas BlockTranslator::known_deltas() const {
  KeptDeltas known = 0;
  for (unsigned gpr = 0; gpr < kept_.size(); ++gpr) {
    const KeptDelta& kept = kept_[gpr];
    if (kept.known && kept.stored && kept.home == static_cast<int>(gpr) && kept.reach <= kNear)
      known |= KeptDeltas{1} << gpr;
  }
  return known;
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
  if (insn.zydis.mnemonic == ZYDIS_MNEMONIC_MOV && insn.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
      insn.operands[0].size == 64 && is_gpr(insn.operands[0]) && is_gpr(insn.operands[1])) {
    kept_[gpr_number(insn.operands[0].reg.value)] = kept_[gpr_number(insn.operands[1].reg.value)];
    return;
  }
  for (unsigned gpr = 0; gpr < 16; ++gpr) {
    KeptDelta& kept = kept_[gpr];
    if (!kept.known || !writes_gpr(insn, gpr)) continue;
    const auto step = constant_step(insn, gpr, 64);
    if (step) kept.reach += static_cast<uint64_t>(std::abs(*step));
    if (!step || kept.reach > kFarthest + kNearAtEntry) kept.known = false;
  }
}

}  // namespace penumbra::jit
