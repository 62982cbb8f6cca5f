// Samples of where the guest's time goes, which choose the 32-bit pages that get windows.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "core/device.h"
#include "tests/jit/bare_guest.h"

namespace penumbra::test {
namespace {

// A port whose writes take a millisecond, and in which a sample comes.
class SampledPort : public Device {
 public:
  explicit SampledPort(BareGuest& guest) : guest_(guest) {}
  std::string_view name() const override { return "sampled"; }
  uint32_t read(uint16_t, unsigned) override { return 0; }
  void write(uint16_t, unsigned, uint32_t) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::raise(SIGPROF);
    guest_.translator().interrupt();  // the run loop looks how long it was
  }
  void reset() override {}
  DeviceState save() const override { return {}; }
  void load(const DeviceState&) override {}

 private:
  BareGuest& guest_;
};

// Wrong digests in a 32-bit guest: the timer's pace was set with the guest's registers in the host's.
TEST(Sample, InASystemInstructionLeavesVectorRegisters) {
  jit::TranslatorOptions options;
  options.mmu = jit::TranslatorOptions::Mmu::Auto;
  BareGuest guest(32, options);
  SampledPort port(guest);
  guest.io().add(0x80, 1, port);
  constexpr uint8_t kProgram[] = {
      0x8b, 0x03,              // again: mov eax, [ebx]
      0x66, 0x0f, 0xfe, 0xc1,  //        paddd xmm0, xmm1
      0xe6, 0x80,              //        out 80h, al
      0xe2, 0xf6,              //        loop again
      0xf4,                    //        hlt
  };
  guest.load(kProgram);
  Registers registers;
  registers.rip = BareGuest::kCode;
  registers.gpr[kRbx] = BareGuest::kCode;
  constexpr uint64_t kRounds = 64;  // windows are worth their time after some five, and then the pace changes
  registers.gpr[kRcx] = kRounds;
  for (unsigned i = 0; i < registers.ymm.size(); ++i) registers.ymm[i] = {i, i, 0, 0};
  const auto outcome = guest.run(registers);
  ASSERT_EQ(outcome.end, BareGuest::End::Halted);
  registers.ymm[0] = {kRounds, kRounds, 0, 0};
  EXPECT_EQ(outcome.registers.ymm, registers.ymm);
}

}  // namespace
}  // namespace penumbra::test
