#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

class Msr : public VcpuTest {
 protected:
  static constexpr uint32_t kTsc = 0x10, kTscAdjust = 0x3b, kPat = 0x277, kEfer = 0xc000'0080,
                            kLstar = 0xc000'0082, kFsBase = 0xc000'0100, kGsBase = 0xc000'0101,
                            kKernelGsBase = 0xc000'0102, kKvmWallClock = 0x4b56'4d00,
                            kKvmSystemTime = 0x4b56'4d01;

  void expect_refused(uint32_t index, uint64_t value) {
    const auto result = cpu().write_msr(index, value);
    ASSERT_FALSE(result) << std::hex << index;
    EXPECT_EQ(result.error().vector, vector::kGp);
  }
  uint64_t read(uint32_t index) {
    const auto value = cpu().read_msr(index);
    EXPECT_TRUE(value) << std::hex << index;
    return value.value_or(0);
  }
};

TEST_F(Msr, InstructionsUseEdxEax) {
  long_mode(0);
  s().gpr[kRcx] = 0xffff'ffff'0000'0000 | kLstar;
  s().gpr[kRax] = 0x1111'1111'1234'5678;
  s().gpr[kRdx] = 0x2222'2222'ffff'8000;
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Wrmsr)));
  EXPECT_EQ(s().lstar, 0xffff'8000'1234'5678u);
  s().gpr[kRax] = s().gpr[kRdx] = ~uint64_t{0};
  s().rip = kCode;
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Rdmsr)));
  EXPECT_EQ(s().gpr[kRax], 0x1234'5678u);
  EXPECT_EQ(s().gpr[kRdx], 0xffff'8000u);
}

TEST_F(Msr, UserModeIsRefused) {
  long_mode(3);
  s().gpr[kRcx] = kLstar;
  expect_fault(insn(SystemOp::Rdmsr), vector::kGp, 0);
  expect_fault(insn(SystemOp::Wrmsr), vector::kGp, 0);
  EXPECT_EQ(cpu().stats().unknown_msr_count, 0u);
}

TEST_F(Msr, UnknownOnesAreCountedByName) {
  long_mode(0);
  s().gpr[kRcx] = 0x1234'5678;
  expect_fault(insn(SystemOp::Rdmsr), vector::kGp, 0);
  expect_fault(insn(SystemOp::Rdmsr), vector::kGp, 0);
  expect_fault(insn(SystemOp::Wrmsr), vector::kGp, 0);
  EXPECT_FALSE(cpu().read_msr(0x1234'5679));
  const VcpuStats& stats = cpu().stats();
  ASSERT_EQ(stats.unknown_msr_count, 2u);
  EXPECT_EQ(stats.unknown_msrs[0].index, 0x1234'5678u);
  EXPECT_EQ(stats.unknown_msrs[0].reads, 2u);
  EXPECT_EQ(stats.unknown_msrs[0].writes, 1u);
  // A guest that probes them all does not make the list grow for ever.
  for (uint32_t i = 0; i < 200; ++i) EXPECT_FALSE(cpu().read_msr(0x2000'0000 + i));
  EXPECT_EQ(cpu().stats().unknown_msr_count, VcpuStats::kMaxUnknownMsrs);
}

TEST_F(Msr, ValuesAreChecked) {
  long_mode(0);
  for (const uint32_t index : {kLstar, kFsBase, kGsBase, kKernelGsBase, 0x175u, 0x176u}) {
    expect_refused(index, 0x0000'8000'0000'0000);
    EXPECT_TRUE(cpu().write_msr(index, 0xffff'8000'0000'0000));
  }
  expect_refused(kPat, 0x0007'0406'0007'0402);
  expect_refused(kEfer, read(kEfer) | 1u << 14);
  expect_refused(kEfer, read(kEfer) & ~efer::kLme);  // with paging on
  expect_refused(0xc000'0103, uint64_t{1} << 32);
  expect_refused(0xfe, 0);
  expect_refused(0x2ff, 2);
}

TEST_F(Msr, EferLmaIsReadOnly) {
  protected_mode(0);
  ASSERT_TRUE(cpu().write_msr(kEfer, efer::kLme | efer::kLma | efer::kSce));
  EXPECT_EQ(s().efer, efer::kLme | efer::kSce);
}

TEST_F(Msr, SegmentBases) {
  long_mode(0);
  ASSERT_TRUE(cpu().write_msr(kGsBase, 0x1000));
  ASSERT_TRUE(cpu().write_msr(kKernelGsBase, 0x2000));
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Swapgs, 3)));
  EXPECT_EQ(read(kGsBase), 0x2000u);
  EXPECT_EQ(read(kKernelGsBase), 0x1000u);
  s().cpl = 3;
  expect_fault(insn(SystemOp::Swapgs, 3), vector::kGp, 0);

  auto rd = insn(SystemOp::Rdfsbase, 5, 8);
  rd.rm = kRbx;
  expect_fault(rd, vector::kUd, 0);
  s().cr4 |= cr4::kFsgsbase;
  s().segments[kFs].base = 0xffff'8000'0000'1234;
  ASSERT_TRUE(cpu().execute(rd));
  EXPECT_EQ(s().gpr[kRbx], 0xffff'8000'0000'1234u);
  auto wr = insn(SystemOp::Wrgsbase, 5, 4);
  wr.rm = kRbx;
  ASSERT_TRUE(cpu().execute(wr));
  EXPECT_EQ(s().segments[kGs].base, 0x1234u);
  wr = insn(SystemOp::Wrgsbase, 5, 8);
  wr.rm = kRbx;
  s().gpr[kRbx] = 0x0000'8000'0000'0000;
  expect_fault(wr, vector::kGp, 0);
}

// SDM vol. 3, 18.17.3: writes of the TSC show in TSC_ADJUST, and the reverse.
TEST_F(Msr, TscAndItsAdjustment) {
  long_mode(0);
  const uint64_t before = cpu().read_tsc();
  ASSERT_TRUE(cpu().write_msr(kTsc, uint64_t{1} << 60));
  EXPECT_GE(cpu().read_tsc(), uint64_t{1} << 60);
  EXPECT_NEAR(static_cast<double>(read(kTscAdjust)), static_cast<double>((uint64_t{1} << 60) - before), 1e10);
  ASSERT_TRUE(cpu().write_msr(kTscAdjust, 0));
  EXPECT_LT(cpu().read_tsc(), uint64_t{1} << 59);
  s().gpr[kRax] = s().gpr[kRdx] = ~uint64_t{0};
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Rdtsc)));
  EXPECT_LT(s().gpr[kRdx], 1u << 27);
  s().cr4 |= cr4::kTsd;
  s().cpl = 3;
  expect_fault(insn(SystemOp::Rdtsc), vector::kGp, 0);
}

TEST_F(Msr, ResetStartsTheTscAtZero) {
  const uint64_t first = cpu().read_tsc();
  cpu().reset();
  EXPECT_LT(cpu().read_tsc(), model_.tsc_hz());
  EXPECT_LE(first, cpu().read_tsc() + model_.tsc_hz());
}

// struct pvclock_vcpu_time_info: version, pad, tsc, system time, mul, shift, flags.
TEST_F(Msr, KvmSystemTime) {
  long_mode(0);
  ASSERT_TRUE(cpu().write_msr(kKvmSystemTime, 0x6000 | 1));
  EXPECT_EQ(mem(0x6000, 4) & 1, 0u);
  EXPECT_NE(mem(0x6000, 4), 0u);
  const uint64_t tsc = mem(0x6008, 8), time = mem(0x6010, 8), mul = mem(0x6018, 4);
  const auto shift = static_cast<int8_t>(mem(0x601c, 1));
  EXPECT_EQ(mem(0x601d, 1), 1u);  // stable
  // One second later by the TSC.
  uint64_t delta = model_.tsc_hz();
  delta = shift < 0 ? delta >> -shift : delta << shift;
  const auto second = static_cast<uint64_t>(static_cast<unsigned __int128>(delta) * mul >> 32);
  EXPECT_NEAR(static_cast<double>(second), 1e9, 1e3);
  EXPECT_NEAR(static_cast<double>(time),
              static_cast<double>(tsc) / static_cast<double>(model_.tsc_hz()) * 1e9, 1e5);
  // Off: the page is the guest's again.
  set_mem(0x6000, 8, 0);
  ASSERT_TRUE(cpu().write_msr(kKvmSystemTime, 0));
  ASSERT_TRUE(cpu().write_msr(kTsc, 5));
  EXPECT_EQ(mem(0x6000, 8), 0u);
}

TEST_F(Msr, KvmWallClock) {
  long_mode(0);
  cpu().set_wall_clock_start(1'234'567'890'123'456'789);
  ASSERT_TRUE(cpu().write_msr(kKvmWallClock, 0x6ffc));  // across a page
  EXPECT_EQ(mem(0x6ffc, 4) & 1, 0u);
  EXPECT_EQ(mem(0x7000, 4), 1'234'567'890u);
  EXPECT_EQ(mem(0x7004, 4), 123'456'789u);
}

TEST_F(Msr, ClockPagesBeyondRamAreHarmless) {
  long_mode(0);
  EXPECT_TRUE(cpu().write_msr(kKvmSystemTime, 0xffff'ffff'ffff'f001));
  EXPECT_TRUE(cpu().write_msr(kKvmWallClock, 0x7fff'ffff'fffe));
}

// What Linux reads or writes on an AMD CPU without a safety net.
TEST_F(Msr, RegistersThatLinuxTouches) {
  long_mode(0);
  for (const uint32_t index :
       {0x8bu, 0xfeu, 0x179u, 0x277u, 0x2ffu, 0x200u, 0x20fu, 0x250u, 0x26fu, 0xc001'0010u, 0xc001'0015u,
        0xc001'001au, 0xc001'001du, 0xc001'0055u, 0xc001'1029u}) {
    EXPECT_TRUE(cpu().read_msr(index)) << std::hex << index;
  }
  EXPECT_EQ(cpu().stats().unknown_msr_count, 0u);
}

// A processor with a local APIC: what its MSRs, CR8 and CPUID reach.
class FakeApic final : public InterruptSource, public ProcessorApic {
 public:
  bool pending() const override { return false; }
  uint8_t acknowledge() override { return 0xff; }
  ProcessorApic* apic() override { return this; }
  uint64_t base() const override { return base_value; }
  bool enabled() const override { return base_value & 0x800; }
  bool set_base(uint64_t value) override {
    if (value & 1) return false;
    base_value = value;
    return true;
  }
  uint8_t task_priority() const override { return priority; }
  void set_task_priority(uint8_t value) override { priority = value; }
  uint64_t tsc_deadline() const override { return deadline; }
  void set_tsc_deadline(uint64_t tsc, Nanoseconds from_now) override {
    deadline = tsc;
    wait = from_now;
  }
  uint64_t base_value = 0xfee0'0900, deadline = 0;
  Nanoseconds wait = 0;
  uint8_t priority = 0;
};

class ApicMsr : public Msr {
 protected:
  static constexpr uint32_t kApicBase = 0x1b, kTscDeadline = 0x6e0;
  ApicMsr() { cpu().set_interrupt_source(&apic_); }
  ~ApicMsr() override { cpu().set_interrupt_source(nullptr); }
  CpuidLeaf cpuid(uint32_t function) {
    s().gpr[kRax] = function;
    s().gpr[kRcx] = 0;
    s().rip = kCode;
    EXPECT_TRUE(cpu().execute(insn(SystemOp::Cpuid)));
    return {.function = function,
            .ecx = static_cast<uint32_t>(s().gpr[kRcx]),
            .edx = static_cast<uint32_t>(s().gpr[kRdx])};
  }
  FakeApic apic_;
};

TEST_F(ApicMsr, CpuidFollowsTheGlobalEnable) {
  long_mode(0);
  EXPECT_TRUE(cpuid(1).edx & 1u << 9);
  EXPECT_TRUE(cpuid(0x8000'0001).edx & 1u << 9);  // AMD's copy
  EXPECT_TRUE(cpuid(1).ecx & 1u << 24);           // TSC deadline
  ASSERT_TRUE(cpu().write_msr(kApicBase, 0xfee0'0100));
  EXPECT_FALSE(cpuid(1).edx & 1u << 9);
  EXPECT_EQ(read(kApicBase), 0xfee0'0100u);
}

TEST_F(ApicMsr, BasesThatTheApicRefuses) {
  expect_refused(kApicBase, 0xfee0'0901);
  EXPECT_EQ(read(kApicBase), 0xfee0'0900u);
}

TEST_F(ApicMsr, DeadlineIsToldAsTime) {
  const uint64_t second = model_.tsc_hz();
  const uint64_t deadline = cpu().read_tsc() + second;
  ASSERT_TRUE(cpu().write_msr(kTscDeadline, deadline));
  EXPECT_EQ(read(kTscDeadline), deadline);
  EXPECT_LE(apic_.wait, 1'000'000'000u);
  EXPECT_GT(apic_.wait, 900'000'000u);
  ASSERT_TRUE(cpu().write_msr(kTscDeadline, 1));
  EXPECT_EQ(apic_.wait, 0u) << "one that has passed";
  for (const uint64_t far : {~uint64_t{0}, ~uint64_t{0} >> 1, uint64_t{1} << 62}) {
    ASSERT_TRUE(cpu().write_msr(kTscDeadline, far)) << "no division error in the host";
  }
}

TEST_F(ApicMsr, Cr8IsTheTaskPriority) {
  long_mode(0);
  ASSERT_TRUE(cpu().set_control_register(8, 0xa));
  EXPECT_EQ(apic_.priority, 0xa0);
  apic_.priority = 0x35;
  EXPECT_EQ(cpu().cr8(), 3u);
}

}  // namespace
}  // namespace penumbra
