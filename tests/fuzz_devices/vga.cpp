// The display adapter, and what a monitor shows of any registers and memory.
#include "devices/vga_renderer.h"
#include "devices/vga_std.h"
#include "tests/fuzz_devices/traffic.h"

namespace penumbra {
namespace {

constexpr uint64_t kFrameBuffer = 0xf000'0000, kRegisters = 0xfe00'0000;

struct Rig : Bench {
  VgaStd vga{time.clock(), map, {}};
  VgaImage image;
  unsigned shown = 0;

  Rig() {
    io.add(0x3b0, VgaStd::kLegacyPorts, vga);
    io.add(0x1ce, VgaStd::kDispiPorts, vga, VgaStd::kDispiIndex);
    vga.config().write(0x10, 4, kFrameBuffer);
    vga.config().write(0x18, 4, kRegisters);
    vga.config().write(0x04, 2, 7);
  }
  // Several indexed registers at once, as when a mode is set.
  void set_mode(Input& input) {
    io.write(0x3c2, 1, input.byte() | 1);
    for (const auto& [port, count] : {std::pair<uint16_t, unsigned>{0x3c4, 5}, {0x3ce, 9}, {0x3d4, 0x19}}) {
      for (unsigned i = input.below(32); i > 0; i--)
        io.write(port, 2, input.below(count) | uint32_t{input.byte()} << 8);
    }
    io.read(0x3da, 1);
    for (unsigned i = input.below(20); i > 0; i--) {
      io.write(0x3c0, 1, i % 0x15 | (input.below(4) ? 0x20 : 0));
      io.write(0x3c0, 1, input.byte());
    }
  }
  void set_dispi(Input& input) {
    for (unsigned i = 1 + input.below(10); i > 0; i--) {
      io.write(0x1ce, 2, input.below(12));
      io.write(0x1cf, 2, input.below(3) ? input.word() % 2048 : input.word());
    }
  }
  // Few pictures of an input: each takes a thousand times as long as an access.
  void show(Input& input) {
    if (shown++ < 4)
      render_vga(vga.registers(), vga.memory(), {.cursor = input.below(2) != 0, .text = true}, image);
    vga_text(vga.registers(), vga.memory());
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
                  {{Ports, 0x3b0, 0x30},
                   {Ports, 0x1ce, 3},
                   {Memory, kRegisters, 0x1000},
                   {Memory, VgaStd::kWindow, 0x2'0000},
                   {Memory, kFrameBuffer, 0x100'0000},
                   {Configuration, 0, 256, &rig.vga}});
  const Action actions[] = {
      {40, [&] { rig.set_mode(input); }},
      {20, [&] { rig.set_dispi(input); }},
      {160, [&] { traffic.step(input); }},
      {15, [&] { rig.show(input); }},
      {10,
       [&] {
         rig.time.advance(input.dword());
         rig.vga.watch();
       }},
      {8, [&] { rig.reload(rig.vga); }},
      {3, [&] { rig.vga.reset(); }},
  };
  while (!input.done()) choose(input, actions);
  return 0;
}
