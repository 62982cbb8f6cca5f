// Opcodes that raise #UD: because the CPU model has no such feature, or because they are none.
#include <gtest/gtest.h>

#include <vector>

#include "core/exception.h"
#include "tests/jit/bare_guest.h"

namespace penumbra::test {
namespace {

class UndefinedOpcode : public testing::Test {
 protected:
  BareGuest::Outcome run(const std::vector<uint8_t>& code) {
    guest_.load(code);
    Registers start;
    start.rip = BareGuest::kCode;
    start.gpr[kRsp] = BareGuest::kStackTop;
    return guest_.run(start);
  }
  BareGuest guest_{64, {}};
};

// The host may have them, and be a guest itself: the answer must not be its hypervisor's.
TEST_F(UndefinedOpcode, VirtualizationAtCpl0) {
  const std::vector<std::vector<uint8_t>> opcodes = {
      {0x0f, 0x01, 0xc1},              // VMCALL
      {0x0f, 0x01, 0xc2},              // VMLAUNCH
      {0x0f, 0x01, 0xc3},              // VMRESUME
      {0x0f, 0x01, 0xc4},              // VMXOFF
      {0x0f, 0x01, 0xd4},              // VMFUNC
      {0x0f, 0x01, 0xd8},              // VMRUN
      {0x0f, 0x01, 0xd9},              // VMMCALL
      {0x0f, 0x01, 0xda},              // VMLOAD
      {0x0f, 0x01, 0xdb},              // VMSAVE
      {0x0f, 0x01, 0xdc},              // STGI
      {0x0f, 0x01, 0xdd},              // CLGI
      {0x0f, 0x01, 0xde},              // SKINIT
      {0x0f, 0x01, 0xdf},              // INVLPGA
      {0xf3, 0x0f, 0xc7, 0x37},        // VMXON [rdi]
      {0x66, 0x0f, 0xc7, 0x37},        // VMCLEAR [rdi]
      {0x0f, 0xc7, 0x37},              // VMPTRLD [rdi]
      {0x0f, 0xc7, 0x3f},              // VMPTRST [rdi]
      {0x0f, 0x78, 0xc8},              // VMREAD
      {0x0f, 0x79, 0xc8},              // VMWRITE
      {0x66, 0x0f, 0x38, 0x80, 0x07},  // INVEPT
      {0x66, 0x0f, 0x38, 0x81, 0x07},  // INVVPID
      {0x0f, 0x37},                    // GETSEC
      {0x0f, 0xaa},                    // RSM
  };
  for (const auto& opcode : opcodes) {
    const auto outcome = run(opcode);
    ASSERT_EQ(outcome.end, BareGuest::End::Exception) << testing::PrintToString(opcode);
    EXPECT_EQ(outcome.vector, vector::kUd) << testing::PrintToString(opcode);
  }
}

// VPSRAVD with VEX.W is no instruction, without it is one; the first byte stays the same.
TEST_F(UndefinedOpcode, ChangedBytesAfterTheFirstAreSeen) {
  std::vector<uint8_t> code = {0xc4, 0xe2, 0xf5, 0x46, 0xe7, 0xf4};
  EXPECT_EQ(run(code).vector, vector::kUd);
  const std::vector<uint8_t> later = {0x75};
  guest_.map().write_bytes({BareGuest::kPhysical + 2}, std::as_bytes(std::span(later)));
  Registers start;
  start.rip = BareGuest::kCode;
  EXPECT_EQ(guest_.run(start).end, BareGuest::End::Halted);
}

}  // namespace
}  // namespace penumbra::test
