// Interrupt polls: where the run loop gets the vCPU back.
#include <gtest/gtest.h>

#include "core/device.h"
#include "tests/jit/bare_guest.h"

namespace penumbra::test {
namespace {

// A port whose writes make the next poll leave guest code.
class PollPort : public Device {
 public:
  explicit PollPort(BareGuest& guest) : guest_(guest) {}
  std::string_view name() const override { return "poll"; }
  uint32_t read(uint16_t, unsigned) override { return 0; }
  void write(uint16_t, unsigned, uint32_t) override { guest_.translator().interrupt(); }
  void reset() override {}
  DeviceState save() const override { return {}; }
  void load(const DeviceState&) override {}

 private:
  BareGuest& guest_;
};

// The jump was over when the interrupt was taken, and the fault was one of fetching at its target.
TEST(Poll, AnInterruptBeforeAJumpToWhatIsNotCanonicalDoesNotMakeTheJump) {
  BareGuest guest(64, {});
  PollPort port(guest);
  guest.io().add(0x80, 1, port);
  constexpr uint8_t kJump[] = {
      0xe6, 0x80,  // out 80h, al
      0xff, 0xe3,  // jmp rbx
  };
  constexpr uint8_t kCall[] = {
      0xe6, 0x80,  // out 80h, al
      0xff, 0xd3,  // call rbx
  };
  for (const std::span<const uint8_t> program :
       {std::span<const uint8_t>(kJump), std::span<const uint8_t>(kCall)}) {
    guest.load(program);
    Registers registers;
    registers.rip = BareGuest::kCode;
    registers.gpr[kRsp] = BareGuest::kStackTop;
    registers.gpr[kRbx] = uint64_t{1} << 47;
    // The second time the block is there.
    for (unsigned i = 0; i < 2; ++i) {
      const auto outcome = guest.run(registers);
      EXPECT_EQ(outcome.end, BareGuest::End::Exception);
      EXPECT_EQ(outcome.vector, vector::kGp);
      EXPECT_EQ(outcome.registers.rip, BareGuest::kCode + 2);
      EXPECT_EQ(outcome.registers.gpr[kRsp], BareGuest::kStackTop);
    }
  }
}

}  // namespace
}  // namespace penumbra::test
