#include "devices/mp_tables.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string_view>
#include <utility>

#include "devices/io_apic.h"
#include "devices/local_apic.h"

namespace penumbra {

namespace {
// 4.3: entry types
enum : uint8_t { kProcessor = 0, kBus = 1, kIoApicEntry = 2, kIoInterrupt = 3, kLocalInterrupt = 4 };
// 4.3.4: interrupt types; flags: active high and level-triggered, or as the bus has it
enum : uint8_t { kVectored = 0, kNmi = 1, kExternal = 3 };
constexpr uint16_t kConforms = 0, kHighLevel = 0x0d;

constexpr uint8_t kPciBusId = 0, kIsaBusId = 1, kIoApicId = 0, kEveryLocalApic = 0xff, kRevision = 4;
constexpr size_t kFloatingBytes = 16;

class Table {
 public:
  std::vector<uint8_t> bytes;

  void number(uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++) bytes.push_back(static_cast<uint8_t>(value >> 8 * i));
  }
  void text(std::string_view value) { bytes.insert(bytes.end(), value.begin(), value.end()); }
  void bus(uint8_t id, std::string_view name) {
    number(kBus, 1);
    number(id, 1);
    text(name);
  }
  void interrupt(uint8_t entry, uint8_t type, uint16_t flags, uint8_t from_bus, unsigned line, uint8_t to,
                 uint8_t input) {
    for (const uint8_t field : {entry, type}) number(field, 1);
    number(flags, 2);
    for (const unsigned field : {unsigned{from_bus}, line, unsigned{to}, unsigned{input}}) number(field, 1);
  }
  // So that all bytes from `from` on add up to nothing.
  void set_checksum(size_t from, size_t end, size_t at) {
    const auto first = bytes.begin();
    const auto sum =
        std::accumulate(first + static_cast<ptrdiff_t>(from), first + static_cast<ptrdiff_t>(end), 0u);
    bytes[at] = static_cast<uint8_t>(-sum);
  }
};
}  // namespace

std::vector<uint8_t> make_mp_tables(uint32_t address, std::span<const MpPciInterrupt> pci) {
  constexpr uint16_t kInputs = 16;
  constexpr uint8_t kPitInput = 2;  // line 0's; line 2 is the second 8259A's
  Table table;
  // 4.1
  table.text("_MP_");
  table.number(address + kFloatingBytes, 4);
  for (const uint8_t field : {uint8_t{1}, kRevision, uint8_t{0}}) table.number(field, 1);
  table.number(0, 5);  // there is a table; virtual wire mode
  table.set_checksum(0, kFloatingBytes, 10);
  // 4.2; the lengths follow below
  table.text("PCMP");
  table.number(0, 2);
  table.number(kRevision, 1);
  table.number(0, 1);
  table.text("PENUMBRAPC          ");
  table.number(0, 6);  // no OEM table
  table.number(0, 2);
  table.number(LocalApic::kDefaultBase, 4);
  table.number(0, 4);

  unsigned entries = 0;
  const auto entry = [&entries] { entries++; };
  constexpr uint8_t kLocalApicVersion = 0x14, kEnabled = 1, kBootstrap = 2;
  constexpr uint32_t kSignature = 0x600, kFeatures = 0x201;  // of a processor with FPU and local APIC
  for (const uint8_t field :
       {uint8_t{kProcessor}, uint8_t{0}, kLocalApicVersion, uint8_t{kEnabled | kBootstrap}})
    table.number(field, 1);
  table.number(kSignature, 4);
  table.number(kFeatures, 4);
  table.number(0, 8);
  entry();
  table.bus(kPciBusId, "PCI   ");
  entry();
  table.bus(kIsaBusId, "ISA   ");
  entry();
  constexpr uint8_t kIoApicVersion = 0x20;
  for (const uint8_t field : {uint8_t{kIoApicEntry}, kIoApicId, kIoApicVersion, uint8_t{1}})
    table.number(field, 1);
  table.number(IoApic::kBase, 4);
  entry();
  for (const MpPciInterrupt& pin : pci) {
    table.interrupt(kIoInterrupt, kVectored, kHighLevel, kPciBusId, pin.device << 2 | pin.pin, kIoApicId,
                    pin.input);
    entry();
  }
  for (unsigned line = 0; line < kInputs; line++) {
    if (line == kPitInput || std::ranges::find(pci, line, &MpPciInterrupt::input) != pci.end()) continue;
    const auto input = static_cast<uint8_t>(line == 0 ? kPitInput : line);
    table.interrupt(kIoInterrupt, kVectored, kConforms, kIsaBusId, line, kIoApicId, input);
    entry();
  }
  table.interrupt(kLocalInterrupt, kExternal, kConforms, kIsaBusId, 0, kEveryLocalApic, 0);
  entry();
  table.interrupt(kLocalInterrupt, kNmi, kConforms, kIsaBusId, 0, kEveryLocalApic, 1);
  entry();

  const auto put = [&table](size_t at, size_t value) {
    table.bytes[at] = static_cast<uint8_t>(value);
    table.bytes[at + 1] = static_cast<uint8_t>(value >> 8);
  };
  put(kFloatingBytes + 4, table.bytes.size() - kFloatingBytes);
  put(kFloatingBytes + 34, entries);
  table.set_checksum(kFloatingBytes, table.bytes.size(), kFloatingBytes + 7);
  return std::move(table.bytes);
}

}  // namespace penumbra
