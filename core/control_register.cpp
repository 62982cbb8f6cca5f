// MOV to and from control and debug registers (SDM vol. 3, 2.5, 4.10.4 and 17.2).
#include "core/host_vector_scope.h"
#include "core/register_access.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

constexpr uint64_t kCr0Known = cr0::kPe | cr0::kMp | cr0::kEm | cr0::kTs | cr0::kEt | cr0::kNe | cr0::kWp |
                               cr0::kAm | cr0::kNw | cr0::kCd | cr0::kPg;
constexpr uint64_t kCr3NoFlush = uint64_t{1} << 63;
constexpr uint64_t kPcidMask = 0xfff;

// Bits that never change: reserved ones that read as 1, and those that read as 0.
constexpr uint64_t kDr6Ones = 0xffff'0ff0, kDr6Writable = 0xe00f;
constexpr uint64_t kDr7Ones = 0x400, kDr7Writable = 0xffff'23ff;
constexpr uint64_t kDr7GeneralDetect = 1u << 13, kDr6AccessDetected = 1u << 13;

}  // namespace

Result<Outcome> Vcpu::execute_control_register(const SystemInstruction& insn) {
  if (state_.cpl != 0) return raise(vector::kGp, 0);
  const unsigned bytes = code64() ? 8 : 4;
  const bool debug = insn.op == SystemOp::MovToDr || insn.op == SystemOp::MovFromDr;
  if (debug) {
    unsigned number = insn.reg;
    if (number > 7) return raise(vector::kUd);
    if (number == 4 || number == 5) {
      if (state_.cr4 & cr4::kDe) return raise(vector::kUd);
      number += 2;
    }
    if (state_.dr[7] & kDr7GeneralDetect) {
      return std::unexpected(Exception{.vector = vector::kDb, .dr6 = kDr6AccessDetected});
    }
    if (insn.op == SystemOp::MovFromDr) {
      write_gpr(insn.rm, state_.dr[number], bytes);
    } else if (auto done = write_dr(number, read_gpr(state_, insn.rm, bytes)); !done) {
      return std::unexpected(done.error());
    }
    const bool redirect = insn.op == SystemOp::MovToDr;  // the running block may hold the new breakpoint
    state_.rip = insn.next_rip() & code_mask();
    return redirect ? Outcome::Redirect : Outcome::Next;
  }

  if (insn.op == SystemOp::MovFromCr) {
    uint64_t value = 0;
    switch (insn.reg) {
      case 0:
        value = state_.cr0;
        break;
      case 2:
        value = state_.cr2;
        break;
      case 3:
        value = state_.cr3;
        break;
      case 4:
        value = state_.cr4;
        break;
      case 8:
        value = cr8();
        break;
      default:
        return raise(vector::kUd);
    }
    write_gpr(insn.rm, value, bytes);
    state_.rip = insn.next_rip() & code_mask();
    return Outcome::Next;
  }

  const uint64_t value = read_gpr(state_, insn.rm, bytes);
  const uint64_t mask = code_mask();  // before the mode changes: it names the RIP of this instruction's mode
  if (auto done = set_control_register(insn.reg, value); !done) return std::unexpected(done.error());
  state_.rip = insn.next_rip() & mask;
  return insn.reg == 2 || insn.reg == 8 ? Outcome::Next : Outcome::Redirect;
}

// SDM vol. 3, 10.8.6.1.
uint64_t Vcpu::cr8() const {
  if (!apic_) return state_.cr8;
  HostVectorScope scope(state_);
  return apic_->task_priority() >> 4;
}

Result<void> Vcpu::set_control_register(unsigned number, uint64_t value) {
  switch (number) {
    case 0:
      return write_cr0(value);
    case 2:
      state_.cr2 = value;
      return {};
    case 3:
      return write_cr3(value);
    case 4:
      return write_cr4(value);
    case 8:
      if (value & ~uint64_t{15}) return raise(vector::kGp, 0);
      state_.cr8 = value;
      if (apic_) {
        HostVectorScope scope(state_);
        apic_->set_task_priority(static_cast<uint8_t>(value << 4));
      }
      return {};
    default:
      return raise(vector::kUd);
  }
}

