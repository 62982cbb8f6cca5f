#include "jit/helpers.h"

#include "core/host_vector_scope.h"
#include "jit/translator.h"

namespace penumbra::jit::helper {

namespace {

uint64_t fault(Translator& translator, const Exception& exception) {
  translator.vcpu().deliver(exception);
  return translator.next_host_code();
}

constexpr Exception single_step_trap() {
  constexpr uint64_t kDr6SingleStep = 1u << 14;
  return {.vector = vector::kDb, .dr6 = kDr6SingleStep, .trap = true};
}

// An unmasked x87 exception waits to be raised.
bool x87_exception_pending() {
  uint16_t status;
  asm volatile("fnstsw %0" : "=a"(status));
  return status & 0x80;  // ES
}

uint64_t load_lane(const std::byte* from, unsigned bytes) {
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes; ++i) value |= static_cast<uint64_t>(from[i]) << 8 * i;
  return value;
}

bool lane_selected(const std::byte* mask, unsigned bytes) {
  return load_lane(mask, bytes) >> (bytes * 8 - 1) & 1;
}

// The guest's register, which lives in the host's.
void load_ymm(unsigned reg, const std::byte* from) {
  switch (reg) {
#define PENUMBRA_LOAD_YMM(number)                                         \
  case number:                                                            \
    asm volatile("vmovdqu (%0), %%ymm" #number : : "r"(from) : "memory"); \
    break;
    PENUMBRA_LOAD_YMM(0)
    PENUMBRA_LOAD_YMM(1)
    PENUMBRA_LOAD_YMM(2)
    PENUMBRA_LOAD_YMM(3)
    PENUMBRA_LOAD_YMM(4)
    PENUMBRA_LOAD_YMM(5)
    PENUMBRA_LOAD_YMM(6)
    PENUMBRA_LOAD_YMM(7)
    PENUMBRA_LOAD_YMM(8)
    PENUMBRA_LOAD_YMM(9)
    PENUMBRA_LOAD_YMM(10)
    PENUMBRA_LOAD_YMM(11)
    PENUMBRA_LOAD_YMM(12)
    PENUMBRA_LOAD_YMM(13)
    PENUMBRA_LOAD_YMM(14)
    PENUMBRA_LOAD_YMM(15)
#undef PENUMBRA_LOAD_YMM
    default:
      break;
  }
}

// Alignment that #AC checks, in bytes (AMD APM vol. 2, 8.2.18, and the host).
constexpr unsigned checked_alignment(const MemoryAccess& access) {
  if (access.halves) return 8;
  switch (access.size) {
    case 10:  // x87 extended and packed decimal
      return 8;
    case 14:  // 16-bit x87 environment and state
    case 94:
      return 2;
    case 28:  // 32-bit ones
    case 108:
      return 4;
    case 32:
      return 16;
    default:
      return access.size;
  }
}

// The fault is the branch's, with the stack as before it. What a call has pushed stays below.
uint64_t branch_fault(Translator& translator, uint64_t branch_address) {
  translator.collect_flags();
  VcpuState& state = translator.vcpu().state();
  // SAFETY: the address of an IndirectBranch that the block which just ended owns.
  const auto& branch = *reinterpret_cast<const IndirectBranch*>(branch_address);
  const uint64_t mask = translator.vcpu().stack_mask();
  const uint64_t rsp = state.gpr[kRsp] - static_cast<int64_t>(branch.stack_change);
  state.gpr[kRsp] = (state.gpr[kRsp] & ~mask) | (rsp & mask);
  state.rip = branch.rip + (branch.shared ? state.code_page : 0);
  return fault(translator, {.vector = vector::kGp, .has_error_code = true});
}

// Executes a system instruction and what follows from it. True: the next instruction may run as translated.
bool execute(Translator& translator, uint64_t instruction) {
  translator.collect_flags();
  Vcpu& vcpu = translator.vcpu();
  VcpuState& state = vcpu.state();
  // SAFETY: the address of a SystemInstruction that the running block owns.
  const auto& insn = *reinterpret_cast<const SystemInstruction*>(instruction);
  ++translator.counters().system_ops[static_cast<unsigned>(insn.op)];
  state.rip = insn.rip;
  bool single_step = state.mode.has(ModeBits::kSingleStep);
  const auto outcome = vcpu.execute(insn);
  if (!outcome) {
    vcpu.deliver(outcome.error());
    return false;
  }
  if (state.rip == insn.rip && insn.repeat != SystemInstruction::Repeat::None &&
      !(state.attention.load(std::memory_order_relaxed) & attention::kDebug)) {
    translator.repeat_goes_on();
  }
  // INT n clears TF before the trap would be taken (SDM vol. 3, 17.3.1.4).
  const bool software_interrupt = insn.op == SystemOp::Int || insn.op == SystemOp::Int1 ||
                                  insn.op == SystemOp::Int3 ||
                                  (insn.op == SystemOp::Into && *outcome == Outcome::Redirect);
  // SYSCALL and SYSRET look at the TF that they leave: a system hides its entry by masking TF, and SYSRET
  // traps at once in the program, as if SYSCALL had just completed.
  if (insn.op == SystemOp::Syscall || insn.op == SystemOp::Sysret) {
    single_step = state.mode.has(ModeBits::kSingleStep);
  }
  if (single_step && !software_interrupt) {
    if (!state.debug_shadow) vcpu.deliver(single_step_trap());
    return false;
  }
  return *outcome == Outcome::Next;
}

}  // namespace

uint64_t tlb_miss(Translator& translator, uint64_t linear, uint64_t detail, uint64_t site) noexcept {
  ++translator.counters().tlb_misses;
  Vcpu& vcpu = translator.vcpu();
  VcpuState& state = vcpu.state();
  const bool write = detail & MissDetail::kWrite;
  const LinearAddr address{linear};
  const TlbView view = vcpu.current_view();
  const bool canonical =
      !vcpu.code64() || static_cast<uint64_t>(static_cast<int64_t>(linear << 16) >> 16) == linear;
  const uint64_t unaligned = detail & MissDetail::kAligned ? linear & (MissDetail::size(detail) - 1) : 0;
  // `site` may be the next instruction's already: a line flush has no host instruction of its own.
  const auto rip = [&] { return translator.site_at(site - 1)->rip; };
  if (canonical && unaligned == 0 && !crosses_page(address, MissDetail::size(detail))) {
    const TlbEntry& entry = vcpu.tlb().entry(view, address);
    if (write && translator.store_beside_code(entry, address, MissDetail::size(detail), site)) return 0;
    const auto physical = vcpu.translate(address, write ? AccessKind::Write : AccessKind::Read, view);
    if (physical && (write ? entry.write_tag : entry.read_tag) == address.page().value) {
      state.found_addend = entry.addend;
      return 0;
    }
    // Of an operand in lanes, those that the mask selects may do without this page. What user code wants in
    // the upper half may be #GP, which only the offset tells (Vcpu::linearize).
    const bool upper_half = static_cast<int64_t>(linear) < 0 && view == TlbView::User;
    if (!physical && !(detail & MissDetail::kLanes) && !upper_half) {
      translator.collect_flags();
      state.rip = rip();
      if (detail & MissDetail::kX87 && x87_exception_pending())
        return fault(translator, {.vector = vector::kMf});
      return fault(translator, physical.error());
    }
  }
  translator.collect_flags();
  state.rip = rip();
  return translator.callout_host_code();
}

uint64_t window_miss(Translator& translator, uint64_t, uint64_t, uint64_t) noexcept {
  translator.collect_flags();
  return translator.tlb_host_code();
}

uint64_t window_select(Translator& translator, uint64_t linear, uint64_t site_address,
                       uint64_t site) noexcept {
  // SAFETY: the address of a WindowSite that the running block owns.
  const uint64_t delta = translator.window_select({linear}, *reinterpret_cast<WindowSite*>(site_address));
  if (delta == ShadowWindows::kNoChunk) {
    translator.collect_flags();
    VcpuState& state = translator.vcpu().state();
    const Site at = *translator.site_at(site);
    state.rip = at.rip;
    translator.settle_registers(*translator.block_at(site), at,
                                [&state](unsigned gpr) -> uint64_t& { return state.gpr[gpr]; });
    return translator.tlb_host_code();
  }
  translator.vcpu().state().windows.found = delta;
  return 0;
}

uint64_t system(Translator& translator, uint64_t, uint64_t instruction, uint64_t site) noexcept {
  VcpuState& state = translator.vcpu().state();
  const uint64_t killed = translator.counters().blocks_killed;
  translator.missed_sample() = false;
  if (!execute(translator, instruction)) return translator.next_host_code();
  if (translator.missed_sample()) {
    const HostVectorScope scope(state);  // the pace of the timer is set by the C library
    translator.take_sample(site);
  }
  // An instruction that stored into code may have changed what follows it in its own block.
  if (state.attention.load(std::memory_order_relaxed) || translator.counters().blocks_killed != killed) {
    return translator.next_host_code();
  }
  translator.clip_registers();
  state.spilled_overflow = (state.rflags & flag::kOf) != 0;
  return 0;
}

uint64_t system_end(Translator& translator, uint64_t, uint64_t instruction, uint64_t) noexcept {
  execute(translator, instruction);
  return translator.next_host_code();
}

uint64_t callout_begin(Translator& translator, uint64_t offset, uint64_t access_address, uint64_t) noexcept {
  ++translator.counters().callout_accesses;
  Vcpu& vcpu = translator.vcpu();
  VcpuState& state = vcpu.state();
  // SAFETY: the address of a MemoryAccess that the running block owns.
  const auto& access = *reinterpret_cast<const MemoryAccess*>(access_address);
  const auto raise_here = [&](const Exception& exception) {
    translator.collect_flags();
    state.rip = access.rip;
    if (access.x87 && x87_exception_pending()) return fault(translator, {.vector = vector::kMf});
    return fault(translator, exception);
  };
  const auto must_raise_ac = [&](LinearAddr address) {
    return state.mode.has(ModeBits::kAlignment) && (address.value & (checked_alignment(access) - 1)) != 0;
  };
  // A line may be flushed through an execute-only segment (SDM vol. 2, CLFLUSH).
  const AccessKind checked = access.probe ? AccessKind::Fetch : access.kind;
  const auto linear = vcpu.linearize(access.segment, offset, access.size, checked);
  if (!linear) {
    // An operand that is misaligned, too, is #GP where it would be #SS.
    const uint64_t base = vcpu.code64() ? 0 : state.segments[access.segment].base;
    // Operands of several parts are accessed part by part: of an x87 extended value, the mantissa first. An
    // AVX one is of one part.
    constexpr unsigned kExtended = 10, kYmm = 32;
    const unsigned part = access.size == kYmm ? kYmm : checked_alignment(access);
    const auto first =
        part < access.size ? vcpu.linearize(access.segment, offset, part, access.kind) : linear;
    if (first) {
      if (must_raise_ac(*first)) return raise_here({.vector = vector::kAc, .has_error_code = true});
      if (access.size == kExtended) {
        const auto page = vcpu.translate(*first, access.kind, vcpu.current_view());
        if (!page) return raise_here(page.error());
      }
    }
    const bool misaligned = access.aligned && ((base + offset) & (access.size - 1)) != 0;
    return raise_here(misaligned ? Exception{.vector = vector::kGp, .has_error_code = true} : linear.error());
  }
  const bool reads = access.kind == AccessKind::Read || access.reads;
  // The instruction that meets a watchpoint must be the last one of its block.
  if (!access.alone && vcpu.debug().watching() &&
      vcpu.debug().meets(*linear, access.size, reads, access.kind == AccessKind::Write)) {
    translator.collect_flags();
    state.rip = access.rip;
    return translator.callout_host_code();
  }
  const TlbView view = vcpu.current_view();
  if (access.aligned && (linear->value & (access.size - 1)) != 0) {
    return raise_here({.vector = vector::kGp, .has_error_code = true});
  }
  if (must_raise_ac(*linear)) {
    return raise_here({.vector = vector::kAc, .has_error_code = true});
  }
  state.callout_linear = linear->value;
  if (access.kind == AccessKind::Write) {
    const auto writable = vcpu.probe_write(*linear, access.size, view);
    if (!writable) return raise_here(writable.error());
  }
  // An x87 store that raises an exception does not store: the buffer needs the old bytes, but a chip must not
  // be asked for them.
  const auto plain = [&](LinearAddr address) {
    return vcpu.tlb().entry(view, address).read_tag == address.page().value;
  };
  const bool old_bytes =
      access.x87 && access.kind == AccessKind::Write && plain(*linear) && plain(*linear + (access.size - 1));
  if (access.probe) {
    if (const auto readable = vcpu.translate(*linear, AccessKind::Read, view); !readable) {
      return raise_here(readable.error());
    }
  } else if (reads || old_bytes) {
    const auto read = vcpu.read_linear(*linear, state.callout_buffer.data(), access.size, view);
    if (!read) return raise_here(read.error());
  }
  return 0;
}

uint64_t callout_end(Translator& translator, uint64_t, uint64_t access_address, uint64_t) noexcept {
  Vcpu& vcpu = translator.vcpu();
  VcpuState& state = vcpu.state();
  // SAFETY: the address of a MemoryAccess that the running block owns.
  const auto& access = *reinterpret_cast<const MemoryAccess*>(access_address);
  const auto written = vcpu.write_linear({state.callout_linear}, state.callout_buffer.data(), access.size,
                                         vcpu.current_view());
  if (!written) {
    translator.collect_flags();
    state.rip = access.rip;
    return fault(translator, written.error());
  }
  return 0;
}

uint64_t gather(Translator& translator, uint64_t, uint64_t access_address, uint64_t) noexcept {
  Vcpu& vcpu = translator.vcpu();
  VcpuState& state = vcpu.state();
  // SAFETY: the address of a GatherAccess that the running block owns.
  const auto& access = *reinterpret_cast<const GatherAccess*>(access_address);
  if (!access.alone && vcpu.debug().watching()) {
    translator.collect_flags();
    state.rip = access.address.rip;
    return translator.callout_host_code();
  }
  std::byte* const buffer = state.callout_buffer.data();
  const auto load = [buffer](unsigned offset, unsigned bytes) { return load_lane(buffer + offset, bytes); };
  const uint64_t base = vcpu.effective_address(access.address);
  bool gathered = false;
  for (unsigned i = 0; i < access.elements; ++i) {
    const unsigned at = i * access.element_bytes;
    if (lane_selected(buffer + LaneBuffer::kMask + at, access.element_bytes)) {
      uint64_t index = load(LaneBuffer::kIndex + i * access.index_bytes, access.index_bytes);
      if (access.index_bytes == 4)
        index = static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(index)));
      uint64_t offset = base + index * access.address.scale;
      if (access.address.address_bytes == 4) offset &= 0xffff'ffff;
      const auto linear =
          vcpu.linearize(access.address.segment, offset, access.element_bytes, AccessKind::Read);
      std::byte element[8];
      Result<void> read;
      if (linear) {
        read = vcpu.read_linear(*linear, element, access.element_bytes, vcpu.current_view());
      } else {
        read = std::unexpected(linear.error());
      }
      if (!read) {
        // The elements so far are done, and their mask is cleared (SDM vol. 2, VGATHERDPS).
        load_ymm(access.destination, buffer + LaneBuffer::kData);
        load_ymm(access.mask, buffer + LaneBuffer::kMask);
        translator.collect_flags();
        state.rip = access.address.rip;
        // A trap that waits for the gathered elements comes before the fault of this one.
        if (gathered && state.mode.has(ModeBits::kSingleStep)) return fault(translator, single_step_trap());
        return fault(translator, read.error());
      }
      gathered = true;
      for (unsigned byte = 0; byte < access.element_bytes; ++byte) {
        buffer[LaneBuffer::kData + at + byte] = element[byte];
      }
    }
    for (unsigned byte = 0; byte < access.element_bytes; ++byte)
      buffer[LaneBuffer::kMask + at + byte] = std::byte{0};
  }
  for (unsigned i = access.elements * access.element_bytes; i < 32; ++i) {
    buffer[LaneBuffer::kData + i] = std::byte{0};
  }
  for (unsigned i = 0; i < 32; ++i) buffer[LaneBuffer::kMask + i] = std::byte{0};
  return 0;
}

