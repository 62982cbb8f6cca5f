#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

class ExceptionDelivery : public VcpuTest {
 protected:
  static constexpr uint8_t kInterruptGate = 0x8e, kTrapGate = 0x8f, kUserGate = 0xee;

  void real_mode() {
    s().cr0 = cr0::kEt;
    for (auto& segment : s().segments)
      segment = {.base = 0, .limit = 0xffff, .selector = 0, .attributes = 0x93};
    s().segments[kCs] = {.base = 0x1000, .limit = 0xffff, .selector = 0x100, .attributes = 0x9b};
    s().idtr = {.base = 0, .limit = 0x3ff};
    s().rip = 0x50;
    s().gpr[kRsp] = 0x8000;
    cpu().update_mode();
  }
  Exception fault(uint8_t number) { return {.vector = number}; }
  Exception fault(uint8_t number, uint32_t code) {
    return {.vector = number, .has_error_code = true, .error_code = code};
  }
  void expect_at(uint16_t cs, uint64_t rip) {
    EXPECT_EQ(s().segments[kCs].selector, cs);
    EXPECT_EQ(s().rip, rip);
    EXPECT_FALSE(cpu().triple_fault());
  }
  // The stack from its top up.
  void expect_stack(const std::vector<uint64_t>& items, unsigned bytes) {
    for (size_t i = 0; i < items.size(); ++i) {
      EXPECT_EQ(mem(s().segments[kSs].base + s().gpr[kRsp] + i * bytes, bytes), items[i]) << "item " << i;
    }
  }
};

