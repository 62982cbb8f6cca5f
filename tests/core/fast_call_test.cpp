#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

class FastCall : public VcpuTest {
 protected:
  void expect_at(uint16_t cs, uint16_t ss, uint64_t rip, unsigned cpl) {
    EXPECT_EQ(s().segments[kCs].selector, cs);
    EXPECT_EQ(s().segments[kSs].selector, ss);
    EXPECT_EQ(s().rip, rip);
    EXPECT_EQ(s().cpl, cpl);
  }
};

TEST_F(FastCall, SyscallAndSysretq) {
  long_mode(3);
  s().star = uint64_t{0x23} << 48 | uint64_t{0x10} << 32;
  s().lstar = 0xffff'8000'0000'1000;
  s().sfmask = flag::kIf | flag::kDf;
  s().rflags = flag::kFixed1 | flag::kIf | flag::kDf | flag::kCf;
  expect_redirect(insn(SystemOp::Syscall));
  expect_at(0x10, 0x18, 0xffff'8000'0000'1000, 0);
  EXPECT_EQ(s().gpr[kRcx], kCode + 2);
  EXPECT_EQ(s().gpr[kR11], flag::kFixed1 | flag::kIf | flag::kDf | flag::kCf);
  EXPECT_EQ(s().rflags, flag::kFixed1 | flag::kCf | 0u);
  EXPECT_EQ(s().gpr[kRsp], kStack);
  EXPECT_TRUE(s().mode.has(ModeBits::kCode64));
  EXPECT_FALSE(s().mode.has(ModeBits::kUser));

  auto sysret = insn(SystemOp::Sysret, 3, 8);
  sysret.rex_w = true;
  expect_redirect(sysret);
  expect_at(0x33, 0x2b, kCode + 2, 3);
  EXPECT_EQ(s().rflags, flag::kFixed1 | flag::kIf | flag::kDf | flag::kCf);
  EXPECT_TRUE(s().mode.has(ModeBits::kUser));
}

TEST_F(FastCall, SysretToCompatibilityMode) {
  long_mode(0);
  s().star = uint64_t{0x23} << 48;
  s().gpr[kRcx] = 0x1'0000'7000;
  s().gpr[kR11] = flag::kFixed1 | flag::kVm | flag::kRf;
  expect_redirect(insn(SystemOp::Sysret, 2, 4));
  expect_at(0x23, 0x2b, 0x7000, 3);
  EXPECT_FALSE(s().mode.has(ModeBits::kCode64));
  EXPECT_EQ(s().rflags, flag::kFixed1 | 0u);
}

TEST_F(FastCall, SysretChecks) {
  long_mode(0);
  auto sysret = insn(SystemOp::Sysret, 3, 8);
  sysret.rex_w = true;
  s().gpr[kRcx] = 0x0000'8000'0000'0000;
  expect_fault(sysret, vector::kGp, 0);
  s().cpl = 3;
  s().gpr[kRcx] = 0;
  expect_fault(sysret, vector::kGp, 0);
  s().efer &= ~efer::kSce;
  expect_fault(sysret, vector::kUd, 0);
  expect_fault(insn(SystemOp::Syscall), vector::kUd, 0);
}

TEST_F(FastCall, SyscallFromCompatibilityModeUsesCstarOnAmd) {
  long_mode(3);
  s().segments[kCs] = from_table(kUserCode32);
  cpu().update_mode();
  s().star = uint64_t{0x10} << 32;
  s().cstar = 0xffff'8000'0000'2000;
  expect_redirect(insn(SystemOp::Syscall));
  expect_at(0x10, 0x18, 0xffff'8000'0000'2000, 0);
  EXPECT_TRUE(s().mode.has(ModeBits::kCode64));
}

TEST_F(FastCall, SysenterAndSysexit) {
  protected_mode(3);
  expect_fault(insn(SystemOp::Sysenter), vector::kGp, 0);
  s().sysenter_cs = 0x60;
  s().sysenter_esp = 0x9000;
  s().sysenter_eip = 0xc000'1000;
  s().rflags |= flag::kIf;
  expect_redirect(insn(SystemOp::Sysenter));
  expect_at(0x60, 0x68, 0xc000'1000, 0);
  EXPECT_EQ(s().gpr[kRsp], 0x9000u);
  EXPECT_FALSE(s().rflags & flag::kIf);
  s().gpr[kRcx] = 0x8000;
  s().gpr[kRdx] = 0x7000;
  expect_redirect(insn(SystemOp::Sysexit));
  expect_at(0x73, 0x7b, 0x7000, 3);
  EXPECT_EQ(s().gpr[kRsp], 0x8000u);
  expect_fault(insn(SystemOp::Sysexit), vector::kGp, 0);
}

}  // namespace
}  // namespace penumbra