uint64_t masked_move(Translator& translator, uint64_t offset, uint64_t access_address, uint64_t) noexcept {
  ++translator.counters().callout_accesses;
  Vcpu& vcpu = translator.vcpu();
  VcpuState& state = vcpu.state();
  // SAFETY: the address of a MemoryAccess that the running block owns.
  const auto& access = *reinterpret_cast<const MemoryAccess*>(access_address);
  if (!access.alone && vcpu.debug().watching()) {
    translator.collect_flags();
    state.rip = access.rip;
    return translator.callout_host_code();
  }
  const bool write = access.kind == AccessKind::Write;
  const TlbView view = vcpu.current_view();
  std::byte* const buffer = state.callout_buffer.data();
  const auto each_lane = [&](auto move) -> Result<void> {
    for (unsigned at = 0; at < access.size; at += access.lane) {
      if (!lane_selected(buffer + LaneBuffer::kMask + at, access.lane)) continue;
      const auto linear = vcpu.linearize(access.segment, offset + at, access.lane, access.kind);
      if (!linear) return std::unexpected(linear.error());
      if (auto done = move(*linear, buffer + LaneBuffer::kData + at); !done) return done;
    }
    return {};
  };
  Result<void> done;
  if (write) {
    // Nothing is stored when any lane faults.
    done = each_lane(
        [&](LinearAddr address, std::byte*) { return vcpu.probe_write(address, access.lane, view); });
    if (done) {
      done = each_lane([&](LinearAddr address, const std::byte* data) {
        return vcpu.write_linear(address, data, access.lane, view);
      });
    }
  } else {
    for (unsigned i = 0; i < 32; ++i) buffer[LaneBuffer::kData + i] = std::byte{0};
    done = each_lane([&](LinearAddr address, std::byte* data) {
      return vcpu.read_linear(address, data, access.lane, view);
    });
  }
  if (done) return 0;
  translator.collect_flags();
  state.rip = access.rip;
  return fault(translator, done.error());
}

