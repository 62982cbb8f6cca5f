// The whole board with every chip that it can have: ports, memory, configuration space, DMA, interrupts,
// input from outside, and saved states with a value that is not what was saved.
#include <exception>
#include <utility>
#include <vector>

#include "tests/devices/full_board.h"
#include "tests/fuzz_devices/traffic.h"

namespace penumbra {
namespace {

struct Rig : FullBoard {
  std::vector<Place> places;

  Rig() {
    using enum Place::Kind;
    for (const auto& [first, count] : {std::pair<uint16_t, uint16_t>{0x00, 16},
                                       {0x20, 2},
                                       {0x40, 4},
                                       {0x60, 5},
                                       {0x70, 2},
                                       {0x80, 16},
                                       {0x92, 1},
                                       {0xa0, 2},
                                       {0xb2, 2},
                                       {0xc0, 32},
                                       {0xe0, 12},
                                       {0xf4, 4},
                                       {0x170, 8},
                                       {0x1ce, 3},
                                       {0x1f0, 8},
                                       {0x2e8, 8},
                                       {0x2f8, 8},
                                       {0x376, 1},
                                       {0x378, 3},
                                       {0x3b4, 7},
                                       {0x3c0, 16},
                                       {0x3d4, 7},
                                       {0x3e8, 8},
                                       {0x3f0, 8},
                                       {0x3f8, 8},
                                       {0x402, 1},
                                       {0x4d0, 2},
                                       {0x510, 12},
                                       {0xcf8, 8},
                                       {0xafe0, 4},
                                       {0x2000, 24}})
      places.push_back({Ports, first, count});
    for (const auto& [first, count] : {std::pair<uint64_t, uint32_t>{0xa'0000, 0x2'0000},
                                       {0xc'0000, 0x4'0000},
                                       {0xfec0'0000, 0x100},
                                       {0xfed0'0000, 0x200},
                                       {0xfee0'0000, 0x400},
                                       {0xff00'0000, 0x100},
                                       {0xffff'c000, 0x4000}})
      places.push_back({Memory, first, count});
    // As firmware does it: each base address gets its place, then all are switched on.
    uint32_t memory = 0xe000'0000, ports = 0xc000;
    for (unsigned address = 0; address < PciBus::kFunctions; address++) {
      PciFunction* const function = board.pci().at(static_cast<uint8_t>(address));
      if (!function) continue;
      places.push_back({Configuration, 0, 256, function});
      for (unsigned base = 0x10; base < 0x28; base += 4) {
        function->config().write(base, 4, 0xffff'ffff);
        const uint32_t mask = function->config().read(base, 4);
        if (mask == 0) continue;
        const bool is_io = mask & 1;
        const uint32_t bytes = ~(mask & (is_io ? ~3u : ~15u)) + 1;
        uint32_t& next = is_io ? ports : memory;
        next = (next + bytes - 1) & ~(bytes - 1);
        function->config().write(base, 4, next);
        places.push_back({is_io ? Ports : Memory, next, std::min<uint32_t>(bytes, 0x2'0000)});
        next += bytes;
      }
      function->config().write(PciConfig::kCommand, 2, 7);
    }
  }

  void happen(Input& input) {
    switch (input.below(8)) {
      case 0:
        if (network.waiting() < 10) {
          const auto frame = std::as_bytes(input.bytes(input.below(2000)));
          network.deliver({frame.begin(), frame.end()});
          second_network.deliver({frame.begin(), frame.end()});
        }
        return;
      case 1:
        board.key(input.byte(), input.below(2));
        return;
      case 2:
        board.mouse().move(static_cast<int8_t>(input.byte()), static_cast<int8_t>(input.byte()),
                           static_cast<int8_t>(input.byte()), input.below(8));
        return;
      case 3:
        if (board.tablet()) board.tablet()->place(input.word(), input.word(), 0, input.below(8));
        return;
      case 4:
        if (Uart16550a* const uart = board.serial(input.below(4)))
          static_cast<void>(uart->receive(input.byte()));
        return;
      case 5:
        board.power_management().press_power_button();
        return;
      case 6:
        if (board.interrupts().pending()) board.interrupts().acknowledge();
        return;
      default:
        set_holding(input.below(2));
        return;
    }
  }
  void set_holding(bool holds) {
    for (MemoryDisk* medium : {&disk, &disc, &virtio_disk, &ahci_disk, &floppy}) {
      medium->holds = holds;
      if (!holds) medium->release();
    }
  }

  // One value of a chip's saved state becomes another; the chip refuses it or lives on.
  void damage(Input& input) {
    set_holding(false);  // with a request under way nothing is saved
    Device& chip = *board.chips()[input.below(static_cast<uint32_t>(board.chips().size()))];
    const DeviceState saved = chip.save();
    DeviceState values = saved.flatten();
    auto at = values.begin();
    std::advance(at, input.word() % values.size());
    switch (input.below(6)) {
      case 0:
        *at = nullptr;
        break;
      case 1:
        *at = -1;
        break;
      case 2:
        *at = input.qword();
        break;
      case 3:
        *at = std::string("text");
        break;
      case 4:
        *at = input.byte();
        break;
      default:
        values.erase(at);
        break;
    }
    try {
      chip.load(values.unflatten());
    } catch (const std::exception&) {
      chip.load(saved);
    }
  }
};

}  // namespace
}  // namespace penumbra

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  Input input(data, size);
  Rig rig;
  Traffic traffic(rig.io, rig.map, rig.places);
  const Action actions[] = {
      {180, [&] { traffic.step(input); }},
      {20, [&] { rig.time.advance(input.dword() % 100'000'000); }},
      {35, [&] { rig.happen(input); }},
      {15, [&] { rig.damage(input); }},
      {3,
       [&] {
         rig.set_holding(false);
         rig.board.load(rig.board.save());
       }},
      {3, [&] { rig.board.reset(); }},
  };
  while (!input.done()) choose(input, actions);
  rig.set_holding(false);
  return 0;
}
