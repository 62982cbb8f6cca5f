// Disks and CD-ROM drives behind the PIIX3 or, with FUZZ_AHCI, the ICH9: commands of all kinds, DMA tables
// included.
#include <memory>

#include "devices/ahci_ich9.h"
#include "devices/ata_disk.h"
#include "devices/atapi_cdrom.h"
#include "devices/ide_piix3.h"
#include "tests/fuzz_devices/traffic.h"

namespace penumbra {
namespace {

// Commands that the drives know; a byte of any value now and then.
constexpr uint8_t kCommands[] = {0x00, 0x03, 0x08, 0x10, 0x20, 0x21, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35,
                                 0x39, 0x3d, 0x40, 0x42, 0x60, 0x61, 0x70, 0x90, 0x91, 0xa0, 0xa1, 0xc4,
                                 0xc5, 0xc6, 0xc8, 0xca, 0xce, 0xe0, 0xe1, 0xe3, 0xe5, 0xe6, 0xe7, 0xea,
                                 0xec, 0xef, 0xf8, 0x06, 0x2f, 0x47, 0xb0, 0xce, 0x23, 0x27};
uint8_t command(Input& input) {
  const uint8_t choice = input.byte();
  return choice < std::size(kCommands) * 4 ? kCommands[choice % std::size(kCommands)] : choice;
}

// MMC's commands that begin packets.
void packet(Input& input, std::span<uint8_t, 12> bytes) {
  static constexpr uint8_t kPackets[] = {0x00, 0x03, 0x12, 0x1b, 0x1e, 0x25, 0x28, 0xa8, 0x42, 0x43, 0x44,
                                         0x46, 0x4a, 0x51, 0x52, 0x55, 0x5a, 0xad, 0xbb, 0xbd, 0xbe, 0x23};
  const uint8_t choice = input.byte();
  bytes[0] = choice < 200 ? kPackets[choice % std::size(kPackets)] : choice;
  for (uint8_t& byte : bytes.subspan(1)) byte = input.below(3) == 0 ? input.byte() : 0;
}

struct Media : Bench {
  MemoryDisk disk{200 * 512}, disc{20 * 2048}, empty{0};

