// The floppy disk controller and the DMA controller that it transfers by.
#include "devices/dma_8237.h"
#include "devices/fdc_82077aa.h"
#include "tests/fuzz_devices/traffic.h"

namespace penumbra {
namespace {

struct Rig : Bench {
  MemoryDisk first{1'474'560}, second{368'640};
  DmaPageRegisters pages;
  Dma8237 dma{"dma", 0, map, pages};
  Fdc82077aa fdc{dma, line.input(), {&first, &second}};

  Rig() {
    io.add(0x00, 16, dma);
    io.add(0x81, 15, pages);
    io.add(0x3f0, Fdc82077aa::kPorts, fdc);
    io.add(0x3f7, 1, fdc, Fdc82077aa::kDirectionPort);
    dma.set_listener([this] { fdc.dma_ready(); });
    io.write(0x3f2, 1, 0x3c);
    io.write(0x81, 1, Traffic::kMemory >> 16);
  }
  void channel(Input& input) {
    io.write(0x0a, 1, 6);
    io.write(0x0c, 1, 0);
    io.write(0x0b, 1, input.below(4) ? 0x46 + 4 * input.below(3) : input.byte());
    for (const uint16_t port : {4, 4, 5, 5}) io.write(port, 1, input.byte());
    io.write(0x0a, 1, 2);
  }
  void command(Input& input) {
    static constexpr uint8_t kCodes[] = {0x46, 0x45, 0x66, 0xc6, 0xc5, 0x4a, 0x4d, 0x0f, 0x07, 0x08, 0x03,
                                         0x13, 0x0e, 0x10, 0x12, 0x14, 0x42, 0x56, 0x04, 0x94, 0x4c, 0x49};
    const uint8_t choice = input.byte();
    io.write(0x3f5, 1, choice < 200 ? kCodes[choice % std::size(kCodes)] : choice);
    for (unsigned i = input.below(10); i > 0; i--)
      io.write(0x3f5, 1, input.byte() % (input.below(4) ? 20 : 256));
  }
  void data(Input& input) {
    const bool writes = input.below(2);
    for (unsigned i = input.word() % 1100; i > 0; i--)
      writes ? io.write(0x3f5, 1, i & 0xff) : static_cast<void>(io.read(0x3f5, 1));
  }
  void happen(Input& input) {
    disturb(first, input);
    disturb(second, input);
    if (input.below(4) == 0) {
      static constexpr size_t kSizes[] = {0, 512, 163'840, 368'640, 737'280, 1'228'800, 1'474'560, 2'949'120};
      second.contents.resize(kSizes[input.below(std::size(kSizes))]);
      second.medium++;
    }
  }
};

}  // namespace
}  // namespace penumbra

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  Input input(data, size);
  Rig rig;
  using enum Place::Kind;
  Traffic traffic(rig.io, rig.map, {{Ports, 0x3f0, 8}, {Ports, 0, 16}, {Ports, 0x81, 15}});
  const Action actions[] = {
      {70, [&] { rig.command(input); }},
      {30, [&] { rig.channel(input); }},
      {30, [&] { rig.data(input); }},
      {90, [&] { traffic.step(input); }},
      {25, [&] { rig.happen(input); }},
      {8,
       [&] {
         rig.reload(rig.fdc);
         rig.reload(rig.dma);
       }},
      {3, [&] { rig.fdc.reset(); }},
  };
  while (!input.done()) choose(input, actions);
  rig.first.release();
  rig.second.release();
  return 0;
}
