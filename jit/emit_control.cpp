// Near control transfer: how a block ends and where host code goes next.
#include <algorithm>
#include <bit>
#include <cassert>

#include "core/descriptor.h"
#include "jit/block_translator.h"
#include "jit/jump_cache.h"

namespace penumbra::jit {

namespace {

x86::CondCode condition_of(const GuestInstruction& insn) {
  // Jcc is 70+cc or 0F 80+cc; asmjit numbers conditions its own way.
  static constexpr x86::CondCode kConditions[] = {
      x86::CondCode::kO, x86::CondCode::kNO, x86::CondCode::kB,  x86::CondCode::kNB,
      x86::CondCode::kZ, x86::CondCode::kNZ, x86::CondCode::kBE, x86::CondCode::kNBE,
      x86::CondCode::kS, x86::CondCode::kNS, x86::CondCode::kP,  x86::CondCode::kNP,
      x86::CondCode::kL, x86::CondCode::kNL, x86::CondCode::kLE, x86::CondCode::kNLE};
  return kConditions[insn.zydis.opcode & 15];
}

// Where a relative branch goes: the operand size cuts it.
uint64_t branch_target(const GuestInstruction& insn) {
  const uint64_t target = insn.next_rip() + static_cast<uint64_t>(insn.operands[0].imm.value.s);
  switch (insn.zydis.operand_width) {
    case 16:
      return target & 0xffff;
    case 32:
      return target & 0xffff'ffff;
    default:
      return target;
  }
}

// RIPs of shared blocks are relative.
bool goes_back(uint64_t from, uint64_t to) {
  return static_cast<int64_t>(to - from) <= 0;
}

}  // namespace

// A RIP of the guest into a 32- or 64-bit register.
void BlockTranslator::load_rip(const x86::Gp& to, uint64_t rip) {
  if (!key_.shared()) {
    a_.mov(to, asmjit::Imm(to.size() == 8 ? rip : rip & 0xffff'ffff));
    return;
  }
  a_.mov(to.r64(), a_.state_field(offsetof(VcpuState, code_page), 8));
  for (auto left = static_cast<int64_t>(rip); left != 0;) {
    // A relative jump from the end of a page may lead further than a displacement.
    const int64_t step = std::clamp<int64_t>(left, INT32_MIN, INT32_MAX);
    a_.lea(to, x86::ptr(to.r64(), static_cast<int32_t>(step)));
    left -= step;
  }
}

bool BlockTranslator::can_link(uint64_t rip) const {
  if (!options_.chain || one_instruction()) return false;
  // Within the page of the block's first byte the mapping that led here still holds.
  BlockKey target = key_;
  target.rip = rip;
  return target.linear().page() == key_.linear().page();
}

// An unreadable page makes this load fault when the run loop wants the vCPU back (design 3.11). No register
// and no flag changes but kTemp.
void BlockTranslator::emit_poll(uint64_t resume_rip) {
  record_poll(resume_rip);
  a_.mov(kTemp.r32(), x86::ptr_rel(environment_.poll_page, 4));
}

BlockTranslator::LinkStub& BlockTranslator::add_link(uint64_t rip) {
  BlockLink* const link = arena_->make<BlockLink>({.from = block_,
                                                   .target_rip = rip,
                                                   .known = known_deltas(),
                                                   .constant = constant_,
                                                   .next_of_block = block_->links});
  block_->links = link;
  link_stubs_.push_back({a_.newLabel(), link});
  return link_stubs_.back();
}

void BlockTranslator::exit_to(uint64_t rip, uint64_t from_rip) {
  block_ended_ = true;
  settle_stack();
  if (key_.mode.has(ModeBits::kSingleStep)) {
    give_up_flags(true);
    a_.mov(kLinear, asmjit::Imm(rip));
    a_.jmp(asmjit::Imm(environment_.thunks->single_step));
    return;
  }
  need_flags_in_host();
  if (goes_back(from_rip, rip)) emit_poll(rip);
  exit_polled(rip);
}

void BlockTranslator::exit_polled(uint64_t rip) {
  block_ended_ = true;
  if (can_link(rip)) {
    const LinkStub& stub = add_link(rip);
    a_.long_().jmp(stub.entry);
    stub.link->patch_offset = static_cast<uint32_t>(a_.offset()) - 4;
    return;
  }
  load_rip(kLinear, rip);
  emit_jump_cache_jump(nullptr, key_.shared() ? std::nullopt : std::optional(rip));
}

void BlockTranslator::exit_indirect(int32_t stack_change) {
  block_ended_ = true;
  settle_stack();
  const IndirectBranch& branch = *arena_->make<IndirectBranch>(
      {.rip = instructions_[current_].rip, .stack_change = stack_change, .shared = key_.shared()});
  if (key_.mode.has(ModeBits::kSingleStep)) {
    give_up_flags(true);
    a_.load_address(kTemp, &branch);
    a_.jmp(asmjit::Imm(environment_.thunks->single_step_indirect));
    return;
  }
  need_flags_in_host();
  emit_poll(kPollIndirect | reinterpret_cast<uint64_t>(&branch));
  emit_jump_cache_jump(&branch, std::nullopt);
}

bool BlockTranslator::leaves_segment(uint64_t target) const {
  return code64() ? !is_canonical(target) : target > key_.cs_limit;
}

void BlockTranslator::exit_branch(uint64_t target, const GuestInstruction& insn, int32_t stack_change) {
  if (leaves_segment(target)) {
    a_.mov(kLinear, asmjit::Imm(target));
    exit_indirect(stack_change);
  } else {
    exit_to(target, insn.rip);
  }
}

// Flag-free search of the jump cache (jit/jump_cache.h) for the RIP in kLinear. `rip`: that RIP, if it is
// known.
void BlockTranslator::emit_jump_cache_jump(const IndirectBranch* indirect, std::optional<uint64_t> rip) {
  const auto jump_to_lookup = [&] {
    if (indirect) a_.load_address(kTemp, indirect);
    a_.jmp(asmjit::Imm(indirect ? environment_.thunks->lookup_indirect : environment_.thunks->lookup));
  };
  if (!options_.jump_cache || one_instruction()) {
    jump_to_lookup();
    return;
  }
  a_.search_jump_cache(rip, known_deltas() & kStackDelta, jump_to_lookup);
}

void BlockTranslator::load_indirect_target(const GuestInstruction& insn) {
  const ZydisDecodedOperand& operand = insn.operands[0];
  const unsigned bytes = insn.zydis.operand_width / 8;
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    const unsigned gpr = gpr_number(operand.reg.value);
    const x86::Gp from = read_gpr(gpr, kTemp);
    switch (bytes) {
      case 8:
        if (from.id() != kTemp.id()) a_.mov(kTemp, from);
        break;
      case 4:
        a_.mov(kTemp.r32(), from.r32());
        break;
      default:
        a_.movzx(kTemp.r32(), from.r16());
        break;
    }
    return;
  }
  MemoryAccess access = access_of(operand);
  access.size = static_cast<uint16_t>(bytes);
  open_access(operand.mem, insn, access);
  switch (bytes) {
    case 8:
      a_.mov(kTemp, host_operand(8));
      break;
    case 4:
      a_.mov(kTemp.r32(), host_operand(4));
      break;
    default:
      a_.movzx(kTemp.r32(), host_operand(2));
      break;
  }
}

void BlockTranslator::emit_call(const GuestInstruction& insn) {
  const unsigned bytes = insn.zydis.operand_width / 8;
  const uint64_t return_rip = insn.next_rip() & code_mask();
  const bool direct = insn.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
  if (!direct) {
    load_indirect_target(insn);
    a_.mov(a_.scratch_field(Scratch::Target), kTemp);
  }
  open_stack(-static_cast<int64_t>(bytes), bytes, AccessKind::Write);
  load_rip(kTemp, return_rip);
  a_.mov(host_operand(bytes), sized(kTemp, bytes));
  end_access();
  adjust_stack(-static_cast<int64_t>(bytes));
  if (direct) {
    if (!stored_by_callout_ && goes_on_at(branch_target(insn))) return;
    exit_branch(branch_target(insn), insn, -static_cast<int32_t>(bytes));
  } else {
    a_.mov(kLinear, a_.scratch_field(Scratch::Target));
    exit_indirect(-static_cast<int32_t>(bytes));
  }
}

void BlockTranslator::emit_jmp(const GuestInstruction& insn) {
  if (insn.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
    if (!goes_on_at(branch_target(insn))) exit_branch(branch_target(insn), insn);
    return;
  }
  load_indirect_target(insn);
  a_.mov(kLinear, kTemp);
  exit_indirect(0);
}

// Whether nothing but an access through a window leads from the instruction's host code elsewhere.
bool BlockTranslator::is_plain(const GuestInstruction& insn) const {
  switch (insn.row.action) {
    case Action::Generic:
    case Action::Mov:
    case Action::Lea:
    case Action::Jcc:
      break;
    case Action::Jmp:
      if (insn.operands[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE) return false;
      break;
    default:
      return false;
  }
  const FpuNeed fpu = fpu_need(insn);
  if (fpu.needs && !fpu_available(fpu.fpu_class, key_.mode)) return false;
  if (insn.lane_bytes() != 0) return false;
  for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
    if (is_gpr(insn.operands[i]) && is_high_byte(insn.operands[i].reg.value)) return false;
  }
  return true;
}

bool BlockTranslator::is_loop() const {
  const GuestInstruction& last = instructions_.back();
  return last.row.action == Action::Jcc && branch_target(last) == key_.rip && can_link(key_.rip) &&
         std::ranges::all_of(instructions_, [this](const GuestInstruction& insn) { return is_plain(insn); });
}

// Sets VcpuState::code_page from the RIP in kLinear.
void BlockTranslator::emit_code_page() {
  a_.lea(kLinear, x86::ptr(kLinear, -static_cast<int32_t>(key_.rip)));
  a_.mov(a_.state_field(offsetof(VcpuState, code_page), 8), kLinear);
}

// Where a shared block is entered by way of the jump cache or the dispatcher, with its RIP in kLinear.
void BlockTranslator::emit_shared_entry() {
  emit_code_page();
  block_->linked_offset = static_cast<uint8_t>(a_.offset());
}

// The same for those who know the delta of RSP. Of kEntryPatchBytes at least.
void BlockTranslator::emit_stack_entry() {
  block_->stack_entry_offset = static_cast<uint32_t>(a_.offset());
  emit_code_page();
  a_.long_().jmp(stack_entry_);
  assert(a_.offset() - block_->stack_entry_offset >= kEntryPatchBytes);
}

// Whether the instruction can be part of a shared block: nothing outside of translated code must know its
// RIP.
bool BlockTranslator::may_be_shared(const GuestInstruction& insn) const {
  switch (insn.row.action) {
    case Action::Generic:
    case Action::Mov:
    case Action::Lea:
    case Action::Push:
    case Action::Pop:
    case Action::Leave:
    case Action::Call:
    case Action::Jmp:
    case Action::Jcc:
    case Action::Loop:
    case Action::Ret:
    case Action::Xlat:
    case Action::BitTest:
      break;
    default:
      return false;
  }
  if (insn.ends_block() && insn.zydis.operand_width != 64) return false;  // cuts the RIP
  const FpuNeed fpu = fpu_need(insn);
  if (fpu.needs && !fpu_available(fpu.fpu_class, key_.mode)) return false;
  // An absolute address is not where the same RIP-relative one is: GuestInstruction::stores_ahead().
  const ZydisDecodedOperand* const memory = insn.memory_operand();
  return !memory || memory->mem.base != ZYDIS_REGISTER_NONE || memory->mem.index != ZYDIS_REGISTER_NONE ||
         memory->mem.segment == ZYDIS_REGISTER_FS || memory->mem.segment == ZYDIS_REGISTER_GS;
}

// What a block does once, before its first instruction: checks that the block before may have made already,
// and what a loop would else do in each round.
void BlockTranslator::plan_entry() {
  home_ = kHomes;
  swaps_.clear();
  loop_.reset();
  loop_held_ = kNothingHeld;
  if (!block_->windows || !code64() || key_.mode.has(ModeBits::kAlignment) || options_.record_blocks ||
      patched_.memory)
    return;
  constant_ = first_constant();
  const bool loop = is_loop();
  if (loop && options_.swap_registers) plan_swaps();
  emit_swaps();
  for (const RegisterSwap& swap : swaps_) home_[swap.in_memory] = swap.in_host;
  KeptDeltas first = 0;
  if (loop && options_.carry_deltas) first = carried_deltas();
  if (!loop && options_.warm_entries) first = first_deltas() & window_use_.likely;
  if (first != 0) check_first(first);
  if (!loop || (swaps_.empty() && first == 0)) return;
  if (std::has_single_bit(first)) {
    loop_held_ = std::countr_zero(first);
    if (!warm_entries_.empty()) a_.mov(kHostAddend, kept_field(loop_held_));
    held_ = loop_held_;
  }
  // kill_block() writes over the entry and lets the loop end.
  assert(a_.offset() >= kEntryPatchBytes);
  loop_ = a_.newLabel();
  a_.bind(loop_);
}

// One that writes registers that live in memory runs with others in memory: else each of its rounds would
// wait for the store of the one before.
void BlockTranslator::plan_swaps() {
  uint32_t used = 1u << kRsp, written = 0;
  for (const GuestInstruction& insn : instructions_) {
    for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
      const ZydisDecodedOperand& operand = insn.operands[i];
      if (is_gpr(operand)) {
        used |= 1u << gpr_number(operand.reg.value);
        if (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) written |= 1u << gpr_number(operand.reg.value);
      } else if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (const auto base = base_gpr(operand.mem)) used |= 1u << *base;
        if (operand.mem.index != ZYDIS_REGISTER_NONE) used |= 1u << gpr_number(operand.mem.index);
      }
    }
  }
  unsigned free = 16;
  for (unsigned gpr = 0; gpr < 16; ++gpr) {
    if (home_[gpr] != kInMemory || !(written & 1u << gpr)) continue;
    do {
      if (free-- == 0) break;
    } while (home_[free] == kInMemory || used & 1u << free);
    if (free >= 16) break;
    swaps_.push_back({.in_memory = static_cast<uint8_t>(gpr), .in_host = static_cast<uint8_t>(free)});
  }
}

