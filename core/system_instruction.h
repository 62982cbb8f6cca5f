// Instructions that the VMM core executes: privileged, critical, far transfers, strings and what 64-bit mode
// dropped. The translator decodes them once into a SystemInstruction and calls Vcpu::execute().
#pragma once

#include <cstdint>

#include "core/vcpu_state.h"

namespace penumbra {

// One name a mnemonic (or family that differs only in an operand). jit/instructions.inc maps mnemonics to
// these.
enum class SystemOp : uint8_t {
  // segment registers and descriptors
  MovToSreg,
  MovFromSreg,
  PushSreg,
  PopSreg,
  LoadFarPointer,
  Lar,
  Lsl,
  Verr,
  Verw,
  Arpl,
  // descriptor-table and machine-status registers
  Sgdt,
  Sidt,
  Sldt,
  Str,
  Smsw,
  Lgdt,
  Lidt,
  Lldt,
  Ltr,
  Lmsw,
  Clts,
  // control and debug registers
  MovToCr,
  MovFromCr,
  MovToDr,
  MovFromDr,
  // far control transfer
  CallFar,
  JmpFar,
  RetFar,
  Int,
  Int1,
  Int3,
  Into,
  Iret,
  Syscall,
  Sysret,
  Sysenter,
  Sysexit,
  // flags
  Pushf,
  Popf,
  Cli,
  Sti,
  Cld,
  Std,
  Clac,
  Stac,
  // I/O
  In,
  Out,
  Ins,
  Outs,
  // processor control
  Hlt,
  Cpuid,
  Rdtsc,
  Rdtscp,
  Rdpmc,
  Rdmsr,
  Wrmsr,
  Rdpid,
  Swapgs,
  Rdfsbase,
  Rdgsbase,
  Wrfsbase,
  Wrgsbase,
  Invlpg,
  Invpcid,
  Invd,
  Wbinvd,
  Monitor,
  Mwait,
  Xgetbv,
  Xsetbv,
  // state images: run on the host's live registers
  Fxsave,
  Fxrstor,
  Xsave,
  Xsavec,
  Xsaveopt,
  Xsaves,
  Xrstor,
  Xrstors,
  // strings (operand_bytes is the element size)
  Movs,
  Stos,
  Lods,
  Scas,
  Cmps,
  // stack frames and what 64-bit mode dropped
  Enter,
  Pusha,
  Popa,
  Bound,
  Aaa,
  Aas,
  Aam,
  Aad,
  Daa,
  Das,
  Salc,
  // exceptions on purpose
  Ud,              // UD0, UD1, UD2, RSM, VMX and SVM instructions, unknown opcodes
  TooLong,         // more than 15 bytes: #GP(0)
  FpuUnavailable,  // x87, MMX, SSE or AVX instruction while CR0, CR4 or XCR0 make it trap: #NM or #UD
};

inline constexpr unsigned kSystemOps = static_cast<unsigned>(SystemOp::FpuUnavailable) + 1;

// Which FPU instruction class a FpuUnavailable stands for: `reg` of the SystemInstruction.
enum class FpuClass : uint8_t { X87, Wait, Mmx, Sse, Avx };

struct SystemInstruction {
  static constexpr uint8_t kNoRegister = 0xff;
  static constexpr uint8_t kRipBase = 0xfe;  // RIP-relative (64-bit mode)

  enum class Repeat : uint8_t { None, Repe, Repne };  // F3 (REP, REPE), F2 (REPNE)

  SystemOp op = SystemOp::Ud;
  uint8_t length = 0;         // bytes
  uint8_t operand_bytes = 4;  // effective operand size: 2, 4 or 8; I/O and string element: 1, 2, 4 or 8
  uint8_t address_bytes = 8;  // effective address size: 2, 4 or 8
  uint8_t reg = 0;            // ModRM.reg with REX.R; register number, segment, CR or DR; IN/OUT: unused
  uint8_t rm = kNoRegister;   // register operand in ModRM.rm with REX.B, or kNoRegister when it is memory
  bool immediate_present =
      false;           // IN/OUT port, far pointer, INT vector, RET count, ENTER size, AAM/AAD base
  bool rex_w = false;  // XSAVE64 and friends
  Repeat repeat = Repeat::None;
  SegmentIndex segment =
      kDs;  // of the memory operand (overrides applied); string source; in 64-bit only FS, GS count
  uint8_t base = kNoRegister, index = kNoRegister, scale = 1;
  int64_t displacement = 0;
  uint64_t immediate = 0;  // far pointer: offset
  uint16_t selector = 0;   // far pointer: selector; ENTER: nesting level; LoadFarPointer: the SegmentIndex
  uint64_t rip = 0;        // of this instruction: offset in CS

  uint64_t next_rip() const { return rip + length; }  // callers truncate to the code size
};

}  // namespace penumbra
