#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

class SegmentTest : public VcpuTest {
 protected:
  SystemInstruction load(SegmentIndex index, uint16_t selector) {
    auto i = insn(SystemOp::MovToSreg);
    i.reg = index;
    i.rm = kRax;
    s().gpr[kRax] = selector;
    return i;
  }
  bool run(const SystemInstruction& i) {
    s().rip = i.rip;
    return cpu().execute(i).has_value();
  }
};

TEST_F(SegmentTest, RealModeKeepsTheLimit) {
  s().cr0 = cr0::kEt;
  cpu().update_mode();
  s().segments[kDs].limit = 0xffff'ffff;  // as protected mode left it
  ASSERT_TRUE(run(load(kDs, 0x1234)));
  EXPECT_EQ(s().segments[kDs].base, 0x1'2340u);
  EXPECT_EQ(s().segments[kDs].limit, 0xffff'ffffu);
}

TEST_F(SegmentTest, LoadSetsAccessedAndTheHiddenPart) {
  protected_mode(0);
  set_descriptor(kFree, descriptor(0x12'3456, 0x7fff, 0x0092));
  ASSERT_TRUE(run(load(kEs, kFree)));
  EXPECT_EQ(s().segments[kEs].base, 0x12'3456u);
  EXPECT_EQ(s().segments[kEs].limit, 0x7fffu);
  EXPECT_TRUE(get_descriptor(kFree) >> 40 & 1);
  EXPECT_FALSE(s().mode.has(ModeBits::kFlatEs));
}

TEST_F(SegmentTest, DataSegmentChecks) {
  protected_mode(3);
  expect_fault(load(kDs, kData32), vector::kGp, kData32);
  expect_fault(load(kDs, kData32 | 3), vector::kGp, kData32);
  expect_fault(load(kDs, kTssSel | 3), vector::kGp, kTssSel);
  expect_fault(load(kDs, 0x1000), vector::kGp, 0x1000);
  set_descriptor(kFree, descriptor(0, 0xf'ffff, 0xc0f8));  // execute-only
  expect_fault(load(kDs, kFree | 3), vector::kGp, kFree);
  set_descriptor(kFree, descriptor(0, 0xf'ffff, 0xc072));
  expect_fault(load(kDs, kFree | 3), vector::kNp, kFree);
  EXPECT_TRUE(run(load(kDs, kConforming | 3)));
  EXPECT_TRUE(run(load(kDs, 0)));
  EXPECT_FALSE(s().segments[kDs].present());
}

TEST_F(SegmentTest, StackSegmentChecks) {
  protected_mode(0);
  expect_fault(load(kSs, 0), vector::kGp, 0);
  expect_fault(load(kSs, kUserData32), vector::kGp, kUserData32 & 0xfffc);
  expect_fault(load(kSs, kCode32), vector::kGp, kCode32);
  set_descriptor(kFree, descriptor(0, 0xf'ffff, 0xc012));
  expect_fault(load(kSs, kFree), vector::kSs, kFree);
  ASSERT_TRUE(run(load(kSs, kData16)));
  EXPECT_TRUE(s().interrupt_shadow);
  EXPECT_FALSE(s().mode.has(ModeBits::kStack32));
}

TEST_F(SegmentTest, CsCannotBeLoaded) {
  protected_mode(0);
  expect_fault(load(kCs, kCode32), vector::kUd, 0);
}

TEST_F(SegmentTest, NullStackSegmentInLongModeBelowRing3) {
  long_mode(0);
  EXPECT_TRUE(run(load(kSs, 0)));
  long_mode(3);
  expect_fault(load(kSs, 3), vector::kGp, 0);
}

TEST_F(SegmentTest, LocalDescriptorTable) {
  protected_mode(0);
  expect_fault(load(kEs, 0x0c), vector::kGp, 0x0c);
  auto lldt = insn(SystemOp::Lldt);
  lldt.rm = kRax;
  s().gpr[kRax] = kLdtSel;
  ASSERT_TRUE(run(lldt));
  set_mem(kLdt + 8, 8, descriptor(0x5000, 0xfff, 0x0092));
  ASSERT_TRUE(run(load(kEs, 0x0c)));
  EXPECT_EQ(s().segments[kEs].base, 0x5000u);
}

TEST_F(SegmentTest, LoadTaskRegisterMarksItBusy) {
  protected_mode(0);
  auto ltr = insn(SystemOp::Ltr);
  ltr.rm = kRax;
  s().gpr[kRax] = kTss2Sel;
  ASSERT_TRUE(run(ltr));
  EXPECT_EQ(s().tr.base, kTss2);
  EXPECT_TRUE(get_descriptor(kTss2Sel) >> 41 & 1);
  expect_fault(ltr, vector::kGp, kTss2Sel);  // busy now
}

TEST_F(SegmentTest, LimitChecks) {
  protected_mode(0);
  s().segments[kDs].limit = 0xfff;
  EXPECT_TRUE(cpu().linearize(kDs, 0xffc, 4, AccessKind::Read));
  EXPECT_EQ(cpu().linearize(kDs, 0xffd, 4, AccessKind::Read).error().vector, vector::kGp);
  EXPECT_EQ(cpu().linearize(kSs, 0xffff'fffd, 4, AccessKind::Read).error().vector, vector::kSs);
  // Expand-down: valid above the limit.
  s().segments[kDs].attributes = 0xc096;
  EXPECT_FALSE(cpu().linearize(kDs, 0xfff, 1, AccessKind::Read));
  EXPECT_TRUE(cpu().linearize(kDs, 0x1000, 4, AccessKind::Write));
  s().segments[kDs].attributes = 0xc090;  // read-only
  s().segments[kDs].limit = 0xffff'ffff;
  EXPECT_TRUE(cpu().linearize(kDs, 0, 4, AccessKind::Read));
  EXPECT_FALSE(cpu().linearize(kDs, 0, 4, AccessKind::Write));
  s().segments[kDs] = Segment{};
  EXPECT_EQ(cpu().linearize(kDs, 0, 4, AccessKind::Read).error().vector, vector::kGp);
}

TEST_F(SegmentTest, SixtyFourBitModeChecksCanonicalFormOnly) {
  long_mode(0);
  EXPECT_TRUE(cpu().linearize(kDs, 0xffff'8000'0000'0000, 8, AccessKind::Write));
  EXPECT_EQ(cpu().linearize(kDs, 0x7fff'ffff'fffc, 8, AccessKind::Read).error().vector, vector::kGp);
  EXPECT_EQ(cpu().linearize(kSs, 0x8000'0000'0000, 8, AccessKind::Read).error().vector, vector::kSs);
}

TEST_F(SegmentTest, NonCanonicalOffsetFromGsIsNoGpOnAmd) {
  long_mode(3);
  s().segments[kGs].base = 0x5a5a'1000'2000;
  EXPECT_TRUE(cpu().linearize(kGs, 0xffff'a5a6'0000'0000, 8, AccessKind::Read));
  const bool amd = cpu().model().is_amd();
  EXPECT_EQ(!cpu().linearize(kGs, 0xffff'5a5a'5fe1'0000, 8, AccessKind::Read), amd);  // 0xffffb4b46fe12000
  s().segments[kGs].base = 0xffff'9000'0000'0000;
  EXPECT_TRUE(cpu().linearize(kGs, 0x7fff'ffff'fff8, 8, AccessKind::Read));
  EXPECT_EQ(!cpu().linearize(kGs, 0x7fff'ffff'fff9, 8, AccessKind::Read), amd);
}

TEST_F(SegmentTest, ExaminingInstructions) {
  protected_mode(3);
  auto lar = insn(SystemOp::Lar);
  lar.reg = kRbx;
  lar.rm = kRax;
  s().gpr[kRax] = kUserData32;
  ASSERT_TRUE(run(lar));
  EXPECT_TRUE(s().rflags & flag::kZf);
  EXPECT_EQ(s().gpr[kRbx] & ~0x000f'0000ull, 0x00c0'f200u);  // the rest is undefined (SDM vol. 2, LAR)
  auto lsl = lar;
  lsl.op = SystemOp::Lsl;
  ASSERT_TRUE(run(lsl));
  EXPECT_EQ(s().gpr[kRbx], 0xffff'ffffu);
  s().gpr[kRax] = kData32;  // not visible from ring 3
  ASSERT_TRUE(run(lar));
  EXPECT_FALSE(s().rflags & flag::kZf);
  auto verw = lar;
  verw.op = SystemOp::Verw;
  s().gpr[kRax] = kUserData32;
  ASSERT_TRUE(run(verw));
  EXPECT_TRUE(s().rflags & flag::kZf);
  s().gpr[kRax] = kUserCode32;
  ASSERT_TRUE(run(verw));
  EXPECT_FALSE(s().rflags & flag::kZf);
}

TEST_F(SegmentTest, PopOfASegmentThatFaultsKeepsTheStackPointer) {
  protected_mode(0);
  set_mem(kStack, 4, 0x1000);
  auto pop = insn(SystemOp::PopSreg, 1);
  pop.reg = kDs;
  expect_fault(pop, vector::kGp, 0x1000);
}

TEST_F(SegmentTest, LoadFarPointer) {
  protected_mode(0);
  set_mem(0x6000, 4, 0x1234'5678);
  set_mem(0x6004, 2, kData16);
  auto les = memory_insn(SystemOp::LoadFarPointer, 0x6000);
  les.reg = kRbx;
  les.selector = kEs;
  ASSERT_TRUE(run(les));
  EXPECT_EQ(s().gpr[kRbx], 0x1234'5678u);
  EXPECT_EQ(s().segments[kEs].selector, kData16);
  set_mem(0x6004, 2, 0x1000);
  expect_fault(les, vector::kGp, 0x1000);
  EXPECT_EQ(s().gpr[kRbx], 0x1234'5678u);
}

TEST_F(SegmentTest, UserModeInstructionPrevention) {
  long_mode(3);
  auto sgdt = memory_insn(SystemOp::Sgdt, 0x6000);
  ASSERT_TRUE(run(sgdt));
  EXPECT_EQ(mem(0x6000, 2), 0xffu);
  EXPECT_EQ(mem(0x6002, 8), kGdt);
  s().rip = kCode;
  s().cr4 |= cr4::kUmip;
  for (const SystemOp op : {SystemOp::Sgdt, SystemOp::Sidt, SystemOp::Sldt, SystemOp::Str, SystemOp::Smsw}) {
    expect_fault(memory_insn(op, 0x6000), vector::kGp, 0);
  }
}

}  // namespace
}  // namespace penumbra
