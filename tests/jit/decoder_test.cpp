#include "jit/decoder.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <span>
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

// How many bytes make #UD out of #PF where the next page is absent: what an AMD EPYC did at CPL 3.
struct Undefined {
  ModeBits mode;
  std::vector<uint8_t> bytes;
};

void expect_fetched_whole(std::span<const Undefined> all) {
  for (const Undefined& undefined : all) {
    const Decoder decoder(undefined.mode);
    const std::span<const uint8_t> bytes = undefined.bytes;
    GuestInstruction insn;
    for (size_t count = 1; count < bytes.size(); ++count) {
      EXPECT_EQ(decoder.decode(bytes.first(count), 0x100, insn), Decoder::Status::Truncated)
          << testing::PrintToString(undefined.bytes) << ' ' << count;
    }
    EXPECT_EQ(decoder.decode(bytes, 0x100, insn), Decoder::Status::Invalid)
        << testing::PrintToString(undefined.bytes);
    EXPECT_EQ(insn.zydis.length, bytes.size()) << testing::PrintToString(undefined.bytes);
  }
}

TEST(Decoder, UndefinedGroupsNeedTheirDisplacementAndImmediateToBeUndefined) {
  constexpr ModeBits k64 = {ModeBits::kCode64}, k32 = {ModeBits::kCode32}, k16 = {};
  const Undefined all[] = {
      {k64, {0xff, 0xbb, 0, 0, 0, 0}},  // FF /7 disp32
      {k64, {0x67, 0xff, 0xbb, 0, 0, 0, 0}},
      {k64, {0xff, 0x3c, 0x25, 0, 0, 0, 0}},     // disp32 without a base
      {k64, {0xfe, 0x54, 0, 0}},                 // SIB, disp8
      {k64, {0xfe, 0xd0}},                       // a register
      {k64, {0xc6, 0x88, 0, 0, 0, 0, 0}},        // disp32, imm8
      {k64, {0xc7, 0x48, 0, 0, 0, 0, 0}},        // disp8, imm32
      {k64, {0x66, 0xc7, 0x48, 0, 0, 0}},        // disp8, imm16
      {k64, {0x0f, 0xba, 0x80, 0, 0, 0, 0, 0}},  // disp32, imm8
      {k64, {0x66, 0x0f, 0x73, 0x80, 0, 0, 0, 0, 0}},
      {k64, {0xd9, 0x88, 0, 0, 0, 0}},
      {k64, {0xd9, 0xd1}},
      {k64, {0x8e, 0x88, 0, 0, 0, 0}},  // MOV to CS
      {k64, {0x0f, 0xc7, 0x80, 0, 0, 0, 0}},
      {k64, {0xf0, 0xff, 0xb8, 0, 0, 0, 0}},
      {k64, {0xf3, 0x0f, 0x28, 0x80, 0, 0, 0, 0}},
      {k64, {0x0f, 0x38, 0x7f, 0x80, 0, 0, 0, 0}},
      {k64, {0x0f, 0x3a, 0x7f, 0x80, 0, 0, 0, 0, 0}},
      {k64, {0x0f, 0x04}},
      {k64, {0x06}},
      {k64, {0x82, 0xc0, 0}},
      {k64, {0x9a, 0, 0, 0, 0, 0, 0}},
      {k64, {0xd4, 0x0a}},
      {k32, {0xff, 0xbb, 0, 0, 0, 0}},
      {k32, {0x67, 0xff, 0xbb, 0, 0}},
      {k32, {0x67, 0xff, 0x3e, 0, 0}},  // disp16 without a base
      {k16, {0xff, 0xbb, 0, 0}},
      {k16, {0x67, 0xff, 0xbb, 0, 0, 0, 0}},
      {k16, {0xc7, 0xc8, 0, 0}},
      {k16, {0x66, 0xc7, 0xc8, 0, 0, 0, 0}},
  };
  expect_fetched_whole(all);
}

// As above: with fewer bytes the page behind them was asked for.
TEST(Decoder, UndefinedVexIsFetchedAsItsOpcodeIsWithoutIt) {
  constexpr ModeBits k64 = {ModeBits::kCode64}, k32 = {ModeBits::kCode32};
  const Undefined all[] = {
      {k64, {0xc5, 0xf8, 0x04}},  // no ModRM
      {k64, {0xc5, 0xf8, 0xaa}},  // RSM
      {k64, {0xc4, 0xe1, 0x78, 0x31}},
      {k64, {0xc5, 0xf8, 0x20, 0x84}},                       // ModRM alone
      {k64, {0xc5, 0xf8, 0x80, 0, 0, 0, 0}},                 // rel32
      {k64, {0xc5, 0xf8, 0xd0, 0x84, 0x24, 0, 0, 0, 0}},     // pp that it does not have: SIB, disp32
      {k64, {0xc5, 0xfc, 0x6e, 0x80, 0, 0, 0, 0}},           // L
      {k64, {0xc5, 0xb8, 0x10, 0x80, 0, 0, 0, 0}},           // vvvv
      {k64, {0xc5, 0xf8, 0x70, 0x80, 0, 0, 0, 0, 0}},        // disp32, imm8
      {k64, {0xc5, 0xf8, 0xa4, 0x04, 0x25, 0, 0, 0, 0, 0}},  // disp32 without a base, imm8
      {k64, {0xc5, 0xf8, 0x78, 0xc0, 0, 0}},                 // EXTRQ's two
      {k64, {0xc4, 0xe0, 0x78, 0x58, 0x40, 0}},              // maps that do not exist
      {k64, {0xc4, 0xff, 0x78, 0x58, 0x80, 0, 0, 0, 0}},
      {k64, {0xc4, 0xe2, 0x78, 0x04, 0x80, 0, 0, 0, 0}},
      {k64, {0xc4, 0xe3, 0x78, 0x0f, 0xc0, 0}},           // imm8
      {k64, {0x66, 0xc5, 0xf8, 0x58, 0x80, 0, 0, 0, 0}},  // prefixes that VEX refuses
      {k64, {0xf0, 0xc5, 0xf8, 0x58, 0xc0}},
      {k64, {0xf3, 0xc5, 0xf8, 0x04}},
      {k64, {0x40, 0xc5, 0xf8}},                    // LDS, which 64-bit mode does not have
      {k64, {0x48, 0xc4, 0x84, 0x24, 0, 0, 0, 0}},  // LES
      {k32, {0xc5, 0xf8, 0xd0, 0x84, 0x24, 0, 0, 0, 0}},
      {k32, {0xc5, 0xf8, 0x04}},
      {k32, {0x67, 0xc5, 0xf8, 0xd0, 0x86, 0, 0}},  // disp16
  };
  expect_fetched_whole(all);
}

TEST(Decoder, Ud0AndUd1HaveAModRmByteToIntelOnly) {
  for (const uint8_t opcode : {0xb9, 0xff}) {
    const std::vector<uint8_t> bytes = {0x66, 0x0f, opcode};
    GuestInstruction insn;
    EXPECT_EQ(Decoder({ModeBits::kCode64}).decode(bytes, 0x100, insn), Decoder::Status::Truncated);
    EXPECT_EQ(Decoder({ModeBits::kCode64 | ModeBits::kAmd}).decode(bytes, 0x100, insn),
              Decoder::Status::Invalid);
    EXPECT_EQ(insn.zydis.length, 3);
  }
}

}  // namespace
}  // namespace penumbra::jit
