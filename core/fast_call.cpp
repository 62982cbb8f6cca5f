// SYSCALL, SYSRET, SYSENTER, SYSEXIT: privilege changes that read no descriptor table (SDM vol. 2; AMD APM
// vol. 3 for SYSCALL and SYSRET outside 64-bit mode).
#include "core/descriptor.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

constexpr unsigned kCode = 11, kData = 3;  // execute/read accessed, read/write accessed

constexpr Segment code_segment(unsigned selector, unsigned dpl, bool is_long) {
  return flat_segment(static_cast<uint16_t>(selector), kCode, dpl, is_long ? Segment::kLong : Segment::kBig);
}
constexpr Segment stack_segment(unsigned selector, unsigned dpl) {
  return flat_segment(static_cast<uint16_t>(selector), kData, dpl, Segment::kBig);
}

}  // namespace

Result<Outcome> Vcpu::execute_fast_call(const SystemInstruction& insn) {
  VcpuState& s = state_;
  const uint64_t next = insn.next_rip() & code_mask();
  switch (insn.op) {
    case SystemOp::Syscall: {
      // Intel knows SYSCALL in 64-bit mode only, and systems made for it leave CSTAR zero.
      if (!(s.efer & efer::kSce) || !protected_mode() || !(code64() || amd_)) return raise(vector::kUd);
      const auto selector = static_cast<uint16_t>((s.star >> 32) & 0xfffc);
      s.gpr[kRcx] = next;
      if (long_mode()) {
        s.gpr[kR11] = s.rflags & ~flag::kRf;
        s.rip = code64() ? s.lstar : s.cstar;
        s.rflags = (s.rflags & ~(s.sfmask | flag::kRf)) | flag::kFixed1;
      } else {
        s.rip = s.star & 0xffff'ffff;
        s.rflags &= ~(flag::kIf | flag::kVm | flag::kRf);
      }
      s.segments[kCs] = code_segment(selector, 0, long_mode());
      s.segments[kSs] = stack_segment(selector + 8u, 0);
      s.cpl = 0;
      update_mode();
      return Outcome::Redirect;
    }

    case SystemOp::Sysret: {
      if (!(s.efer & efer::kSce) || !protected_mode() || !(code64() || amd_)) return raise(vector::kUd);
      if (s.cpl != 0) return raise(vector::kGp, 0);
      const bool to_64 = insn.operand_bytes == 8 || insn.rex_w;
      if (to_64 && !is_canonical(s.gpr[kRcx])) return raise(vector::kGp, 0);
      const unsigned selector = ((s.star >> 48) & 0xfffc) | 3;
      const bool was_open = s.rflags & flag::kIf;
      if (long_mode()) {
        s.rflags = (s.gpr[kR11] & 0x3c'7fd7) | flag::kFixed1;
      } else {
        s.rflags |= flag::kIf;
      }
      s.rip = to_64 ? s.gpr[kRcx] : s.gpr[kRcx] & 0xffff'ffff;
      s.segments[kCs] = code_segment(selector + (to_64 ? 16 : 0), 3, to_64);
      s.segments[kSs] = stack_segment(selector + 8, 3);
      s.cpl = 3;
      update_mode();
      if (!was_open && s.rflags & flag::kIf) interrupts_opened();
      return Outcome::Redirect;
    }

    case SystemOp::Sysenter: {
      // AMD APM vol. 3, SYSENTER: not in long mode.
      if (amd_ && long_mode()) return raise(vector::kUd);
      const auto selector = static_cast<uint16_t>(s.sysenter_cs & 0xfffc);
      if (!(s.cr0 & cr0::kPe) || selector == 0) return raise(vector::kGp, 0);
      s.rflags &= ~(flag::kVm | flag::kIf | flag::kRf);
      s.gpr[kRsp] = long_mode() ? s.sysenter_esp : s.sysenter_esp & 0xffff'ffff;
      s.rip = long_mode() ? s.sysenter_eip : s.sysenter_eip & 0xffff'ffff;
      s.segments[kCs] = code_segment(selector, 0, long_mode());
      s.segments[kSs] = stack_segment(selector + 8u, 0);
      s.cpl = 0;
      update_mode();
      return Outcome::Redirect;
    }

    default: {  // SYSEXIT
      if (amd_ && long_mode()) return raise(vector::kUd);
      const unsigned selector = (s.sysenter_cs & 0xfffc) | 3;
      if (!protected_mode() || selector == 3 || s.cpl != 0) return raise(vector::kGp, 0);
      const bool to_64 = insn.operand_bytes == 8 || insn.rex_w;
      if (to_64 && (!is_canonical(s.gpr[kRcx]) || !is_canonical(s.gpr[kRdx]))) return raise(vector::kGp, 0);
      const uint64_t mask = to_64 ? ~uint64_t{0} : 0xffff'ffff;
      s.gpr[kRsp] = s.gpr[kRcx] & mask;
      s.rip = s.gpr[kRdx] & mask;
      s.segments[kCs] = code_segment(selector + (to_64 ? 32 : 16), 3, to_64);
      s.segments[kSs] = stack_segment(selector + (to_64 ? 40 : 24), 3);
      s.cpl = 3;
      update_mode();
      return Outcome::Redirect;
    }
  }
}

}  // namespace penumbra
