#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

class FarTransfer : public VcpuTest {
 protected:
  void push_items(std::initializer_list<uint64_t> items, unsigned bytes) {
    uint64_t at = s().segments[kSs].base + s().gpr[kRsp];
    for (const uint64_t item : items) {
      set_mem(at, bytes, item);
      at += bytes;
    }
  }
  void expect_at(uint16_t cs, uint64_t rip, unsigned cpl) {
    EXPECT_EQ(s().segments[kCs].selector, cs);
    EXPECT_EQ(s().rip, rip);
    EXPECT_EQ(s().cpl, cpl);
  }
  SystemInstruction iret(unsigned bytes) { return insn(SystemOp::Iret, 1, bytes); }
};

// --- IRET

TEST_F(FarTransfer, IretToUserDropsThePrivilegedSegments) {
  protected_mode(0);
  push_items({0x7000, kUserCode32, flag::kFixed1 | flag::kIf, 0x8800, kUserData32}, 4);
  expect_redirect(iret(4));
  expect_at(kUserCode32, 0x7000, 3);
  EXPECT_EQ(s().gpr[kRsp], 0x8800u);
  EXPECT_EQ(s().segments[kSs].selector, kUserData32);
  EXPECT_EQ(s().segments[kDs].selector, 0);
  EXPECT_FALSE(s().segments[kDs].present());
  EXPECT_TRUE(s().rflags & flag::kIf);
  EXPECT_TRUE(s().mode.has(ModeBits::kUser));
}

TEST_F(FarTransfer, IretFromUserCannotChangeWhatIsNotItsOwn) {
  protected_mode(3);
  push_items({0x7000, kUserCode32, flag::kFixed1 | flag::kIf | flag::kIopl | flag::kCf}, 4);
  expect_redirect(iret(4));
  EXPECT_EQ(s().rflags, flag::kFixed1 | flag::kCf | 0u);
  EXPECT_EQ(s().gpr[kRsp], kStack + 12);
}

TEST_F(FarTransfer, IretToAnInnerRingIsRefused) {
  protected_mode(3);
  push_items({0x7000, kCode32, flag::kFixed1}, 4);
  expect_fault(iret(4), vector::kGp, kCode32);
  push_items({0x7000, 0, flag::kFixed1}, 4);
  expect_fault(iret(4), vector::kGp, 0);
  push_items({0x7000, kUserData32, flag::kFixed1}, 4);
  expect_fault(iret(4), vector::kGp, kUserData32 & 0xfffc);
}

