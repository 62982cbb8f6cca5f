// A virtio device on PCI (FUZZ_DEVICE says which), with a driver that has set up its queues and offers it any
// chain.
#include <memory>
#include <string>

#include "devices/virtio_balloon.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_input.h"
#include "devices/virtio_net.h"
#include "devices/virtio_pci.h"
#include "devices/virtio_rng.h"
#include "devices/virtio_serial.h"
#include "tests/devices/memory_network.h"
#include "tests/fuzz_devices/traffic.h"

namespace penumbra {
namespace {

constexpr uint64_t kModern = 0xfe00'0000, kMsix = 0xfe10'0000;
constexpr uint16_t kLegacy = 0xc000, kEntries = 8;

struct Rig : Bench {
  MemoryDisk disk{64 * 512};
  MemoryNetwork network;
  VirtioPci pci{"device", make(), map, io, line.input(), [](uint64_t, uint32_t) {}};

  std::unique_ptr<VirtioDevice> make() {
    const std::string_view kind = FUZZ_DEVICE;
    if (kind == "blk") return std::make_unique<VirtioBlk>(map, disk, "serial");
    if (kind == "net")
      return std::make_unique<VirtioNet>(map, network, MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56});
    if (kind == "keyboard") return std::make_unique<VirtioKeyboard>(map);
    if (kind == "tablet") return std::make_unique<VirtioTablet>(map);
    if (kind == "balloon") return std::make_unique<VirtioBalloon>(map);
    if (kind == "rng")
      return std::make_unique<VirtioRng>(
          map, [](std::span<std::byte> to) { std::ranges::fill(to, std::byte{0x5a}); });
    std::vector<VirtioSerial::Port> ports = {
        {.number = 0, .console = true, .name = "console", .out = [](uint8_t) {}},
        {.number = 3, .console = false, .name = "port", .out = [](uint8_t) {}}};
    return std::make_unique<VirtioSerial>(map, std::move(ports));
  }

  static uint64_t ring(unsigned queue) { return Traffic::kMemory + queue * 0x400; }

  // By the registers of today or, if not, the legacy ones, whose queues are where they fit.
  void set_up(bool modern, uint64_t features) {
    pci.config().write(0x10, 4, kLegacy);
    pci.config().write(0x14, 4, kMsix);
    pci.config().write(0x20, 4, kModern);
    pci.config().write(0x04, 2, 7);
    if (!modern) {
      io.write(kLegacy + 18, 1, 3);
      io.write(kLegacy + 4, 4, static_cast<uint32_t>(features));
      for (uint16_t queue = 0; queue < 6; queue++) {
        io.write(kLegacy + 14, 2, queue);
        io.write(kLegacy + 8, 4, static_cast<uint32_t>((Traffic::kMemory + queue * 0x3000u) >> 12));
      }
      io.write(kLegacy + 18, 1, 7);
      return;
    }
    put(kModern + 20, 1, 3);
    for (unsigned half = 0; half < 2; half++) {
      put(kModern + 8, 4, half);
      put(kModern + 12, 4, features >> 32 * half & 0xffff'ffff);
    }
    put(kModern + 20, 1, 11);
    for (unsigned queue = 0; queue < 8; queue++) {
      put(kModern + 22, 2, queue);
      put(kModern + 24, 2, kEntries);
      put(kModern + 32, 8, ring(queue));
      put(kModern + 40, 8, ring(queue) + 0x100);
      put(kModern + 48, 8, ring(queue) + 0x200);
      put(kModern + 28, 2, 1);
    }
    put(kModern + 20, 1, 15);
  }

  // A chain of descriptors, in the ring and told to the device.
  void offer(Input& input) {
    const unsigned queue = input.below(6), first = input.below(kEntries), count = 1 + input.below(4);
    for (unsigned i = 0; i < count; i++) {
      const uint64_t at = ring(queue) + 16 * ((first + i) % kEntries);
      const uint8_t how = input.byte();
      put(at, 8, how & 0x80 ? Traffic::value(input) : Traffic::address(input));
      put(at + 8, 4, how & 0x40 ? input.dword() : input.below(0x600));
      const uint64_t link = how & 0x20 ? input.byte() : (i + 1 < count) | (how & 2);
      put(at + 12, 2, link);
      put(at + 14, 2, how & 0x10 ? input.byte() : (first + i + 1) % kEntries);
    }
    const uint64_t available = ring(queue) + 0x100, index = map.read({available + 2}, 2);
    put(available + 4 + 2 * (index % kEntries), 2, first);
    put(available + 2, 2, index + 1);
    put(kModern + 0x3000 + queue * 4, 2, queue);
  }

  // What the host does to it.
  void happen(Input& input) {
    if (auto* const serial = dynamic_cast<VirtioSerial*>(&pci.device())) {
      [[maybe_unused]] const bool taken = serial->receive(input.below(2) * 3, input.byte());
    } else if (auto* const keyboard = dynamic_cast<VirtioKeyboard*>(&pci.device())) {
      keyboard->key(static_cast<KeyCode>(input.byte()), input.below(2));
    } else if (auto* const tablet = dynamic_cast<VirtioTablet*>(&pci.device())) {
      tablet->place(input.word(), input.word(), static_cast<int8_t>(input.byte()), input.byte());
    } else if (auto* const balloon = dynamic_cast<VirtioBalloon*>(&pci.device())) {
      if (input.below(2))
        balloon->set_wanted(Traffic::value(input));
      else [[maybe_unused]]
        const bool asked = balloon->request_statistics();
    } else if (dynamic_cast<VirtioNet*>(&pci.device()) && network.waiting() < 10) {
      const auto frame = std::as_bytes(input.bytes(input.below(2000)));
      network.deliver({frame.begin(), frame.end()});
    }
    disturb(disk, input);
  }
};

}  // namespace
}  // namespace penumbra

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  Input input(data, size);
  Rig rig;
  const uint8_t flags = input.byte();
  rig.disk.can_discard = flags & 4;
  rig.disk.is_read_only = flags & 8;
  constexpr uint64_t kVersion1 = uint64_t{1} << 32, kUsual = 0x3000'ffff;
  rig.set_up(flags & 1, flags & 2 ? input.qword() : kVersion1 | kUsual);
  using enum Place::Kind;
  Traffic traffic(rig.io, rig.map,
                  {{Memory, kModern, 0x1000},
                   {Memory, kModern, 0x40},
                   {Memory, kModern + 0x1000, 0x2000},
                   {Memory, kModern + 0x3000, 0x40},
                   {Ports, kLegacy, 0x80},
                   {Memory, kMsix, 0x1000},
                   {Configuration, 0, 256, &rig.pci}});
  const Action actions[] = {
      {100, [&] { rig.offer(input); }}, {100, [&] { traffic.step(input); }},
      {50, [&] { rig.happen(input); }}, {4, [&] { rig.reload(rig.pci); }},
      {2, [&] { rig.pci.reset(); }},
  };
  while (!input.done()) choose(input, actions);
  rig.disk.release();
  return 0;
}
