#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

class Flags : public VcpuTest {
 protected:
  void pop(uint64_t value, unsigned bytes) {
    s().rip = kCode;
    s().gpr[kRsp] = kStack;
    set_mem(kStack, bytes, value);
    ASSERT_TRUE(cpu().execute(insn(SystemOp::Popf, 1, bytes)));
    EXPECT_EQ(s().gpr[kRsp], kStack + bytes);
  }
};

constexpr uint64_t kAll = 0xffff'ffff;

TEST_F(Flags, PopfByPrivilege) {
  long_mode(0);
  s().rflags = flag::kFixed1;
  pop(kAll & ~flag::kTf, 8);
  EXPECT_EQ(s().rflags, flag::kFixed1 | flag::kArithmetic | flag::kIf | flag::kDf | flag::kIopl | flag::kNt |
                            flag::kAc | flag::kId);
  long_mode(3);
  s().rflags = flag::kFixed1;
  pop(kAll & ~flag::kTf, 8);
  EXPECT_EQ(s().rflags, flag::kFixed1 | flag::kArithmetic | flag::kDf | flag::kNt | flag::kAc | flag::kId);
  s().rflags = flag::kFixed1 | flag::kIopl;
  pop(flag::kIf, 8);
  EXPECT_EQ(s().rflags, flag::kFixed1 | flag::kIopl | flag::kIf);
}

// Misaligned accesses right behind a POPF that sets AC went unnoticed: they were translated for the mode
// before it.
TEST_F(Flags, PopfThatArmsAlignmentChecksEndsTheBlock) {
  long_mode(3);
  s().cr0 |= cr0::kAm;
  for (const uint64_t value : {flag::kAc, uint64_t{0}}) {
    s().gpr[kRsp] = kStack;
    set_mem(kStack, 8, value);
    const auto outcome = cpu().execute(insn(SystemOp::Popf, 1, 8));
    ASSERT_TRUE(outcome);
    EXPECT_EQ(*outcome, Outcome::Redirect);
    EXPECT_EQ(s().mode.has(ModeBits::kAlignment), value != 0);
  }
}

TEST_F(Flags, NarrowPopfLeavesTheUpperHalf) {
  protected_mode(0);
  s().rflags = flag::kFixed1 | flag::kAc | flag::kId;
  pop(flag::kCf, 2);
  EXPECT_EQ(s().rflags, flag::kFixed1 | flag::kAc | flag::kId | flag::kCf);
}

TEST_F(Flags, PushfHidesVmAndRf) {
  protected_mode(0);
  s().rflags = flag::kFixed1 | flag::kRf | flag::kCf;
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Pushf, 1, 4)));
  EXPECT_EQ(mem(kStack - 4, 4), flag::kFixed1 | flag::kCf | 0u);
}

TEST_F(Flags, InterruptFlagNeedsIopl) {
  long_mode(3);
  expect_fault(insn(SystemOp::Cli, 1), vector::kGp, 0);
  expect_fault(insn(SystemOp::Sti, 1), vector::kGp, 0);
  s().rflags |= flag::kIopl;
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Sti, 1)));
  EXPECT_TRUE(s().rflags & flag::kIf);
  EXPECT_TRUE(s().interrupt_shadow);
  s().interrupt_shadow = false;
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Sti, 1)));  // set already: no shadow
  EXPECT_FALSE(s().interrupt_shadow);
}

TEST_F(Flags, Virtual8086ModeExtensions) {
  v8086_mode(0);
  expect_fault(insn(SystemOp::Pushf, 1, 2), vector::kGp, 0);
  expect_fault(insn(SystemOp::Cli, 1), vector::kGp, 0);
  s().cr4 |= cr4::kVme;
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Sti, 1)));
  EXPECT_TRUE(s().rflags & flag::kVif);
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Pushf, 1, 2)));
  EXPECT_EQ(mem(0x4000 + 0x7fe, 2) & (flag::kIf | flag::kIopl), flag::kIf | flag::kIopl);
  s().rflags |= flag::kVip;
  expect_fault(insn(SystemOp::Sti, 1), vector::kGp, 0);
}

TEST_F(Flags, SingleStepChangesTheMode) {
  long_mode(0);
  s().gpr[kRsp] = kStack;
  set_mem(kStack, 8, flag::kTf);
  expect_redirect(insn(SystemOp::Popf, 1, 8));
  EXPECT_TRUE(s().mode.has(ModeBits::kSingleStep));
}

}  // namespace
}  // namespace penumbra
