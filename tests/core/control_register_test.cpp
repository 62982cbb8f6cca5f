#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

class ControlRegister : public VcpuTest {
 protected:
  ControlRegister() : VcpuTest("max") {}
  SystemInstruction to(SystemOp op, unsigned number, uint64_t value) {
    auto i = insn(op, 3);
    i.reg = static_cast<uint8_t>(number);
    i.rm = kRax;
    s().gpr[kRax] = value;
    return i;
  }
  SystemInstruction to_cr(unsigned number, uint64_t value) { return to(SystemOp::MovToCr, number, value); }
  void write(unsigned number, uint64_t value) {
    s().rip = kCode;
    ASSERT_TRUE(cpu().execute(to_cr(number, value)));
  }
  void refuse(unsigned number, uint64_t value) {
    s().rip = kCode;
    expect_fault(to_cr(number, value), vector::kGp, 0);
  }
};

TEST_F(ControlRegister, Cr0Checks) {
  long_mode(0);
  refuse(0, s().cr0 | uint64_t{1} << 32);
  refuse(0, s().cr0 & ~cr0::kPe);
  refuse(0, s().cr0 | cr0::kNw);
  refuse(0, s().cr0 & ~cr0::kPg);  // in 64-bit mode
  write(0, (s().cr0 | cr0::kTs) & ~cr0::kEt);
  EXPECT_TRUE(s().cr0 & cr0::kEt);
  EXPECT_FALSE(s().mode.has(ModeBits::kX87));
}

TEST_F(ControlRegister, LongModeIsEnteredWithPaging) {
  protected_mode(0);
  long_tables();
  s().efer = efer::kLme;
  s().cr3 = kPageTables;
  refuse(0, s().cr0 | cr0::kPg);  // without PAE
  write(4, cr4::kPae);
  write(0, s().cr0 | cr0::kPg);
  EXPECT_TRUE(s().efer & efer::kLma);
  EXPECT_FALSE(s().mode.has(ModeBits::kCode64));
  refuse(4, 0);  // PAE must stay
  write(0, s().cr0 & ~cr0::kPg);
  EXPECT_FALSE(s().efer & efer::kLma);
}

TEST_F(ControlRegister, WriteProtectIsObeyedAtOnce) {
  long_mode(0);
  set_page(0x7000, 0x7000 | 5);
  EXPECT_FALSE(cpu().write_linear(LinearAddr{0x7000}, uint64_t{1}, 4, TlbView::Supervisor));
  write(0, s().cr0 & ~cr0::kWp);
  EXPECT_TRUE(cpu().write_linear(LinearAddr{0x7000}, uint64_t{1}, 4, TlbView::Supervisor));
  write(0, s().cr0 | cr0::kWp);
  EXPECT_FALSE(cpu().write_linear(LinearAddr{0x7000}, uint64_t{1}, 4, TlbView::Supervisor));
}

TEST_F(ControlRegister, Cr4Checks) {
  long_mode(0);
  refuse(4, s().cr4 | cr4::kLa57);
  refuse(4, s().cr4 | 1u << 13);
  refuse(4, s().cr4 & ~cr4::kPae);
  s().cr3 |= 1;
  refuse(4, s().cr4 | cr4::kPcide);  // the low bits of CR3 are not zero
  s().cr3 &= ~uint64_t{1};
  write(4, s().cr4 | cr4::kPcide);
  s().segments[kCs] = from_table(kCode32);
  cpu().update_mode();
  refuse(0, s().cr0 & ~cr0::kPg);
}

TEST_F(ControlRegister, PcidKeepsTranslations) {
  long_mode(0);
  write(4, s().cr4 | cr4::kPcide);
  write(3, kPageTables | 1);
  EXPECT_TRUE(cpu().read_linear(LinearAddr{0x7000}, 4, TlbView::Supervisor));
  set_mem(kPageTables + 0x3000 + 7 * 8, 8, 0);
  write(3, kPageTables | 2);
  EXPECT_FALSE(cpu().read_linear(LinearAddr{0x7000}, 4, TlbView::Supervisor));
  write(3, uint64_t{1} << 63 | kPageTables | 1);
  EXPECT_EQ(s().cr3, kPageTables | 1);
  EXPECT_TRUE(cpu().read_linear(LinearAddr{0x7000}, 4, TlbView::Supervisor));
  write(3, kPageTables | 1);
  EXPECT_FALSE(cpu().read_linear(LinearAddr{0x7000}, 4, TlbView::Supervisor));
}

TEST_F(ControlRegister, PaeLoadsPdptesAndChecksThem) {
  protected_mode(0);
  set_mem(0x6000, 8, 0x11'0000 | 1);
  set_mem(0x6008, 8, 0);
  set_mem(0x6010, 8, 0);
  set_mem(0x6018, 8, 0);
  s().cr3 = 0x6000;
  write(4, cr4::kPae);
  write(0, s().cr0 | cr0::kPg);
  EXPECT_EQ(s().pdpte[0], 0x11'0001u);
  set_mem(0x6008, 8, 0x3);  // writable bit is reserved here
  s().rip = kCode;
  const auto result = cpu().execute(to_cr(3, 0x6000));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().vector, vector::kGp);
  EXPECT_EQ(s().pdpte[1], 0u);
}

TEST_F(ControlRegister, Cr8AndUnknownOnes) {
  long_mode(0);
  write(8, 15);
  EXPECT_EQ(s().cr8, 15u);
  refuse(8, 16);
  s().rip = kCode;
  expect_fault(to_cr(1, 0), vector::kUd, 0);
  expect_fault(to_cr(5, 0), vector::kUd, 0);
}

TEST_F(ControlRegister, DebugRegisters) {
  long_mode(0);
  ASSERT_TRUE(cpu().execute(to(SystemOp::MovToDr, 7, 0xffff)));
  EXPECT_EQ(s().dr[7] & 0x400, 0x400u);
  EXPECT_TRUE(cpu().debug().has_breakpoints());
  s().rip = kCode;  // GD is set: any access traps
  const auto fault = fault_of(to(SystemOp::MovFromDr, 0, 0));
  EXPECT_EQ(fault.vector, vector::kDb);
  EXPECT_EQ(fault.dr6, 1u << 13);
  s().dr[7] = 0x400;
  expect_fault(to(SystemOp::MovToDr, 6, uint64_t{1} << 32), vector::kGp, 0);
  ASSERT_TRUE(cpu().execute(to(SystemOp::MovToDr, 4, 0)));  // DR6 by its old name
  EXPECT_EQ(s().dr[6], 0xffff'0ff0u);
  s().cr4 |= cr4::kDe;
  s().rip = kCode;
  expect_fault(to(SystemOp::MovToDr, 4, 0), vector::kUd, 0);
}

}  // namespace
}  // namespace penumbra
