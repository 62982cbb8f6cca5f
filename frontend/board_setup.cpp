#include "frontend/board_setup.h"

#include <algorithm>
#include <array>
#include <vector>

#include "devices/mp_tables.h"

namespace penumbra {

namespace {

// As SeaBIOS chooses them.
constexpr uint64_t kFirstIo = 0xc000, kMemoryEnd = 0xfec0'0000;
constexpr std::array<uint8_t, PciBus::kPirqs> kPirqInterrupts = {10, 10, 11, 11};
constexpr uint8_t kSciInterrupt = 9;
constexpr uint16_t kPmBlock = 0x600;

constexpr uint64_t kTables = kAcpiRootPointer + AcpiTables::kAlignment;

struct Base {
  uint8_t function, offset;
  bool io, wide;
  uint64_t size;
};

// Writes ones and looks which of them stick (PCI 3.0, 6.2.5.1).
std::vector<Base> bases_of(PciConfig& config, uint8_t function) {
  constexpr uint32_t kIo = 1, kWide = 4, kIoBits = 3, kMemoryBits = 15;
  std::vector<Base> bases;
  for (uint8_t offset = PciConfig::kBase0; offset < PciConfig::kBase0 + 6 * 4;
       offset = static_cast<uint8_t>(offset + 4)) {
    const auto size_bits = [&config](uint8_t at) {
      const uint32_t before = config.dword(at);
      config.write(at, 4, ~uint32_t{0});
      const uint32_t after = config.dword(at);
      config.write(at, 4, before);
      return after;
    };
    const uint32_t low = size_bits(offset);
    if (low == 0) continue;
    Base base{.function = function,
              .offset = offset,
              .io = (low & kIo) != 0,
              .wide = !(low & kIo) && (low & kWide),
              .size = 0};
    uint64_t mask = uint64_t{0xffff'ffff} << 32 | (low & ~(base.io ? kIoBits : kMemoryBits));
    if (base.wide) {
      offset = static_cast<uint8_t>(offset + 4);
      mask = uint64_t{size_bits(offset)} << 32 | (mask & 0xffff'ffff);
    }
    base.size = ~mask + 1;
    if (base.io) base.size &= 0xffff;
    bases.push_back(base);
  }
  return bases;
}

void assign_resources(PciBus& bus) {
  std::vector<Base> bases;
  for (unsigned function = 0; function < PciBus::kFunctions; ++function) {
    PciFunction* chip = bus.at(static_cast<uint8_t>(function));
    if (!chip) continue;
    for (const Base& base : bases_of(chip->config(), static_cast<uint8_t>(function))) bases.push_back(base);
  }
  // The largest first: then every one is aligned to its size without gaps.
  std::ranges::stable_sort(bases, std::ranges::greater{}, &Base::size);
  uint64_t io = kFirstIo, memory = kMemoryEnd;
  for (const Base& base : bases) {
    PciConfig& config = bus.at(base.function)->config();
    uint64_t address;
    if (base.io) {
      address = io;
      io += base.size;
    } else {
      memory = (memory - base.size) & ~(base.size - 1);
      address = memory;
    }
    config.write(base.offset, 4, static_cast<uint32_t>(address));
    if (base.wide) config.write(base.offset + 4u, 4, static_cast<uint32_t>(address >> 32));
    const uint16_t enable = base.io ? PciConfig::kIoSpace : PciConfig::kMemorySpace;
    config.write(PciConfig::kCommand, 2, config.word(PciConfig::kCommand) | enable);
  }
}

void route_interrupts(PcBoard& board) {
  PciBus& bus = board.pci();
  for (unsigned pirq = 0; pirq < PciBus::kPirqs; ++pirq) {
    const uint8_t interrupt = kPirqInterrupts[pirq];
    board.isa_bridge().route(pirq, interrupt);
    board.pics().set_level_triggered(interrupt);
  }
  for (unsigned function = 0; function < PciBus::kFunctions; ++function) {
    PciFunction* chip = bus.at(static_cast<uint8_t>(function));
    if (!chip) continue;
    const uint8_t pin = chip->config().byte(PciConfig::kInterruptPin);
    if (pin == 0) continue;
    chip->config().write(PciConfig::kInterruptLine, 1,
                         kPirqInterrupts[PciBus::pirq_of(function >> 3, pin - 1u)]);
  }
}

std::vector<MpPciInterrupt> pci_interrupts(const PciBus& bus) {
  std::vector<MpPciInterrupt> interrupts;
  for (unsigned function = 0; function < PciBus::kFunctions; ++function) {
    const PciFunction* chip = bus.at(static_cast<uint8_t>(function));
    const uint8_t pin = chip ? chip->config().byte(PciConfig::kInterruptPin) : uint8_t{0};
    if (pin == 0) continue;
    interrupts.push_back({.device = static_cast<uint8_t>(function >> 3),
                          .pin = static_cast<uint8_t>(pin - 1),
                          .input = chip->config().byte(PciConfig::kInterruptLine)});
  }
  return interrupts;
}

}  // namespace

void set_up_board(PcBoard& board, PhysicalMap& map) {
  board.host_bridge().open_shadow_ram();
  assign_resources(board.pci());
  route_interrupts(board);
  board.power_management().set_up(kPmBlock, kSciInterrupt);

  AcpiTables acpi = board.acpi_tables();
  acpi.link(kTables);
  map.write_bytes(PhysAddr{kAcpiRootPointer}, std::as_bytes(std::span(acpi.rsdp)));
  map.write_bytes(PhysAddr{kTables}, std::as_bytes(std::span(acpi.tables)));

  constexpr uint64_t kParagraph = 16;
  const uint64_t place = (kTables + acpi.tables.size() + kParagraph - 1) / kParagraph * kParagraph;
  const std::vector<uint8_t> mp = make_mp_tables(static_cast<uint32_t>(place), pci_interrupts(board.pci()));
  map.write_bytes(PhysAddr{place}, std::as_bytes(std::span(mp)));
}

}  // namespace penumbra
