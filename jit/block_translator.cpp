#include "jit/block_translator.h"

#include <algorithm>
#include <cassert>

namespace penumbra::jit {

BlockTranslator::BlockTranslator(const TranslatorOptions& options, HostEnvironment environment)
    : options_(options), environment_(environment), a_(*environment.state) {
  instructions_.reserve(kMaxBlockInstructions);
}

uint64_t BlockTranslator::code_mask() const {
  if (code64()) return ~uint64_t{0};
  return key_.mode.has(ModeBits::kCode32) ? 0xffff'ffff : 0xffff;
}

unsigned BlockTranslator::stack_bytes() const {
  if (code64()) return 8;
  return key_.mode.has(ModeBits::kStack32) ? 4 : 2;
}

bool BlockTranslator::one_instruction() const {
  return (key_.mode.value & (ModeBits::kOneInstruction | ModeBits::kSingleStep | ModeBits::kCallout)) != 0;
}

unsigned BlockTranslator::first_length(const BlockKey& key, std::span<const uint8_t> code) {
  GuestInstruction insn;
  if (Decoder(key.mode).decode(code, key.rip, insn) == Decoder::Status::Truncated) return 0;
  return insn.zydis.length;
}

void BlockTranslator::decode(std::span<const uint8_t> code) {
  const Decoder decoder(key_.mode);
  const size_t limit =
      one_instruction() || block_->crosses_page || !options_.long_blocks ? 1 : kMaxBlockInstructions;
  instructions_.clear();
  uint64_t rip = key_.rip;
  size_t end = 0;
  while (instructions_.size() < limit) {
    const size_t offset = rip - key_.rip;
    if (offset >= code.size()) break;
    if (!key_.mode.has(ModeBits::kFlatCs) && rip > key_.cs_limit) break;
    if (!code64() && offset > 0 && rip != (rip & code_mask())) break;
    if (offset > 0 && environment_.debug && environment_.debug->has_breakpoints()) {
      BlockKey here = key_;
      here.rip = rip;
      block_->cut = environment_.debug->ends_block_before(here.linear());
      if (block_->cut) break;
    }
    GuestInstruction& insn = instructions_.emplace_back();
    const Decoder::Status status = decoder.decode(code.subspan(offset), rip, insn);
    if (status == Decoder::Status::Truncated) {
      instructions_.pop_back();
      break;
    }
    const bool beyond_limit =
        !key_.mode.has(ModeBits::kFlatCs) && rip + insn.zydis.length - 1 > key_.cs_limit;
    if (beyond_limit && instructions_.size() > 1) {
      instructions_.pop_back();  // the fetch of the next block raises #GP
      break;
    }
    if (key_.shared() && !may_be_shared(insn)) {
      instructions_.pop_back();
      break;
    }
    if (status == Decoder::Status::Invalid) ++stats_.unknown_opcodes;
    rip += insn.zydis.length;
    end = std::max(end, offset + insn.examined);
    if (insn.ends_block()) {
      const auto next = block_->windows && options_.superblocks ? superblock_goes_on_at(insn) : std::nullopt;
      if (!next) break;
      rip = *next;
      continue;
    }
    // What follows is about to change: the flags that it would overwrite are not dead yet.
    if (insn.stores_ahead(kMaxBlockInstructions * kMaxInstructionBytes)) break;
  }
  block_->guest_bytes = static_cast<uint16_t>(end);
}

void BlockTranslator::analyse_flags() {
  live_.resize(instructions_.size());
  uint32_t live = flag::kArithmetic;
  for (size_t i = instructions_.size(); i-- > 0;) {
    const GuestInstruction& insn = instructions_[i];
    live_[i].after = live;
    live = insn.flags_read | (live & ~insn.flags_killed);
    if (insn.row.action == Action::Jcc) live = flag::kArithmetic;  // a superblock may be left here
    if (!options_.flag_liveness) live = flag::kArithmetic;
    live_[i].before = live;
  }
}

void BlockTranslator::need_flags_in_host() {
  if (flags_ == FlagHome::Spilled) a_.restore_flags();
  flags_ = FlagHome::Host;
}

void BlockTranslator::give_up_flags(bool live_after) {
  if (flags_ != FlagHome::Host) return;
  if (live_after) {
    a_.spill_flags();
    flags_ = FlagHome::Spilled;
  } else {
    flags_ = FlagHome::Dead;
  }
}

void BlockTranslator::add_site(uint64_t guest, SiteKind kind) {
  const SiteRecord site{.host_offset = static_cast<uint16_t>(a_.offset()),
                        .guest = static_cast<uint16_t>(guest),
                        .kind = static_cast<uint16_t>(kind),
                        .flags = static_cast<uint16_t>(flags_),
                        .stack_step = stack_step_};
  const bool same = !sites_.empty() && sites_.back().guest == site.guest && sites_.back().kind == site.kind &&
                    sites_.back().flags == site.flags && sites_.back().stack_step == site.stack_step;
  if (!same) sites_.push_back(site);
}

void BlockTranslator::record_site(uint64_t rip) {
  const uint64_t guest = rip - key_.rip;
  const bool goes_on =
      !sites_.empty() && sites_.back().guest == guest && sites_.back().site_kind() == SiteKind::Write;
  add_site(guest, goes_on ? SiteKind::Write : SiteKind::Plain);
}

void BlockTranslator::record_access(const MemoryAccess& access) {
  add_site(access.rip - key_.rip, access.kind == AccessKind::Write ? SiteKind::Write : SiteKind::Plain);
}

void BlockTranslator::record_poll(uint64_t resume_rip) {
  add_site(poll_targets_.size(), SiteKind::Poll);
  poll_targets_.push_back(resume_rip);
}

Block* BlockTranslator::translate(const BlockKey& key, std::span<const uint8_t> code, bool crosses_page,
                                  uint64_t host_address, Arena& arena, const WindowUse& windows,
                                  const PatchedBytes& patched) {
  arena_ = &arena;
  block_ = arena.make<Block>();
  block_->key = key;
  block_->windows = key.mode.has(ModeBits::kWindows) && options_.soft_tlb;
  window_use_ = windows;
  patched_ = patched;
  block_->crosses_page = crosses_page;
  key_ = key;
  decode(code);
  if (instructions_.empty()) return nullptr;
  analyse_flags();

  code_.reset();
  code_.init(asmjit::Environment(asmjit::Arch::kX64), host_address);
  code_.attach(&a_);
  flags_ = FlagHome::Host;
  block_ended_ = false;
  stack_step_ = 0;
  slow_paths_.clear();
  window_checks_.clear();
  side_exits_.clear();
  forget_kept_deltas();
  link_stubs_.clear();
  warm_entries_.clear();
  stack_entry_.reset();
  instruction_offsets_.clear();
  sites_.clear();
  poll_targets_.clear();

  // The callout form is a second entry to an instruction of the block before.
  if (options_.record_blocks && !key.mode.has(ModeBits::kCallout)) emit_record();
  stored_by_callout_ = false;
  if (key.shared()) emit_shared_entry();
  plan_entry();
  // A callout may store into this very block, which then must not go on: its exit leads to what is there now.
  for (current_ = 0; current_ < instructions_.size() && !block_ended_ && !stored_by_callout_; ++current_) {
    instruction_offsets_.push_back(static_cast<uint32_t>(a_.offset()));
    emit_instruction(current_);
    follow_kept_deltas(instructions_[current_]);
  }
  block_->guest_instructions = static_cast<uint16_t>(current_);
  if (!block_ended_) {
    const GuestInstruction& last = instructions_[current_ - 1];
    exit_to(last.next_rip() & code_mask(), last.rip);
  }
  instruction_offsets_.push_back(static_cast<uint32_t>(a_.offset()));
  emit_out_of_line();
  while (a_.offset() < kEntryPatchBytes) a_.int3();

  code_.flatten();
  block_->sites = arena.copy<SiteRecord>(sites_);
  block_->site_count = static_cast<uint16_t>(sites_.size());
  block_->poll_targets = arena.copy<uint64_t>(poll_targets_);
  block_->swaps = arena.copy<RegisterSwap>(swaps_);
  block_->swap_count = static_cast<uint8_t>(swaps_.size());
  block_->warm = arena.copy<WarmEntry>(warm_entries_);
  block_->warm_count = static_cast<uint8_t>(warm_entries_.size());
  block_->host = host_address;
  block_->host_bytes = host_code().size();
  stats_.blocks++;
  stats_.guest_instructions += block_->guest_instructions;
  stats_.guest_bytes += block_->guest_bytes;
  stats_.host_bytes += block_->host_bytes;
  return block_;
}

// Notes the block in VcpuState::recent_blocks. Changes no flag.
void BlockTranslator::emit_record() {
  const x86::Mem offset = a_.state_field(offsetof(VcpuState, recent_block_offset), 1);
  const asmjit::Label entry = a_.newLabel();
  a_.bind(entry);
  a_.movzx(kTemp.r32(), offset);
  a_.lea(kHostAddend, x86::ptr(entry));
  a_.mov(x86::ptr(kTemp, static_cast<int32_t>(a_.state_address(offsetof(VcpuState, recent_blocks))), 8),
         kHostAddend);
  a_.lea(kTemp.r32(), x86::ptr(kTemp, 8));
  a_.mov(offset, kTemp.r8());
}

std::span<const std::byte> BlockTranslator::host_code() const {
  const asmjit::CodeBuffer& buffer = code_.sectionById(0)->buffer();
  return std::as_bytes(std::span(buffer.data(), buffer.size()));
}

void BlockTranslator::emit_instruction(size_t index) {
  const GuestInstruction& insn = instructions_[index];
  if (step_stack(insn)) return;
  if (!keeps_stack_step(insn)) settle_stack();
  record_site(insn.rip);
  const FpuNeed fpu = fpu_need(insn);
  if (fpu.needs && !fpu_available(fpu.fpu_class, key_.mode)) {
    SystemInstruction trap = make_system_instruction(insn, SystemOp::FpuUnavailable);
    trap.reg = static_cast<uint8_t>(fpu.fpu_class);
    emit_system(insn, trap, true);
    return;
  }
  switch (insn.row.action) {
    case Action::None:
      emit_system(insn, make_system_instruction(insn, SystemOp::Ud), true);
      break;
    case Action::System:
      if (const SystemInstruction system = make_system_instruction(insn, insn.row.system_op);
          !emit_system_inline(insn, system)) {
        emit_system(insn, system, insn.ends_block());
      }
      break;
    case Action::Mov:
      if (!emit_patched_move(insn)) emit_generic(insn);
      break;
    case Action::Generic:
      emit_generic(insn);
      break;
    case Action::Lea:
      emit_lea(insn);
      break;
    case Action::Push:
      emit_push(insn);
      break;
    case Action::Pop:
      emit_pop(insn);
      break;
    case Action::Leave:
      emit_leave(insn);
      break;
    case Action::Call:
      emit_call(insn);
      break;
    case Action::Jmp:
      emit_jmp(insn);
      break;
    case Action::Jcc:
      emit_jcc(insn);
      break;
    case Action::Loop:
      emit_loop(insn);
      break;
    case Action::Ret:
      emit_ret(insn);
      break;
    case Action::Xlat:
      emit_xlat(insn);
      break;
    case Action::MaskMove:
      emit_mask_move(insn);
      break;
    case Action::MaskedMove:
      emit_masked_move(insn);
      break;
    case Action::BitTest:
      emit_bit_test(insn);
      break;
    case Action::Gather:
      emit_gather(insn);
      break;
    case Action::ZeroVectors:
      emit_zero_vectors(insn);
      break;
    case Action::Hint:
      emit_hint(insn);
      break;
  }
}

void BlockTranslator::emit_out_of_line() {
  forget_kept_deltas();
  for (const SlowPath& slow : slow_paths_) emit_tlb_miss(slow);
  for (const WindowCheck& check : window_checks_) emit_window_out_of_line(check);
  if (stack_entry_.isValid()) emit_stack_entry();
  for (const SideExit& side : side_exits_) {
    a_.bind(side.entry);
    flags_ = FlagHome::Host;
    if (swaps_.empty()) {
      exit_to(side.target, side.target);
      continue;
    }
    emit_poll(side.target);  // which undoes the swaps itself
    emit_swaps();
    exit_polled(side.target);
  }
  for (const LinkStub& stub : link_stubs_) {
    stub.link->stub_offset = static_cast<uint32_t>(a_.offset());
    a_.bind(stub.entry);
    if (stub.swaps) emit_swaps();
    a_.load_address(kTemp, stub.link);
    a_.jmp(asmjit::Imm(key_.shared() ? environment_.thunks->link_shared : environment_.thunks->link));
  }
}

FpuNeed fpu_need(const GuestInstruction& insn) {
  if (insn.row.action == Action::System || insn.row.action == Action::None ||
      insn.row.action == Action::Hint) {
    return {};
  }
  switch (insn.zydis.meta.isa_ext) {
    case ZYDIS_ISA_EXT_X87:
      return {true, insn.zydis.mnemonic == ZYDIS_MNEMONIC_FWAIT ? FpuClass::Wait : FpuClass::X87};
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_SHA:
    case ZYDIS_ISA_EXT_GFNI:
      switch (insn.zydis.mnemonic) {
        case ZYDIS_MNEMONIC_FISTTP:
          return {true, FpuClass::X87};
        case ZYDIS_MNEMONIC_SFENCE:
        case ZYDIS_MNEMONIC_LFENCE:
        case ZYDIS_MNEMONIC_MFENCE:
        case ZYDIS_MNEMONIC_MOVNTI:
        case ZYDIS_MNEMONIC_CRC32:
        case ZYDIS_MNEMONIC_POPCNT:
          return {};
        default:
          break;
      }
      break;
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_FMA:
      return {true, FpuClass::Avx};
    default:
      return {};
  }
  if (insn.zydis.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) return {true, FpuClass::Avx};
  bool mmx = insn.zydis.mnemonic == ZYDIS_MNEMONIC_EMMS;
  bool xmm = false;
  for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
    if (insn.operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const ZydisRegisterClass register_class = ZydisRegisterGetClass(insn.operands[i].reg.value);
    mmx |= register_class == ZYDIS_REGCLASS_MMX;
    xmm |= register_class == ZYDIS_REGCLASS_XMM;
  }
  return {true, mmx && !xmm ? FpuClass::Mmx : FpuClass::Sse};
}

bool fpu_available(FpuClass fpu_class, ModeBits mode) {
  switch (fpu_class) {
    case FpuClass::X87:
    case FpuClass::Wait:
    case FpuClass::Mmx:
      return mode.has(ModeBits::kX87);
    case FpuClass::Sse:
      return mode.has(ModeBits::kSse);
    case FpuClass::Avx:
      return mode.has(ModeBits::kAvx);
  }
  return false;
}

}  // namespace penumbra::jit
