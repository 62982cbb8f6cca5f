#include <array>
#include <cstring>

#include "core/host_vector_scope.h"
#include "tests/core/vcpu_fixture.h"

namespace penumbra {
namespace {

// Offsets in the images (SDM vol. 1, 10.5.1 and 13.4).
constexpr unsigned kFcw = 0, kMxcsr = 24, kXmm = 160, kXmm8 = 288, kXstateBv = 512, kXcompBv = 520,
                   kYmm = 576;

class StateImage : public VcpuTest {
 protected:
  static constexpr uint64_t kImage = 0x2'0000;

  StateImage() : VcpuTest("max") {}

  void SetUp() override {
    if (!model_.has_xsave()) GTEST_SKIP() << "the host has no XSAVE";
  }
  void start(bool wide = true) {
    wide ? long_mode(0) : protected_mode(0);
    s().cr4 |= cr4::kOsfxsr | cr4::kOsxsave;
    s().xcr0 = model_.xcr0_mask();
    cpu().update_mode();
    for (unsigned i = 0; i < 1024; i += 8) set_mem(kImage + i, 8, 0);
  }
  SystemInstruction image_insn(SystemOp op, uint64_t address = kImage) {
    SystemInstruction i = memory_insn(op, address);
    i.rex_w = s().mode.has(ModeBits::kCode64);
    return i;
  }
  void request(uint64_t components) {
    s().gpr[kRax] = components & 0xffff'ffff;
    s().gpr[kRdx] = components >> 32;
  }
  void run(SystemOp op, uint64_t address = kImage) {
    s().rip = kCode;
    const auto i = image_insn(op, address);
    const auto result = cpu().execute(i);
    ASSERT_TRUE(result) << "vector " << int{result.error().vector};
    EXPECT_EQ(s().rip, kCode + i.length);
    EXPECT_FALSE(s().vector_state_live);
  }
  void expect_image_fault(SystemOp op, uint8_t number, uint64_t address = kImage) {
    s().rip = kCode;
    expect_fault(image_insn(op, address), number, 0);
  }
  // A register as the guest has it: low and high 16 bytes of ymm.
  void set_register(unsigned number, uint64_t value) {
    const std::array<uint64_t, 2> low{value, ~value}, high{value * 3, value * 5};
    auto& image = s().guest_vector_state;
    std::memcpy(&image[kXmm + number * 16], low.data(), 16);
    std::memcpy(&image[kYmm + number * 16], high.data(), 16);
    image[kXstateBv] |= std::byte{6} & std::byte(model_.xcr0_mask());
  }
  uint64_t low_of(unsigned number) { return vector_state(kXmm + number * 16); }
  uint64_t high_of(unsigned number) {
    return (s().guest_vector_state[kXstateBv] & std::byte{4}) != std::byte{0}
               ? vector_state(kYmm + number * 16)
               : 0;
  }
  uint64_t vector_state(unsigned offset) {
    uint64_t value;
    std::memcpy(&value, &s().guest_vector_state[offset], 8);
    return value;
  }
  bool avx() { return model_.xcr0_mask() & 4; }
};

TEST_F(StateImage, FxsaveWritesRegistersAndLeavesTheEndToSoftware) {
  start();
  for (unsigned i = 0; i < 16; ++i) set_register(i, 0x1111 * (i + 1));
  for (unsigned i = 416; i < 512; i += 8) set_mem(kImage + i, 8, 0xabcd);
  run(SystemOp::Fxsave);
  for (unsigned i = 0; i < 16; ++i) EXPECT_EQ(mem(kImage + kXmm + i * 16, 8), 0x1111u * (i + 1));
  EXPECT_EQ(mem(kImage + kMxcsr, 4), 0x1f80u);
  for (unsigned i = 416; i < 512; i += 8) EXPECT_EQ(mem(kImage + i, 8), 0xabcdu);
  for (unsigned i = 0; i < 16; ++i) set_register(i, 0);
  run(SystemOp::Fxrstor);
  for (unsigned i = 0; i < 16; ++i) EXPECT_EQ(low_of(i), 0x1111u * (i + 1));
}

TEST_F(StateImage, OutsideLongModeTheUpperRegistersStay) {
  start(false);
  for (unsigned i = 0; i < 16; ++i) set_register(i, 0x1111 * (i + 1));
  set_mem(kImage + kXmm8, 8, 0x77);
  run(SystemOp::Fxsave);
  EXPECT_EQ(mem(kImage + kXmm + 7 * 16, 8), 0x8888u);
  EXPECT_EQ(mem(kImage + kXmm8, 8), 0x77u);
  for (unsigned i = 0; i < 16; ++i) set_register(i, i);
  run(SystemOp::Fxrstor);
  for (unsigned i = 0; i < 16; ++i) EXPECT_EQ(low_of(i), i < 8 ? 0x1111u * (i + 1) : i);

  request(7);
  run(SystemOp::Xsave);
  EXPECT_EQ(mem(kImage + kXmm8, 8), 0x77u);
  for (unsigned i = 0; i < 16; ++i) set_register(i, 0x100 + i);
  run(SystemOp::Xrstor);
  for (unsigned i = 0; i < 16; ++i) {
    EXPECT_EQ(low_of(i), i < 8 ? 0x1111u * (i + 1) : 0x100 + i);
    if (avx() && i >= 8) {
      EXPECT_EQ(high_of(i), (0x100 + i) * 3u);
    }
  }
  // To the initial state, for the lower eight.
  set_mem(kImage + kXstateBv, 8, 0);
  run(SystemOp::Xrstor);
  for (unsigned i = 0; i < 16; ++i) EXPECT_EQ(low_of(i), i < 8 ? 0 : 0x100 + i);
}

TEST_F(StateImage, FxsaveChecks) {
  start();
  expect_image_fault(SystemOp::Fxsave, vector::kGp, kImage + 8);
  set_mem(kImage + kMxcsr, 4, 0x8000'0000);
  expect_image_fault(SystemOp::Fxrstor, vector::kGp);
  s().cr0 |= cr0::kTs;
  expect_image_fault(SystemOp::Fxsave, vector::kNm);
  expect_image_fault(SystemOp::Fxrstor, vector::kNm);
  s().cr0 = (s().cr0 & ~cr0::kTs) | cr0::kEm;
  expect_image_fault(SystemOp::Fxsave, vector::kNm);
  auto i = image_insn(SystemOp::Fxsave);
  i.rm = kRax;
  expect_fault(i, vector::kUd, 0);
}

TEST_F(StateImage, MisalignedFxsaveBeyondTheStacksLimitIsSs) {
  start(false);
  s().segments[kSs].limit = kImage + 0xff;
  auto i = image_insn(SystemOp::Fxsave, kImage);
  i.segment = kSs;
  s().rip = kCode;
  expect_fault(i, vector::kSs, 0);
  i = image_insn(SystemOp::Fxsave, kImage + 8);
  i.segment = kSs;
  s().rip = kCode;
  expect_fault(i, vector::kGp, 0);
}

TEST_F(StateImage, FxsaveFaultsOnItsSecondPage) {
  start();
  set_page(kImage + 0x1000, 0);
  s().rip = kCode;
  set_mem(kImage + 0xf00, 8, 0x1234);
  expect_fault(image_insn(SystemOp::Fxsave, kImage + 0xf00), vector::kPf, page_fault::kWrite);
  EXPECT_EQ(mem(kImage + 0xf00, 8), 0x1234u);
}

TEST_F(StateImage, XsaveWritesTheRequestedComponentsOnly) {
  start();
  set_register(0, 0x4242);
  set_mem(kImage + kFcw, 8, 0x5555'5555);
  set_mem(kImage + kXstateBv, 8, 1);
  request(2);
  run(SystemOp::Xsave);
  EXPECT_EQ(mem(kImage + kXmm, 8), 0x4242u);
  EXPECT_EQ(mem(kImage + kFcw, 8), 0x5555'5555u);
  EXPECT_EQ(mem(kImage + kXstateBv, 8), 3u);
  EXPECT_EQ(mem(kImage + kYmm, 8), 0u);
}

TEST_F(StateImage, XsaveIsMaskedByXcr0) {
  start();
  s().xcr0 = 3;
  set_register(1, 0x4242);
  for (unsigned i = kYmm; i < 1024; i += 8) set_mem(kImage + i, 8, 0x99);
  request(~uint64_t{0});
  run(SystemOp::Xsave);
  EXPECT_EQ(mem(kImage + kXstateBv, 8) & ~uint64_t{3}, 0u);
  for (unsigned i = kYmm; i < 1024; i += 8) EXPECT_EQ(mem(kImage + i, 8), 0x99u);
}

TEST_F(StateImage, RoundTripInEveryFormat) {
  start();
  for (const SystemOp op : {SystemOp::Xsave, SystemOp::Xsaveopt, SystemOp::Xsavec}) {
    if (op == SystemOp::Xsavec && !model_.has_xsavec()) continue;
    for (unsigned i = 0; i < 1024; i += 8) set_mem(kImage + i, 8, 0);
    for (unsigned i = 0; i < 16; ++i) set_register(i, 0x1001 * (i + 1));
    request(7);
    run(op);
    EXPECT_EQ(mem(kImage + kXcompBv, 8), op == SystemOp::Xsavec ? uint64_t{1} << 63 | model_.xcr0_mask() : 0);
    if (avx()) {
      EXPECT_EQ(mem(kImage + kYmm, 8), 0x1001u * 3);
    }
    for (unsigned i = 0; i < 16; ++i) set_register(i, 0);
    run(SystemOp::Xrstor);
    for (unsigned i = 0; i < 16; ++i) {
      EXPECT_EQ(low_of(i), 0x1001u * (i + 1));
      if (avx()) {
        EXPECT_EQ(high_of(i), 0x1001u * (i + 1) * 3);
      }
    }
  }
}

// The modified optimization of the host's XSAVEOPT would skip what an earlier XRSTOR of the same buffer
// loaded.
TEST_F(StateImage, XsaveoptIntoAnotherImageWritesEverything) {
  start();
  set_register(3, 0x1234);
  request(7);
  run(SystemOp::Xsave);
  run(SystemOp::Xrstor);
  run(SystemOp::Xsaveopt, kImage + 0x1000);
  EXPECT_EQ(mem(kImage + 0x1000 + kXmm + 48, 8), 0x1234u);
}

TEST_F(StateImage, XrstorInitializesWhatTheHeaderLeavesOut) {
  start();
  set_register(2, 0x1234);
  request(7);
  run(SystemOp::Xsave);
  set_mem(kImage + kXstateBv, 8, 0);
  set_mem(kImage + kMxcsr, 4, 0x1f80);
  run(SystemOp::Xrstor);
  EXPECT_EQ(low_of(2), 0u);
  EXPECT_EQ(high_of(2), 0u);
}

TEST_F(StateImage, XrstorChecksTheHeader) {
  start();
  request(7);
  set_mem(kImage + kMxcsr, 4, 0x1f80);
  run(SystemOp::Xrstor);
  set_mem(kImage + kXstateBv, 8, 8);  // not in XCR0
  expect_image_fault(SystemOp::Xrstor, vector::kGp);
  set_mem(kImage + kXstateBv, 8, 3);
  set_mem(kImage + kXcompBv, 8, 1);  // without bit 63
  expect_image_fault(SystemOp::Xrstor, vector::kGp);
  set_mem(kImage + kXcompBv, 8, 0);
  set_mem(kImage + kXcompBv + 8, 8, 1);
  expect_image_fault(SystemOp::Xrstor, vector::kGp);
  set_mem(kImage + kXcompBv + 8, 8, 0);
  set_mem(kImage + kMxcsr, 4, 0x1'0000'1f80 >> 1 | 0x8000'0000);
  expect_image_fault(SystemOp::Xrstor, vector::kGp);
  set_mem(kImage + kMxcsr, 4, 0x1f80);
  run(SystemOp::Xrstor);
  if (!model_.has_xsavec()) return;
  set_mem(kImage + kXcompBv, 8, uint64_t{1} << 63 | 1);  // XSTATE_BV has more
  expect_image_fault(SystemOp::Xrstor, vector::kGp);
  set_mem(kImage + kXcompBv, 8, uint64_t{1} << 63 | 3);
  set_mem(kImage + 568, 8, 1);
  expect_image_fault(SystemOp::Xrstor, vector::kGp);
  set_mem(kImage + 568, 8, 0);
  run(SystemOp::Xrstor);
}

TEST_F(StateImage, XsaveChecks) {
  start();
  request(7);
  for (const SystemOp op : {SystemOp::Xsave, SystemOp::Xsaveopt, SystemOp::Xrstor}) {
    expect_image_fault(op, vector::kGp, kImage + 32);
    s().cr0 |= cr0::kTs;
    expect_image_fault(op, vector::kNm);
    s().cr0 &= ~cr0::kTs;
    s().cr4 &= ~cr4::kOsxsave;
    expect_image_fault(op, vector::kUd);
    s().cr4 |= cr4::kOsxsave;
  }
  expect_image_fault(SystemOp::Xsaves, vector::kUd);
  expect_image_fault(SystemOp::Xrstors, vector::kUd);
}

TEST_F(StateImage, Xcr0) {
  start();
  s().xcr0 = 1;
  s().gpr[kRcx] = 0;
  request(model_.xcr0_mask());
  expect_redirect(insn(SystemOp::Xsetbv, 3));
  EXPECT_EQ(s().xcr0, model_.xcr0_mask());
  if (avx()) {
    EXPECT_TRUE(s().mode.has(ModeBits::kAvx));
  }
  s().gpr[kRax] = s().gpr[kRdx] = ~uint64_t{0};
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Xgetbv, 3)));
  EXPECT_EQ(s().gpr[kRax], model_.xcr0_mask());
  EXPECT_EQ(s().gpr[kRdx], 0u);
  for (const uint64_t bad : {0u, 2u, 5u, 0x207u}) {  // no x87; AVX without SSE; PKRU
    request(bad);
    expect_fault(insn(SystemOp::Xsetbv, 3), vector::kGp, 0);
  }
  request(3);
  s().gpr[kRcx] = 1;
  expect_fault(insn(SystemOp::Xsetbv, 3), vector::kGp, 0);
  s().gpr[kRcx] = 2;
  expect_fault(insn(SystemOp::Xgetbv, 3), vector::kGp, 0);
  s().gpr[kRcx] = 0;
  s().cpl = 3;
  expect_fault(insn(SystemOp::Xsetbv, 3), vector::kGp, 0);
  s().cr4 &= ~cr4::kOsxsave;
  expect_fault(insn(SystemOp::Xgetbv, 3), vector::kUd, 0);
}

TEST_F(StateImage, XgetbvOneSaysWhatIsInUse) {
  if (!model_.has_xgetbv1()) GTEST_SKIP() << "the host has no XGETBV with ECX = 1";
  start();
  s().guest_vector_state[kXstateBv] = std::byte{0};
  s().gpr[kRcx] = 1;
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Xgetbv, 3)));
  EXPECT_EQ(s().gpr[kRax] & 4, 0u);
  set_register(0, 0x4242);
  ASSERT_TRUE(cpu().execute(insn(SystemOp::Xgetbv, 3)));
  EXPECT_EQ(s().gpr[kRax] & model_.xcr0_mask() & 6, model_.xcr0_mask() & 6);
}

}  // namespace
}  // namespace penumbra
