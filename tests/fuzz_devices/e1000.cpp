// The 82540EM with rings that a driver has set up: any descriptors, frames of any kind, registers of any
// value.
#include "devices/ethernet_82540em.h"
#include "tests/devices/memory_network.h"
#include "tests/fuzz_devices/traffic.h"

namespace penumbra {
namespace {

constexpr uint64_t kRegisters = 0xfe00'0000, kSendRing = Traffic::kMemory,
                   kReceiveRing = Traffic::kMemory + 0x400;
constexpr uint16_t kPorts = 0xc000;
constexpr uint32_t kEntries = 16;
constexpr uint64_t kTail = 0x18;

struct Rig : Bench {
  MemoryNetwork network;
  Ethernet82540em card{
      "card", map, io, time.clock(), line.input(), network, MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56}};

  Rig() {
    card.config().write(0x10, 4, kRegisters);
    card.config().write(0x14, 4, kPorts);
    card.config().write(0x04, 2, 7);
    put(kRegisters + 0x00d0, 4, 0xffff'ffff);  // IMS
    for (const auto& [ring, at] :
         {std::pair{kRegisters + 0x3800, kSendRing}, {kRegisters + 0x2800, kReceiveRing}}) {
      put(ring, 4, at);
      put(ring + 8, 4, kEntries * 16);
    }
    for (uint64_t i = 0; i < kEntries; i++)
      put(kReceiveRing + 16 * i, 8, Traffic::kMemory + 0x4000 + 0x800 * i);
    put(kRegisters + 0x2800 + kTail, 4, kEntries - 1);
    put(kRegisters + 0x0400, 4, 0x0a);         // TCTL
    put(kRegisters + 0x0100, 4, 0x8000'803e);  // RCTL: any frame
  }
  // Descriptors of one of the kinds, up to where the tail is set.
  void send(Input& input) {
    uint64_t tail = map.read({kRegisters + 0x3800 + kTail}, 4) % kEntries;
    for (unsigned i = 1 + input.below(4); i > 0; i--) {
      const uint8_t how = input.byte();
      const uint64_t at = kSendRing + 16 * tail;
      put(at, 8, how & 0x80 ? Traffic::value(input) : Traffic::address(input));
      // Legacy, context, data
      const uint64_t kind = how % 3 == 0 ? 0 : uint64_t{1} << 29 | (how % 3 == 1 ? 0 : uint64_t{1} << 20);
      const uint64_t length = how & 0x40 ? input.dword() & 0xf'ffff : input.below(0x800);
      put(at + 8, 8, length | kind | uint64_t{input.byte()} << 24 | uint64_t{input.dword()} << 32);
      tail = (tail + 1) % kEntries;
    }
    put(kRegisters + 0x3800 + kTail, 4, tail);
  }
  void receive(Input& input) {
    if (network.waiting() > 10) return;
    std::vector<std::byte> frame(input.word() % 0x4000);
    const auto head = std::as_bytes(input.bytes(std::min<size_t>(frame.size(), input.byte())));
    std::ranges::copy(head, frame.begin());
    network.deliver(std::move(frame));
    put(kRegisters + 0x2800 + kTail, 4, input.below(kEntries));
  }
};

}  // namespace
}  // namespace penumbra

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  Input input(data, size);
  Rig rig;
  using enum Place::Kind;
  Traffic traffic(rig.io, rig.map,
                  {{Memory, kRegisters, 0x200},
                   {Memory, kRegisters + 0x2800, 0x40},
                   {Memory, kRegisters + 0x3800, 0x40},
                   {Memory, kRegisters, 0x2'0000},
                   {Memory, kRegisters + 0x4000, 0x100},
                   {Memory, kRegisters + 0x5000, 0xa00},
                   {Ports, kPorts, 8},
                   {Configuration, 0, 256, &rig.card}});
  const Action actions[] = {
      {80, [&] { rig.send(input); }},      {40, [&] { rig.receive(input); }},
      {100, [&] { traffic.step(input); }}, {25, [&] { rig.time.advance(input.dword()); }},
      {8, [&] { rig.reload(rig.card); }},  {3, [&] { rig.card.reset(); }},
  };
  while (!input.done()) {
    choose(input, actions);
    rig.network.sent.clear();
  }
  return 0;
}
