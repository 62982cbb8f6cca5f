// Segmentation: linear addresses, segment register loads, and the instructions that examine selectors
// (SDM vol. 3, chapters 3 and 5).
#include "core/descriptor.h"
#include "core/vcpu.h"

namespace penumbra {

Result<LinearAddr> Vcpu::linearize(SegmentIndex segment, uint64_t offset, unsigned size,
                                   AccessKind access) const {
  const Segment& s = state_.segments[segment];
  const uint8_t vector = segment == kSs ? vector::kSs : vector::kGp;
  if (code64()) [[likely]] {
    const uint64_t linear = segment >= kFs ? s.base + offset : offset;
    if (!is_canonical(linear) || !is_canonical(linear + size - 1)) return raise(vector, 0);
    // AMD's processors look at the offset, too.
    if (amd_ && segment >= kFs && (!is_canonical(offset) || !is_canonical(offset + size - 1)))
      return raise(vector, 0);
    return LinearAddr{linear};
  }
  const bool checked = protected_mode();
  if (checked) {
    if (!s.present()) return raise(vector, 0);
    if (access == AccessKind::Write ? (s.type() & 10) != 2
                                    : access == AccessKind::Read && (s.type() & 10) == 8) {
      return raise(vector, 0);
    }
  }
  if (!within_limit(s, offset, size, checked)) return raise(vector, 0);
  return wrap(static_cast<uint32_t>(s.base + offset));
}

uint64_t Vcpu::effective_address(const SystemInstruction& insn) const {
  uint64_t offset = static_cast<uint64_t>(insn.displacement);
  if (insn.base == SystemInstruction::kRipBase) {
    offset += insn.next_rip();
  } else if (insn.base != SystemInstruction::kNoRegister) {
    offset += state_.gpr[insn.base];
  }
  if (insn.index != SystemInstruction::kNoRegister) offset += state_.gpr[insn.index] * insn.scale;
  switch (insn.address_bytes) {
    case 2:
      return offset & 0xffff;
    case 4:
      return offset & 0xffff'ffff;
    default:
      return offset;
  }
}

Outcome Vcpu::advance(const SystemInstruction& insn) {
  state_.rip = insn.next_rip() & code_mask();
  return Outcome::Next;
}

void Vcpu::write_gpr(unsigned reg, uint64_t value, unsigned bytes) {
  uint64_t& target = state_.gpr[reg];
  switch (bytes) {
    case 1:
      target = (target & ~uint64_t{0xff}) | (value & 0xff);
      break;
    case 2:
      target = (target & ~uint64_t{0xffff}) | (value & 0xffff);
      break;
    case 4:
      target = value & 0xffff'ffff;
      break;
    default:
      target = value;
  }
}

Result<uint16_t> Vcpu::read_operand16(const SystemInstruction& insn) {
  if (insn.rm != SystemInstruction::kNoRegister) return static_cast<uint16_t>(state_.gpr[insn.rm]);
  auto address = linearize(insn.segment, effective_address(insn), 2, AccessKind::Read);
  if (!address) return std::unexpected(address.error());
  if (misaligned(*address, 2)) return raise(vector::kAc, 0);
  auto value = read_linear(*address, 2, current_view());
  if (!value) return std::unexpected(value.error());
  return static_cast<uint16_t>(*value);
}

// Operands of several parts are an access each: one that wraps at the end of a 16-bit address between two
// parts is legal, as on hardware.
Result<uint64_t> Vcpu::read_operand(const SystemInstruction& insn, unsigned at, unsigned bytes) {
  uint64_t offset = effective_address(insn) + at;
  if (insn.address_bytes < 8) offset &= insn.address_bytes == 2 ? 0xffff : 0xffff'ffff;
  const auto address = linearize(insn.segment, offset, bytes, AccessKind::Read);
  if (!address) return std::unexpected(address.error());
  if (misaligned(*address, bytes)) return raise(vector::kAc, 0);
  return read_linear(*address, bytes, current_view());
}

Result<Vcpu::FarPointer> Vcpu::read_far_pointer(const SystemInstruction& insn) {
  const auto offset = read_operand(insn, 0, insn.operand_bytes);
  if (!offset) return std::unexpected(offset.error());
  const auto selector = read_operand(insn, insn.operand_bytes, 2);
  if (!selector) return std::unexpected(selector.error());
  return FarPointer{.offset = *offset, .selector = static_cast<uint16_t>(*selector)};
}

Result<void> Vcpu::write_operand16(const SystemInstruction& insn, uint16_t value) {
  if (insn.rm != SystemInstruction::kNoRegister) {
    write_gpr(insn.rm, value, insn.operand_bytes);
    return {};
  }
  auto address = linearize(insn.segment, effective_address(insn), 2, AccessKind::Write);
  if (!address) return std::unexpected(address.error());
  if (misaligned(*address, 2)) return raise(vector::kAc, 0);
  return write_linear(*address, uint64_t{value}, 2, current_view());
}

bool Vcpu::find_descriptor(uint16_t selector, unsigned bytes, LinearAddr& address) const {
  const uint32_t offset = selector & 0xfff8u;
  if (selector & 4) {
    if (!state_.ldtr.present() || offset + bytes - 1 > state_.ldtr.limit) return false;
    address = wrap(state_.ldtr.base + offset);
  } else {
    if (offset + bytes - 1 > state_.gdtr.limit) return false;
    address = wrap(state_.gdtr.base + offset);
  }
  return true;
}

Result<Descriptor> Vcpu::read_descriptor(uint16_t selector, uint8_t vector, uint32_t external) {
  Descriptor descriptor;
  if (!find_descriptor(selector, 8, descriptor.address))
    return raise(vector, selector_error(selector, external));
  auto raw = read_linear(descriptor.address, 8, TlbView::Supervisor);
  if (!raw) return std::unexpected(raw.error());
  descriptor.raw = *raw;
  return descriptor;
}

Result<uint64_t> Vcpu::read_descriptor_upper(uint16_t selector, uint8_t vector) {
  LinearAddr address;
  if (!find_descriptor(selector, 16, address)) return raise(vector, selector_error(selector));
  return read_linear(address + 8, 8, TlbView::Supervisor);
}

Result<void> Vcpu::set_descriptor_type(const Descriptor& descriptor, unsigned type) {
  const uint64_t access_byte = (descriptor.attributes() & 0xf0u) | type;
  return write_linear(descriptor.address + 5, access_byte, 1, TlbView::Supervisor);
}

// Written only when clear: operating systems that keep the GDT read-only set the bit beforehand.
Result<void> Vcpu::set_accessed(Descriptor& descriptor) {
  if (descriptor.accessed()) return {};
  descriptor.raw |= uint64_t{1} << 40;
  return set_descriptor_type(descriptor, descriptor.type());
}

Result<Segment> Vcpu::check_stack_segment(uint16_t selector, unsigned cpl, uint8_t vector,
                                          uint32_t external) {
  if (is_null(selector)) return raise(vector, external);
  const uint32_t error = selector_error(selector, external);
  auto descriptor = read_descriptor(selector, vector, external);
  if (!descriptor) return std::unexpected(descriptor.error());
  if (rpl_of(selector) != cpl || !descriptor->is_writable_data() || descriptor->dpl() != cpl) {
    return raise(vector, error);
  }
  if (!descriptor->present()) return raise(vector::kSs, error);
  if (auto done = set_accessed(*descriptor); !done) return std::unexpected(done.error());
  return descriptor->segment(selector);
}

Result<Segment> Vcpu::check_data_segment(SegmentIndex index, uint16_t selector) {
  if (index == kSs) {
    if (is_null(selector) && code64() && state_.cpl != 3 && rpl_of(selector) == state_.cpl) {
      return null_segment(selector);
    }
    return check_stack_segment(selector, state_.cpl, vector::kGp, 0);
  }
  if (is_null(selector)) return Segment{.selector = selector};
  auto descriptor = read_descriptor(selector, vector::kGp);
  if (!descriptor) return std::unexpected(descriptor.error());
  if (!descriptor->is_segment() || !descriptor->is_readable())
    return raise(vector::kGp, selector_error(selector));
  if (!(descriptor->is_code() && descriptor->conforming()) &&
      (rpl_of(selector) > descriptor->dpl() || state_.cpl > descriptor->dpl())) {
    return raise(vector::kGp, selector_error(selector));
  }
  if (!descriptor->present()) return raise(vector::kNp, selector_error(selector));
  if (auto done = set_accessed(*descriptor); !done) return std::unexpected(done.error());
  return descriptor->segment(selector);
}

// A load in real mode sets selector and base; limit, D and G stay what protected mode left ("big real mode").
Segment Vcpu::real_segment(const Segment& old, uint16_t selector) {
  const uint16_t kept = old.attributes & (Segment::kBig | Segment::kGranular);
  return {.base = uint64_t{selector} << 4,
          .limit = old.limit,
          .selector = selector,
          .attributes = static_cast<uint16_t>(kept | Segment::kPresent | Segment::kS | 3)};
}

Segment Vcpu::v8086_segment(uint16_t selector) {
  return {.base = uint64_t{selector} << 4, .limit = 0xffff, .selector = selector, .attributes = 0xf3};
}

Result<void> Vcpu::load_segment(SegmentIndex index, uint16_t selector) {
  Segment& target = state_.segments[index];
  if (protected_mode()) {
    auto segment = check_data_segment(index, selector);
    if (!segment) return std::unexpected(segment.error());
    target = *segment;
  } else if (v8086()) {
    target = v8086_segment(selector);
  } else {
    target = real_segment(target, selector);
  }
  return {};
}

// SDM vol. 2, RET and IRET: "return to outer privilege level". The base stays, as on hardware: software that
// keeps a thread pointer in FS or GS with a null selector expects it there.
void Vcpu::drop_privileged_segments() {
  for (SegmentIndex index : {kEs, kDs, kFs, kGs}) {
    Segment& segment = state_.segments[index];
    const bool conforming = (segment.attributes & (Segment::kS | 12)) == (Segment::kS | 12);
    if (is_null(segment.selector)) segment.selector = 0;  // its RPL goes
    if (!segment.present() || conforming || segment.dpl() >= state_.cpl) continue;
    segment.selector = 0;
    segment.limit = 0;
    segment.attributes = 0;
  }
}

Result<Outcome> Vcpu::examine_selector(const SystemInstruction& insn) {
  if (!protected_mode()) return raise(vector::kUd);
  auto selector = read_operand16(insn);
  if (!selector) return std::unexpected(selector.error());

  Descriptor d;
  const bool found = !is_null(*selector) && find_descriptor(*selector, 8, d.address);
  if (found) {
    auto raw = read_linear(d.address, 8, TlbView::Supervisor);
    if (!raw) return std::unexpected(raw.error());
    d.raw = *raw;
  }
  state_.rflags &= ~flag::kZf;
  if (!found) return advance(insn);

  const bool any_privilege = d.is_code() && d.conforming();
  if (!any_privilege && (state_.cpl > d.dpl() || rpl_of(*selector) > d.dpl())) return advance(insn);
  // System descriptor types that each instruction accepts (SDM vol. 2, LAR and LSL, "Segment and Gate
  // Types").
  const auto system = [&](uint32_t legacy, uint32_t long_types) {
    return d.is_segment() || ((long_mode() ? long_types : legacy) >> d.type()) & 1;
  };
  switch (insn.op) {
    case SystemOp::Lar:
      if (!system(0x1a3e, 0x1a04)) return advance(insn);
      // AMD leaves the upper bits of the limit in.
      write_gpr(insn.reg, (d.raw >> 32) & (amd_ ? 0x00ff'ff00 : 0x00f0'ff00), insn.operand_bytes);
      break;
    case SystemOp::Lsl:
      if (!system(0x0a0e, 0x0a04)) return advance(insn);
      write_gpr(insn.reg, d.limit(), insn.operand_bytes);
      break;
    case SystemOp::Verr:
      if (!d.is_segment() || !d.is_readable()) return advance(insn);
      break;
    default:
      if (!d.is_writable_data()) return advance(insn);
  }
  state_.rflags |= flag::kZf;
  return advance(insn);
}

Result<Outcome> Vcpu::execute_segment(const SystemInstruction& insn) {
  // After a segment register changed: in 64-bit mode nothing that translation reads did.
  const auto loaded = [&] {
    advance(insn);
    if (code64()) return Outcome::Next;
    const ModeBits before = state_.mode;
    update_mode();
    return state_.mode == before ? Outcome::Next : Outcome::Redirect;
  };

  switch (insn.op) {
    case SystemOp::MovToSreg: {
      if (insn.reg == kCs || insn.reg > kGs) return raise(vector::kUd);
      auto selector = read_operand16(insn);
      if (!selector) return std::unexpected(selector.error());
      const auto index = static_cast<SegmentIndex>(insn.reg);
      if (auto done = load_segment(index, *selector); !done) return std::unexpected(done.error());
      const Outcome outcome = loaded();
      if (index != kSs) return outcome;
      state_.interrupt_shadow = state_.debug_shadow = true;
      return Outcome::Redirect;
    }

    case SystemOp::MovFromSreg: {
      if (insn.reg > kGs) return raise(vector::kUd);
      if (auto done = write_operand16(insn, state_.segments[insn.reg].selector); !done) {
        return std::unexpected(done.error());
      }
      return advance(insn);
    }

    case SystemOp::PushSreg: {
      const uint16_t selector = state_.segments[insn.reg].selector;
      if (amd_ || insn.operand_bytes != 4) {
        if (auto done = push(selector, insn.operand_bytes); !done) return std::unexpected(done.error());
        return advance(insn);
      }
      // A 32-bit push moves ESP by 4 and writes 16 bits on all recent Intel CPUs (SDM vol. 2, PUSH).
      const uint64_t sp = (state_.gpr[kRsp] - 4) & stack_mask();
      auto address = linearize(kSs, sp, 4, AccessKind::Write);
      if (!address) return std::unexpected(address.error());
      if (auto done = write_linear(*address, uint64_t{selector}, 2, current_view()); !done) {
        return std::unexpected(done.error());
      }
      set_sp(sp);
      return advance(insn);
    }

    case SystemOp::PopSreg: {
      auto selector = read_stack(0, insn.operand_bytes);
      if (!selector) return std::unexpected(selector.error());
      const auto index = static_cast<SegmentIndex>(insn.reg);
      // The stack pointer moves by the old stack size, also when SS changes it.
      const uint64_t sp = state_.gpr[kRsp] + insn.operand_bytes;
      if (auto done = load_segment(index, static_cast<uint16_t>(*selector)); !done) {
        return std::unexpected(done.error());
      }
      set_sp(sp);
      const Outcome outcome = loaded();
      if (index != kSs) return outcome;
      state_.interrupt_shadow = state_.debug_shadow = true;
      return Outcome::Redirect;
    }

    case SystemOp::LoadFarPointer: {
      if (insn.rm != SystemInstruction::kNoRegister) return raise(vector::kUd);
      const auto pointer = read_far_pointer(insn);
      if (!pointer) return std::unexpected(pointer.error());
      // LSS casts no interrupt shadow: it loads both halves of the stack pointer at once.
      const auto index = static_cast<SegmentIndex>(insn.selector);
      if (auto done = load_segment(index, pointer->selector); !done) return std::unexpected(done.error());
      write_gpr(insn.reg, pointer->offset, insn.operand_bytes);
      return loaded();
    }

    case SystemOp::Arpl: {
      if (!protected_mode() || code64()) return raise(vector::kUd);
      auto target = read_operand16(insn);
      if (!target) return std::unexpected(target.error());
      const uint16_t source = static_cast<uint16_t>(state_.gpr[insn.reg]);
      const bool adjust = rpl_of(*target) < rpl_of(source);
      if (adjust) {
        SystemInstruction word = insn;
        word.operand_bytes = 2;  // the upper half of a register operand stays
        const auto adjusted = static_cast<uint16_t>((*target & ~3u) | rpl_of(source));
        if (auto done = write_operand16(word, adjusted); !done) return std::unexpected(done.error());
      }
      state_.rflags = adjust ? state_.rflags | flag::kZf : state_.rflags & ~flag::kZf;
      return advance(insn);
    }

    default:
      return examine_selector(insn);
  }
}

}  // namespace penumbra