  void happen(Input& input) {
    disturb(disk, input);
    disturb(disc, input);
    if (input.below(4) == 0) disc.medium++;
    if (input.below(8) == 0) disc.contents.resize(disc.contents.empty() ? 20 * 2048 : 0);
  }
  // A physical region table of the PIIX3 (one descriptor of eight bytes) or the AHCI's (sixteen).
  void regions(Input& input, uint64_t at, bool ahci) {
    for (unsigned i = input.below(5); i > 0; i--) {
      const uint8_t how = input.byte();
      const uint64_t address = how & 0x80 ? Traffic::value(input) : Traffic::address(input) & ~uint64_t{1};
      const uint32_t bytes = how & 0x40 ? input.dword() : input.below(0x1000) & ~1u;
      put(at, ahci ? 8 : 4, address);
      put(at + (ahci ? 12 : 4), 4, ahci ? bytes : bytes | (i == 1 ? 0x8000'0000 : 0));
      at += ahci ? 16 : 8;
    }
  }
};

#ifdef FUZZ_AHCI
constexpr uint64_t kRegisters = 0xfe00'0000;
constexpr uint16_t kIndexPorts = 0xc100;

struct Rig : Media {
  AhciIch9 ahci{"ahci", map, io, line.input(), [](uint64_t, uint32_t) {}};
  Device& chip() { return ahci; }

  Rig() {
    ahci.attach(0, std::make_unique<AtaDisk>("disk", disk, AtaDrive::Cable::Serial, "serial"));
    ahci.attach(1, std::make_unique<AtapiCdrom>("cdrom", disc, AtaDrive::Cable::Serial));
    ahci.config().write(0x20, 4, kIndexPorts);
    ahci.config().write(0x24, 4, kRegisters);
    ahci.config().write(0x04, 2, 7);
    put(kRegisters + 4, 4, 2);
    for (const unsigned port : {0u, 1u}) {
      const uint64_t at = kRegisters + 0x100 + port * 0x80;
      put(at, 4, list(port));
      put(at + 8, 4, list(port) + 0x400);
      put(at + 0x14, 4, 0xffff'ffff);
      put(at + 0x18, 4, 0x11);
    }
  }
  static uint64_t list(unsigned port) { return Traffic::kMemory + port * 0x800; }
  std::vector<Place> places() {
    using enum Place::Kind;
    return {{Memory, kRegisters, 0x40},         {Memory, kRegisters + 0x100, 0x80},
            {Memory, kRegisters + 0x180, 0x80}, {Memory, kRegisters, 0x1000},
            {Ports, kIndexPorts, 16},           {Configuration, 0, 256, &ahci}};
  }
  void use(Input& input) {
    const unsigned port = input.below(2), slot = input.below(4);
    const uint64_t header = list(port) + slot * 32, table = Traffic::kMemory + 0x2000 + slot * 0x400;
    const uint8_t how = input.byte();
    put(header, 4,
        how & 1 ? input.dword() : 5 | (how & 0x40) | (port && how & 2 ? 0x20 : 0) | input.below(6) << 16);
    put(header + 8, 8, how & 0x80 ? Traffic::value(input) : table);
    const uint8_t code = port && how & 2 ? 0xa0 : command(input);
    const uint8_t fis[] = {0x27,
                           0x80,
                           code,
                           input.byte(),
                           input.byte(),
                           input.byte(),
                           0,
                           static_cast<uint8_t>(0x40 | input.byte()),
                           0,
                           0,
                           0,
                           input.byte(),
                           input.byte(),
                           input.byte()};
    map.write_bytes({table}, std::as_bytes(std::span(fis)));
    uint8_t bytes[12];
    packet(input, bytes);
    map.write_bytes({table + 0x40}, std::as_bytes(std::span(bytes)));
    regions(input, table + 0x80, true);
    const uint64_t at = kRegisters + 0x100 + port * 0x80;
    if (how & 4) put(at + 0x34, 4, 1u << slot);
    put(at + 0x38, 4, how & 8 ? input.byte() : 1u << slot);
    if (how & 16) put(at + 0x10, 4, 0xffff'ffff);
    if (how & 32) {
      put(at + 0x18, 4, 0x10);
      put(at + 0x18, 4, 0x11);
    }
  }
};
#else
constexpr uint16_t kBusMaster = 0xc000;

struct Rig : Media {
  IdePiix3 ide{map, io, line.input(), line.input()};
  Device& chip() { return ide; }

  Rig() {
    ide.attach(0, 0, std::make_unique<AtaDisk>("disk", disk, AtaDrive::Cable::FirstParallel, "serial"));
    ide.attach(0, 1, std::make_unique<AtapiCdrom>("cdrom", disc, AtaDrive::Cable::SecondParallel));
    ide.attach(1, 0, std::make_unique<AtapiCdrom>("empty", empty, AtaDrive::Cable::FirstParallel));
    io.add(0x1f0, IdePiix3::kCommandPorts, ide, IdePiix3::kCommandBlocks[0]);
    io.add(0x3f6, IdePiix3::kControlPorts, ide, IdePiix3::kControlBlocks[0]);
    io.add(0x170, IdePiix3::kCommandPorts, ide, IdePiix3::kCommandBlocks[1]);
    io.add(0x376, IdePiix3::kControlPorts, ide, IdePiix3::kControlBlocks[1]);
    ide.config().write(0x20, 4, kBusMaster);
    ide.config().write(0x40, 4, 0x8000'8000);
    ide.config().write(0x04, 2, 5);
  }
  std::vector<Place> places() {
    using enum Place::Kind;
    return {{Ports, 0x1f0, 8}, {Ports, 0x3f6, 1},       {Ports, 0x170, 8},
            {Ports, 0x376, 1}, {Ports, kBusMaster, 16}, {Configuration, 0, 256, &ide}};
  }
  void use(Input& input) {
    const auto base = static_cast<uint16_t>(input.below(4) ? 0x1f0 : 0x170);
    const uint8_t how = input.byte();
    io.write(base + 6, 1, (how & 1 ? 0xf0 : 0xe0) & input.byte());
    if (how & 2) io.write(base + 6, 1, how & 1 ? 0xf0 : 0xe0);
    for (uint16_t i = 1; i < 6; i++) io.write(static_cast<uint16_t>(base + i), 1, input.byte());
    const auto bus_master = static_cast<uint16_t>(base == 0x1f0 ? kBusMaster : kBusMaster + 8);
    const uint64_t table = Traffic::kMemory + 0x100;
    const bool is_packet = how & 4;
    io.write(base + 7, 1, is_packet ? 0xa0 : command(input));
    if (is_packet) {
      uint8_t bytes[12];
      packet(input, bytes);
      for (unsigned i = 0; i < 12; i += 2)
        io.write(base, 2, static_cast<uint32_t>(bytes[i] | bytes[i + 1] << 8));
    }
    if (how & 8) {
      regions(input, table, false);
      io.write(static_cast<uint16_t>(bus_master + 4), 4,
               how & 0x80 ? input.dword() : static_cast<uint32_t>(table));
      io.write(bus_master, 1, 1 | (how & 16 ? 8 : 0));
    }
    for (unsigned i = input.word() % 0x400; i > 0; i--)
      how & 32 ? io.write(base, 2, i) : static_cast<void>(io.read(base, how & 64 ? 4 : 2));
  }
};
#endif

}  // namespace
}  // namespace penumbra

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  Input input(data, size);
  Rig rig;
  Traffic traffic(rig.io, rig.map, rig.places());
  const Action actions[] = {
      {110, [&] { rig.use(input); }},   {110, [&] { traffic.step(input); }},
      {30, [&] { rig.happen(input); }}, {3, [&] { rig.reload(rig.chip()); }},
      {3, [&] { rig.chip().reset(); }},
  };
  while (!input.done()) choose(input, actions);
  rig.disk.release();
  rig.disc.release();
  return 0;
}
