#include "jit/decoder.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

namespace penumbra::jit {
namespace {

GuestInstruction decode(ModeBits mode, std::initializer_list<uint8_t> bytes) {
  std::vector<uint8_t> code(bytes);
  code.resize(kMaxInstructionBytes, 0x90);
  GuestInstruction insn;
  EXPECT_EQ(Decoder(mode).decode(code, 0x100, insn), Decoder::Status::Ok);
  return insn;
}

TEST(Decoder, DsPrefixOfAnIndirectJumpIsNoNotrack) {
  const GuestInstruction call = decode({}, {0x3e, 0xff, 0x92, 0x88, 0x35});  // call [ds:bp+si+3588h]
  EXPECT_EQ(segment_index(call.memory_operand()->mem.segment), kDs);
  const GuestInstruction jump = decode({ModeBits::kCode32}, {0x3e, 0xff, 0x65, 0x04});  // jmp [ds:ebp+4]
  EXPECT_EQ(segment_index(jump.memory_operand()->mem.segment), kDs);
}

}  // namespace
}  // namespace penumbra::jit
