#include "jit/decoder.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace penumbra::jit {

namespace {

struct RowTable {
  std::array<InstructionRow, ZYDIS_MNEMONIC_MAX_VALUE + 1> rows;
  constexpr RowTable() {
#define ROW(mnemonic, class_name, action_name) \
  rows[ZYDIS_MNEMONIC_##mnemonic] = {Action::action_name, InstructionClass::class_name, SystemOp::Ud};
#define SYSTEM_ROW(mnemonic, class_name, op_name) \
  rows[ZYDIS_MNEMONIC_##mnemonic] = {Action::System, InstructionClass::class_name, SystemOp::op_name};
#include "jit/instructions.inc"
#undef ROW
#undef SYSTEM_ROW
  }
};
constexpr RowTable kRows;

bool is_segment_register(const ZydisDecodedOperand& operand) {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER &&
         ZydisRegisterGetClass(operand.reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

bool is_register_of(const ZydisDecodedOperand& operand, ZydisRegisterClass register_class) {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER &&
         ZydisRegisterGetClass(operand.reg.value) == register_class;
}

InstructionRow system_row(InstructionClass instruction_class, SystemOp op) {
  return {Action::System, instruction_class, op};
}

// Rows are by mnemonic; some mnemonics cover forms of another class.
InstructionRow classify(const GuestInstruction& insn) {
  const ZydisDecodedInstruction& zydis = insn.zydis;
  if (zydis.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
      zydis.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX) {
    return {};
  }
  InstructionRow row = instruction_row(zydis.mnemonic);
  switch (row.action) {
    case Action::System:
      // MOVSD and CMPSD are also SSE2 instructions.
      if (row.instruction_class == InstructionClass::String && zydis.meta.isa_ext != ZYDIS_ISA_EXT_BASE &&
          zydis.meta.isa_ext != ZYDIS_ISA_EXT_LONGMODE) {
        return {Action::Generic, InstructionClass::Innocuous, SystemOp::Ud};
      }
      break;
    case Action::Mov:
      if (is_segment_register(insn.operands[0]))
        return system_row(InstructionClass::Critical, SystemOp::MovToSreg);
      if (is_segment_register(insn.operands[1]))
        return system_row(InstructionClass::Critical, SystemOp::MovFromSreg);
      if (is_register_of(insn.operands[0], ZYDIS_REGCLASS_CONTROL))
        return system_row(InstructionClass::Privileged, SystemOp::MovToCr);
      if (is_register_of(insn.operands[1], ZYDIS_REGCLASS_CONTROL))
        return system_row(InstructionClass::Privileged, SystemOp::MovFromCr);
      if (is_register_of(insn.operands[0], ZYDIS_REGCLASS_DEBUG))
        return system_row(InstructionClass::Privileged, SystemOp::MovToDr);
      if (is_register_of(insn.operands[1], ZYDIS_REGCLASS_DEBUG))
        return system_row(InstructionClass::Privileged, SystemOp::MovFromDr);
      if (is_register_of(insn.operands[0], ZYDIS_REGCLASS_TEST) ||
          is_register_of(insn.operands[1], ZYDIS_REGCLASS_TEST)) {
        return {};
      }
      break;
    case Action::Push:
      if (is_segment_register(insn.operands[0]))
        return system_row(InstructionClass::Critical, SystemOp::PushSreg);
      break;
    case Action::Pop:
      if (is_segment_register(insn.operands[0]))
        return system_row(InstructionClass::Critical, SystemOp::PopSreg);
      break;
    case Action::Call:
      if (zydis.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return system_row(InstructionClass::Critical, SystemOp::CallFar);
      break;
    case Action::Jmp:
      if (zydis.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return system_row(InstructionClass::Critical, SystemOp::JmpFar);
      break;
    case Action::Ret:
      if (zydis.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return system_row(InstructionClass::Critical, SystemOp::RetFar);
      break;
    default:
      break;
  }
  return row;
}

// Shifts and rotates by a count that may be zero leave all flags alone then.
bool count_may_be_zero(const GuestInstruction& insn) {
  const auto category = insn.zydis.meta.category;
  if (insn.zydis.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  if (category != ZYDIS_CATEGORY_SHIFT && category != ZYDIS_CATEGORY_ROTATE) return false;
  for (unsigned i = 1; i < insn.zydis.operand_count_visible; ++i) {
    const ZydisDecodedOperand& operand = insn.operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER && operand.reg.value == ZYDIS_REGISTER_CL) return true;
    if (operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
      return (operand.imm.value.u & 0x1f) == 0 || insn.zydis.operand_width < 32;
  }
  return false;
}

void set_flags(GuestInstruction& insn) {
  const ZydisAccessedFlags* flags = insn.zydis.cpu_flags;
  if (flags) {
    const uint32_t changed = flags->modified | flags->set_0 | flags->set_1;
    insn.flags_read = flags->tested & flag::kArithmetic;
    insn.flags_killed = changed & ~flags->undefined & flag::kArithmetic;
    insn.flags_touched = (changed | flags->undefined) & flag::kArithmetic;
  }
  if (count_may_be_zero(insn)) insn.flags_killed = 0;
  // POPF, SYSCALL and the like are the core's: it sees and sets all flags.
  if (insn.row.action == Action::System || insn.row.action == Action::None) {
    insn.flags_read = flag::kArithmetic;
    insn.flags_killed = 0;
    insn.flags_touched = flag::kArithmetic;
  }
}

// What Zydis does not know of branches.
void correct_branch(ZydisDecodedInstruction& zydis, bool amd) {
  uint8_t repeat = 0;
  bool operand_size = false;
  for (unsigned i = 0; i < zydis.raw.prefix_count; ++i) {
    const uint8_t prefix = zydis.raw.prefixes[i].value;
    if (prefix == 0xf2 || prefix == 0xf3) repeat = prefix;
    operand_size |= prefix == 0x66;
  }
  switch (zydis.mnemonic) {
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
      // A repeat prefix overrules the opcode: CPUs do so, no manual says it.
      if (repeat) zydis.mnemonic = repeat == 0xf3 ? ZYDIS_MNEMONIC_LOOPE : ZYDIS_MNEMONIC_LOOPNE;
      break;
    default:
      break;
  }
  const bool near =
      zydis.meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT || zydis.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;
  const bool wide = zydis.attributes & ZYDIS_ATTRIB_HAS_REX && zydis.raw.rex.W;
  const bool code64 = zydis.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
  if (amd && code64 && near && operand_size && !wide) zydis.operand_width = 16;
}

// Far pointers of 64 bits are Intel's: to AMD, REX.W of LSS, LFS, LGS and far CALL and JMP means 32 bits (APM
// vol. 3).
void correct_far_pointer(ZydisDecodedInstruction& zydis, bool amd) {
  const bool far = zydis.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR &&
                   (zydis.mnemonic == ZYDIS_MNEMONIC_CALL || zydis.mnemonic == ZYDIS_MNEMONIC_JMP);
  const bool load = zydis.mnemonic == ZYDIS_MNEMONIC_LSS || zydis.mnemonic == ZYDIS_MNEMONIC_LFS ||
                    zydis.mnemonic == ZYDIS_MNEMONIC_LGS;
  if (amd && (far || load) && zydis.operand_width == 64) zydis.operand_width = 32;
}

// SIB.base of 5 with ModRM.mod of 0 is no base, whatever REX.B says. Zydis 4.0 says R13D where the address
// size is 32 bits.
void correct_base(GuestInstruction& insn) {
  const auto& raw = insn.zydis.raw;
  const bool no_base =
      insn.zydis.attributes & ZYDIS_ATTRIB_HAS_SIB && raw.modrm.mod == 0 && raw.sib.base == 5;
  if (!no_base) return;
  for (unsigned i = 0; i < insn.zydis.operand_count_visible; ++i) {
    ZydisDecodedOperand& operand = insn.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.base == ZYDIS_REGISTER_NONE) continue;
    operand.mem.base = ZYDIS_REGISTER_NONE;
    operand.mem.disp.has_displacement = ZYAN_TRUE;
    operand.mem.disp.value = raw.disp.value;
  }
}

unsigned displacement_bytes(uint8_t modrm, unsigned base, bool wide) {
  const unsigned mod = modrm >> 6, rm = modrm & 7;
  if (mod == 1) return 1;
  if (mod == 2) return wide ? 4 : 2;
  if (mod == 0 && wide) return rm == 5 || base == 5 ? 4 : 0;
  return mod == 0 && rm == 6 ? 2 : 0;
}

// The end of the operand whose ModRM byte is at `at`. More than `bytes`: it ends within.
unsigned operand_end(std::span<const uint8_t> bytes, unsigned at, bool wide) {
  if (at >= bytes.size()) return at + 1;
  const uint8_t modrm = bytes[at++];
  unsigned base = 0;
  if (wide && modrm < 0xc0 && (modrm & 7) == 4) {
    if (at == bytes.size()) return at + 1;
    base = bytes[at++] & 7;
  }
  return at + displacement_bytes(modrm, base, wide);
}

// Of what is undefined whatever its operand.
unsigned immediate_bytes(const ZydisDecodedInstruction& zydis, bool wide_operand) {
  switch (zydis.opcode_map) {
    case ZYDIS_OPCODE_MAP_DEFAULT:
      switch (zydis.opcode) {
        case 0xc6:
        case 0x82:  // 82, AAM, AAD, far CALL and JMP: in 64-bit mode
        case 0xd4:
        case 0xd5:
          return 1;
        case 0x9a:
        case 0xea:
          return wide_operand ? 6 : 4;
        case 0xc7:
          return wide_operand ? 4 : 2;
        default:
          return 0;
      }
    case ZYDIS_OPCODE_MAP_0F:
      switch (zydis.opcode) {
        case 0x70:
        case 0x71:
        case 0x72:
        case 0x73:
        case 0xba:
        case 0xc2:
        case 0xc4:
        case 0xc5:
        case 0xc6:
          return 1;
        default:
          return 0;
      }
    default:
      return zydis.opcode_map == ZYDIS_OPCODE_MAP_0F3A ? 1 : 0;
  }
}

// Zydis gives up at the byte that makes an instruction undefined. CPUs fetch what its opcode asks for,
// whatever ModRM.reg is, before they raise #UD (SDM vol. 3, table 6-2; silicon). Of opcodes that do not exist
// at all there is nothing more, but in 0F 38 and 0F 3A. More than `bytes`: they end within.
unsigned undefined_length(const ZydisDecoder& decoder, const ZydisDecodedInstruction& zydis,
                          std::span<const uint8_t> bytes) {
  unsigned at = zydis.length;
  const bool legacy = zydis.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
  if (!legacy && zydis.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX) return at;
  bool other_operand = false, other_address = false;
  for (unsigned i = 0; i < zydis.raw.prefix_count; ++i) {
    other_operand |= zydis.raw.prefixes[i].value == 0x66;
    other_address |= zydis.raw.prefixes[i].value == 0x67;
  }
  const bool code16 = decoder.machine_mode == ZYDIS_MACHINE_MODE_LEGACY_16;
  const bool code64 = decoder.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
  const bool wide_operand =
      other_operand == code16 || (zydis.attributes & ZYDIS_ATTRIB_HAS_REX && zydis.raw.rex.W);
  const bool wide_address = other_address == code16 || code64;
  bool modrm = zydis.attributes & ZYDIS_ATTRIB_HAS_MODRM;
  if (!modrm && legacy &&
      (zydis.opcode_map == ZYDIS_OPCODE_MAP_0F38 || zydis.opcode_map == ZYDIS_OPCODE_MAP_0F3A)) {
    modrm = true;
    ++at;
  }
  if (modrm) at = operand_end(bytes, at - 1, wide_address);
  return at + immediate_bytes(zydis, wide_operand);
}

bool is_legacy_prefix(uint8_t byte) {
  switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
      return true;
    default:
      return false;
  }
}

// Opcodes of map 0F that have no ModRM byte, those that do not exist included, but for the conditional jumps.
bool is_bare(uint8_t opcode) {
  switch (opcode >> 4) {
    case 0x0:
      return opcode >= 0x04 && opcode <= 0x0e && opcode != 0x0d;
    case 0x2:
      return opcode >= 0x24 && opcode <= 0x27;
    case 0x3:
      return true;
    case 0x7:
      return opcode == 0x77 || opcode == 0x7a || opcode == 0x7b;
    case 0xa:
      return opcode <= 0xa2 || (opcode >= 0xa6 && opcode <= 0xaa);
    case 0xb:
      return opcode == 0xb9;
    case 0xc:
      return opcode >= 0xc8;
    default:
      return opcode == 0xff;
  }
}

unsigned vex_immediate_bytes(unsigned map, uint8_t opcode) {
  if (map != 1) return map == 3 ? 1 : 0;
  switch (opcode) {
    case 0x0f:
    case 0x70:
    case 0x71:
    case 0x72:
    case 0x73:
    case 0xa4:
    case 0xac:
    case 0xba:
    case 0xc2:
    case 0xc4:
    case 0xc5:
    case 0xc6:
      return 1;
    case 0x78:
      return 2;
    default:
      return 0;
  }
}

// What is undefined behind a VEX prefix is fetched as its opcode is without one, whatever makes it undefined:
// the opcode, pp, L, or prefixes before it (AMD's silicon, all opcodes of all maps). Nothing when there is no
// VEX prefix.
std::optional<unsigned> undefined_vex_length(const ZydisDecoder& decoder, std::span<const uint8_t> bytes) {
  const bool code16 = decoder.machine_mode == ZYDIS_MACHINE_MODE_LEGACY_16;
  const bool code64 = decoder.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
  const auto is_rex = [&](unsigned at) { return code64 && bytes[at] >> 4 == 4; };
  bool other_operand = false, other_address = false;
  unsigned at = 0;
  for (; at < bytes.size() && (is_rex(at) || is_legacy_prefix(bytes[at])); ++at) {
    other_operand |= bytes[at] == 0x66;
    other_address |= bytes[at] == 0x67;
  }
  if (at + 2 > bytes.size() || (bytes[at] != 0xc4 && bytes[at] != 0xc5)) return std::nullopt;
  const bool three_bytes = bytes[at] == 0xc4;
  const uint8_t payload = bytes[at + 1];
  const bool wide_address = other_address == code16 || code64;
  if (!code64 && payload < 0xc0) return std::nullopt;  // LES, LDS
  // REX makes it these, which 64-bit mode does not have.
  if (at > 0 && is_rex(at - 1)) return operand_end(bytes, at + 1, wide_address);
  const unsigned map = three_bytes ? payload & 0x1f : 1;
  at += three_bytes ? 3 : 2;
  if (at >= bytes.size()) return at + 1;
  const uint8_t opcode = bytes[at++];
  if (map == 1) {
    if (is_bare(opcode)) return at;
    if (opcode >> 4 == 8) return at + (code16 != other_operand ? 2 : 4);
    if (opcode >= 0x20 && opcode <= 0x23)
      return at + 1;  // MOV from and to control registers: ModRM.mod says nothing
  }
  return operand_end(bytes, at, wide_address) + vex_immediate_bytes(map, opcode);
}

// Of what Zydis finds undefined: how much of it is fetched before #UD. More than `bytes`: they end within.
unsigned fetched_length(const ZydisDecoder& decoder, const ZydisDecodedInstruction& zydis, ZyanStatus status,
                        std::span<const uint8_t> bytes) {
  if (const auto length = undefined_vex_length(decoder, bytes)) return *length;
  return status == ZYDIS_STATUS_DECODING_ERROR ? undefined_length(decoder, zydis, bytes) : zydis.length;
}

// UD0 and UD1 have a ModRM byte to Intel (SDM vol. 2, UD), and none to AMD's processors.
bool is_bare_undefined(const ZydisDecodedInstruction& zydis) {
  return zydis.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && zydis.opcode_map == ZYDIS_OPCODE_MAP_0F &&
         (zydis.opcode == 0xb9 || zydis.opcode == 0xff);
}

// Outside 64-bit mode VEX.W selects instructions, but not the size of a general register (SDM vol. 2, 2.3.5):
// host code must not have it where the instruction is the same without.
bool vex_w_matters(const ZydisDecoder& decoder, const GuestInstruction& insn) {
  if (insn.zydis.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || !insn.zydis.raw.vex.W) return false;
  if (decoder.machine_mode == ZYDIS_MACHINE_MODE_LONG_64) return true;
  std::array<uint8_t, kMaxInstructionBytes> without = insn.bytes;
  without[insn.zydis.raw.vex.offset + 2] &= 0x7f;
  ZydisDecodedInstruction other;
  return !ZYAN_SUCCESS(
             ZydisDecoderDecodeInstruction(&decoder, nullptr, without.data(), insn.zydis.length, &other)) ||
         other.mnemonic != insn.zydis.mnemonic;
}

uint8_t system_segment(const GuestInstruction& insn) {
  for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
    const ZydisDecodedOperand& operand = insn.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    const ZydisRegister base = operand.mem.base;
    const bool destination =
        base == ZYDIS_REGISTER_RDI || base == ZYDIS_REGISTER_EDI || base == ZYDIS_REGISTER_DI;
    if (insn.row.instruction_class == InstructionClass::String && destination) continue;
    if (operand.mem.segment == ZYDIS_REGISTER_NONE) continue;
    return segment_index(operand.mem.segment);
  }
  return kDs;
}

}  // namespace

const InstructionRow& instruction_row(ZydisMnemonic mnemonic) {
  return kRows.rows[mnemonic];
}

std::string_view name_of(InstructionClass instruction_class) {
  static constexpr std::string_view kNames[] = {"innocuous", "memory", "control", "privileged",
                                                "critical",  "string", "legacy"};
  return kNames[static_cast<unsigned>(instruction_class)];
}

std::string_view name_of(Action action) {
  static constexpr std::string_view kNames[] = {"none",    "generic", "mov",         "lea",      "push",
                                                "pop",     "leave",   "call",        "jmp",      "jcc",
                                                "loop",    "ret",     "xlat",        "maskmove", "maskedmove",
                                                "bittest", "gather",  "zerovectors", "hint",     "system"};
  return kNames[static_cast<unsigned>(action)];
}

std::string_view name_of(SystemOp op) {
  // As the rows spell it; forms of mnemonics whose other forms are innocuous have no row of their own.
  static const auto names = [] {
    std::array<std::string_view, kSystemOps> table{};
    const std::pair<SystemOp, std::string_view> forms[] = {{SystemOp::MovToSreg, "MovToSreg"},
                                                           {SystemOp::MovFromSreg, "MovFromSreg"},
                                                           {SystemOp::PushSreg, "PushSreg"},
                                                           {SystemOp::PopSreg, "PopSreg"},
                                                           {SystemOp::MovToCr, "MovToCr"},
                                                           {SystemOp::MovFromCr, "MovFromCr"},
                                                           {SystemOp::MovToDr, "MovToDr"},
                                                           {SystemOp::MovFromDr, "MovFromDr"},
                                                           {SystemOp::CallFar, "CallFar"},
                                                           {SystemOp::JmpFar, "JmpFar"},
                                                           {SystemOp::RetFar, "RetFar"},
                                                           {SystemOp::TooLong, "TooLong"},
                                                           {SystemOp::FpuUnavailable, "FpuUnavailable"}};
    for (const auto& [form, name] : forms) table[static_cast<unsigned>(form)] = name;
#define ROW(mnemonic, instruction_class, action)
#define SYSTEM_ROW(mnemonic, instruction_class, system_op) \
  table[static_cast<unsigned>(SystemOp::system_op)] = #system_op;
#include "jit/instructions.inc"
#undef ROW
#undef SYSTEM_ROW
    return table;
  }();
  return names[static_cast<unsigned>(op)];
}

bool GuestInstruction::ends_block() const {
  switch (row.action) {
    case Action::None:
    case Action::Call:
    case Action::Jmp:
    case Action::Jcc:
    case Action::Loop:
    case Action::Ret:
      return true;
    case Action::System:
      switch (row.system_op) {
        case SystemOp::CallFar:
        case SystemOp::JmpFar:
        case SystemOp::RetFar:
        case SystemOp::Int:
        case SystemOp::Int1:
        case SystemOp::Int3:
        case SystemOp::Iret:
        case SystemOp::Syscall:
        case SystemOp::Sysret:
        case SystemOp::Sysenter:
        case SystemOp::Sysexit:
        case SystemOp::Ud:
        case SystemOp::TooLong:
        case SystemOp::FpuUnavailable:
        case SystemOp::Hlt:
        case SystemOp::Mwait:
          return true;
        default:
          return false;
      }
    default:
      return false;
  }
}

const ZydisDecodedOperand* GuestInstruction::memory_operand() const {
  for (unsigned i = 0; i < zydis.operand_count_visible; ++i) {
    if (operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY && operands[i].mem.type != ZYDIS_MEMOP_TYPE_AGEN) {
      return &operands[i];
    }
  }
  return nullptr;
}

bool GuestInstruction::stores_ahead(uint64_t reach) const {
  const ZydisDecodedOperand* operand = memory_operand();
  if (!operand || !(operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) return false;
  const auto target = constant_offset(operand->mem);
  const unsigned size = operand->size / 8;
  return target && *target + size - 1 - next_rip() < reach + size;
}

std::optional<uint64_t> GuestInstruction::constant_offset(const ZydisDecodedOperandMem& mem) const {
  auto offset = static_cast<uint64_t>(mem.disp.value);
  if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
    offset += next_rip();
  } else if (mem.base != ZYDIS_REGISTER_NONE || mem.index != ZYDIS_REGISTER_NONE) {
    return std::nullopt;
  }
  return zydis.address_width == 64 ? offset : offset & ((uint64_t{1} << zydis.address_width) - 1);
}

bool GuestInstruction::needs_alignment() const {
  switch (zydis.mnemonic) {
    case ZYDIS_MNEMONIC_CMPXCHG16B:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTPS:
      return true;
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
      return false;
    case ZYDIS_MNEMONIC_SHA1MSG1:
    case ZYDIS_MNEMONIC_SHA1MSG2:
    case ZYDIS_MNEMONIC_SHA1NEXTE:
    case ZYDIS_MNEMONIC_SHA1RNDS4:
    case ZYDIS_MNEMONIC_SHA256MSG1:
    case ZYDIS_MNEMONIC_SHA256MSG2:
    case ZYDIS_MNEMONIC_SHA256RNDS2:
      return false;  // Intel's manual asks for it, AMD's CPUs do not: the host decides
    default: {
      // All of SSE but the above; nothing else has operands of this size (SDM vol. 2, tables 2-14 to 2-21).
      const ZydisDecodedOperand* operand = memory_operand();
      return zydis.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && operand && operand->size == 128;
    }
  }
}

bool GuestInstruction::waits_for_x87() const {
  switch (zydis.mnemonic) {
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSTSW:
      return false;
    default:
      break;
  }
  if (zydis.meta.isa_ext == ZYDIS_ISA_EXT_X87 || zydis.mnemonic == ZYDIS_MNEMONIC_FISTTP) return true;
  for (unsigned i = 0; i < zydis.operand_count_visible; ++i) {
    if (is_register_of(operands[i], ZYDIS_REGCLASS_MMX)) return true;
  }
  return false;
}

uint8_t GuestInstruction::lane_bytes() const {
  switch (zydis.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
      return 4;
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
      return 8;
    default:
      return 0;
  }
}

Decoder::Decoder(ModeBits mode) : amd_(mode.has(ModeBits::kAmd)) {
  if (mode.has(ModeBits::kCode64)) {
    ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  } else {
    const ZydisStackWidth stack = mode.has(ModeBits::kStack32) ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_16;
    if (mode.has(ModeBits::kCode32)) {
      ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LEGACY_32, stack);
    } else {
      ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LEGACY_16, stack);
    }
  }
  // No CET (CPUID says so): else Zydis takes the DS prefix of an indirect jump for NOTRACK and the operand
  // stays in its default segment.
  ZydisDecoderEnableMode(&decoder_, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
  // Near branches of 64-bit code obey an operand-size prefix.
  if (amd_) ZydisDecoderEnableMode(&decoder_, ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_TRUE);
  // Reserved NOPs on a CPU without MPX, and nearly all are.
  ZydisDecoderEnableMode(&decoder_, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
}

Decoder::Status Decoder::decode(std::span<const uint8_t> bytes, uint64_t rip, GuestInstruction& out) const {
  const size_t length = std::min<size_t>(bytes.size(), kMaxInstructionBytes);
  ZyanStatus status = ZydisDecoderDecodeFull(&decoder_, bytes.data(), length, &out.zydis, out.operands);
  out.rip = rip;
  out.flags_read = out.flags_killed = out.flags_touched = 0;
  if (!ZYAN_SUCCESS(status)) {
    const bool undefined = status != ZYDIS_STATUS_NO_MORE_DATA && status != ZYDIS_STATUS_INSTRUCTION_TOO_LONG;
    const unsigned fetched =
        undefined ? fetched_length(decoder_, out.zydis, status, bytes.first(length)) : out.zydis.length;
    if (undefined && fetched > length) status = ZYDIS_STATUS_NO_MORE_DATA;
    const bool wants_more = status == ZYDIS_STATUS_NO_MORE_DATA && !(amd_ && is_bare_undefined(out.zydis));
    if (wants_more && length < kMaxInstructionBytes) return Status::Truncated;
    std::memset(&out.zydis, 0, sizeof(out.zydis));
    out.zydis.length = static_cast<uint8_t>(std::clamp<unsigned>(fetched, 1, kMaxInstructionBytes));
    out.examined = static_cast<uint8_t>(length);
    out.row = {};
    const bool too_long = wants_more || status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG;
    if (too_long) out.row = {.action = Action::System, .system_op = SystemOp::TooLong};
    set_flags(out);
    return too_long ? Status::Ok : Status::Invalid;
  }
  std::memcpy(out.bytes.data(), bytes.data(), out.zydis.length);
  out.examined = out.zydis.length;
  correct_branch(out.zydis, amd_);
  correct_far_pointer(out.zydis, amd_);
  correct_base(out);
  out.vex_w = vex_w_matters(decoder_, out);
  out.row = classify(out);
  // Intel ignores W of VPINSRQ and VPEXTRQ outside 64-bit mode, AMD does not have them there.
  const bool quadword =
      out.zydis.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && out.zydis.raw.vex.W &&
      (out.zydis.mnemonic == ZYDIS_MNEMONIC_VPINSRD || out.zydis.mnemonic == ZYDIS_MNEMONIC_VPEXTRD);
  if (amd_ && quadword) out.row = {};
  set_flags(out);
  return out.row.action == Action::None ? Status::Invalid : Status::Ok;
}

bool is_gpr(const ZydisDecodedOperand& operand) {
  if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) return false;
  switch (ZydisRegisterGetClass(operand.reg.value)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
      return true;
    default:
      return false;
  }
}

unsigned gpr_number(ZydisRegister reg) {
  if (is_high_byte(reg)) return 4 + (reg - ZYDIS_REGISTER_AH);
  if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B) return 4 + (reg - ZYDIS_REGISTER_SPL);
  if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL) return reg - ZYDIS_REGISTER_AL;
  return static_cast<unsigned>(ZydisRegisterGetId(reg));
}

std::optional<unsigned> base_gpr(const ZydisDecodedOperandMem& mem) {
  if (mem.base == ZYDIS_REGISTER_NONE || mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP)
    return std::nullopt;
  return gpr_number(mem.base);
}

bool is_high_byte(ZydisRegister reg) {
  return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}

SegmentIndex segment_index(ZydisRegister reg) {
  switch (reg) {
    case ZYDIS_REGISTER_ES:
      return kEs;
    case ZYDIS_REGISTER_CS:
      return kCs;
    case ZYDIS_REGISTER_SS:
      return kSs;
    case ZYDIS_REGISTER_FS:
      return kFs;
    case ZYDIS_REGISTER_GS:
      return kGs;
    default:
      return kDs;
  }
}

SystemInstruction make_system_instruction(const GuestInstruction& insn, SystemOp op) {
  const ZydisDecodedInstruction& zydis = insn.zydis;
  SystemInstruction out;
  out.op = op;
  out.rip = insn.rip;
  out.length = zydis.length;
  if (insn.row.action == Action::None) return out;

  out.operand_bytes = zydis.operand_width / 8;
  out.address_bytes = zydis.address_width / 8;
  out.rex_w = zydis.attributes & ZYDIS_ATTRIB_HAS_REX && zydis.raw.rex.W;
  out.segment = static_cast<SegmentIndex>(system_segment(insn));
  if (zydis.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE)) {
    out.repeat = SystemInstruction::Repeat::Repe;
  } else if (zydis.attributes & ZYDIS_ATTRIB_HAS_REPNE) {
    out.repeat = SystemInstruction::Repeat::Repne;
  }