void BlockTranslator::emit_swaps() {
  for (const RegisterSwap& swap : swaps_) {
    const x86::Gp host = x86::gpq(swap.in_host);
    a_.mov(kHostAddend, host);
    a_.mov(host, a_.gpr_field(swap.in_memory));
    a_.mov(a_.gpr_field(swap.in_memory), kHostAddend);
  }
}

void BlockTranslator::emit_jcc(const GuestInstruction& insn) {
  const uint64_t target = branch_target(insn), next = insn.next_rip() & code_mask();
  need_flags_in_host();
  const bool patched = can_link(target) && !leaves_segment(target);
  // An interrupt that a jump back polls for comes before it.
  if (patched && goes_back(insn.rip, target)) emit_poll(insn.rip);
  const bool loops = loop_.isValid() && target == key_.rip;
  if (loops && loop_held_ != kNothingHeld && held_ != loop_held_) a_.mov(kHostAddend, kept_field(loop_held_));
  if (patched && !loops && swaps_.empty()) {
    const LinkStub& stub = add_link(target);
    a_.long_().j(condition_of(insn), stub.entry);
    stub.link->patch_offset = static_cast<uint32_t>(a_.offset()) - 4;
  } else if (loops) {
    LinkStub& stub = add_link(target);
    stub.swaps = true;
    block_->loop = stub.link;
    a_.long_().j(condition_of(insn), loop_);
    stub.link->patch_offset = static_cast<uint32_t>(a_.offset()) - 4;
  } else if (!leaves_segment(target)) {
    side_exits_.push_back({a_.newLabel(), target});
    a_.long_().j(condition_of(insn), side_exits_.back().entry);
  } else {
    const asmjit::Label stays = a_.newLabel();
    a_.long_().j(x86::negateCond(condition_of(insn)), stays);
    if (!swaps_.empty()) emit_swaps();
    exit_branch(target, insn);
    a_.bind(stays);
    flags_ = FlagHome::Host;
    block_ended_ = false;
  }
  if (goes_on_at(next)) return;
  if (!swaps_.empty()) emit_swaps();
  exit_to(next, insn.rip);
}

