#include <vector>

#include "core/device.h"
#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

struct CountingPort : Device {
  std::string_view name() const override { return "counting port"; }
  uint32_t read(uint16_t, unsigned) override { return 0xa0 + ++reads; }
  void write(uint16_t, unsigned, uint32_t value) override { written.push_back(value); }
  void reset() override {}
  DeviceState save() const override { return {}; }
  void load(const DeviceState&) override {}
  uint32_t reads = 0;
  std::vector<uint32_t> written;
};

class PortIo : public VcpuTest {
 protected:
  static constexpr uint16_t kPort = 0x3f8;

  PortIo() { io_.add(kPort, 4, port_); }

  SystemInstruction string(SystemOp op, unsigned size) {
    auto i = insn(op, 2, size);
    i.repeat = SystemInstruction::Repeat::Repe;
    return i;
  }
  CountingPort port_;
};

TEST_F(PortIo, InMergesAndZeroExtends) {
  long_mode(0);
  s().gpr[kRdx] = kPort;
  s().gpr[kRax] = ~uint64_t{0};
  ASSERT_TRUE(cpu().execute(insn(SystemOp::In, 1, 1)));
  EXPECT_EQ(s().gpr[kRax], 0xffff'ffff'ffff'ffa1u);
  ASSERT_TRUE(cpu().execute(insn(SystemOp::In, 1, 4)));
  EXPECT_EQ(s().gpr[kRax], 0xa2u);
  auto i = insn(SystemOp::Out, 2, 1);
  i.immediate_present = true;
  i.immediate = 0x80;  // nobody there
  ASSERT_TRUE(cpu().execute(i));
  EXPECT_EQ(cpu().stats().io_writes, 1u);
}

// SDM vol. 1, 19.5.2.
TEST_F(PortIo, PermissionBitmap) {
  protected_mode(3);
  s().gpr[kRdx] = kPort;
  set_mem(kTss + 102, 2, 0x68);
  for (unsigned i = 0; i < 0x90; ++i) set_mem(kTss + 0x68 + i, 1, 0xff);
  expect_fault(insn(SystemOp::In, 1, 1), vector::kGp, 0);
  set_mem(kTss + 0x68 + kPort / 8, 1, 0xfe);
  EXPECT_TRUE(cpu().execute(insn(SystemOp::In, 1, 1)));
  s().rip = kCode;
  expect_fault(insn(SystemOp::In, 1, 2), vector::kGp, 0);  // the next port's bit is set
  s().rflags |= flag::kIopl;
  EXPECT_TRUE(cpu().execute(insn(SystemOp::In, 1, 2)));
  s().rip = kCode;
  s().rflags = flag::kFixed1;
  s().tr.limit = 102;
  expect_fault(insn(SystemOp::In, 1, 1), vector::kGp, 0);
}

TEST_F(PortIo, StringInputThatFaultsReadsNothing) {
  long_mode(0);
  set_page(0x7000, 0);
  s().gpr[kRdx] = kPort;
  s().gpr[kRdi] = 0x6ffe;
  s().gpr[kRcx] = 5;
  const auto i = string(SystemOp::Ins, 1);
  const auto result = cpu().execute(i);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().cr2, 0x7000u);
  EXPECT_EQ(port_.reads, 2u);
  EXPECT_EQ(s().gpr[kRcx], 3u);
  EXPECT_EQ(s().gpr[kRdi], 0x7000u);
  set_page(0x7000, 0x7000 | 7);
  ASSERT_TRUE(cpu().execute(i));
  EXPECT_EQ(port_.reads, 5u);
  EXPECT_EQ(mem(0x6ffe, 4), 0xa4a3'a2a1u);
}

TEST_F(PortIo, StringOutputBackward) {
  long_mode(0);
  set_mem(0x6000, 8, 0x4444'3333'2222'1111);
  s().rflags |= flag::kDf;
  s().gpr[kRdx] = kPort;
  s().gpr[kRsi] = 0x6006;
  s().gpr[kRcx] = 3;
  ASSERT_TRUE(cpu().execute(string(SystemOp::Outs, 2)));
  EXPECT_EQ(port_.written, (std::vector<uint32_t>{0x4444, 0x3333, 0x2222}));
  EXPECT_EQ(s().gpr[kRsi], 0x6000u);
  EXPECT_EQ(s().gpr[kRcx], 0u);
}

TEST_F(PortIo, AttentionEndsAStringBetweenElements) {
  long_mode(0);
  s().gpr[kRdx] = kPort;
  s().gpr[kRdi] = 0x6000;
  s().gpr[kRcx] = 4;
  cpu().attend(attention::kInterrupt);
  const auto i = string(SystemOp::Ins, 1);
  expect_redirect(i);
  EXPECT_EQ(s().rip, kCode);
  EXPECT_EQ(s().gpr[kRcx], 3u);
  EXPECT_EQ(port_.reads, 1u);
}

}  // namespace
}  // namespace penumbra