  if (zydis.attributes & ZYDIS_ATTRIB_HAS_MODRM) {
    const bool rex = zydis.attributes & ZYDIS_ATTRIB_HAS_REX;
    out.reg = zydis.raw.modrm.reg | (rex && zydis.raw.rex.R ? 8 : 0);
    // MOV to and from CR and DR ignore ModRM.mod.
    const bool always_register = op == SystemOp::MovToCr || op == SystemOp::MovFromCr ||
                                 op == SystemOp::MovToDr || op == SystemOp::MovFromDr;
    if (zydis.raw.modrm.mod == 3 || always_register) {
      out.rm = zydis.raw.modrm.rm | (rex && zydis.raw.rex.B ? 8 : 0);
    }
  }
  if (op == SystemOp::PushSreg || op == SystemOp::PopSreg || op == SystemOp::MovToSreg)
    out.reg = segment_index(insn.operands[0].reg.value);
  if (op == SystemOp::MovFromSreg) out.reg = segment_index(insn.operands[1].reg.value);  // REX.R is ignored
  if (op == SystemOp::LoadFarPointer) {
    switch (zydis.mnemonic) {
      case ZYDIS_MNEMONIC_LES:
        out.selector = kEs;
        break;
      case ZYDIS_MNEMONIC_LSS:
        out.selector = kSs;
        break;
      case ZYDIS_MNEMONIC_LFS:
        out.selector = kFs;
        break;
      case ZYDIS_MNEMONIC_LGS:
        out.selector = kGs;
        break;
      default:
        out.selector = kDs;
        break;
    }
  }
  if (const ZydisDecodedOperand* operand = insn.memory_operand()) {
    const ZydisDecodedOperandMem& mem = operand->mem;
    if (const auto base = base_gpr(mem)) {
      out.base = *base;
    } else if (mem.base != ZYDIS_REGISTER_NONE) {
      out.base = SystemInstruction::kRipBase;
    }
    if (mem.index != ZYDIS_REGISTER_NONE) {
      out.index = gpr_number(mem.index);
      out.scale = mem.scale;
    }
    out.displacement = mem.disp.has_displacement ? mem.disp.value : 0;
  }
  if (zydis.raw.imm[0].size) {
    out.immediate_present = true;
    out.immediate = zydis.raw.imm[0].value.u;
    if (op == SystemOp::Enter) out.selector = static_cast<uint16_t>(zydis.raw.imm[1].value.u);
  }
  for (unsigned i = 0; i < zydis.operand_count_visible; ++i) {
    if (insn.operands[i].type != ZYDIS_OPERAND_TYPE_POINTER) continue;
    out.immediate_present = true;
    out.selector = insn.operands[i].ptr.segment;
    out.immediate = insn.operands[i].ptr.offset;
  }
  return out;
}

}  // namespace penumbra::jit