// A superblock has one entry and several exits: after a conditional jump it goes on where that is not taken,
// and it follows other direct jumps and calls, forwards within the page. Loops end it.
std::optional<uint64_t> BlockTranslator::superblock_goes_on_at(const GuestInstruction& branch) const {
  uint64_t next = branch.next_rip();
  if (branch.row.action == Action::Jcc) {
    if (branch_target(branch) == key_.rip) return std::nullopt;
  } else if ((branch.row.action == Action::Jmp || branch.row.action == Action::Call) &&
             branch.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
    next = branch_target(branch);
  } else {
    return std::nullopt;
  }
  if (next < branch.next_rip() || next != (next & code_mask()) || leaves_segment(next) || !can_link(next))
    return std::nullopt;
  return next;
}

bool BlockTranslator::goes_on_at(uint64_t rip) const {
  return current_ + 1 < instructions_.size() && instructions_[current_ + 1].rip == rip;
}

// LOOP, LOOPE, LOOPNE, JCXZ, JECXZ, JRCXZ: count in rCX by address size; no flag changes.
void BlockTranslator::emit_loop(const GuestInstruction& insn) {
  const unsigned width = insn.zydis.address_width;
  const uint64_t target = branch_target(insn);
  need_flags_in_host();
  const ZydisMnemonic mnemonic = insn.zydis.mnemonic;
  const bool counts = mnemonic == ZYDIS_MNEMONIC_LOOP || mnemonic == ZYDIS_MNEMONIC_LOOPE ||
                      mnemonic == ZYDIS_MNEMONIC_LOOPNE;
  const auto set_count = [&](int change) {
    a_.lea(kTemp, x86::ptr(x86::rcx, change));
    switch (width) {
      case 64:
        a_.mov(x86::rcx, kTemp);
        break;
      case 32:
        a_.mov(x86::ecx, kTemp.r32());
        break;
      default:
        a_.mov(x86::cx, kTemp.r16());
        break;
    }
  };
  if (counts) set_count(-1);
  const asmjit::Label zero = a_.newLabel();
  const asmjit::Label not_zero = a_.newLabel();
  const asmjit::Label taken = a_.newLabel();
  const asmjit::Label not_taken = a_.newLabel();
  a_.mov(kTemp, x86::rcx);
  if (width == 16) a_.movzx(x86::ecx, x86::cx);
  if (width == 64) {
    a_.jecxz(x86::rcx, zero);
  } else {
    a_.jecxz(x86::ecx, zero);
  }
  a_.jmp(not_zero);
  a_.bind(zero);
  a_.mov(x86::rcx, kTemp);
  a_.jmp(counts ? not_taken : taken);
  a_.bind(not_zero);
  a_.mov(x86::rcx, kTemp);
  if (mnemonic == ZYDIS_MNEMONIC_LOOPE) {
    a_.jne(not_taken);
  } else if (mnemonic == ZYDIS_MNEMONIC_LOOPNE) {
    a_.je(not_taken);
  } else if (!counts) {
    a_.jmp(not_taken);
  }
  a_.bind(taken);
  if (counts && leaves_segment(target)) set_count(1);
  exit_branch(target, insn);
  a_.bind(not_taken);
  flags_ = FlagHome::Host;
  exit_to(insn.next_rip() & code_mask(), insn.rip);
}

void BlockTranslator::emit_ret(const GuestInstruction& insn) {
  const unsigned bytes = insn.zydis.operand_width / 8;
  open_stack(0, bytes, AccessKind::Read);
  switch (bytes) {
    case 8:
      a_.mov(kLinear, host_operand(8));
      break;
    case 4:
      a_.mov(kLinear.r32(), host_operand(4));
      break;
    default:
      a_.movzx(kLinear.r32(), host_operand(2));
      break;
  }
  const auto released =
      static_cast<int32_t>(bytes + (insn.zydis.raw.imm[0].size ? insn.zydis.raw.imm[0].value.u : 0));
  adjust_stack(released);
  exit_indirect(released);
}

}  // namespace penumbra::jit
