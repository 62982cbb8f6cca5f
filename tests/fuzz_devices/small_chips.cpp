// Chips that have no other target of their own: flash, fw_cfg.
#include "devices/flash_28f128j3.h"
#include "devices/fw_cfg.h"
#include "tests/fuzz_devices/traffic.h"

namespace penumbra {
namespace {

constexpr uint64_t kFlash = 0xfff0'0000;
constexpr uint32_t kFlashBytes = 0x4000;

struct Rig : Bench {
  std::vector<std::byte> kept = std::vector<std::byte>(kFlashBytes, std::byte{0xff});
  bool keeps = true;
  Flash28F128J3 flash{"flash", map, PhysAddr{kFlash}, kept,
                      [this](uint64_t offset, std::span<const std::byte> bytes) {
                        std::ranges::copy(bytes, kept.begin() + static_cast<ptrdiff_t>(offset));
                        return keeps;
                      }};
  FwCfg fw_cfg{map};

  Rig() {
    io.add(0x510, 12, fw_cfg);
    fw_cfg.add_file("a", FwCfg::Bytes(300, 7));
    fw_cfg.add_writable_file("b", FwCfg::Bytes(40), [](std::span<const uint8_t>) {});
    fw_cfg.add_string(FwCfg::kCommandLineData, "text");
  }
  void program(Input& input) {
    static constexpr uint8_t kCommands[] = {0x10, 0x40, 0x20, 0xd0, 0x50, 0x60,
                                            0x70, 0x90, 0x98, 0xe8, 0xff, 0x01};
    const uint64_t at = kFlash + input.below(kFlashBytes);
    put(at, 1, kCommands[input.below(std::size(kCommands))]);
    for (const uint8_t value : input.bytes(input.below(300)))
      put(std::min(at, kFlash + kFlashBytes - 1), 1, value);
  }
  // A descriptor of fw_cfg's DMA, big-endian, and its address.
  void transfer(Input& input) {
    const uint64_t at = Traffic::address(input) & ~uint64_t{7};
    const auto put_be = [this](uint64_t address, unsigned size, uint64_t value) {
      for (unsigned i = 0; i < size; i++) put(address + i, 1, value >> 8 * (size - 1 - i) & 0xff);
    };
    put_be(at, 4, input.below(32) | uint32_t{input.below(4) ? input.below(0x24) : input.word()} << 16);
    put_be(at + 4, 4, input.below(4) ? input.word() : input.dword());
    put_be(at + 8, 8, input.below(4) ? Traffic::address(input) : Traffic::value(input));
    io.write(0x518, 4, __builtin_bswap32(static_cast<uint32_t>(at)));
  }
};

}  // namespace
}  // namespace penumbra

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  Input input(data, size);
  Rig rig;
  using enum Place::Kind;
  Traffic traffic(rig.io, rig.map, {{Memory, kFlash, kFlashBytes}, {Ports, 0x510, 12}});
  const Action actions[] = {
      {60, [&] { rig.program(input); }},
      {40, [&] { rig.transfer(input); }},
      {120, [&] { traffic.step(input); }},
      {15, [&] { rig.keeps = input.below(2); }},
      {18,
       [&] {
         rig.reload(rig.flash);
         rig.reload(rig.fw_cfg);
       }},
      {3,
       [&] {
         rig.flash.reset();
         rig.fw_cfg.reset();
       }},
  };
  while (!input.done()) choose(input, actions);
  return 0;
}
