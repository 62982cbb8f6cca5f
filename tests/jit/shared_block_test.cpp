// User code that is mapped at several linear addresses, and translated once.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/jit/bare_guest.h"

namespace penumbra::test {
namespace {

constexpr uint64_t kReturn = 5, kLoop = 0x22, kHalt = 0x2b, kData = 0x80, kFarPage = 0x1000,
                   kValue = 0x1122'3344'5566'7788;
constexpr uint8_t kProgram[] = {
    0xe8, 0x13, 0x00, 0x00, 0x00,              //           call function
    0x48, 0x8d, 0x15, 0x74, 0x00, 0x00, 0x00,  //           lea rdx, [rel kData]
    0x48, 0x8b, 0x1d, 0x6d, 0x00, 0x00, 0x00,  //           mov rbx, [rel kData]
    0xe9, 0xe8, 0x0f, 0x00, 0x00,              //           jmp kFarPage
    0x48, 0x8b, 0x04, 0x24,                    // function: mov rax, [rsp]
    0xc3,                                      //           ret
    0xb9, 0x03, 0x00, 0x00, 0x00,              // back:     mov ecx, 3
    0x48, 0x03, 0x35, 0x57, 0x00, 0x00, 0x00,  // again:    add rsi, [rel kData]
    0xe2, 0xf7,                                //           loop again
    0xf4,                                      //           hlt
};
constexpr uint8_t kFarProgram[] = {
    0x48, 0x8d, 0x2d, 0xf9, 0xff, 0xff, 0xff,  //           lea rbp, [rel kFarPage]
    0xe9, 0x11, 0xf0, 0xff, 0xff,              //           jmp back
};

class SharedBlockTest : public testing::TestWithParam<jit::TranslatorOptions::Mmu> {
 protected:
  static constexpr uint64_t kAliases[] = {BareGuest::kCode, BareGuest::kCode + (uint64_t{0xaa} << 39),
                                          BareGuest::kCode + (uint64_t{0x80} << 39)};

  void start(const char* switches) {
    jit::TranslatorOptions options;
    options.code_cache_bytes = 4 << 20;
    options.mmu = GetParam();
    jit::apply_switches(options, switches);
    guest_ = std::make_unique<BareGuest>(64, options);
    guest_->load(kProgram);
    guest_->map().write_bytes({BareGuest::kPhysical + kFarPage}, std::as_bytes(std::span(kFarProgram)));
    guest_->map().write({BareGuest::kPhysical + kData}, 8, kValue);
    for (const uint64_t alias : kAliases) guest_->map().write({0x1000 + (alias >> 39) * 8}, 8, 0x2000 | 7);
  }
  // Runs the program there, and says how many blocks were translated.
  uint64_t run_at(uint64_t code) {
    Registers registers;
    registers.rip = code;
    registers.gpr[kRsp] = code + (BareGuest::kStackTop - BareGuest::kCode);
    const uint64_t before = translated();
    const auto outcome = guest_->run(registers, 3);
    EXPECT_EQ(outcome.end, BareGuest::End::Exception);  // HLT of a user
    EXPECT_EQ(outcome.vector, vector::kGp);
    const Registers& end = outcome.registers;
    EXPECT_EQ(end.rip, code + kHalt);
    EXPECT_EQ(end.gpr[kRax], code + kReturn);
    EXPECT_EQ(end.gpr[kRdx], code + kData);
    EXPECT_EQ(end.gpr[kRbx], kValue);
    EXPECT_EQ(end.gpr[kRbp], code + kFarPage);
    EXPECT_EQ(end.gpr[kRsi], 3 * kValue);
    return translated() - before;
  }
  uint64_t translated() const {
    const auto rows = guest_->translator().statistics();
    return std::ranges::find(rows, "blocks translated", [](const auto& row) { return row.first; })->second;
  }
  std::unique_ptr<BareGuest> guest_;
};

TEST_P(SharedBlockTest, OneTranslationForAllAddresses) {
  start("");
  EXPECT_GT(run_at(kAliases[0]), 5u);
  // What halts is none of them, nor an access that opens a window.
  EXPECT_LE(run_at(kAliases[1]), 2u);
  EXPECT_EQ(run_at(kAliases[0]), 0u);
}

// The upper end of the lower half: a jump could leave it.
TEST_P(SharedBlockTest, NotWhereJumpsMayLeaveTheAddressSpace) {
  start("");
  run_at(kAliases[0]);
  constexpr uint64_t kLast = (uint64_t{1} << 47) - BareGuest::kBytes;
  guest_->map().write({0x1000 + 0xff * 8}, 8, 0x2000 | 7);
  guest_->map().write({0x2000 + 0x1ff * 8}, 8, 0x3000 | 7);
  guest_->map().write({0x3000 + 0x1ff * 8}, 8, BareGuest::kPhysical | 0x87);
  EXPECT_GT(run_at(kLast), 5u);
}

TEST_P(SharedBlockTest, SwitchedOff) {
  start("no-shared-blocks");
  const uint64_t blocks = run_at(kAliases[0]);
  EXPECT_EQ(run_at(kAliases[2]), blocks);
}

// A breakpoint is one linear address.
TEST_P(SharedBlockTest, BreakpointAtOneOfTheAddresses) {
  start("");
  run_at(kAliases[0]);
  guest_->vcpu().debug().set_breakpoints({{kAliases[0] + kLoop}});
  run_at(kAliases[1]);
  Registers registers;
  registers.rip = kAliases[0];
  registers.gpr[kRsp] = BareGuest::kStackTop;
  EXPECT_EQ(guest_->run(registers, 3).registers.rip, kAliases[0] + kLoop);
  EXPECT_EQ(guest_->vcpu().debug().take_stop().kind, DebugStop::Kind::Breakpoint);
  guest_->vcpu().debug().set_breakpoints({});
  run_at(kAliases[0]);
}

// One page under two addresses: what one writes into its code, the other runs.
TEST_P(SharedBlockTest, CodeThatChangesUnderTheOtherAddress) {
  start("");
  run_at(kAliases[0]);
  run_at(kAliases[1]);
  constexpr uint64_t kOther = 0x3333;
  guest_->map().write({BareGuest::kPhysical + kLoop - 4}, 4, 1);  // mov ecx, 1
  Registers registers;
  registers.rip = kAliases[1];
  registers.gpr[kRsp] = kAliases[1] + (BareGuest::kStackTop - BareGuest::kCode);
  registers.gpr[kRsi] = kOther;
  EXPECT_EQ(guest_->run(registers, 3).registers.gpr[kRsi], kOther + kValue);
}

INSTANTIATE_TEST_SUITE_P(, SharedBlockTest,
                         testing::Values(jit::TranslatorOptions::Mmu::Tlb,
                                         jit::TranslatorOptions::Mmu::Windows),
                         [](const auto& parameter) {
                           return parameter.param == jit::TranslatorOptions::Mmu::Tlb ? "tlb" : "windows";
                         });

}  // namespace
}  // namespace penumbra::test
