#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

class TaskSwitchTest : public VcpuTest {
 protected:
  void make_task(uint32_t eip = 0x6000) {
    for (unsigned i = 0; i < 104; i += 4) set_mem(kTss2 + i, 4, 0);
    set_mem(kTss2 + 0x20, 4, eip);
    set_mem(kTss2 + 0x24, 4, flag::kFixed1 | flag::kCf);
    for (unsigned i = 0; i < 8; ++i) set_mem(kTss2 + 0x28 + i * 4, 4, 0x100 * (i + 1));
    set_mem(kTss2 + 0x38, 4, 0xb000);
    for (const unsigned offset : {0x48u, 0x50u, 0x54u, 0x58u, 0x5cu}) set_mem(kTss2 + offset, 4, kData32);
    set_mem(kTss2 + 0x4c, 4, kCode32);
  }
  bool busy(uint16_t selector) { return get_descriptor(selector) >> 41 & 1; }
};

TEST_F(TaskSwitchTest, JumpSavesAndLoadsEverything) {
  protected_mode(0);
  make_task();
  for (unsigned i = 0; i < 8; ++i) s().gpr[i] = 0xaa00 + i;
  s().dr[7] |= 0x55;
  expect_redirect(far_insn(SystemOp::JmpFar, kTss2Sel, 0));
  EXPECT_EQ(s().rip, 0x6000u);
  EXPECT_EQ(s().tr.selector, kTss2Sel);
  EXPECT_EQ(s().rflags, flag::kFixed1 | flag::kCf | 0u);
  for (unsigned i = 0; i < 8; ++i) {
    EXPECT_EQ(s().gpr[i], i == kRsp ? 0xb000 : 0x100u * (i + 1));
    EXPECT_EQ(mem(kTss + 0x28 + i * 4, 4), 0xaa00 + i);
  }
  EXPECT_EQ(mem(kTss + 0x20, 4), kCode + 7);
  EXPECT_EQ(mem(kTss + 0x4c, 2), kCode32);
  EXPECT_TRUE(s().cr0 & cr0::kTs);
  EXPECT_EQ(s().dr[7] & 0x55, 0u);
  EXPECT_FALSE(busy(kTssSel));
  EXPECT_TRUE(busy(kTss2Sel));
}

TEST_F(TaskSwitchTest, CallNestsAndIretReturns) {
  protected_mode(0);
  make_task();
  expect_redirect(far_insn(SystemOp::CallFar, kTss2Sel, 0));
  EXPECT_TRUE(s().rflags & flag::kNt);
  EXPECT_EQ(mem(kTss2, 2), kTssSel);
  EXPECT_TRUE(busy(kTssSel));
  expect_redirect(insn(SystemOp::Iret, 1));
  EXPECT_EQ(s().rip, kCode + 7);
  EXPECT_EQ(s().tr.selector, kTssSel);
  EXPECT_EQ(s().gpr[kRsp], kStack);
  EXPECT_FALSE(busy(kTss2Sel));
  EXPECT_FALSE(mem(kTss2 + 0x24, 4) & flag::kNt);
}

TEST_F(TaskSwitchTest, TaskGate) {
  protected_mode(0);
  make_task();
  set_descriptor(kGate, gate(kTss2Sel, 0, 0x85));
  expect_redirect(far_insn(SystemOp::JmpFar, kGate, 0));
  EXPECT_EQ(s().tr.selector, kTss2Sel);
}

TEST_F(TaskSwitchTest, ChecksInTheOldTask) {
  protected_mode(0);
  make_task();
  expect_fault(far_insn(SystemOp::JmpFar, kTssSel, 0), vector::kGp, kTssSel);  // busy
  set_descriptor(kTss2Sel, descriptor(kTss2, 0x66, 0x0089));
  expect_fault(far_insn(SystemOp::JmpFar, kTss2Sel, 0), vector::kTs, kTss2Sel);  // too small
  set_descriptor(kTss2Sel, descriptor(kTss2, 0x67, 0x0009));
  expect_fault(far_insn(SystemOp::JmpFar, kTss2Sel, 0), vector::kNp, kTss2Sel);
  EXPECT_EQ(s().tr.selector, kTssSel);
}

// SDM vol. 3, 7.3: the checks of the new segments fail in the new task.
TEST_F(TaskSwitchTest, BadSegmentsFaultInTheNewTask) {
  protected_mode(0);
  make_task();
  set_mem(kTss2 + 0x50, 4, kUserData32);  // SS
  const auto result = cpu().execute(far_insn(SystemOp::JmpFar, kTss2Sel, 0));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().vector, vector::kTs);
  EXPECT_EQ(result.error().error_code, kUserData32 & 0xfffcu);
  EXPECT_EQ(s().tr.selector, kTss2Sel);
  EXPECT_EQ(s().rip, 0x6000u);
}

TEST_F(TaskSwitchTest, DebugTrapBit) {
  protected_mode(0);
  make_task();
  set_mem(kTss2 + 0x64, 2, 1);
  const auto result = cpu().execute(far_insn(SystemOp::JmpFar, kTss2Sel, 0));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().vector, vector::kDb);
  EXPECT_EQ(result.error().dr6, 1u << 15);
  EXPECT_EQ(s().rip, 0x6000u);
}

TEST_F(TaskSwitchTest, SixteenBitTss) {
  protected_mode(0);
  set_descriptor(kTss2Sel, descriptor(kTss2, 0x2b, 0x0081));
  for (unsigned i = 0; i < 0x2c; i += 2) set_mem(kTss2 + i, 2, 0);
  set_mem(kTss2 + 0x0e, 2, 0x6000);
  set_mem(kTss2 + 0x10, 2, flag::kFixed1);
  set_mem(kTss2 + 0x12, 2, 0x1234);
  set_mem(kTss2 + 0x1a, 2, 0x7ff0);
  set_mem(kTss2 + 0x22, 2, kData16);
  set_mem(kTss2 + 0x24, 2, kCode16);
  set_mem(kTss2 + 0x26, 2, kData16);
  set_mem(kTss2 + 0x28, 2, kData16);
  expect_redirect(far_insn(SystemOp::JmpFar, kTss2Sel, 0));
  EXPECT_EQ(s().rip, 0x6000u);
  EXPECT_EQ(s().gpr[kRax] & 0xffff, 0x1234u);
  EXPECT_EQ(s().segments[kSs].selector, kData16);
  EXPECT_FALSE(s().mode.has(ModeBits::kStack32));
}

TEST_F(TaskSwitchTest, NoTasksInLongMode) {
  long_mode(0);
  set_mem(0x6000, 4, 0);
  set_mem(0x6004, 2, kTss2Sel);
  expect_fault(memory_insn(SystemOp::JmpFar, 0x6000, 4), vector::kGp, kTss2Sel);
}

}  // namespace
}  // namespace penumbra
