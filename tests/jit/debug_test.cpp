// What a debugger outside the guest does with the engine: breakpoints, watchpoints and steps, in every engine
// mode.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/jit/bare_guest.h"

namespace penumbra::test {
namespace {

constexpr uint64_t kData = BareGuest::kCode + 0x1000;
// Offsets in the program.
constexpr uint64_t kIncrement = 5, kStore = 7, kLoad = 14, kDecrement = 21, kBranch = 23, kHalt = 25;
constexpr uint8_t kProgram[] = {
    0xb9, 5,    0,    0, 0,              //       mov ecx, 5
    0xff, 0xc0,                          // loop: inc eax
    0x89, 0x04, 0x25, 0, 0x10, 0, 0x10,  //    mov [kData], eax
    0x8b, 0x14, 0x25, 0, 0x10, 0, 0x10,  //    mov edx, [kData]
    0xff, 0xc9,                          //       dec ecx
    0x75, 0xec,                          //       jnz loop
    0xf4,                                //       hlt
};

struct Mode {
  const char* name;
  const char* switches;
  jit::TranslatorOptions::Mmu mmu = jit::TranslatorOptions::Mmu::Tlb;
};

class DebugTest : public testing::TestWithParam<Mode> {
 protected:
  DebugTest() {
    jit::TranslatorOptions options;
    options.code_cache_bytes = 4 << 20;
    jit::apply_switches(options, GetParam().switches);
    options.mmu = GetParam().mmu;
    guest_ = std::make_unique<BareGuest>(64, options);
    guest_->load(kProgram);
  }

  VcpuState& state() { return guest_->vcpu().state(); }
  DebugUnit& debug() { return guest_->vcpu().debug(); }
  uint64_t at() { return state().rip - BareGuest::kCode; }
  BareGuest::Outcome start() {
    Registers registers;
    registers.rip = BareGuest::kCode;
    registers.gpr[kRsp] = BareGuest::kStackTop;
    return guest_->run(registers);
  }
  void go_on() {
    state().attention = 0;
    for (unsigned turn = 0; turn < 1000 && !state().attention; ++turn) guest_->translator().run();
  }
  void step() {
    state().attention = 0;
    guest_->translator().step();
  }
  bool halted() { return state().attention & attention::kHalt; }
  void expect_breakpoint(uint64_t offset) {
    EXPECT_EQ(at(), offset);
    const DebugStop stop = debug().take_stop();
    EXPECT_EQ(stop.kind, DebugStop::Kind::Breakpoint);
    EXPECT_EQ(stop.address.value, BareGuest::kCode + offset);
  }
  void expect_watchpoint(uint64_t offset, uint64_t address) {
    EXPECT_EQ(at(), offset);
    const DebugStop stop = debug().take_stop();
    EXPECT_EQ(stop.kind, DebugStop::Kind::Watchpoint);
    EXPECT_EQ(stop.address.value, address);
  }

