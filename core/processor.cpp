// Processor control: HLT, CPUID, the time-stamp counter, TLB and cache instructions, MONITOR and MWAIT.
#include "core/descriptor.h"
#include "core/host_vector_scope.h"
#include "core/register_access.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

constexpr uint32_t kTscDeadlineBit = 1u << 24, kOsxsave = 1u << 27;  // CPUID.1:ECX
constexpr uint32_t kApicBit = 1u << 9;                               // CPUID.1:EDX, on AMD of 8000_0001 too
constexpr uint32_t kSyscallBit = 1u << 11;                           // CPUID.8000_0001:EDX
constexpr uint32_t kMonitorInterrupts = 1u << 0;

uint64_t host_tsc() {
  uint32_t low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return static_cast<uint64_t>(high) << 32 | low;
}

uint64_t events_delivered(const VcpuStats& stats) {
  uint64_t sum = stats.interrupts;
  for (const uint64_t count : stats.exceptions) sum += count;
  return sum;
}

}  // namespace

uint64_t Vcpu::read_tsc() const {
  return host_tsc() - state_.tsc_offset;
}

Result<Outcome> Vcpu::execute_processor(const SystemInstruction& insn) {
  switch (insn.op) {
    case SystemOp::Hlt:
      if (state_.cpl != 0) return raise(vector::kGp, 0);
      advance(insn);
      state_.halted = true;
      attend(attention::kHalt);
      return Outcome::Redirect;

    case SystemOp::Cpuid:
      identify();
      return advance(insn);

    case SystemOp::Rdtsc:
    case SystemOp::Rdtscp:
      if (state_.cr4 & cr4::kTsd && state_.cpl != 0) return raise(vector::kGp, 0);
      write_edx_eax(state_, read_tsc());
      if (insn.op == SystemOp::Rdtscp) state_.gpr[kRcx] = state_.tsc_aux & 0xffff'ffff;
      return advance(insn);

    case SystemOp::Rdpmc:  // no performance counters: every index is invalid
      return raise(vector::kGp, 0);

    case SystemOp::Rdpid:
      write_gpr(insn.rm, state_.tsc_aux & 0xffff'ffff, code64() ? 8 : 4);
      return advance(insn);

    case SystemOp::Invlpg: {
      if (state_.cpl != 0) return raise(vector::kGp, 0);
      if (insn.rm != SystemInstruction::kNoRegister) return raise(vector::kUd);
      uint64_t linear = effective_address(insn);
      if (!code64() || insn.segment >= kFs) linear += state_.segments[insn.segment].base;
      // A non-canonical address maps nothing: no fault, nothing to flush (SDM vol. 2, INVLPG).
      const LinearAddr address = wrap(linear);
      if (is_canonical(address.value)) tlb_.flush_page(address.page());
      advance(insn);
      return Outcome::Redirect;
    }

    case SystemOp::Invpcid:
      return invalidate_pcid(insn);

    case SystemOp::Invd:
    case SystemOp::Wbinvd:
      if (state_.cpl != 0) return raise(vector::kGp, 0);
      return advance(insn);

    case SystemOp::Monitor: {
      if (!model_.has_monitor() || state_.cpl != 0) return raise(vector::kUd);
      if (state_.gpr[kRcx] & size_mask(code64() ? 8 : 4)) return raise(vector::kGp, 0);
      const uint64_t offset = read_gpr(state_, kRax, insn.address_bytes);
      auto address = linearize(insn.segment, offset, 1, AccessKind::Read);
      if (!address) return std::unexpected(address.error());
      if (auto value = read_linear(*address, 1, current_view()); !value)
        return std::unexpected(value.error());
      monitoring_ = true;
      monitored_events_ = events_delivered(stats_);
      return advance(insn);
    }

    case SystemOp::Mwait: {
      if (!model_.has_monitor() || state_.cpl != 0) return raise(vector::kUd);
      if (state_.gpr[kRcx] & size_mask(code64() ? 8 : 4) & ~uint64_t{kMonitorInterrupts})
        return raise(vector::kGp, 0);
      // Nobody else stores to the monitored line, but a handler that ran since MONITOR may have. With
      // interrupts off only that could end the wait; MWAIT may end for no reason at all (SDM vol. 2), so it
      // does.
      const bool wait =
          monitoring_ && monitored_events_ == events_delivered(stats_) && state_.rflags & flag::kIf;
      monitoring_ = false;
      advance(insn);
      if (!wait) return Outcome::Next;
      state_.halted = true;
      attend(attention::kHalt);
      return Outcome::Redirect;
    }

    case SystemOp::FpuUnavailable:
      return fpu_unavailable(insn);

    case SystemOp::TooLong:
      return raise(vector::kGp, 0);

    default:
      return raise(vector::kUd);
  }
}

void Vcpu::identify() {
  const auto function = static_cast<uint32_t>(state_.gpr[kRax]),
             index = static_cast<uint32_t>(state_.gpr[kRcx]);
  CpuidLeaf leaf;
  {
    HostVectorScope scope(state_);  // heavy code
    leaf = model_.leaf(function, index);
  }
  bool apic = false;
  if (apic_) {
    HostVectorScope scope(state_);
    apic = apic_->enabled();
  }
  switch (function) {
    case 1:
      if (apic) leaf.edx |= kApicBit;
      if (apic_) leaf.ecx |= kTscDeadlineBit;
      if (state_.cr4 & cr4::kOsxsave) leaf.ecx |= kOsxsave;
      break;
    case 0xd:
      // Size of the area for what XCR0 enables. Standard and compacted format agree: AVX is the only
      // extension.
      if (index <= 1 && leaf.ebx != 0) leaf.ebx = state_.xcr0 & 4 ? 832 : 576;
      break;
    case 0x8000'0001:
      if (amd_ && apic) leaf.edx |= kApicBit;
      if (!amd_ && !code64()) leaf.edx &= ~kSyscallBit;
      break;
    default:
      break;
  }
  state_.gpr[kRax] = leaf.eax;
  state_.gpr[kRbx] = leaf.ebx;
  state_.gpr[kRcx] = leaf.ecx;
  state_.gpr[kRdx] = leaf.edx;
}

// SDM vol. 2, INVPCID.
Result<Outcome> Vcpu::invalidate_pcid(const SystemInstruction& insn) {
  if (state_.cpl != 0) return raise(vector::kGp, 0);
  if (insn.rm != SystemInstruction::kNoRegister) return raise(vector::kUd);
  const uint64_t type = read_gpr(state_, insn.reg, code64() ? 8 : 4);
  auto address = linearize(insn.segment, effective_address(insn), 16, AccessKind::Read);
  if (!address) return std::unexpected(address.error());
  uint64_t descriptor[2];
  if (auto done = read_linear(*address, descriptor, 16, current_view()); !done) {
    return std::unexpected(done.error());
  }
  if (type > 3 || descriptor[0] >> 12) return raise(vector::kGp, 0);
  const auto pcid = static_cast<uint16_t>(descriptor[0]);
  if (type <= 1 && pcid != 0 && !(state_.cr4 & cr4::kPcide)) return raise(vector::kGp, 0);
  switch (type) {
    case 0:
      if (!is_canonical(descriptor[1])) return raise(vector::kGp, 0);
      tlb_.flush_pcid_page(pcid, LinearAddr{descriptor[1]}.page());
      break;
    case 1:
      tlb_.flush_pcid(pcid);
      break;
    case 2:
      tlb_.flush_all();
      break;
    default:
      tlb_.flush_all_non_global();
      break;
  }
  advance(insn);
  return Outcome::Redirect;
}

// SDM vol. 3, table 2-2 and 13.1; vol. 2, 2.4 (VEX).
Result<Outcome> Vcpu::fpu_unavailable(const SystemInstruction& insn) {
  const bool em = state_.cr0 & cr0::kEm, ts = state_.cr0 & cr0::kTs;
  switch (static_cast<FpuClass>(insn.reg)) {
    case FpuClass::X87:
      return raise(vector::kNm);
    case FpuClass::Wait: {
      if (ts && state_.cr0 & cr0::kMp) return raise(vector::kNm);
      // It runs: all it does is report a pending exception. A host FWAIT would raise it here, in C++.
      uint16_t status;
      {
        GuestVectorScope scope(state_);
        asm volatile("fnstsw %0" : "=m"(status));
      }
      if (status & 0x80) return raise(vector::kMf);
      return advance(insn);
    }
    case FpuClass::Mmx:
      return em ? raise(vector::kUd) : raise(vector::kNm);
    case FpuClass::Sse:
      return em || !(state_.cr4 & cr4::kOsfxsr) ? raise(vector::kUd) : raise(vector::kNm);
    case FpuClass::Avx:
      if (!protected_mode() || !(state_.cr4 & cr4::kOsxsave) || (state_.xcr0 & 6) != 6)
        return raise(vector::kUd);
      return raise(vector::kNm);
  }
  return raise(vector::kUd);
}

}  // namespace penumbra
