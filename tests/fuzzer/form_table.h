// Every encoding that the instruction table has a row for, found by asking Zydis about all opcodes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "jit/decoder.h"

namespace penumbra::fuzz {

// One opcode with a prefix, W and L: everything but registers, addressing and immediates.
struct Form {
  ZydisMnemonic mnemonic = ZYDIS_MNEMONIC_INVALID;
  bool vex = false;
  uint8_t map = 0;  // 0: one byte; 1: 0F; 2: 0F 38; 3: 0F 3A
  uint8_t opcode = 0;
  uint8_t prefix = 0;  // 0, 66, F2 or F3
  bool w = false, l = false;
  ZydisISAExt isa = ZYDIS_ISA_EXT_INVALID;
  bool modrm = false;
  bool memory = false;                 // ModRM.mod is not 3
  std::array<uint8_t, 8> rm_of_reg{};  // by ModRM.reg: the values of ModRM.rm that are this form, a bit each
};

class FormTable {
 public:
  explicit FormTable(unsigned bits);
  const std::vector<Form>& forms_of(ZydisMnemonic mnemonic) const { return forms_[mnemonic]; }

 private:
  void add_opcode(const jit::Decoder& decoder, Form form);
  unsigned bits_;
  std::vector<std::vector<Form>> forms_;
};

jit::Decoder make_decoder(unsigned bits);

}  // namespace penumbra::fuzz
