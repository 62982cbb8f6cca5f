// What a debugger outside the guest does with the engine: breakpoints, watchpoints and steps, in every engine
// mode.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

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
  DebugTest() { make_guest(false); }
  void make_guest(bool record_blocks) {
    jit::TranslatorOptions options;
    options.code_cache_bytes = 4 << 20;
    jit::apply_switches(options, GetParam().switches);
    options.mmu = GetParam().mmu;
    options.record_blocks = record_blocks;
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

// What running the program costs, once everything is translated: calls into C++, and blocks with the size of
// their code.
class BreakpointsCost : public DebugTest {
 protected:
  using Counters = std::vector<std::pair<std::string, uint64_t>>;
  Counters counters_of_a_run() {
    start();
    start();
    const Counters before = guest_->translator().statistics();
    EXPECT_EQ(start().end, BareGuest::End::Halted);
    Counters after = guest_->translator().statistics();
    std::erase_if(after, [](const auto& row) { return row.first == "code cache bytes used"; });
    for (auto& [name, value] : after)
      value -= std::ranges::find(before, name, &Counters::value_type::first)->second;
    return after;
  }
  // In the order in which they were entered, the latest first: where, bytes, instructions, bytes of host
  // code.
  std::vector<std::string> blocks_of_a_run() {
    start();
    start();
    state().recent_blocks.fill(0);
    start();
    std::vector<std::string> blocks;
    for (const auto& [block, linear] : guest_->translator().recent_blocks()) {
      blocks.push_back(std::to_string(linear.value - BareGuest::kCode) + ": " +
                       std::to_string(block->guest_bytes) + ", " + std::to_string(block->guest_instructions) +
                       ", " + std::to_string(block->host_bytes));
    }
    return blocks;
  }
  // Each instruction gets a breakpoint, all at once, which the program meets one after the other; `remove`
  // takes them away.
  void meet_breakpoints(void (*remove)(BreakpointsCost&)) {
    std::vector<LinearAddr> all;
    for (const uint64_t offset : {uint64_t{0}, kIncrement, kStore, kLoad, kDecrement, kBranch, kHalt})
      all.push_back({BareGuest::kCode + offset});
    debug().set_breakpoints(all);
    start();
    for (unsigned i = 0; i < 20; ++i) {
      EXPECT_EQ(debug().take_stop().kind, DebugStop::Kind::Breakpoint);
      step();
      go_on();
    }
    debug().take_stop();
    remove(*this);
  }
  void meet_watchpoint() {
    debug().set_watchpoints({{.address = {kData}, .bytes = 4, .reads = true, .writes = true}});
    start();
    expect_watchpoint(kLoad, kData);
    debug().set_watchpoints({});
  }
  static void remove_all(BreakpointsCost& test) { test.debug().set_breakpoints({}); }
  static void remove_one_by_one(BreakpointsCost& test) {
    for (const uint64_t offset : {kHalt, kIncrement, kStore, uint64_t{0}, kLoad, kDecrement}) {
      std::vector<LinearAddr> left;
      for (const uint64_t other : {uint64_t{0}, kIncrement, kStore, kLoad, kDecrement, kBranch, kHalt}) {
        if (other > offset) left.push_back({BareGuest::kCode + other});
      }
      test.debug().set_breakpoints(left);
      test.start();
      test.debug().take_stop();
    }
    remove_all(test);
  }
  // The guest's own, by DR0 and DR7, which its handler would take away.
  void meet_debug_registers() {
    start();
    state().rip = BareGuest::kCode;
    state().dr[0] = BareGuest::kCode + kLoad;
    state().dr[7] = 0x401;
    debug().registers_changed();
    go_on();
    EXPECT_TRUE(guest_->vcpu().triple_fault());  // there is no handler
    EXPECT_EQ(at(), kLoad);
    state().dr[7] = 0x400;
    debug().registers_changed();
  }
};

TEST_P(BreakpointsCost, NothingOnceTheyAreGone) {
  for (const bool record : {false, true}) {
    make_guest(record);
    const Counters counters = counters_of_a_run();
    const std::vector<std::string> blocks = blocks_of_a_run();
    if (record) {
      EXPECT_GT(blocks.size(), 5u);
      EXPECT_LT(blocks.size(), state().recent_blocks.size());
    }
    for (const auto& remove : {remove_all, remove_one_by_one}) {
      meet_breakpoints(remove);
      EXPECT_EQ(counters_of_a_run(), counters);
      EXPECT_EQ(blocks_of_a_run(), blocks);
    }
    meet_watchpoint();
    EXPECT_EQ(counters_of_a_run(), counters);
    EXPECT_EQ(blocks_of_a_run(), blocks);
    meet_debug_registers();
    EXPECT_EQ(counters_of_a_run(), counters);
    EXPECT_EQ(blocks_of_a_run(), blocks);
  }
}

TEST_P(BreakpointsCost, NothingWhereTheyAreElsewhere) {
  for (const bool record : {false, true}) {
    make_guest(record);
    const Counters counters = counters_of_a_run();
    const std::vector<std::string> blocks = blocks_of_a_run();
    debug().set_breakpoints({{BareGuest::kCode + 0x800}, {BareGuest::kCode - 1}});
    debug().set_watchpoints({{.address = {kData + 0x2000}, .bytes = 8, .reads = true, .writes = true}});
    EXPECT_EQ(blocks_of_a_run(), blocks);
    // The dispatcher looks for breakpoints whenever it is asked; it is not asked more often.
    EXPECT_EQ(counters_of_a_run(), counters);
  }
}

using Mmu = jit::TranslatorOptions::Mmu;
constexpr Mode kModes[] = {
    {"default", ""},
    {"no_chain", "no-chain"},
    {"no_jump_cache", "no-jump-cache"},
    {"callout_form", "no-soft-tlb"},
    {"one_instruction", "no-long-blocks"},
    {"callouts_one_by_one", "no-soft-tlb,no-long-blocks"},
    {"nothing", "no-chain,no-jump-cache,no-flag-liveness,no-soft-tlb,no-long-blocks"},
};
constexpr auto kName = [](const auto& made) { return std::string(made.param.name); };
INSTANTIATE_TEST_SUITE_P(Modes, DebugTest, testing::ValuesIn(kModes), kName);
INSTANTIATE_TEST_SUITE_P(Windows, DebugTest, testing::Values(Mode{"windows", "", Mmu::Windows}), kName);
// Which blocks use the windows depends on what has faulted before.
INSTANTIATE_TEST_SUITE_P(Modes, BreakpointsCost, testing::ValuesIn(kModes), kName);

}  // namespace
}  // namespace penumbra::test
