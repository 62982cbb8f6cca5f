// ENTER, and what 64-bit mode dropped: PUSHA, POPA, BOUND, SALC and decimal adjustment.
//
// The host cannot run the latter in 64-bit mode, so they are written out here. Flags that the manual leaves
// undefined are those of the addition or subtraction that the CPU does inside, as measured on Zen 5: 16 bits
// wide for AAA and AAS, 8 bits for AAD and the sum of both corrections of DAA and DAS; AAM clears them.
#include "core/register_access.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

uint64_t sign_zero_parity(uint64_t result, unsigned bits) {
  return (result >> (bits - 1) & 1 ? flag::kSf : 0) | ((result & size_mask(bits / 8)) == 0 ? flag::kZf : 0) |
         (__builtin_parity(result & 0xff) ? 0 : flag::kPf);
}

struct Adjusted {
  uint64_t ax;
  uint64_t flags;
};

// AAA and AAS (SDM vol. 2).
Adjusted adjust_unpacked(uint64_t ax, uint64_t flags, bool subtract) {
  const bool adjust = (ax & 15) > 9 || flags & flag::kAf;
  const uint64_t correction = adjust ? 0x106 : 0;
  const uint64_t sum = (subtract ? ax - correction : ax + correction) & 0xffff;
  const uint64_t overflow = subtract ? ax & ~sum : ~ax & sum;  // the correction is positive
  return {.ax = sum & 0xff0f,
          .flags = sign_zero_parity(sum, 16) | (overflow & 0x8000 ? flag::kOf : 0) |
                   (adjust ? flag::kAf | flag::kCf : 0)};
}

// DAA and DAS (SDM vol. 2).
Adjusted adjust_packed(uint64_t ax, uint64_t flags, bool subtract) {
  const uint64_t old = ax & 0xff;
  uint64_t al = old, out = 0;
  if ((old & 15) > 9 || flags & flag::kAf) {
    al = subtract ? al - 6 : al + 6;
    out = flag::kAf | (al > 0xff ? flag::kCf : 0);
  }
  if (old > 0x99 || flags & flag::kCf) {
    al = subtract ? al - 0x60 : al + 0x60;
    out |= flag::kCf;
  }
  al &= 0xff;
  const uint64_t overflow = subtract ? old & ~al : ~old & al;
  return {.ax = (ax & 0xff00) | al,
          .flags = out | sign_zero_parity(al, 8) | (overflow & 0x80 ? flag::kOf : 0)};
}

// AAM: `base` is not 0.
Adjusted adjust_after_multiplication(uint64_t ax, uint64_t base) {
  const uint64_t al = ax & 0xff, low = al % base;
  return {.ax = al / base << 8 | low, .flags = sign_zero_parity(low, 8)};
}

Adjusted adjust_before_division(uint64_t ax, uint64_t base) {
  const uint64_t low = ax & 0xff, high = (ax >> 8) * base & 0xff;
  const uint64_t sum = low + high;
  return {.ax = sum & 0xff,
          .flags = sign_zero_parity(sum, 8) | (sum > 0xff ? flag::kCf : 0) |
                   ((low & 15) + (high & 15) > 15 ? flag::kAf : 0) |
                   (~(low ^ high) & (low ^ sum) & 0x80 ? flag::kOf : 0)};
}

}  // namespace

Result<Outcome> Vcpu::execute_legacy(const SystemInstruction& insn) {
  if (insn.op == SystemOp::Enter) return enter(insn);
  if (code64()) return raise(vector::kUd);
  const uint64_t ax = state_.gpr[kRax] & 0xffff;
  const uint64_t base = insn.immediate_present ? insn.immediate & 0xff : 10;
  Adjusted adjusted{};
  switch (insn.op) {
    case SystemOp::Pusha:
      return push_all(insn);
    case SystemOp::Popa:
      return pop_all(insn);
    case SystemOp::Bound:
      return bound(insn);
    case SystemOp::Salc:
      write_gpr(kRax, state_.rflags & flag::kCf ? 0xff : 0, 1);
      return advance(insn);
    case SystemOp::Aaa:
    case SystemOp::Aas:
      adjusted = adjust_unpacked(ax, state_.rflags, insn.op == SystemOp::Aas);
      break;
    case SystemOp::Daa:
    case SystemOp::Das:
      adjusted = adjust_packed(ax, state_.rflags, insn.op == SystemOp::Das);
      break;
    case SystemOp::Aam:
      if (base == 0) return raise(vector::kDe);
      adjusted = adjust_after_multiplication(ax, base);
      break;
    case SystemOp::Aad:
      adjusted = adjust_before_division(ax, base);
      break;
    default:
      return raise(vector::kUd);
  }
  write_gpr(kRax, adjusted.ax, 2);
  state_.rflags = (state_.rflags & ~flag::kArithmetic) | adjusted.flags;
  return advance(insn);
}