uint64_t single_step(Translator& translator, uint64_t rip, uint64_t, uint64_t) noexcept {
  translator.collect_flags();
  translator.vcpu().state().rip = rip;
  return fault(translator, single_step_trap());
}

uint64_t lookup(Translator& translator, uint64_t rip, uint64_t, uint64_t) noexcept {
  ++translator.counters().lookups;
  translator.collect_flags();
  translator.vcpu().state().rip = rip;
  return translator.next_host_code(kStackDelta);
}

uint64_t single_step_indirect(Translator& translator, uint64_t rip, uint64_t branch, uint64_t site) noexcept {
  if (!translator.vcpu().may_jump_to(rip)) return branch_fault(translator, branch);
  return single_step(translator, rip, 0, site);
}

uint64_t lookup_indirect(Translator& translator, uint64_t rip, uint64_t branch, uint64_t site) noexcept {
  if (!translator.vcpu().may_jump_to(rip)) return branch_fault(translator, branch);
  return lookup(translator, rip, 0, site);
}

uint64_t link(Translator& translator, uint64_t rip, uint64_t block_link, uint64_t) noexcept {
  translator.collect_flags();
  translator.vcpu().state().rip = rip;
  // SAFETY: the address of a BlockLink that the block which just ended owns.
  return translator.link_host_code(*reinterpret_cast<BlockLink*>(block_link));
}

uint64_t redispatch(Translator& translator, uint64_t rip, uint64_t block, uint64_t) noexcept {
  ++translator.counters().redispatches;
  translator.collect_flags();
  // SAFETY: dead blocks stay allocated as long as their host code.
  const BlockKey& key = reinterpret_cast<const Block*>(block)->key;
  translator.vcpu().state().rip = key.shared() ? rip : key.rip;
  return translator.redispatch_host_code();
}

uint64_t host_fault(Translator& translator, uint64_t, uint64_t, uint64_t) noexcept {
  ++translator.counters().host_faults;
  translator.collect_flags();
  const VcpuState& state = translator.vcpu().state();
  Exception exception{.vector = static_cast<uint8_t>(state.site)};
  exception.has_error_code =
      exception.vector == vector::kGp || exception.vector == vector::kSs || exception.vector == vector::kAc;
  // An unmasked SIMD exception is #UD unless the guest says that it handles #XM (SDM vol. 3, 2.5).
  if (exception.vector == vector::kXm && !(state.cr4 & cr4::kOsxmmexcpt)) exception.vector = vector::kUd;
  return fault(translator, exception);
}

}  // namespace penumbra::jit::helper
