#include "tests/fuzzer/rows.h"

#include <algorithm>
#include <map>
#include <span>
#include <vector>

#include "core/exception.h"
#include "jit/decoder.h"

namespace penumbra::fuzz {

const char* reason_not_native(ZydisMnemonic mnemonic) {
  struct Reason {
    const char* text;
    std::vector<ZydisMnemonic> mnemonics;
  };
  static const Reason kReasons[] = {
#define M(name) ZYDIS_MNEMONIC_##name
      {"would reach the host's kernel: tests/core/fast_call_test.cpp tests/guest/modes32.c",
       {M(SYSCALL), M(SYSENTER), M(SYSEXIT), M(SYSRET)}},
      {"under some hypervisors its #DB is at the instruction and not behind it: tests/guest/exceptions64.c",
       {M(INT1)}},
      {"would reach the host's hypervisor; #UD, as CPUID has no VMX: tests/guest/privileged64.c",
       {M(VMCALL), M(VMMCALL)}},
      {"not offered by the guest's CPUID, whatever the host has: tests/core/state_image_test.cpp",
       {M(XSAVES), M(XSAVES64), M(XRSTORS), M(XRSTORS64)}},
      {"#UD, as CPUID has no SVM; a host that is a virtual machine itself raises #GP: "
       "tests/guest/privileged64.c",
       {M(VMLOAD), M(VMSAVE), M(VMRUN), M(STGI), M(CLGI), M(SKINIT), M(INVLPGA)}},
      {"the answer is the VMM's own: tests/core/cpu_model_test.cpp tests/core/processor_test.cpp",
       {M(CPUID), M(RDTSC), M(RDTSCP), M(RDPID), M(RDPMC), M(XGETBV)}},
      {"the host's tables are not the guest's, and its kernel answers for UMIP: tests/guest/privileged64.c "
       "tests/guest/modes32.c",
       {M(SGDT), M(SIDT), M(SLDT), M(SMSW), M(STR)}},
      {"the image has the components of the host's XCR0: tests/core/state_image_test.cpp tests/guest/fpu64.c",
       {M(XSAVE), M(XSAVE64), M(XSAVEC), M(XSAVEC64), M(XSAVEOPT), M(XSAVEOPT64), M(XRSTOR), M(XRSTOR64)}},
#undef M
  };
  static const std::map<ZydisMnemonic, const char*> by_mnemonic = [] {
    std::map<ZydisMnemonic, const char*> made;
    for (const Reason& reason : kReasons) {
      for (const ZydisMnemonic one : reason.mnemonics) made[one] = reason.text;
    }
    return made;
  }();
  const auto found = by_mnemonic.find(mnemonic);
  return found == by_mnemonic.end() ? nullptr : found->second;
}

const char* privileged_test(ZydisMnemonic mnemonic) {
  const jit::InstructionRow& row = jit::instruction_row(mnemonic);
  if (row.instruction_class != jit::InstructionClass::Privileged || row.system_op == SystemOp::Ud)
    return nullptr;
  switch (row.system_op) {
    case SystemOp::Mwait:
      return "at CPL 0: tests/core/processor_test.cpp";
    case SystemOp::Invlpg:
    case SystemOp::Invpcid:
      return "at CPL 0: tests/guest/privileged64.c tests/guest/tlb64.c";
    default:
      return "at CPL 0: tests/guest/privileged64.c";
  }
}

bool runs_on_unicorn(const Form& form) {
  const jit::InstructionRow& row = jit::instruction_row(form.mnemonic);
  if (form.isa != ZYDIS_ISA_EXT_BASE) return false;
  if (row.action != jit::Action::System) return true;
  switch (row.system_op) {
    case SystemOp::Cli:
    case SystemOp::Sti:
      return true;
    case SystemOp::Sgdt:
    case SystemOp::Sidt:
    case SystemOp::Smsw:
    case SystemOp::Ud:
      return false;
    default:
      return row.instruction_class != jit::InstructionClass::Privileged;
  }
}

bool is_told_by_unicorn(const jit::GuestInstruction& insn) {
  const ZydisDecodedInstruction& zydis = insn.zydis;
  if (zydis.meta.isa_ext != ZYDIS_ISA_EXT_BASE) return false;
  // TCG takes them for an instruction's own: LOOPE becomes LOOPNE. Of two that repeat, it obeys the first.
  const auto repeats = [](uint8_t prefix) { return prefix == 0xf2 || prefix == 0xf3; };
  const auto prefixes = std::span(zydis.raw.prefixes).first(zydis.raw.prefix_count);
  const auto count =
      std::ranges::count_if(prefixes, repeats, [](const auto& prefix) { return prefix.value; });
  if (count > (insn.row.instruction_class == jit::InstructionClass::String ? 1 : 0)) return false;
  switch (zydis.mnemonic) {
    case ZYDIS_MNEMONIC_BSWAP:  // SDM vol. 2 leaves these open
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
      return zydis.operand_width != 16;
    case ZYDIS_MNEMONIC_ENTER:  // the upper half of EBP is another on the bare CPU
      return zydis.operand_width != 32;
    case ZYDIS_MNEMONIC_NEG:  // the bare CPU's flags are those without LOCK
      return !(zydis.attributes & ZYDIS_ATTRIB_HAS_LOCK);
    case ZYDIS_MNEMONIC_TEST:  // the second opcode, F6 /1 and F7 /1 (AMD APM vol. 3, A.1.2), is none
      return (zydis.opcode & ~1) != 0xf6 || zydis.raw.modrm.reg == 0;
    case ZYDIS_MNEMONIC_INT:  // Unicorn takes it for an opcode that is none
      return zydis.raw.imm[0].value.u != vector::kUd;
    case ZYDIS_MNEMONIC_NOP:  // 0F 18 to 0F 1F of registers is none
      return zydis.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;
    default:
      return insn.row.action != jit::Action::System ||
             (insn.row.system_op != SystemOp::MovToCr && insn.row.system_op != SystemOp::MovFromCr &&
              insn.row.system_op != SystemOp::MovToDr && insn.row.system_op != SystemOp::MovFromDr);
  }
}

}  // namespace penumbra::fuzz
