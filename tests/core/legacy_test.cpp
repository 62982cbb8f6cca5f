#include "tests/core/compatibility_mode.h"
#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

class Legacy : public VcpuTest {
 protected:
  void run(const SystemInstruction& i) {
    const auto result = cpu().execute(i);
    ASSERT_TRUE(result) << "vector " << int{result.error().vector};
    EXPECT_EQ(s().rip, i.rip + i.length);
  }
  SystemInstruction with_base(SystemOp op, uint8_t base) {
    SystemInstruction i = insn(op);
    i.immediate_present = true;
    i.immediate = base;
    return i;
  }
  SystemInstruction enter(uint16_t size, uint8_t level, unsigned operand_bytes) {
    SystemInstruction i = insn(SystemOp::Enter, 4, operand_bytes);
    i.immediate_present = true;
    i.immediate = size;
    i.selector = level;
    return i;
  }
};

// Every input of the decimal instructions against the host's own, which runs them in a 32-bit code segment.
TEST_F(Legacy, DecimalAdjustmentAgreesWithTheHost) {
  CompatibilityMode host;
  if (!host.available()) GTEST_SKIP() << "no 32-bit code segments here";
  protected_mode(0);
  struct Case {
    const char* name;
    SystemInstruction insn;
    std::vector<uint8_t> bytes;
    uint64_t defined;  // flags that every CPU must agree on
  };
  constexpr uint64_t kSzp = flag::kSf | flag::kZf | flag::kPf;
  const Case cases[] = {
      {"AAA", insn(SystemOp::Aaa), {0x37}, flag::kAf | flag::kCf},
      {"AAS", insn(SystemOp::Aas), {0x3f}, flag::kAf | flag::kCf},
      {"DAA", insn(SystemOp::Daa), {0x27}, kSzp | flag::kAf | flag::kCf},
      {"DAS", insn(SystemOp::Das), {0x2f}, kSzp | flag::kAf | flag::kCf},
      {"AAM", with_base(SystemOp::Aam, 10), {0xd4, 10}, kSzp},
      {"AAM 7", with_base(SystemOp::Aam, 7), {0xd4, 7}, kSzp},
      {"AAD", with_base(SystemOp::Aad, 10), {0xd5, 10}, kSzp},
      {"AAD 16", with_base(SystemOp::Aad, 16), {0xd5, 16}, kSzp},
      {"SALC", insn(SystemOp::Salc), {0xd6}, flag::kArithmetic},
  };
  const uint64_t undefined = host.zen5() ? flag::kArithmetic : 0;
  for (const Case& c : cases) {
    host.load(c.bytes);
    for (unsigned ax = 0; ax < 0x10000; ax += ax < 0x200 ? 1 : 13) {
      for (const uint64_t flags : {uint64_t{0}, flag::kCf, flag::kAf, flag::kCf | flag::kAf}) {
        const auto expected = host.run(0xabcd'0000 | ax, static_cast<uint32_t>(flags | flag::kFixed1));
        s().rip = c.insn.rip;
        s().gpr[kRax] = 0xabcd'0000 | ax;
        s().rflags = flags | flag::kFixed1;
        const auto result = cpu().execute(c.insn);
        ASSERT_TRUE(result);
        ASSERT_EQ(s().gpr[kRax], expected.eax) << c.name << " of " << ax << " flags " << flags;
        ASSERT_EQ(s().rflags & (c.defined | undefined), expected.eflags & (c.defined | undefined))
            << c.name << " of " << ax << " flags " << flags;
      }
    }
  }
}

TEST_F(Legacy, AamByZeroIsADivideError) {
  protected_mode(0);
  expect_fault(with_base(SystemOp::Aam, 0), vector::kDe, 0);
}

TEST_F(Legacy, SixtyFourBitModeDroppedThem) {
  long_mode(0);
  for (const SystemOp op : {SystemOp::Pusha, SystemOp::Popa, SystemOp::Bound, SystemOp::Aaa, SystemOp::Aas,
                            SystemOp::Aam, SystemOp::Aad, SystemOp::Daa, SystemOp::Das, SystemOp::Salc}) {
    expect_fault(insn(op), vector::kUd, 0);
  }
}

TEST_F(Legacy, PushaAndPopa) {
  protected_mode(0);
  for (const unsigned bytes : {4u, 2u}) {
    for (unsigned i = 0; i < 8; ++i) s().gpr[i] = 0x1111'1111 * (i + 1);
    s().gpr[kRsp] = kStack;
    const auto saved = s().gpr;
    s().rip = kCode;
    run(insn(SystemOp::Pusha, 1, bytes));
    EXPECT_EQ(s().gpr[kRsp], kStack - 8 * bytes);
    const uint64_t mask = bytes == 4 ? 0xffff'ffff : 0xffff;
    for (unsigned i = 0; i < 8; ++i) EXPECT_EQ(mem(kStack - (i + 1) * bytes, bytes), saved[i] & mask) << i;

    set_mem(kStack - (kRsp + 1) * bytes, bytes, 0xdead);  // POPA skips the image of SP
    for (unsigned i = 0; i < 8; ++i) {
      if (i != kRsp) s().gpr[i] = 0x9999'9999;
    }
    s().rip = kCode;
    run(insn(SystemOp::Popa, 1, bytes));
    for (unsigned i = 0; i < 8; ++i) {
      const uint64_t expected = bytes == 4 ? saved[i] : 0x9999'0000 | (saved[i] & 0xffff);
      EXPECT_EQ(s().gpr[i], i == kRsp ? kStack : expected) << i;
    }
  }
}

TEST_F(Legacy, PushaThatFaultsMovesNothing) {
  protected_mode(0);
  s().segments[kSs].limit = kStack - 9;
  cpu().update_mode();
  s().gpr[kRsp] = kStack + 8;
  expect_fault(insn(SystemOp::Pusha, 1), vector::kSs, 0);
}

TEST_F(Legacy, BoundIsSigned) {
  protected_mode(0);
  set_mem(0x6000, 4, static_cast<uint32_t>(-5));
  set_mem(0x6004, 4, 10);
  const auto i = memory_insn(SystemOp::Bound, 0x6000);
  for (const int32_t index : {-5, 0, 10}) {
    s().rip = kCode;
    s().gpr[kRax] = static_cast<uint32_t>(index);
    run(i);
  }
  s().rip = kCode;
  for (const int32_t index : {-6, 11}) {
    s().gpr[kRax] = static_cast<uint32_t>(index);
    expect_fault(i, vector::kBr, 0);
  }
  set_mem(0x6000, 4, 0x0005'fffd);  // -3 to 5
  auto narrow = memory_insn(SystemOp::Bound, 0x6000, 2);
  s().gpr[kRax] = 0x1234'fffd;
  run(narrow);
  s().rip = kCode;
  s().gpr[kRax] = 6;
  expect_fault(narrow, vector::kBr, 0);
  narrow.rm = kRcx;
  expect_fault(narrow, vector::kUd, 0);
}

TEST_F(Legacy, EnterMakesAFrame) {
  long_mode(0);
  s().gpr[kRbp] = 0x1234;
  run(enter(0x20, 0, 8));
  EXPECT_EQ(s().gpr[kRbp], kStack - 8);
  EXPECT_EQ(s().gpr[kRsp], kStack - 8 - 0x20);
  EXPECT_EQ(mem(kStack - 8, 8), 0x1234u);
}

TEST_F(Legacy, EnterCopiesTheDisplay) {
  protected_mode(0);
  s().gpr[kRbp] = 0x7000;
  set_mem(0x7000 - 4, 4, 0xaaaa);
  set_mem(0x7000 - 8, 4, 0xbbbb);
  run(enter(0x10, 3, 4));
  EXPECT_EQ(mem(kStack - 4, 4), 0x7000u);
  EXPECT_EQ(mem(kStack - 8, 4), 0xaaaau);
  EXPECT_EQ(mem(kStack - 12, 4), 0xbbbbu);
  EXPECT_EQ(mem(kStack - 16, 4), kStack - 4);
  EXPECT_EQ(s().gpr[kRbp], kStack - 4);
  EXPECT_EQ(s().gpr[kRsp], kStack - 16 - 0x10);
}

TEST_F(Legacy, EnterFaultsOnAStackThatCannotBeWritten) {
  long_mode(0);
  set_page(kStack - 0x2000, 0);
  s().gpr[kRbp] = 0x1234;
  expect_fault(enter(0x1800, 0, 8), vector::kPf, page_fault::kWrite);
  EXPECT_EQ(s().gpr[kRbp], 0x1234u);
}

}  // namespace
}  // namespace penumbra