TEST_F(FarTransfer, IretToVirtual8086) {
  protected_mode(0);
  push_items({0x100, 0x2000, flag::kFixed1 | flag::kVm, 0x800, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000}, 4);
  expect_redirect(iret(4));
  expect_at(0x2000, 0x100, 3);
  EXPECT_TRUE(s().rflags & flag::kVm);
  EXPECT_EQ(s().gpr[kRsp], 0x800u);
  EXPECT_EQ(s().segments[kGs].base, 0x7'0000u);
  EXPECT_FALSE(s().mode.has(ModeBits::kProtected));
}

TEST_F(FarTransfer, IretInVirtual8086NeedsIopl) {
  v8086_mode(0);
  expect_fault(iret(2), vector::kGp, 0);
  v8086_mode(3);
  push_items({0x200, 0x1234, flag::kFixed1 | flag::kCf}, 2);
  expect_redirect(iret(2));
  expect_at(0x1234, 0x200, 3);
  EXPECT_EQ(s().rflags & (flag::kIopl | flag::kVm), flag::kIopl | flag::kVm);
}

TEST_F(FarTransfer, IretqAlwaysPopsTheStack) {
  long_mode(0);
  push_items({0x7000, kCode64, flag::kFixed1, 0x8808, 0}, 8);
  expect_redirect(iret(8));
  expect_at(kCode64, 0x7000, 0);
  EXPECT_EQ(s().gpr[kRsp], 0x8808u);
  EXPECT_EQ(s().segments[kSs].selector, 0);

  long_mode(0);
  push_items({0x7000, kUserCode64, flag::kFixed1, 0x8800, kUserData32}, 8);
  expect_redirect(iret(8));
  expect_at(kUserCode64, 0x7000, 3);
}

TEST_F(FarTransfer, IretqToCompatibilityMode) {
  long_mode(0);
  push_items({0x7000, kUserCode32, flag::kFixed1, 0x1234'0000'8800, kUserData32}, 8);
  expect_redirect(iret(8));
  expect_at(kUserCode32, 0x7000, 3);
  EXPECT_EQ(s().gpr[kRsp], 0x8800u);
  EXPECT_FALSE(s().mode.has(ModeBits::kCode64));
  EXPECT_TRUE(s().mode.has(ModeBits::kCode32));
}

TEST_F(FarTransfer, IretqChecks) {
  long_mode(0);
  push_items({0x0000'9000'0000'0000, kUserCode64, flag::kFixed1, 0x8800, kUserData32}, 8);
  expect_fault(iret(8), vector::kGp, 0);
  push_items({0x7000, kUserCode64, flag::kFixed1, 0x8800, 0}, 8);
  expect_fault(iret(8), vector::kGp, 0);
  push_items({0x7000, kUserCode64, flag::kFixed1, 0x8800, kData32}, 8);
  expect_fault(iret(8), vector::kGp, kData32);
  s().rflags |= flag::kNt;
  expect_fault(iret(8), vector::kGp, 0);
}

TEST_F(FarTransfer, FaultingIretKeepsTheNmiBlock) {
  long_mode(0);
  s().nmi_blocked = true;
  push_items({0x7000, 0, flag::kFixed1, 0x8800, 0}, 8);
  expect_fault(iret(8), vector::kGp, 0);
  EXPECT_TRUE(s().nmi_blocked);
}

TEST_F(FarTransfer, IretWithNestedTaskSwitchesBack) {
  protected_mode(0);
  for (unsigned i = 0; i < 104; i += 4) set_mem(kTss2 + i, 4, 0);
  set_mem(kTss2 + 0x20, 4, 0x6000);
  set_mem(kTss2 + 0x24, 4, flag::kFixed1);
  set_mem(kTss2 + 0x38, 4, 0xb000);
  for (const unsigned offset : {0x48u, 0x50u, 0x54u, 0x58u, 0x5cu}) set_mem(kTss2 + offset, 4, kData32);
  set_mem(kTss2 + 0x4c, 4, kCode32);
  set_descriptor(kTss2Sel, get_descriptor(kTss2Sel) | uint64_t{2} << 40);
  set_mem(kTss, 2, kTss2Sel);
  s().rflags |= flag::kNt;
  expect_redirect(iret(4));
  expect_at(kCode32, 0x6000, 0);
  EXPECT_EQ(s().tr.selector, kTss2Sel);
  EXPECT_FALSE(get_descriptor(kTssSel) >> 41 & 1);  // free again
  EXPECT_FALSE(mem(kTss + 0x24, 4) & flag::kNt);    // and not nested
}

// --- far jumps, calls and returns

TEST_F(FarTransfer, RealModeCallAndReturn) {
  s().cr0 = cr0::kEt;
  for (auto& segment : s().segments)
    segment = {.base = 0, .limit = 0xffff, .selector = 0, .attributes = 0x93};
  s().rip = 0x100;
  s().gpr[kRsp] = 0x8000;
  cpu().update_mode();
  expect_redirect(far_insn(SystemOp::CallFar, 0x1234, 0x5678, 2));
  expect_at(0x1234, 0x5678, 0);
  EXPECT_EQ(s().segments[kCs].base, 0x1'2340u);
  auto ret = insn(SystemOp::RetFar, 3, 2);
  ret.immediate_present = true;
  ret.immediate = 6;
  expect_redirect(ret);
  expect_at(0, 0x107, 0);
  EXPECT_EQ(s().gpr[kRsp], 0x8006u);
}

TEST_F(FarTransfer, FarPointerWrapsBetweenItsHalves) {
  // Real mode, the offset in the last word of the segment, the selector in the first (as an 80286 reads it).
  set_mem(0x1'fffe, 2, 0x1234);
  set_mem(0x1'0000, 2, 0x0500);
  const auto load_from = [this](SystemOp op, uint64_t offset) {
    s().segments[kDs].base = 0x1'0000;
    SystemInstruction i = memory_insn(op, offset, 2);
    i.selector = kEs;
    return i;
  };
  expect_redirect(load_from(SystemOp::JmpFar, 0xfffe));
  expect_at(0x0500, 0x1234, 0);
  const auto loaded = cpu().execute(load_from(SystemOp::LoadFarPointer, 0xfffe));
  ASSERT_TRUE(loaded);
  EXPECT_EQ(s().segments[kEs].selector, 0x0500);
  // Neither half may cross the end.
  expect_fault(load_from(SystemOp::JmpFar, 0xffff), vector::kGp, 0);
  expect_fault(load_from(SystemOp::JmpFar, 0xfffd), vector::kGp, 0);
}

TEST_F(FarTransfer, ProtectedJumpChecksTheDescriptor) {
  protected_mode(0);
  expect_redirect(far_insn(SystemOp::JmpFar, kConforming, 0x6000));
  expect_at(kConforming, 0x6000, 0);
  protected_mode(0);
  expect_fault(far_insn(SystemOp::JmpFar, 0, 0x6000), vector::kGp, 0);
  expect_fault(far_insn(SystemOp::JmpFar, kData32, 0x6000), vector::kGp, kData32);
  expect_fault(far_insn(SystemOp::JmpFar, kUserCode32, 0x6000), vector::kGp, kUserCode32 & 0xfffc);
  expect_fault(far_insn(SystemOp::JmpFar, 0x1000, 0x6000), vector::kGp, 0x1000);
  expect_fault(far_insn(SystemOp::JmpFar, kCode16, 0x1'0000), vector::kGp, 0);
  set_descriptor(kFree, descriptor(0, 0xf'ffff, 0xc01a));
  expect_fault(far_insn(SystemOp::JmpFar, kFree, 0), vector::kNp, kFree);
}

TEST_F(FarTransfer, JumpBetweenCodeSizesSetsTheMode) {
  protected_mode(0);
  expect_redirect(far_insn(SystemOp::JmpFar, kCode16, 0x6000));
  EXPECT_FALSE(s().mode.has(ModeBits::kCode32));
  EXPECT_TRUE(get_descriptor(kCode16) >> 40 & 1);  // accessed
  long_mode(0);
  expect_redirect(far_insn(SystemOp::JmpFar, kCode64, 0x6000, 8));
  EXPECT_TRUE(s().mode.has(ModeBits::kCode64));
}

TEST_F(FarTransfer, CallThroughMemoryPointer) {
  long_mode(0);
  set_mem(0x6000, 8, 0xffff'8000'0000'1000);
  set_mem(0x6008, 2, kCode64);
  expect_redirect(memory_insn(SystemOp::CallFar, 0x6000, 8));
  expect_at(kCode64, 0xffff'8000'0000'1000, 0);
  EXPECT_EQ(mem(s().gpr[kRsp], 8), kCode + 3);
  EXPECT_EQ(mem(s().gpr[kRsp] + 8, 8), kCode64);
}

TEST_F(FarTransfer, CallGateToAnInnerRingCopiesParameters) {
  protected_mode(3);
  set_descriptor(kGate, gate(kCode32, 0x6000, 0xec, 2));
  set_mem(kStack, 4, 0x1111);
  set_mem(kStack + 4, 4, 0x2222);
  expect_redirect(far_insn(SystemOp::CallFar, kGate | 3, 0xdead));
  expect_at(kCode32, 0x6000, 0);
  EXPECT_EQ(s().segments[kSs].selector, kData32);
  EXPECT_EQ(s().gpr[kRsp], kInnerStack - 24);
  const uint64_t expected[] = {kCode + 7, kUserCode32, 0x1111, 0x2222, kStack, kUserData32};
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(mem(s().gpr[kRsp] + i * 4, 4), expected[i]) << i;

  // And back: RET 8 releases them on both stacks.
  auto ret = insn(SystemOp::RetFar, 3, 4);
  ret.immediate_present = true;
  ret.immediate = 8;
  expect_redirect(ret);
  expect_at(kUserCode32, kCode + 7, 3);
  EXPECT_EQ(s().gpr[kRsp], kStack + 8);
}

TEST_F(FarTransfer, SixteenBitCallGatePushesWords) {
  protected_mode(0);
  set_descriptor(kGate, gate(kCode32, 0x6000, 0x84));
  expect_redirect(far_insn(SystemOp::CallFar, kGate, 0));
  EXPECT_EQ(s().gpr[kRsp], kStack - 4);
  EXPECT_EQ(mem(kStack - 4, 2), kCode + 7);
}

TEST_F(FarTransfer, CallGateChecks) {
  protected_mode(3);
  set_descriptor(kGate, gate(kCode32, 0x6000, 0x8c));  // DPL 0
  expect_fault(far_insn(SystemOp::CallFar, kGate | 3, 0), vector::kGp, kGate);
  set_descriptor(kGate, gate(kCode32, 0x6000, 0x6c));  // not present
  expect_fault(far_insn(SystemOp::CallFar, kGate | 3, 0), vector::kNp, kGate);
  set_descriptor(kGate, gate(kCode32, 0x6000, 0xec));
  expect_fault(far_insn(SystemOp::JmpFar, kGate | 3, 0), vector::kGp, kCode32);  // JMP stays in its ring
  set_descriptor(kGate, gate(kData32, 0x6000, 0xec));
  expect_fault(far_insn(SystemOp::CallFar, kGate | 3, 0), vector::kGp, kData32);
}

TEST_F(FarTransfer, LongModeCallGateTakesTheStackFromTheTss) {
  long_mode(3);
  set_descriptor(kGate, gate(kCode64, 0x0000'6000, 0xec));
  set_mem(kGdt + kGate + 8, 8, 0xffff'8000);
  set_mem(0x6000, 4, 0);
  set_mem(0x6004, 2, kGate | 3);
  expect_redirect(memory_insn(SystemOp::CallFar, 0x6000, 4));
  expect_at(kCode64, 0xffff'8000'0000'6000, 0);
  EXPECT_EQ(s().gpr[kRsp], kInnerStack - 32);
  const uint64_t expected[] = {kCode + 3, kUserCode64, kStack, kUserData32};
  for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(mem(s().gpr[kRsp] + i * 8, 8), expected[i]) << i;
  EXPECT_EQ(s().segments[kSs].selector, 0);
}

TEST_F(FarTransfer, FaultOnTheInnerStackChangesNothing) {
  long_mode(3);
  set_page(kInnerStack - 0x1000, 0);
  set_descriptor(kGate, gate(kCode64, 0x6000, 0xec));
  set_mem(kGdt + kGate + 8, 8, 0);
  set_mem(0x6000, 4, 0);
  set_mem(0x6004, 2, kGate | 3);
  const auto fault = fault_of(memory_insn(SystemOp::CallFar, 0x6000, 4));
  EXPECT_EQ(fault.vector, vector::kPf);
  EXPECT_EQ(s().cpl, 3);
}

TEST_F(FarTransfer, IntoRaisesOnlyOnOverflow) {
  protected_mode(0);
  set_gate32(vector::kOf, 0x6000, 0x8f);
  const auto into = insn(SystemOp::Into, 1);
  ASSERT_TRUE(cpu().execute(into));
  EXPECT_EQ(s().rip, kCode + 1);
  s().rip = kCode;
  s().rflags |= flag::kOf;
  expect_redirect(into);
  expect_at(kCode32, 0x6000, 0);
  EXPECT_EQ(mem(s().gpr[kRsp], 4), kCode + 1);
}

TEST_F(FarTransfer, Virtual8086InterruptRedirection) {
  v8086_mode(0);
  auto i = insn(SystemOp::Int);
  i.immediate_present = true;
  i.immediate = 0x21;
  expect_fault(i, vector::kGp, 0);
  // CR4.VME and a clear bit in the redirection map: the 8086 program's own handler.
  s().cr4 |= cr4::kVme;
  set_mem(kTss + 0x66, 2, 0x88);
  for (unsigned byte = 0x68; byte < 0x88; ++byte) set_mem(kTss + byte, 1, 0);
  set_mem(0x21 * 4, 4, 0x1234'0056);
  s().rflags |= flag::kVif;
  expect_redirect(i);
  expect_at(0x1234, 0x56, 3);
  EXPECT_FALSE(s().rflags & flag::kVif);
  EXPECT_EQ(mem(0x4000 + s().gpr[kRsp], 2), 0x102u);
  EXPECT_EQ(mem(0x4000 + s().gpr[kRsp] + 4, 2) & (flag::kIf | flag::kIopl), flag::kIf | flag::kIopl);
}

}  // namespace
}  // namespace penumbra
