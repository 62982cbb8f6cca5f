#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

class Processor : public VcpuTest {
 protected:
  explicit Processor(const char* model = "base") : VcpuTest(model) {}
  void run(SystemInstruction i) {
    s().rip = i.rip;
    ASSERT_TRUE(cpu().execute(i));
  }
};
class MaxProcessor : public Processor {
 protected:
  MaxProcessor() : Processor("max") {}
};

TEST_F(Processor, HaltIsPrivileged) {
  long_mode(3);
  expect_fault(insn(SystemOp::Hlt, 1), vector::kGp, 0);
  long_mode(0);
  expect_redirect(insn(SystemOp::Hlt, 1));
  EXPECT_TRUE(s().halted);
  EXPECT_TRUE(s().attention.load() & attention::kHalt);
  EXPECT_EQ(s().rip, kCode + 1);
}

TEST_F(Processor, CpuidZeroExtends) {
  long_mode(3);
  s().gpr[kRax] = 0xffff'ffff'0000'0000;
  s().gpr[kRbx] = s().gpr[kRdx] = ~uint64_t{0};
  s().gpr[kRcx] = 0;
  run(insn(SystemOp::Cpuid));
  EXPECT_EQ(s().gpr[kRax], 1u);
  EXPECT_EQ(s().gpr[kRbx], 0x6874'7541u);
  EXPECT_EQ(s().gpr[kRdx], 0x6974'6e65u);
}

TEST_F(MaxProcessor, CpuidFollowsCr4AndXcr0) {
  if (!model_.has_xsave()) GTEST_SKIP() << "the host has no XSAVE";
  long_mode(0);
  const auto leaf = [&](uint32_t function, uint32_t index) {
    s().gpr[kRax] = function;
    s().gpr[kRcx] = index;
    run(insn(SystemOp::Cpuid));
  };
  leaf(1, 0);
  EXPECT_FALSE(s().gpr[kRcx] >> 27 & 1);
  s().cr4 |= cr4::kOsxsave;
  leaf(1, 0);
  EXPECT_TRUE(s().gpr[kRcx] >> 27 & 1);
  s().xcr0 = 3;
  leaf(0xd, 0);
  EXPECT_EQ(s().gpr[kRbx], 576u);
  if ((model_.xcr0_mask() & 4) == 0) return;
  s().xcr0 = 7;
  leaf(0xd, 0);
  EXPECT_EQ(s().gpr[kRbx], 832u);
  EXPECT_EQ(s().gpr[kRcx], 832u);
}

TEST_F(Processor, PrivilegedOnesAreRefusedInUserMode) {
  long_mode(3);
  for (const SystemOp op :
       {SystemOp::Invd, SystemOp::Wbinvd, SystemOp::Invlpg, SystemOp::Invpcid, SystemOp::Clts,
        SystemOp::MovToCr, SystemOp::MovFromCr, SystemOp::MovToDr, SystemOp::MovFromDr, SystemOp::Rdpmc}) {
    expect_fault(insn(op), vector::kGp, 0);
  }
  expect_fault(insn(SystemOp::Ud), vector::kUd, 0);
}

TEST_F(Processor, InvlpgForgetsAPage) {
  long_mode(0);
  EXPECT_TRUE(cpu().read_linear(LinearAddr{0x7000}, 4, TlbView::Supervisor));
  set_mem(kPageTables + 0x3000 + 7 * 8, 8, 0);
  EXPECT_TRUE(cpu().read_linear(LinearAddr{0x7000}, 4, TlbView::Supervisor));  // the TLB remembers
  expect_redirect(memory_insn(SystemOp::Invlpg, 0x7123));
  EXPECT_FALSE(cpu().read_linear(LinearAddr{0x7000}, 4, TlbView::Supervisor));
  run(memory_insn(SystemOp::Invlpg, 0x8000'0000'0000));  // not canonical: no fault
}

TEST_F(MaxProcessor, InvpcidChecks) {
  long_mode(0);
  auto i = memory_insn(SystemOp::Invpcid, 0x6000);
  i.reg = kRax;
  set_mem(0x6000, 8, 0);
  set_mem(0x6008, 8, 0x7000);
  for (uint64_t type = 0; type < 4; ++type) {
    s().gpr[kRax] = type;
    run(i);
  }
  s().rip = i.rip;
  s().gpr[kRax] = 4;
  expect_fault(i, vector::kGp, 0);
  s().gpr[kRax] = 0;
  set_mem(0x6008, 8, 0x8000'0000'0000);
  expect_fault(i, vector::kGp, 0);
  set_mem(0x6000, 8, 1);  // a PCID without CR4.PCIDE
  expect_fault(i, vector::kGp, 0);
}

TEST_F(Processor, FpuTraps) {
  long_mode(0);
  const auto trap = [&](FpuClass which) {
    auto i = insn(SystemOp::FpuUnavailable);
    i.reg = static_cast<uint8_t>(which);
    return fault_of(i).vector;
  };
  s().cr0 |= cr0::kTs;
  s().cr4 |= cr4::kOsfxsr;
  EXPECT_EQ(trap(FpuClass::X87), vector::kNm);
  EXPECT_EQ(trap(FpuClass::Mmx), vector::kNm);
  EXPECT_EQ(trap(FpuClass::Sse), vector::kNm);
  EXPECT_EQ(trap(FpuClass::Avx), vector::kUd);  // CR4.OSXSAVE clear
  s().cr0 |= cr0::kMp;
  EXPECT_EQ(trap(FpuClass::Wait), vector::kNm);
  s().cr0 = (s().cr0 & ~cr0::kTs) | cr0::kEm;
  EXPECT_EQ(trap(FpuClass::X87), vector::kNm);
  EXPECT_EQ(trap(FpuClass::Mmx), vector::kUd);
  EXPECT_EQ(trap(FpuClass::Sse), vector::kUd);
  s().cr0 &= ~(cr0::kEm | cr0::kMp);
  EXPECT_EQ(trap(FpuClass::Wait), 255);  // it runs
}

TEST_F(MaxProcessor, MonitorAndMwait) {
  if (!model_.has_monitor()) GTEST_SKIP();
  long_mode(0);
  s().rflags |= flag::kIf;
  s().gpr[kRax] = 0x6000;
  s().gpr[kRcx] = s().gpr[kRdx] = 0;
  run(insn(SystemOp::Monitor, 3));
  s().rip = kCode;
  expect_redirect(insn(SystemOp::Mwait, 3));
  EXPECT_TRUE(s().halted);
  s().halted = false;
  s().rip = kCode;
  run(insn(SystemOp::Mwait, 3));  // without MONITOR it does not wait
  EXPECT_FALSE(s().halted);
  s().rip = kCode;
  s().gpr[kRcx] = 2;
  expect_fault(insn(SystemOp::Mwait, 3), vector::kGp, 0);
}

}  // namespace
}  // namespace penumbra
