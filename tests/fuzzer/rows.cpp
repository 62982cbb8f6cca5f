#include "tests/fuzzer/rows.h"

#include <map>
#include <vector>

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
      {"under some hypervisors its #DB is at the instruction and not behind it: tests/guest/exceptions64.c", {M(INT1)}},
      {"would reach the host's hypervisor; #UD, as CPUID has no VMX: tests/guest/privileged64.c",
       {M(VMCALL), M(VMMCALL)}},
      {"not offered by the guest's CPUID, whatever the host has: tests/core/state_image_test.cpp",
       {M(XSAVES), M(XSAVES64), M(XRSTORS), M(XRSTORS64)}},
      {"#UD, as CPUID has no SVM; a host that is a virtual machine itself raises #GP: tests/guest/privileged64.c",
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
  if (row.instruction_class != jit::InstructionClass::Privileged || row.system_op == SystemOp::Ud) return nullptr;
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

}  // namespace penumbra::fuzz
