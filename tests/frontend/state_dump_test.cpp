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

// The shape of QEMU's -d int, which people's scripts read.
TEST_F(StateDump, EventLines) {
  state.segments[kCs].base = 0x10000;
  EventRecord event{};
  event.vector = vector::kPf;
  event.has_error_code = true;
  event.error_code = 2;
  event.cpl = 3;
  event.cs = 0x33;
  event.rip = 0x401000;
  event.rsp = 0x7ffe;
  event.cr2 = 0xdead;
  EXPECT_EQ(event_line(event, state, 7),
            "     7: v=0e e=0002 i=0 cpl=3 IP=0033:0000000000401000 pc=0000000000411000 "
            "SP=0000:0000000000007ffe CR2=000000000000dead\n");
  EventRecord interrupt{};
  interrupt.vector = 0x30;
  interrupt.interrupt = true;
  EXPECT_EQ(event_line(interrupt, state, 8).find("Servicing hardware INT=0x30\n     8: v=30 e=0000 i=0 "),
            0u);
}

}  // namespace
}  // namespace penumbra