// RSP and RBP change only when every access has succeeded; what was pushed below the old stack pointer is
// nobody's until then.
Result<Outcome> Vcpu::enter(const SystemInstruction& insn) {
  const unsigned bytes = insn.operand_bytes, level = insn.selector & 31;
  const uint64_t mask = stack_mask();
  const TlbView view = current_view();
  uint64_t sp = state_.gpr[kRsp] & mask;
  const auto push_below = [&](uint64_t value) -> Result<void> {
    const uint64_t lower = (sp - bytes) & mask;
    const auto address = linearize(kSs, lower, bytes, AccessKind::Write);
    if (!address) return std::unexpected(address.error());
    if (misaligned(*address, bytes)) return raise(vector::kAc, 0);
    if (auto done = write_linear(*address, value, bytes, view); !done) return done;
    sp = lower;
    return {};
  };

  uint64_t bp = state_.gpr[kRbp];
  if (auto done = push_below(bp); !done) return std::unexpected(done.error());
  const uint64_t frame = (state_.gpr[kRsp] & ~mask) | sp;
  for (unsigned i = 1; i < level; ++i) {
    bp = (bp - bytes) & mask;
    const auto address = linearize(kSs, bp, bytes, AccessKind::Read);
    if (!address) return std::unexpected(address.error());
    if (misaligned(*address, bytes)) return raise(vector::kAc, 0);
    const auto outer = read_linear(*address, bytes, view);
    if (!outer) return std::unexpected(outer.error());
    if (auto done = push_below(*outer); !done) return std::unexpected(done.error());
  }
  if (level != 0) {
    if (auto done = push_below(frame); !done) return std::unexpected(done.error());
  }
  sp = (sp - (insn.immediate & 0xffff)) & mask;
  // The new top of the stack must be writable (SDM vol. 2, ENTER: #PF, #SS).
  const auto top = linearize(kSs, sp, bytes, AccessKind::Write);
  if (!top) return std::unexpected(top.error());
  if (misaligned(*top, bytes)) return raise(vector::kAc, 0);
  if (auto done = probe_write(*top, bytes, view); !done) return std::unexpected(done.error());
  write_gpr(kRbp, frame, bytes);
  set_sp(sp);
  return advance(insn);
}

// What was pushed before a fault stays, as on hardware; RSP has not moved.
Result<Outcome> Vcpu::push_all(const SystemInstruction& insn) {
  const auto& gpr = state_.gpr;
  const uint64_t mask = stack_mask();
  uint64_t sp = gpr[kRsp] & mask;
  for (const Gpr from : {kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi}) {
    sp = (sp - insn.operand_bytes) & mask;
    const auto address = linearize(kSs, sp, insn.operand_bytes, AccessKind::Write);
    if (!address) return std::unexpected(address.error());
    if (misaligned(*address, insn.operand_bytes)) return raise(vector::kAc, 0);
    if (auto done = write_linear(*address, gpr[from], insn.operand_bytes, current_view()); !done) {
      return std::unexpected(done.error());
    }
  }
  set_sp(sp);
  return advance(insn);
}

// What was popped before a fault stays, as on hardware; RSP has not moved.
Result<Outcome> Vcpu::pop_all(const SystemInstruction& insn) {
  const unsigned bytes = insn.operand_bytes;
  unsigned at = 0;
  for (const Gpr to : {kRdi, kRsi, kRbp, kRsp, kRbx, kRdx, kRcx, kRax}) {
    const auto value = read_stack(at, bytes);
    if (!value) return std::unexpected(value.error());
    if (to != kRsp) write_gpr(to, *value, bytes);
    at += bytes;
  }
  drop(at);
  return advance(insn);
}

Result<Outcome> Vcpu::bound(const SystemInstruction& insn) {
  if (insn.rm != SystemInstruction::kNoRegister) return raise(vector::kUd);
  const unsigned bytes = insn.operand_bytes;
  const auto lower = read_operand(insn, 0, bytes);
  if (!lower) return std::unexpected(lower.error());
  const auto upper = read_operand(insn, bytes, bytes);
  if (!upper) return std::unexpected(upper.error());
  const unsigned unused = 64 - bytes * 8;
  const auto extend = [&](uint64_t value) { return static_cast<int64_t>(value << unused) >> unused; };
  const int64_t index = extend(state_.gpr[insn.reg]);
  if (index < extend(*lower) || index > extend(*upper)) return raise(vector::kBr);
  return advance(insn);
}

}  // namespace penumbra