TEST_F(ExceptionDelivery, RealModeUsesTheVectorTable) {
  real_mode();
  set_mem(6 * 4, 4, 0x2345'6789);
  s().rflags |= flag::kIf | flag::kTf | flag::kCf;
  cpu().deliver(fault(vector::kUd));
  expect_at(0x2345, 0x6789);
  EXPECT_EQ(s().segments[kCs].base, 0x2'3450u);
  EXPECT_EQ(s().gpr[kRsp], 0x7ffau);
  expect_stack({0x50, 0x100, flag::kFixed1 | flag::kIf | flag::kTf | flag::kCf}, 2);
  EXPECT_EQ(s().rflags & (flag::kIf | flag::kTf | flag::kCf), flag::kCf);
}

TEST_F(ExceptionDelivery, RealModeStackWraps) {
  real_mode();
  set_mem(0, 4, 0x1000'0000);
  s().gpr[kRsp] = 0xabcd'0002;
  cpu().deliver(fault(vector::kDe));
  EXPECT_EQ(s().gpr[kRsp], 0xabcd'fffcu);
  EXPECT_EQ(mem(0, 2), flag::kFixed1 | 0u);
  EXPECT_EQ(mem(0xfffe, 2), 0x100u);
  EXPECT_EQ(mem(0xfffc, 2), 0x50u);
}

TEST_F(ExceptionDelivery, RealModeShortTableEndsInATripleFault) {
  real_mode();
  s().idtr.limit = 3;
  cpu().deliver(fault(vector::kUd));
  EXPECT_TRUE(cpu().triple_fault());
  EXPECT_TRUE(s().attention.load() & attention::kStop);
}

TEST_F(ExceptionDelivery, SamePrivilegeInterruptAndTrapGates) {
  for (const uint8_t type : {kInterruptGate, kTrapGate}) {
    protected_mode(0);
    set_gate32(vector::kGp, 0x6000, type);
    s().rflags = flag::kFixed1 | flag::kIf | flag::kTf;
    cpu().deliver(fault(vector::kGp, 0x1234));
    expect_at(kCode32, 0x6000);
    EXPECT_EQ(s().gpr[kRsp], kStack - 16);
    expect_stack({0x1234, kCode, kCode32, flag::kFixed1 | flag::kIf | flag::kTf | flag::kRf}, 4);
    EXPECT_EQ((s().rflags & flag::kIf) != 0, type == kTrapGate);
    EXPECT_FALSE(s().rflags & flag::kTf);
  }
}

TEST_F(ExceptionDelivery, SixteenBitGatePushesWords) {
  protected_mode(0);
  set_gate32(vector::kUd, 0xffff'6000, 0x86);
  cpu().deliver(fault(vector::kUd));
  expect_at(kCode32, 0x6000);
  EXPECT_EQ(s().gpr[kRsp], kStack - 6);
  expect_stack({kCode, kCode32, flag::kFixed1}, 2);  // RF is in the upper half
}

TEST_F(ExceptionDelivery, PrivilegeChangeTakesTheStackFromTheTss) {
  protected_mode(3);
  set_gate32(vector::kGp, 0x6000, kInterruptGate);
  cpu().deliver(fault(vector::kGp, 8));
  expect_at(kCode32, 0x6000);
  EXPECT_EQ(s().cpl, 0);
  EXPECT_EQ(s().segments[kSs].selector, kData32);
  EXPECT_EQ(s().gpr[kRsp], kInnerStack - 24);
  expect_stack({8, kCode, kUserCode32, flag::kFixed1 | flag::kRf, kStack, kUserData32}, 4);
  EXPECT_FALSE(s().mode.has(ModeBits::kUser));
}

TEST_F(ExceptionDelivery, BadInnerStackIsAnInvalidTss) {
  protected_mode(3);
  set_gate32(vector::kUd, 0x6000, kInterruptGate);
  set_gate32(vector::kTs, 0x6100, kInterruptGate, kConforming);  // runs on the user's stack
  set_mem(kTss + 8, 4, kUserData32);
  cpu().deliver(fault(vector::kUd));
  expect_at(kConforming | 3, 0x6100);
  EXPECT_EQ(mem(s().gpr[kRsp], 4), (kUserData32 & 0xfffcu) | 1);  // the selector, EXT
}

TEST_F(ExceptionDelivery, Virtual8086FrameHoldsTheDataSegments) {
  v8086_mode(3);
  set_gate32(vector::kGp, 0x6000, kInterruptGate);
  s().segments[kGs].selector = 0x11;
  const uint64_t flags = s().rflags;
  cpu().deliver(fault(vector::kGp, 0));
  expect_at(kCode32, 0x6000);
  EXPECT_EQ(s().gpr[kRsp], kInnerStack - 40);
  expect_stack({0, 0x100, 0x400, flags | flag::kRf, 0x800, 0x400, 0x400, 0x400, 0x400, 0x11}, 4);
  EXPECT_FALSE(s().rflags & flag::kVm);
  EXPECT_EQ(s().segments[kDs].selector, 0);
  EXPECT_FALSE(s().segments[kDs].present());
}

TEST_F(ExceptionDelivery, HardwareInterruptIgnoresGatePrivilegeAndSoftwareDoesNot) {
  protected_mode(3);
  set_gate32(0x40, 0x6000, kInterruptGate);
  auto i = insn(SystemOp::Int);
  i.immediate_present = true;
  i.immediate = 0x40;
  expect_fault(i, vector::kGp, 0x40 * 8 + 2);
  s().rflags |= flag::kIf;
  cpu().deliver_interrupt(0x40, false);
  expect_at(kCode32, 0x6000);

  protected_mode(3);
  set_gate32(0x40, 0x6000, kUserGate);
  expect_redirect(i);
  expect_at(kCode32, 0x6000);
  expect_stack({kCode + 2, kUserCode32, flag::kFixed1, kStack, kUserData32}, 4);
}

TEST_F(ExceptionDelivery, AbsentGateIsNotPresent) {
  protected_mode(0);
  set_gate32(0x40, 0x6000, 0x0e);
  auto i = insn(SystemOp::Int);
  i.immediate_present = true;
  i.immediate = 0x40;
  expect_fault(i, vector::kNp, 0x40 * 8 + 2);
  s().idtr.limit = 0x40 * 8 + 6;
  expect_fault(i, vector::kGp, 0x40 * 8 + 2);
}

TEST_F(ExceptionDelivery, LongModeAlignsTheStackAndPushesFive) {
  long_mode(0);
  set_gate64(vector::kGp, 0xffff'8000'0000'6000, kInterruptGate);
  s().gpr[kRsp] = kStack - 4;
  cpu().deliver(fault(vector::kGp, 0x18));
  expect_at(kCode64, 0xffff'8000'0000'6000);
  EXPECT_EQ(s().gpr[kRsp], kStack - 16 - 48);
  expect_stack({0x18, kCode, kCode64, flag::kFixed1 | flag::kRf, kStack - 4, kData32}, 8);
}

TEST_F(ExceptionDelivery, LongModePrivilegeChangeLoadsANullStackSegment) {
  long_mode(3);
  set_gate64(vector::kUd, 0x6000, kInterruptGate);
  cpu().deliver(fault(vector::kUd));
  expect_at(kCode64, 0x6000);
  EXPECT_EQ(s().cpl, 0);
  EXPECT_EQ(s().gpr[kRsp], kInnerStack - 40);
  EXPECT_EQ(s().segments[kSs].selector, 0);
  expect_stack({kCode, kUserCode64, flag::kFixed1 | flag::kRf, kStack, kUserData32}, 8);
}

TEST_F(ExceptionDelivery, InterruptStackTable) {
  long_mode(0);
  set_gate64(vector::kNmi, 0x6000, kInterruptGate, 1);
  cpu().deliver_interrupt(vector::kNmi, true);
  expect_at(kCode64, 0x6000);
  EXPECT_EQ(s().gpr[kRsp], kIstStack - 40);
  EXPECT_TRUE(s().nmi_blocked);
  expect_stack({kCode, kCode64, flag::kFixed1, kStack, kData32}, 8);
}

TEST_F(ExceptionDelivery, LongModeRefusesACode32Handler) {
  long_mode(0);
  set_gate64(0x40, 0x6000, kInterruptGate, 0, kCode32);
  auto i = insn(SystemOp::Int);
  i.immediate_present = true;
  i.immediate = 0x40;
  expect_fault(i, vector::kGp, kCode32);
}

TEST_F(ExceptionDelivery, NonCanonicalStackIsAStackFault) {
  long_mode(0);
  set_gate64(vector::kUd, 0x6000, kInterruptGate);
  set_gate64(vector::kSs, 0x6100, kInterruptGate, 1);
  set_gate64(vector::kDf, 0x6200, kInterruptGate, 1);
  s().gpr[kRsp] = 0x0000'9000'0000'0000;
  cpu().deliver(fault(vector::kUd));
  // #UD is benign: the #SS is delivered in its place.
  expect_at(kCode64, 0x6100);
  EXPECT_EQ(mem(s().gpr[kRsp], 8), 1u);  // EXT
}

TEST_F(ExceptionDelivery, PageFaultSetsCr2) {
  long_mode(0);
  set_gate64(vector::kPf, 0x6000, kInterruptGate);
  cpu().deliver({.vector = vector::kPf, .has_error_code = true, .error_code = 2, .cr2 = 0x1234'5678});
  expect_at(kCode64, 0x6000);
  EXPECT_EQ(s().cr2, 0x1234'5678u);
  EXPECT_EQ(mem(s().gpr[kRsp], 8), 2u);
}

// SDM vol. 3, tables 6-4 and 6-5.
TEST_F(ExceptionDelivery, TwoContributoryFaultsMakeADoubleFault) {
  long_mode(0);
  set_gate64(vector::kDf, 0x6200, kInterruptGate);
  cpu().deliver(fault(vector::kGp, 8));  // no gate: #GP while delivering #GP
  expect_at(kCode64, 0x6200);
  EXPECT_EQ(mem(s().gpr[kRsp], 8), 0u);
  EXPECT_EQ(cpu().stats().exceptions[vector::kDf], 1u);
}

TEST_F(ExceptionDelivery, PageFaultDuringAContributoryFaultIsServedFirst) {
  long_mode(0);
  set_page(0x1'0000, 0);
  set_gate64(vector::kGp, 0x6000, kInterruptGate);
  set_gate64(vector::kPf, 0x6100, kInterruptGate, 1);
  set_gate64(vector::kDf, 0x6200, kInterruptGate, 1);
  s().gpr[kRsp] = 0x1'0800;
  cpu().deliver(fault(vector::kGp, 8));
  expect_at(kCode64, 0x6100);
  EXPECT_EQ(s().cr2, 0x1'07f8u);  // the first push
}

TEST_F(ExceptionDelivery, PageFaultDuringAPageFaultIsADoubleFault) {
  long_mode(0);
  set_page(0x1'0000, 0);
  set_gate64(vector::kPf, 0x6100, kInterruptGate);
  set_gate64(vector::kDf, 0x6200, kInterruptGate, 1);
  s().gpr[kRsp] = 0x1'0800;
  cpu().deliver({.vector = vector::kPf, .has_error_code = true, .error_code = 0, .cr2 = 0xdead});
  expect_at(kCode64, 0x6200);
  expect_stack({0, kCode, kCode64}, 8);
}

TEST_F(ExceptionDelivery, ContributoryFaultDuringAPageFaultIsADoubleFault) {
  long_mode(0);
  set_gate64(vector::kGp, 0x6000, kInterruptGate);
  set_gate64(vector::kDf, 0x6200, kInterruptGate);
  cpu().deliver({.vector = vector::kPf, .has_error_code = true, .error_code = 0, .cr2 = 0xdead});  // no gate
  expect_at(kCode64, 0x6200);
  EXPECT_EQ(s().cr2, 0xdeadu);
}

TEST_F(ExceptionDelivery, FaultDuringADoubleFaultIsATripleFault) {
  long_mode(0);
  cpu().deliver(fault(vector::kGp, 0));  // an empty IDT
  EXPECT_TRUE(cpu().triple_fault());
  EXPECT_TRUE(s().attention.load() & attention::kStop);
  EXPECT_EQ(s().rip, kCode);
  ASSERT_GE(cpu().event_count(), 3u);
  EXPECT_EQ(cpu().event(1).vector, vector::kDf);
  cpu().reset();
  EXPECT_FALSE(cpu().triple_fault());
  EXPECT_EQ(s().rip, 0xfff0u);
  EXPECT_EQ(s().segments[kCs].base, 0xffff'0000u);
}

TEST_F(ExceptionDelivery, DebugExceptionFillsDr6AndClearsGeneralDetect) {
  long_mode(0);
  set_gate64(vector::kDb, 0x6000, kInterruptGate);
  s().dr[7] |= 1u << 13;
  cpu().deliver({.vector = vector::kDb, .dr6 = 1u << 14, .trap = true});
  expect_at(kCode64, 0x6000);
  EXPECT_EQ(s().dr[6], 0xffff'4ff0u);
  EXPECT_FALSE(s().dr[7] & 1u << 13);
  EXPECT_EQ(mem(s().gpr[kRsp] + 16, 8), flag::kFixed1 | 0u);  // a trap: RF stays clear
}

TEST_F(ExceptionDelivery, TaskGateSwitchesTasks) {
  protected_mode(0);
  set_mem(kIdt + vector::kDf * 8, 8, gate(kTss2Sel, 0, 0x85));
  for (unsigned i = 0; i < 104; i += 4) set_mem(kTss2 + i, 4, 0);
  set_mem(kTss2 + 0x20, 4, 0x6000);
  set_mem(kTss2 + 0x24, 4, flag::kFixed1);
  set_mem(kTss2 + 0x38, 4, kIstStack);
  for (const unsigned offset : {0x48u, 0x50u, 0x54u, 0x58u, 0x5cu}) set_mem(kTss2 + offset, 4, kData32);
  set_mem(kTss2 + 0x4c, 4, kCode32);
  cpu().deliver(fault(vector::kDf, 0));
  expect_at(kCode32, 0x6000);
  EXPECT_EQ(s().tr.selector, kTss2Sel);
  EXPECT_EQ(mem(kTss2, 2), kTssSel);
  EXPECT_EQ(s().gpr[kRsp], kIstStack - 4);
  EXPECT_EQ(mem(kIstStack - 4, 4), 0u);
  EXPECT_TRUE(s().rflags & flag::kNt);
  EXPECT_EQ(mem(kTss + 0x20, 4), kCode);
}

struct Pic : InterruptSource {
  bool pending() const override { return waiting; }
  uint8_t acknowledge() override {
    waiting = false;
    return 0x40;
  }
  bool waiting = false;
};

TEST_F(ExceptionDelivery, InterruptsWaitForTheFlagAndTheShadow) {
  Pic pic;
  long_mode(0);
  set_gate64(0x40, 0x6000, kInterruptGate);
  cpu().set_interrupt_source(&pic);
  pic.waiting = true;
  EXPECT_FALSE(cpu().take_interrupt());
  s().attention = 0;
  expect_redirect(insn(SystemOp::Sti, 1));
  EXPECT_TRUE(s().interrupt_shadow);
  EXPECT_FALSE(cpu().take_interrupt());
  s().interrupt_shadow = false;
  s().halted = true;
  EXPECT_TRUE(cpu().take_interrupt());
  expect_at(kCode64, 0x6000);
  EXPECT_FALSE(s().halted);
  EXPECT_FALSE(s().rflags & flag::kIf);
}

TEST_F(ExceptionDelivery, NmiIsBlockedUntilIret) {
  long_mode(0);
  set_gate64(vector::kNmi, 0x6000, kInterruptGate);
  cpu().request_nmi();
  EXPECT_TRUE(cpu().take_interrupt());
  cpu().request_nmi();
  EXPECT_FALSE(cpu().take_interrupt());
  s().attention = 0;
  auto i = insn(SystemOp::Iret, 2, 8);
  expect_redirect(i);
  EXPECT_EQ(s().rip, kCode);
  EXPECT_TRUE(s().attention.load() & attention::kInterrupt);
  EXPECT_TRUE(cpu().take_interrupt());
}

}  // namespace
}  // namespace penumbra
