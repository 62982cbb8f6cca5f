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

// Executes a system instruction and what follows from it. True: the next instruction may run as translated.
bool execute(Translator& translator, uint64_t instruction) {
  translator.collect_flags();
  Vcpu& vcpu = translator.vcpu();
  VcpuState& state = vcpu.state();
  // SAFETY: the address of a SystemInstruction that the running block owns.
  const auto& insn = *reinterpret_cast<const SystemInstruction*>(instruction);
  ++translator.counters().system_ops[static_cast<unsigned>(insn.op)];
  state.rip = insn.rip;
  const bool single_step = state.mode.has(ModeBits::kSingleStep);
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
                                  insn.op == SystemOp::Int3 || insn.op == SystemOp::Into;
  if (single_step && state.rip != insn.rip && !software_interrupt) {
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
  if (canonical && !crosses_page(address, MissDetail::size(detail))) {
    const auto physical = vcpu.translate(address, write ? AccessKind::Write : AccessKind::Read, view);
    const TlbEntry& entry = vcpu.tlb().entry(view, address);
    if (physical && (write ? entry.write_tag : entry.read_tag) == address.page().value) return 0;
    if (!physical) {
      translator.collect_flags();
      state.rip = translator.site_at(site)->rip;
      return fault(translator, physical.error());
    }
  }
  translator.collect_flags();
  state.rip = translator.site_at(site)->rip;
  return translator.callout_host_code();
}

uint64_t window_miss(Translator& translator, uint64_t, uint64_t, uint64_t) noexcept {
  translator.collect_flags();
  return translator.tlb_host_code();
}

uint64_t system(Translator& translator, uint64_t, uint64_t instruction, uint64_t) noexcept {
  VcpuState& state = translator.vcpu().state();
  const uint64_t killed = translator.counters().blocks_killed;
  if (!execute(translator, instruction)) return translator.next_host_code();
  // An instruction that stored into code may have changed what follows it in its own block.
  if (state.attention.load(std::memory_order_relaxed) || translator.counters().blocks_killed != killed) {
    return translator.next_host_code();
  }
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
    return fault(translator, exception);
  };
  const auto linear = vcpu.linearize(access.segment, offset, access.size, access.kind);
  if (!linear) return raise_here(linear.error());
  const bool reads = access.kind == AccessKind::Read || access.reads;
  // The instruction that meets a watchpoint must be the last one of its block.
  if (!access.alone && vcpu.debug().watching() &&
      vcpu.debug().meets(*linear, access.size, reads, access.kind == AccessKind::Write)) {
    translator.collect_flags();
    state.rip = access.rip;
    return translator.callout_host_code();
  }
  const TlbView view = vcpu.current_view();
  if (state.mode.has(ModeBits::kAlignment) && access.size <= 16 && (linear->value & (access.size - 1)) != 0 &&
      (access.size & (access.size - 1)) == 0) {
    return raise_here({.vector = vector::kAc, .has_error_code = true});
  }
  state.callout_linear = linear->value;
  if (access.kind == AccessKind::Write) {
    const auto writable = vcpu.probe_write(*linear, access.size, view);
    if (!writable) return raise_here(writable.error());
  }
  if (reads) {
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
  const auto load = [buffer](unsigned offset, unsigned bytes) -> uint64_t {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) value |= static_cast<uint64_t>(buffer[offset + i]) << 8 * i;
    return value;
  };
  const uint64_t base = vcpu.effective_address(access.address);
  for (unsigned i = 0; i < access.elements; ++i) {
    const unsigned at = i * access.element_bytes;
    const uint64_t mask = load(GatherAccess::kMask + at, access.element_bytes);
    if (mask >> (access.element_bytes * 8 - 1) & 1) {
      uint64_t index = load(GatherAccess::kIndex + i * access.index_bytes, access.index_bytes);
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
        // Nothing was committed: the instruction starts over.
        translator.collect_flags();
        state.rip = access.address.rip;
        return fault(translator, read.error());
      }
      for (unsigned byte = 0; byte < access.element_bytes; ++byte) {
        buffer[GatherAccess::kDestination + at + byte] = element[byte];
      }
    }
  }
  for (unsigned i = access.elements * access.element_bytes; i < 32; ++i) {
    buffer[GatherAccess::kDestination + i] = std::byte{0};
  }
  for (unsigned i = 0; i < 32; ++i) buffer[GatherAccess::kMask + i] = std::byte{0};
  return 0;
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
  return translator.next_host_code();
}

uint64_t link(Translator& translator, uint64_t rip, uint64_t block_link, uint64_t) noexcept {
  translator.collect_flags();
  translator.vcpu().state().rip = rip;
  // SAFETY: the address of a BlockLink that the block which just ended owns.
  return translator.link_host_code(*reinterpret_cast<BlockLink*>(block_link));
}

uint64_t redispatch(Translator& translator, uint64_t, uint64_t block, uint64_t) noexcept {
  ++translator.counters().redispatches;
  translator.collect_flags();
  // SAFETY: dead blocks stay allocated as long as their host code.
  VcpuState& state = translator.vcpu().state();
  state.rip = reinterpret_cast<const Block*>(block)->key.rip;
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
