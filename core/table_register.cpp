// GDTR, IDTR, LDTR, TR and the machine status word (SDM vol. 3, 2.4 and 2.5; UMIP: 2.5, CR4.UMIP).
#include "core/descriptor.h"
#include "core/vcpu.h"

namespace penumbra {

Result<Outcome> Vcpu::store_table_register(const SystemInstruction& insn) {
  if (state_.cr4 & cr4::kUmip && state_.cr0 & cr0::kPe && state_.cpl != 0) return raise(vector::kGp, 0);
  switch (insn.op) {
    case SystemOp::Sgdt:
    case SystemOp::Sidt: {
      if (insn.rm != SystemInstruction::kNoRegister) return raise(vector::kUd);
      const TableRegister& table = insn.op == SystemOp::Sgdt ? state_.gdtr : state_.idtr;
      const unsigned base_bytes = code64() ? 8 : 4;
      std::byte image[10];
      __builtin_memcpy(image, &table.limit, 2);
      __builtin_memcpy(image + 2, &table.base, 8);
      auto address = linearize(insn.segment, effective_address(insn), 2 + base_bytes, AccessKind::Write);
      if (!address) return std::unexpected(address.error());
      if (auto done = write_linear(*address, image, 2 + base_bytes, current_view()); !done) {
        return std::unexpected(done.error());
      }
      return advance(insn);
    }
    case SystemOp::Smsw: {
      if (insn.rm != SystemInstruction::kNoRegister) {
        write_gpr(insn.rm, state_.cr0, insn.operand_bytes);
        return advance(insn);
      }
      if (auto done = write_operand16(insn, static_cast<uint16_t>(state_.cr0)); !done) {
        return std::unexpected(done.error());
      }
      return advance(insn);
    }
    default: {  // SLDT, STR
      if (!protected_mode()) return raise(vector::kUd);
      const Segment& segment = insn.op == SystemOp::Sldt ? state_.ldtr : state_.tr;
      if (auto done = write_operand16(insn, segment.selector); !done) return std::unexpected(done.error());
      return advance(insn);
    }
  }
}

Result<Outcome> Vcpu::load_table_register(const SystemInstruction& insn) {
  if (insn.rm != SystemInstruction::kNoRegister) return raise(vector::kUd);
  if (state_.cpl != 0) return raise(vector::kGp, 0);
  const unsigned base_bytes = code64() ? 8 : 4;
  std::byte image[10] = {};
  auto address = linearize(insn.segment, effective_address(insn), 2 + base_bytes, AccessKind::Read);
  if (!address) return std::unexpected(address.error());
  if (auto done = read_linear(*address, image, 2 + base_bytes, current_view()); !done) {
    return std::unexpected(done.error());
  }
  TableRegister table;
  __builtin_memcpy(&table.limit, image, 2);
  __builtin_memcpy(&table.base, image + 2, 8);
  if (!code64() && insn.operand_bytes == 2) table.base &= 0xff'ffff;  // 80286 form: 24-bit base
  if (!is_canonical(table.base)) return raise(vector::kGp, 0);
  (insn.op == SystemOp::Lgdt ? state_.gdtr : state_.idtr) = table;
  return advance(insn);
}

Result<Segment> Vcpu::check_ldt(uint16_t selector, uint8_t vector) {
  if (is_null(selector)) return Segment{.selector = selector};
  if (selector & 4) return raise(vector, selector_error(selector));
  auto descriptor = read_descriptor(selector, vector);
  if (!descriptor) return std::unexpected(descriptor.error());
  Segment segment = descriptor->segment(selector);
  if (long_mode()) {
    auto upper = read_descriptor_upper(selector, vector);
    if (!upper) return std::unexpected(upper.error());
    segment.base |= *upper << 32;
    if (*upper >> 40 & 0x1f || !is_canonical(segment.base)) return raise(vector, selector_error(selector));
  }
  if (descriptor->is_segment() || descriptor->type() != system_type::kLdt) {
    return raise(vector, selector_error(selector));
  }
  if (!descriptor->present()) {
    return raise(vector == vector::kTs ? vector::kTs : vector::kNp, selector_error(selector));
  }
  return segment;
}

Result<Outcome> Vcpu::load_system_segment(const SystemInstruction& insn) {
  if (!protected_mode()) return raise(vector::kUd);
  if (state_.cpl != 0) return raise(vector::kGp, 0);
  auto selector = read_operand16(insn);
  if (!selector) return std::unexpected(selector.error());

  if (insn.op == SystemOp::Lldt) {
    auto segment = check_ldt(*selector, vector::kGp);
    if (!segment) return std::unexpected(segment.error());
    state_.ldtr = *segment;
    return advance(insn);
  }

  if (is_null(*selector)) return raise(vector::kGp, 0);
  const uint32_t error = selector_error(*selector);
  if (*selector & 4) return raise(vector::kGp, error);
  auto descriptor = read_descriptor(*selector, vector::kGp);
  if (!descriptor) return std::unexpected(descriptor.error());
  Segment segment = descriptor->segment(*selector);
  const bool available = descriptor->type() == system_type::kTss32 ||
                         (descriptor->type() == system_type::kTss16 && !long_mode());
  if (descriptor->is_segment() || !available) return raise(vector::kGp, error);
  if (!descriptor->present()) return raise(vector::kNp, error);
  if (long_mode()) {
    auto upper = read_descriptor_upper(*selector, vector::kGp);
    if (!upper) return std::unexpected(upper.error());
    segment.base |= *upper << 32;
    if (*upper >> 40 & 0x1f || !is_canonical(segment.base)) return raise(vector::kGp, error);
  }
  const unsigned busy = descriptor->type() | system_type::kBusy;
  if (auto done = set_descriptor_type(*descriptor, busy); !done) return std::unexpected(done.error());
  segment.attributes |= system_type::kBusy;
  state_.tr = segment;
  return advance(insn);
}

Result<Outcome> Vcpu::execute_table_register(const SystemInstruction& insn) {
  switch (insn.op) {
    case SystemOp::Sgdt:
    case SystemOp::Sidt:
    case SystemOp::Sldt:
    case SystemOp::Str:
    case SystemOp::Smsw:
      return store_table_register(insn);
    case SystemOp::Lgdt:
    case SystemOp::Lidt:
      return load_table_register(insn);
    case SystemOp::Lldt:
    case SystemOp::Ltr:
      return load_system_segment(insn);
    case SystemOp::Lmsw: {
      if (state_.cpl != 0) return raise(vector::kGp, 0);
      auto word = read_operand16(insn);
      if (!word) return std::unexpected(word.error());
      // PE, MP, EM and TS; PE can be set but not cleared.
      const uint64_t value = (state_.cr0 & ~uint64_t{0xe}) | (*word & 0xf);
      if (auto done = write_cr0(value); !done) return std::unexpected(done.error());
      advance(insn);
      return Outcome::Redirect;
    }
    default: {  // CLTS
      if (state_.cpl != 0) return raise(vector::kGp, 0);
      advance(insn);
      if (!(state_.cr0 & cr0::kTs)) return Outcome::Next;
      state_.cr0 &= ~cr0::kTs;
      update_mode();
      return Outcome::Redirect;
    }
  }
}

}  // namespace penumbra
