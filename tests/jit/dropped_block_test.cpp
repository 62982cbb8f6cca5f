// Blocks that are dropped while they run.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/jit/bare_guest.h"

namespace penumbra::test {
namespace {

class DroppedBlockTest : public testing::TestWithParam<jit::TranslatorOptions::Mmu> {
 protected:
  DroppedBlockTest() {
    jit::TranslatorOptions options;
    options.code_cache_bytes = 4 << 20;
    options.mmu = GetParam();
    guest_ = std::make_unique<BareGuest>(64, options);
  }
  std::unique_ptr<BareGuest> guest_;
};

// The page of code is a page table as well, and the walk for the block's first access sets the accessed bit
// in the immediate of its last instruction.
TEST_P(DroppedBlockTest, AccessedBitInTheRunningBlock) {
  constexpr uint8_t kProgram[] = {
      0x03, 0x03,                                         // add eax, [rbx], so that no flags are to be kept
      0x0f, 0x1f, 0x40, 0x00,                             // nop
      0x48, 0xb9, 0x07, 0x00, 0x50, 0x00, 0x00, 0, 0, 0,  // mov rcx, a page table entry for 0x500000
      0xf4,                                               // hlt
  };
  constexpr uint64_t kPhysical = 0x40'0000, kData = 0x50'0000, kTableBegin = BareGuest::kCode + 0x20'0000;
  constexpr uint32_t kValue = 0x1234'5678, kAccessed = 0x20;
  guest_->load(kProgram);
  guest_->map().write({0x3000 + (kTableBegin >> 21) * 8}, 8, kPhysical | 7);
  Registers registers;
  registers.rip = BareGuest::kCode;
  registers.gpr[kRsp] = BareGuest::kStackTop;
  registers.gpr[kRbx] = kTableBegin + kPageSize;  // entry 1, at byte 8
  guest_->map().write({kData}, 4, kValue);
  const auto outcome = guest_->run(registers);
  EXPECT_EQ(outcome.end, BareGuest::End::Halted);
  EXPECT_EQ(outcome.registers.gpr[kRax], kValue);
  EXPECT_EQ(outcome.registers.gpr[kRcx] & ~uint64_t{kAccessed}, kData | 7);
  EXPECT_EQ(guest_->map().read({kPhysical + 8}, 8), kData | 7 | kAccessed);
}

INSTANTIATE_TEST_SUITE_P(Modes, DroppedBlockTest,
                         testing::Values(jit::TranslatorOptions::Mmu::Tlb,
                                         jit::TranslatorOptions::Mmu::Windows),
                         [](const auto& parameter) {
                           return parameter.param == jit::TranslatorOptions::Mmu::Tlb ? "tlb" : "windows";
                         });

}  // namespace
}  // namespace penumbra::test