  std::unique_ptr<BareGuest> guest_;
};

TEST_P(DebugTest, BreakpointInTheMiddleOfCodeThatRanBefore) {
  EXPECT_EQ(start().end, BareGuest::End::Halted);
  debug().set_breakpoints({{BareGuest::kCode + kLoad}});
  start();
  for (unsigned i = 1; i <= 5; ++i) {
    expect_breakpoint(kLoad);
    EXPECT_EQ(state().gpr[kRax], i);
    go_on();  // does not get past it
    expect_breakpoint(kLoad);
    step();
    EXPECT_EQ(at(), kDecrement);
    EXPECT_EQ(state().gpr[kRdx], i);
    go_on();
  }
  EXPECT_TRUE(halted());
  EXPECT_EQ(debug().take_stop().kind, DebugStop::Kind::None);
}

TEST_P(DebugTest, BreakpointAtAJumpTargetIsMetThroughChainedJumps) {
  start();
  debug().set_breakpoints({{BareGuest::kCode + kIncrement}});
  start();
  for (unsigned i = 0; i < 5; ++i) {
    expect_breakpoint(kIncrement);
    EXPECT_EQ(state().gpr[kRcx], 5 - i);
    step();
    go_on();
  }
  EXPECT_TRUE(halted());
}

TEST_P(DebugTest, ABreakpointWithinAnInstructionIsNotMet) {
  debug().set_breakpoints({{BareGuest::kCode + kStore + 3}, {BareGuest::kCode + 1}});
  EXPECT_EQ(start().end, BareGuest::End::Halted);
}

TEST_P(DebugTest, BreakpointsThatAreGone) {
  debug().set_breakpoints({{BareGuest::kCode + kLoad}, {BareGuest::kCode + kHalt}});
  start();
  expect_breakpoint(kLoad);
  debug().set_breakpoints({{BareGuest::kCode + kHalt}});
  go_on();
  expect_breakpoint(kHalt);
  EXPECT_EQ(state().gpr[kRax], 5u);
  debug().set_breakpoints({});
  go_on();
  EXPECT_TRUE(halted());
}

TEST_P(DebugTest, BreakpointsSurviveWhatDropsTranslations) {
  debug().set_breakpoints({{BareGuest::kCode + kLoad}});
  start();
  guest_->translator().discard_translations();
  guest_->vcpu().tlb().flush_all();
  step();
  go_on();
  expect_breakpoint(kLoad);
  EXPECT_EQ(state().gpr[kRax], 2u);
}

TEST_P(DebugTest, EveryStepIsOneInstruction) {
  debug().set_breakpoints({{BareGuest::kCode}});
  start();
  debug().take_stop();
  std::vector<uint64_t> path;
  while (!halted() && path.size() < 100) {
    step();
    path.push_back(at());
  }
  std::vector<uint64_t> expected{kIncrement};
  for (unsigned i = 0; i < 5; ++i)
    expected.insert(expected.end(), {kStore, kLoad, kDecrement, kBranch, i < 4 ? kIncrement : kHalt});
  expected.push_back(kHalt + 1);
  EXPECT_EQ(path, expected);
}

TEST_P(DebugTest, WatchedWrites) {
  start();
  debug().set_watchpoints({{.address = {kData + 1}, .bytes = 2, .reads = false, .writes = true}});
  start();
  for (unsigned i = 1; i <= 5; ++i) {
    expect_watchpoint(kLoad, kData + 1);
    EXPECT_EQ(state().gpr[kRax], i);
    EXPECT_EQ(std::to_integer<unsigned>(guest_->memory()[0x1000]), i) << "the access is done";
    go_on();
  }
  EXPECT_TRUE(halted());
}

TEST_P(DebugTest, WatchedReads) {
  start();
  debug().set_watchpoints({{.address = {kData}, .bytes = 4, .reads = true, .writes = false}});
  start();
  for (unsigned i = 1; i <= 5; ++i) {
    expect_watchpoint(kDecrement, kData);
    EXPECT_EQ(state().gpr[kRdx], i);
    go_on();
  }
  EXPECT_TRUE(halted());
}

TEST_P(DebugTest, WatchedAccessesInSteps) {
  debug().set_breakpoints({{BareGuest::kCode + kIncrement}});
  debug().set_watchpoints({{.address = {kData}, .bytes = 4, .reads = true, .writes = true}});
  start();
  debug().take_stop();
  step();
  EXPECT_EQ(debug().take_stop().kind, DebugStop::Kind::None);
  step();
  expect_watchpoint(kLoad, kData);
  step();
  expect_watchpoint(kDecrement, kData);
}

TEST_P(DebugTest, WatchpointsBesideTheAccessAndGoneOnes) {
  debug().set_watchpoints({{.address = {kData + 4}, .bytes = 4, .reads = true, .writes = true},
                           {.address = {kData - 8}, .bytes = 8, .reads = true, .writes = true}});
  EXPECT_EQ(start().end, BareGuest::End::Halted);
  debug().set_watchpoints({{.address = {kData}, .bytes = 1, .reads = true, .writes = true}});
  start();
  expect_watchpoint(kLoad, kData);
  debug().set_watchpoints({});
  go_on();
  EXPECT_TRUE(halted());
}

using Mmu = jit::TranslatorOptions::Mmu;
INSTANTIATE_TEST_SUITE_P(
    Modes, DebugTest,
    testing::Values(Mode{"default", ""}, Mode{"no_chain", "no-chain"}, Mode{"no_jump_cache", "no-jump-cache"},
                    Mode{"callout_form", "no-soft-tlb"}, Mode{"one_instruction", "no-long-blocks"},
                    Mode{"callouts_one_by_one", "no-soft-tlb,no-long-blocks"},
                    Mode{"windows", "", Mmu::Windows},
                    Mode{"nothing", "no-chain,no-jump-cache,no-flag-liveness,no-soft-tlb,no-long-blocks"}),
    [](const auto& made) { return std::string(made.param.name); });

}  // namespace
}  // namespace penumbra::test
