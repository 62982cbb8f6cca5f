#include "frontend/state_dump.h"

#include <gtest/gtest.h>

#include <array>

#include "core/io_bus.h"

namespace penumbra {
namespace {

class StateDump : public testing::Test {
 protected:
  StateDump() { vcpu.reset(); }
  VcpuState state;
  PhysicalMap map{1 << 20};
  SoftTlb tlb{map};
  IoBus io;
  CpuModel model{"base"};
  Vcpu vcpu{state, map, tlb, io, model};
};

void expect_within(const std::string& text, const std::string& what) {
  EXPECT_NE(text.find(what), std::string::npos) << "no '" << what << "' in\n" << text;
}

// Intel SDM vol. 3, table 9-1.
TEST_F(StateDump, ShowsTheStateAfterReset) {
  const std::string text = state_dump(vcpu, map);
  expect_within(text, "real mode, CPL 0\n");
  expect_within(text, "RIP 000000000000fff0  RFLAGS 00000002");
  expect_within(text, "CS  f000 base 00000000ffff0000 limit 0000ffff");
  expect_within(text, "CR0 0000000060000010");
}

TEST_F(StateDump, ShowsTheCodeAroundRip) {
  const std::array<std::byte, 3> code{std::byte{0x90}, std::byte{0xcc}, std::byte{0xf4}};
  map.write_bytes({0x7c00}, code);
  state.segments[kCs].base = 0;
  state.rip = 0x7c01;
  expect_within(state_dump(vcpu, map), "00 90 <cc> f4 00");
}

TEST_F(StateDump, CodeThatIsNowhereIsShownAsDashes) {
  state.segments[kCs].base = 0x8000'0000;
  expect_within(state_dump(vcpu, map), "-- <--> --");
}

TEST_F(StateDump, ListsTheLastEvents) {
  state.segments[kCs].base = 0;
  state.rip = 0x1234;
  vcpu.deliver({.vector = vector::kUd});
  vcpu.deliver_interrupt(0x21, false);
  const std::string text = state_dump(vcpu, map);
  expect_within(text, "  interrupt 0x21 at ");
  expect_within(text, "  #UD at f000:1234 ");
  EXPECT_LT(text.find("interrupt 0x21"), text.find("#UD"));
}

TEST_F(StateDump, NeverWritesBeyondTheLimit) {
  std::array<char, 101> text;
  text.fill('~');
  EXPECT_EQ(format_registers(state, text.data(), 100), 100u);
  EXPECT_EQ(text[100], '~');
}

// SDM vol. 3, 4.5: 4-level paging; the second page table is absent.
TEST_F(StateDump, WalksPages) {
  const auto put = [this](uint64_t at, uint64_t value) { map.write({at}, 8, value); };
  put(0x1000, 0x2003);
  put(0x2000, 0x3007);
  put(0x3000, 0x83);
  state.cr3 = 0x1000;
  state.cr4 = cr4::kPae;
  state.efer = efer::kLme | efer::kLma;
  state.cr0 = cr0::kPe | cr0::kPg;
  state.segments[kCs].base = 0;
  state.segments[kCs].attributes = 0xa09b;
  state.rip = 0x1234;
  state.cr2 = 0x20'0000;
  vcpu.update_mode();
  const std::string text = state_dump(vcpu, map);
  expect_within(text,
                "page walk of RIP L:0x1234\n"
                "  PML4E  P:0x1000 0000000000002003 P RW\n"
                "  PDPTE  P:0x2000 0000000000003007 P RW US\n"
                "  PDE    P:0x3000 0000000000000083 P RW PS\n"
                "  P:0x1234\n");
  expect_within(text,
                "page walk of CR2 L:0x200000\n"
                "  PML4E  P:0x1000 0000000000002003 P RW\n"
                "  PDPTE  P:0x2000 0000000000003007 P RW US\n"
                "  PDE    P:0x3008 0000000000000000 not present\n");
}

}  // namespace
}  // namespace penumbra