Result<void> Vcpu::write_cr0(uint64_t value) {
  if (value >> 32) return raise(vector::kGp, 0);
  value = (value & kCr0Known) | cr0::kEt;
  const uint64_t old = state_.cr0;
  const bool paging = value & cr0::kPg, was_paging = old & cr0::kPg;
  if (paging && !(value & cr0::kPe)) return raise(vector::kGp, 0);
  if (value & cr0::kNw && !(value & cr0::kCd)) return raise(vector::kGp, 0);

  uint64_t new_efer = state_.efer;
  if (paging && !was_paging) {
    if (state_.efer & efer::kLme) {
      if (!(state_.cr4 & cr4::kPae) || state_.segments[kCs].is_long()) return raise(vector::kGp, 0);
      new_efer |= efer::kLma;
    }
  } else if (!paging && was_paging) {
    if (state_.cr4 & cr4::kPcide) return raise(vector::kGp, 0);
    if (long_mode()) {
      if (state_.segments[kCs].is_long()) return raise(vector::kGp, 0);
      new_efer &= ~efer::kLma;
    }
  }
  // SDM vol. 3, 4.4.1: with PAE paging, changes of CD, NW and PG load the PDPTEs.
  const bool pae = paging && state_.cr4 & cr4::kPae && !(new_efer & efer::kLma);
  if (pae && (value ^ old) & (cr0::kPg | cr0::kCd | cr0::kNw)) {
    if (auto done = load_pdptes(state_.cr3); !done) return done;
  }

  state_.cr0 = value;
  state_.efer = new_efer;
  // WP: the TLB holds what a walk allowed.
  if ((value ^ old) & (cr0::kPg | cr0::kWp)) tlb_.flush_all();
  update_mode();
  return {};
}

Result<void> Vcpu::write_cr3(uint64_t value) {
  const bool pcide = state_.cr4 & cr4::kPcide;
  bool keep = false;
  if (long_mode()) {
    if (pcide) {
      keep = value & kCr3NoFlush;
      value &= ~kCr3NoFlush;
    }
    if (value >> model_.physical_bits()) return raise(vector::kGp, 0);
  } else if (state_.cr4 & cr4::kPae && state_.cr0 & cr0::kPg) {
    if (auto done = load_pdptes(value); !done) return done;
  }
  state_.cr3 = value;
  tlb_.switch_space(pcide ? static_cast<uint16_t>(value & kPcidMask) : 0, keep);
  select_view();
  if (mode_listener_) mode_listener_->mode_changed();
  return {};
}

Result<void> Vcpu::write_cr4(uint64_t value) {
  if (value & ~model_.cr4_mask()) return raise(vector::kGp, 0);
  const uint64_t old = state_.cr4, changed = value ^ old;
  if (long_mode() && !(value & cr4::kPae)) return raise(vector::kGp, 0);
  if (changed & value & cr4::kPcide && (!long_mode() || state_.cr3 & kPcidMask)) return raise(vector::kGp, 0);
  const bool paging = state_.cr0 & cr0::kPg;
  if (paging && !long_mode() && value & cr4::kPae &&
      changed & (cr4::kPae | cr4::kPge | cr4::kPse | cr4::kSmep)) {
    if (auto done = load_pdptes(state_.cr3); !done) return done;
  }
  state_.cr4 = value;
  if (changed & cr4::kDe) debug_.registers_changed();
  if (changed & (cr4::kPge | cr4::kPae | cr4::kPse | cr4::kPcide | cr4::kSmep | cr4::kSmap)) tlb_.flush_all();
  // Without PCIDs the current one is 0 (SDM vol. 3, 4.10.1); all spaces are empty by now.
  if (changed & ~value & cr4::kPcide) tlb_.switch_space(0, false);
  update_mode();
  return {};
}

// SDM vol. 3, 4.4.1, table 4-8: reserved bits of present entries raise #GP, and nothing is loaded then.
Result<void> Vcpu::load_pdptes(uint64_t cr3) {
  const uint64_t reserved = 0x1e6 | ~uint64_t{0} << model_.physical_bits();
  std::array<uint64_t, 4> entries;
  for (unsigned i = 0; i < 4; ++i) {
    const PhysAddr address{(cr3 & 0xffff'ffe0) + i * 8};
    {
      HostVectorScope scope(state_);  // the table may lie in a chip's registers
      entries[i] = map_.read(address, 8);
    }
    if (entries[i] & 1 && entries[i] & reserved) return raise(vector::kGp, 0);
  }
  state_.pdpte = entries;
  return {};
}

Result<void> Vcpu::write_dr(unsigned number, uint64_t value) {
  if (number < 4) {
    state_.dr[number] = value;
    debug_.registers_changed();
    return {};
  }
  if (value >> 32) return raise(vector::kGp, 0);
  if (number == 6) {
    state_.dr[6] = (value & kDr6Writable) | kDr6Ones;
  } else {
    state_.dr[7] = (value & kDr7Writable) | kDr7Ones;
    debug_.registers_changed();
  }
  return {};
}

}  // namespace penumbra
