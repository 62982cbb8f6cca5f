// Random programs: one instruction with a state in which it does something, or a sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tests/fuzzer/form_table.h"
#include "tests/fuzzer/machine_state.h"
#include "tests/fuzzer/random.h"

namespace penumbra::fuzz {

// Bytes of memory that may differ: what the x87 environment says of the last instruction.
struct Hole {
  uint64_t begin, end;  // offsets in the area
};

struct Case {
  Program program;
  uint64_t code = 0;  // offset in the area
  unsigned code_bytes = 0;
  // A sequence's instructions. What the program stores into stays as it is when the case is shrunk: the bytes
  // stored would become instructions of their own, and system calls among them.
  struct Piece {
    uint8_t length;
    bool stored_into;
  };
  std::vector<Piece> pieces;
  ZydisMnemonic mnemonic = ZYDIS_MNEMONIC_INVALID;  // INVALID: bytes that Zydis does not decode
  uint64_t undefined_flags = 0;   // not compared; in real mode, arithmetic flags that the manual leaves open
  bool may_exceed_limit = false;  // real mode: it can reach beyond a segment, which TCG does not check
  bool undefined = false;         // #UD on every CPU
  bool cold_tlb = false;
  int random_gpr = -1;  // holds a random number afterwards
  std::vector<Hole> holes;
  bool any_cr2_of_operand = false;  // reads or writes in an order of its own: which byte faulted says nothing
  bool x87_on_fault = true;         // false: the CPU has switched to MMX before the fault
};

class Generator {
 public:
  explicit Generator(Kind kind);

  const FormTable& forms() const { return forms_; }
  // Mnemonics with a row that can run here, in order.
  const std::vector<ZydisMnemonic>& mnemonics() const { return mnemonics_; }

  // One instruction of `mnemonic` and a HLT; false when the attempt came to nothing.
  bool make_single(ZydisMnemonic mnemonic, uint64_t seed, Case& out) const;
  // The instruction that `bytes` are, with another state for each seed.
  bool make_fixed(std::span<const uint8_t> bytes, uint64_t seed, Case& out) const;

 private:
  bool make(ZydisMnemonic mnemonic, std::span<const uint8_t> fixed, uint64_t seed, Case& out) const;

  Kind kind_;
  FormTable forms_;
  jit::Decoder decoder_;
  std::vector<ZydisMnemonic> mnemonics_;
};

}  // namespace penumbra::fuzz
