// Zydis and the instruction table together: one guest instruction, decoded and classified.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/system_instruction.h"
#include "core/vcpu_state.h"

namespace penumbra::jit {

// Column "class" of jit/instructions.inc.
enum class InstructionClass : uint8_t {
  Innocuous,
  Memory,
  ControlTransfer,
  Privileged,
  Critical,
  String,
  Legacy
};

// Column "action": which emitter translates it.
enum class Action : uint8_t {
  None,  // no row: #UD
  Generic,
  Mov,
  Lea,
  Push,
  Pop,
  Leave,
  Call,
  Jmp,
  Jcc,
  Loop,
  Ret,
  Xlat,
  MaskMove,    // MASKMOVQ, MASKMOVDQU
  MaskedMove,  // VMASKMOVPS and family: lanes that are masked off cannot fault
  BitTest,
  Gather,
  ZeroVectors,  // VZEROUPPER, VZEROALL
  Hint,
  System,
};

struct InstructionRow {
  Action action = Action::None;
  InstructionClass instruction_class = InstructionClass::Critical;
  SystemOp system_op = SystemOp::Ud;
};
const InstructionRow& instruction_row(ZydisMnemonic mnemonic);
std::string_view name_of(InstructionClass instruction_class);
std::string_view name_of(Action action);
std::string_view name_of(SystemOp op);

inline constexpr unsigned kMaxInstructionBytes = 15;

struct GuestInstruction {
  ZydisDecodedInstruction zydis;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  std::array<uint8_t, kMaxInstructionBytes> bytes;
  uint64_t rip = 0;  // offset in CS
  InstructionRow row;
  uint8_t examined = 0;  // bytes that decide what it is: more than its length where it is no instruction
  bool vex_w = false;    // VEX.W, where it means anything in the guest's mode

  // Arithmetic flags (flag::kArithmetic): read; certainly overwritten; possibly changed in any way.
  uint32_t flags_read = 0;
  uint32_t flags_killed = 0;
  uint32_t flags_touched = 0;

  uint64_t next_rip() const { return rip + zydis.length; }  // not truncated to the code size
  bool ends_block() const;

  // The memory operand that ModRM (or a direct address) names, or null. Not the one of LEA.
  // Stores, at an address known from its bytes, into the `reach` bytes that follow it (CS and DS taken for
  // the same).
  bool stores_ahead(uint64_t reach) const;
  const ZydisDecodedOperand* memory_operand() const;
  // The offset that an operand names without any general-purpose register, if it does.
  std::optional<uint64_t> constant_offset(const ZydisDecodedOperandMem& mem) const;
  // Raises #GP, before any page fault, when its memory operand is not at a multiple of the operand's size.
  bool needs_alignment() const;
  // Raises a pending x87 exception before anything else: x87 and MMX, but the FN instructions.
  bool waits_for_x87() const;
  uint8_t lane_bytes() const;  // of VMASKMOV and VPMASKMOV, else 0
};

// Decodes guest code of one code size. `mode` gives the code size only.
class Decoder {
 public:
  explicit Decoder(ModeBits mode);

  const ZydisDecoder& zydis() const { return decoder_; }

  enum class Status : uint8_t { Ok, Truncated, Invalid };
  // Invalid: `out` holds an instruction without a row, so that it raises #UD when it is reached.
  // Truncated: the bytes end within the instruction.
  Status decode(std::span<const uint8_t> bytes, uint64_t rip, GuestInstruction& out) const;

 private:
  ZydisDecoder decoder_;
  bool amd_;
};

// Fills in the operands of an instruction that the core executes.
SystemInstruction make_system_instruction(const GuestInstruction& insn, SystemOp op);

// Register number (REX included) of a general-purpose register operand; AH to BH give 4 to 7 like SPL to DIL.
bool is_gpr(const ZydisDecodedOperand& operand);  // of any size
unsigned gpr_number(ZydisRegister reg);
// The general-purpose register that is an operand's base, if one is.
std::optional<unsigned> base_gpr(const ZydisDecodedOperandMem& mem);
bool is_high_byte(ZydisRegister reg);
SegmentIndex segment_index(ZydisRegister reg);

}  // namespace penumbra::jit
