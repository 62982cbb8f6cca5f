#include "devices/acpi_tables.h"

#include <bit>
#include <cassert>
#include <cstring>
#include <string_view>

#include "devices/acpi_pm_piix4.h"
#include "devices/aml.h"
#include "devices/fdc_82077aa.h"
#include "devices/hpet.h"
#include "devices/io_apic.h"
#include "devices/local_apic.h"

namespace penumbra {

namespace {
constexpr std::string_view kOemId = "PENUMB", kOemTableId = "PENUMBPC";
constexpr uint32_t kCreatorRevision = 1;

constexpr uint8_t kSci = 9;
constexpr uint16_t kGpeBlock = 0xafe0, kSmiCommand = 0xb2, kResetPort = 0xcf9;
constexpr uint8_t kResetValue = 0x06;
constexpr uint32_t kPciHoleEnd = 0xfebf'ffff;

// Grows a table; integers are little-endian.
class Writer {
 public:
  explicit Writer(std::vector<uint8_t>& to) : to_(to) {}
  void put(uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++) to_.push_back(static_cast<uint8_t>(value >> 8 * i));
  }
  void put(std::string_view text) { to_.insert(to_.end(), text.begin(), text.end()); }
  void zeros(size_t count) { to_.insert(to_.end(), count, 0); }

 private:
  std::vector<uint8_t>& to_;
};

class Builder {
 public:
  explicit Builder(const AcpiBoard& board) : board_(board) {}
  AcpiTables build();

 private:
  uint32_t begin(std::string_view signature, uint8_t revision);
  void end(uint32_t start);
  void pointer(uint32_t target, unsigned size, bool in_rsdp = false);
  void align(uint32_t alignment) { out_.zeros(-result_.tables.size() & (alignment - 1)); }
  uint32_t facs();
  uint32_t dsdt();
  uint32_t fadt(uint32_t facs, uint32_t dsdt);
  uint32_t madt();
  uint32_t hpet();
  uint32_t waet();
  uint32_t root(std::string_view signature, unsigned size, const std::vector<uint32_t>& tables);
  void rsdp(uint32_t rsdt, uint32_t xsdt);
  void generic_address(uint8_t bits, uint64_t port);

  const AcpiBoard& board_;
  AcpiTables result_;
  Writer out_{result_.tables};
};

// --- Table headers (5.2.6)

uint32_t Builder::begin(std::string_view signature, uint8_t revision) {
  const auto start = static_cast<uint32_t>(result_.tables.size());
  out_.put(signature);
  out_.put(0, 4);  // length: see end()
  out_.put(revision, 1);
  out_.put(0, 1);  // checksum
  out_.put(kOemId);
  out_.put(kOemTableId);
  out_.put(1, 4);
  out_.put("PNMB");
  out_.put(kCreatorRevision, 4);
  return start;
}

void Builder::end(uint32_t start) {
  constexpr uint32_t kLength = 4, kChecksum = 9;
  const auto length = static_cast<uint32_t>(result_.tables.size() - start);
  for (unsigned i = 0; i < 4; i++)
    result_.tables[start + kLength + i] = static_cast<uint8_t>(length >> 8 * i);
  result_.checksums.push_back(
      {.offset = start + kChecksum, .start = start, .length = length, .in_rsdp = false});
  align(8);
}

void Builder::pointer(uint32_t target, unsigned size, bool in_rsdp) {
  std::vector<uint8_t>& piece = in_rsdp ? result_.rsdp : result_.tables;
  result_.pointers.push_back(
      {.offset = static_cast<uint32_t>(piece.size()), .size = size, .in_rsdp = in_rsdp});
  Writer(piece).put(target, size);
}

void Builder::generic_address(uint8_t bits, uint64_t port) {
  constexpr uint8_t kIoSpace = 1;
  out_.put(kIoSpace, 1);
  out_.put(bits, 1);
  out_.put(0, 1);
  out_.put(bits == 8 ? 1 : bits == 16 ? 2 : 3, 1);  // access size
  out_.put(port, 8);
}

// --- Tables

uint32_t Builder::facs() {
  align(64);
  const auto start = static_cast<uint32_t>(result_.tables.size());
  out_.put("FACS");
  out_.put(64, 4);
  out_.zeros(56);
  return start;
}

// 5.2.9, revision 3
uint32_t Builder::fadt(uint32_t facs, uint32_t dsdt) {
  constexpr uint32_t kWbinvd = 1u << 0, kC1 = 1u << 2, kNoSleepButton = 1u << 5, kRtcWakesFromS4 = 1u << 7,
                     kResetRegister = 1u << 10, kUsePlatformClock = 1u << 15;
  constexpr uint16_t kLegacyDevices = 0x01, kHas8042 = 0x02;
  constexpr uint16_t kNoC2 = 0x0fff, kNoC3 = 0x0fff;
  constexpr uint8_t kCenturyByte = 0x32;
  const uint16_t pm = board_.pm_block;
  const uint32_t start = begin("FACP", 3);
  pointer(facs, 4);
  pointer(dsdt, 4);
  out_.put(1, 1);  // interrupt model of ACPI 1.0: PICs and APICs
  out_.put(0, 1);  // preferred profile: none
  out_.put(kSci, 2);
  out_.put(kSmiCommand, 4);
  out_.put(AcpiPmPiix4::kEnableAcpi, 1);
  out_.put(AcpiPmPiix4::kDisableAcpi, 1);
  out_.put(0, 2);
  out_.put(pm, 4);  // PM1a events
  out_.put(0, 4);
  out_.put(pm + 4u, 4);  // PM1a control
  out_.put(0, 4);
  out_.put(0, 4);        // PM2 control
  out_.put(pm + 8u, 4);  // timer
  out_.put(kGpeBlock, 4);
  out_.put(0, 4);
  out_.put(4, 1);  // lengths of the blocks
  out_.put(2, 1);
  out_.put(0, 1);
  out_.put(4, 1);
  out_.put(AcpiPmPiix4::kGpePorts, 1);
  out_.put(0, 1);
  out_.put(0, 2);  // GPE1 base; _CST
  out_.put(kNoC2, 2);
  out_.put(kNoC3, 2);
  out_.put(0, 2);  // flush size and stride
  out_.put(0, 2);
  out_.put(0, 2);  // duty offset and width
  out_.put(0, 1);  // day alarm
  out_.put(0, 1);  // month alarm
  out_.put(kCenturyByte, 1);
  out_.put(kLegacyDevices | kHas8042, 2);
  out_.put(0, 1);
  out_.put(kWbinvd | kC1 | kNoSleepButton | kRtcWakesFromS4 | kResetRegister | kUsePlatformClock, 4);
  generic_address(8, kResetPort);
  out_.put(kResetValue, 1);
  out_.put(0, 3);
  out_.put(0, 8);  // the FACS: one address is enough, and two are two tables to some systems
  pointer(dsdt, 8);
  generic_address(32, pm);
  out_.zeros(12);
  generic_address(16, pm + 4u);
  out_.zeros(12);
  out_.zeros(12);
  generic_address(32, pm + 8u);
  generic_address(32, kGpeBlock);
  out_.zeros(12);
  end(start);
  return start;
}

// 5.2.12
uint32_t Builder::madt() {
  constexpr uint32_t kDual8259 = 1, kEnabled = 1;
  const uint32_t start = begin("APIC", 1);
  out_.put(LocalApic::kDefaultBase, 4);
  out_.put(kDual8259, 4);
  for (uint8_t i = 0; i < board_.processors; i++) {
    out_.put(0, 1);  // local APIC
    out_.put(8, 1);
    out_.put(i, 1);
    out_.put(i, 1);
    out_.put(kEnabled, 4);
  }
  out_.put(1, 1);  // I/O APIC
  out_.put(12, 1);
  out_.put(0, 2);
  out_.put(IoApic::kBase, 4);
  out_.put(0, 4);
  const auto override = [this](uint8_t irq, uint32_t input, uint16_t flags) {
    out_.put(2, 1);
    out_.put(10, 1);
    out_.put(0, 1);
    out_.put(irq, 1);
    out_.put(input, 4);
    out_.put(flags, 2);
  };
  constexpr uint16_t kConforms = 0, kActiveHighLevel = 0x0d;
  override(0, 2, kConforms);
  for (const uint8_t irq : {5, 9, 10, 11}) override(irq, irq, kActiveHighLevel);  // PCI, and the SCI
  out_.put(4, 1);                                                                 // local APICs' NMI
  out_.put(6, 1);
  out_.put(0xff, 1);
  out_.put(kConforms, 2);
  out_.put(1, 1);
  end(start);
  return start;
}

// IA-PC HPET Specification 1.0a, 3.2.4
uint32_t Builder::hpet() {
  const uint32_t start = begin("HPET", 1);
  out_.put(Hpet::kBlockId, 4);
  out_.put(0, 4);  // memory, of no special access size
  out_.put(Hpet::kBase, 8);
  out_.put(0, 1);
  out_.put(0, 2);
  out_.put(0, 1);
  end(start);
  return start;
}

// Windows ACPI Emulated Devices Table 1.0: the PM timer needs to be read only once.
uint32_t Builder::waet() {
  constexpr uint32_t kGoodPmTimer = 2;
  const uint32_t start = begin("WAET", 1);
  out_.put(kGoodPmTimer, 4);
  end(start);
  return start;
}

uint32_t Builder::root(std::string_view signature, unsigned size, const std::vector<uint32_t>& tables) {
  const uint32_t start = begin(signature, 1);
  for (const uint32_t table : tables) pointer(table, size);
  end(start);
  return start;
}

// 5.2.5.3
void Builder::rsdp(uint32_t rsdt, uint32_t xsdt) {
  Writer out(result_.rsdp);
  out.put("RSD PTR ");
  out.put(0, 1);
  out.put(kOemId);
  out.put(2, 1);
  pointer(rsdt, 4, true);
  out.put(36, 4);
  pointer(xsdt, 8, true);
  out.put(0, 4);
  result_.checksums.push_back({.offset = 8, .start = 0, .length = 20, .in_rsdp = true});
  result_.checksums.push_back({.offset = 32, .start = 0, .length = 36, .in_rsdp = true});
}

// --- The DSDT

// Which link device has an interrupt pin: see PciBus. Function 3 of device 1 is the source of the SCI.
aml::Term interrupt_routing() {
  static constexpr const char* kLinks[] = {"LNKD", "LNKA", "LNKB", "LNKC"};
  std::vector<aml::Term> rows;
  for (uint32_t device = 0; device < 32; device++) {
    for (uint32_t pin = 0; pin < 4; pin++) {
      const char* link = device == 1 && pin == 0 ? "LNKS" : kLinks[(device + pin) % 4];
      rows.push_back(aml::package(
          {aml::integer(device << 16 | 0xffff), aml::integer(pin), aml::path(link), aml::integer(0)}));
    }
  }
  return aml::package(rows);
}

aml::Term pci_resources(const AcpiBoard& board) {
  // Nothing above 4 GiB, where a 32-bit system could not follow.
  const aml::Term list = aml::bus_numbers(0, 0xff) + aml::io_ports(0xcf8, 8) +
                         aml::io_window(0x0000, 0x0cf7) + aml::io_window(0x0d00, 0xffff) +
                         aml::memory_window(0xa'0000, 0xb'ffff, true) +
                         aml::memory_window(static_cast<uint32_t>(board.ram_below_4g), kPciHoleEnd, false);
  return aml::resources(list);
}

// A PIRQ's router as a device (ACPI 6.4, 6.2.13): its register says which ISA interrupt it is, or 80h for
// none.
aml::Term link_device(std::string_view name, uint8_t number, std::string_view reg) {
  using namespace aml;
  constexpr uint8_t kOff = 0x80, kPresent = 0x09, kPresentAndOn = 0x0b;
  constexpr uint64_t kNumberInDescriptor = 5;
  return device(name, aml::name("_HID", eisa_id("PNP0C0F")) + aml::name("_UID", integer(number)) +
                          aml::name("_PRS", resources(interrupts({5, 10, 11}))) +
                          method("_STA", 0,
                                 if_true(bit_and(path(reg), integer(kOff)), give(integer(kPresent))) +
                                     give(integer(kPresentAndOn))) +
                          method("_DIS", 0, bit_or_into(path(reg), integer(kOff), path(reg))) +
                          aml::name("CRSB", resources(interrupts({0}))) +
                          create_dword_field(path("CRSB"), kNumberInDescriptor, "CRSI") +
                          method("_CRS", 0,
                                 store(integer(0), path("CRSI")) +
                                     if_true(less(path(reg), integer(kOff)), store(path(reg), path("CRSI"))) +
                                     give(path("CRSB"))) +
                          method("_SRS", 1,
                                 create_dword_field(argument(0), kNumberInDescriptor, "SRSI") +
                                     store(path("SRSI"), path(reg))));
}

aml::Term sci_link() {
  using namespace aml;
  return device("LNKS", aml::name("_HID", eisa_id("PNP0C0F")) + aml::name("_UID", integer(4)) +
                            aml::name("_PRS", resources(interrupts({kSci}))) +
                            aml::name("_CRS", resources(interrupts({kSci}))) +
                            aml::name("_STA", integer(0x0b)) + method("_DIS", 0, Term()) +
                            method("_SRS", 1, Term()));
}

aml::Term isa_device(std::string_view name, std::string_view id, unsigned number, const aml::Term& list,
                     const aml::Term& more = {}) {
  using namespace aml;
  return device(name, aml::name("_HID", eisa_id(id)) + aml::name("_UID", integer(number)) +
                          aml::name("_STA", integer(0x0f)) + aml::name("_CRS", resources(list)) + more);
}

// ACPI 6.4, 9.9: which drives there are, and what each takes.
aml::Term floppy_controller(const std::array<uint8_t, 2>& types) {
  using namespace aml;
  constexpr size_t kPresenceBytes = 4, kTape = 4;
  constexpr uint8_t kPresent = 1, kNeverPresent = 2;
  // The diskette's parameters (INT 1Eh), which are the same for all drives in SeaBIOS.
  static constexpr uint8_t kParameters[] = {0xaf, 0x02, 0x25, 0x02, 0x12, 0x1b, 0xff, 0x6c, 0xf6, 0x0f, 0x08};
  std::vector<uint8_t> presence(5 * kPresenceBytes);
  presence[kTape * kPresenceBytes] = kNeverPresent;
  Term drives;
  for (unsigned i = 0; i < types.size(); i++) {
    if (types[i] == 0) continue;
    presence[i * kPresenceBytes] = kPresent;
    const Fdc82077aa::Format most = Fdc82077aa::largest_of(types[i]);
    std::vector<Term> information = {integer(i), integer(types[i]), integer(most.cylinders - 1u),
                                     integer(most.sectors), integer(most.heads - 1u)};
    for (const uint8_t parameter : kParameters) information.push_back(integer(parameter));
    drives += device(i == 0 ? "FLPA" : "FLPB",
                     aml::name("_ADR", integer(i)) + aml::name("_FDI", package(information)));
  }
  return isa_device("FDC0", "PNP0700", 0,
                    io_ports(0x3f2, 4) + io_ports(0x3f7, 1) + irq(6) + dma(Fdc82077aa::kDmaChannel),
                    aml::name("_FDE", buffer(presence)) + drives);
}

aml::Term isa_bridge(const AcpiBoard& board) {
  using namespace aml;
  Term body = aml::name("_ADR", integer(0x0001'0000)) + operation_region("P40C", Space::PciConfig, 0x60, 4) +
              byte_field("P40C", {{"PRQ0", 8}, {"PRQ1", 8}, {"PRQ2", 8}, {"PRQ3", 8}});
  body += isa_device("RTC", "PNP0B00", 0, io_ports(0x70, 2) + irq(8));
  body += isa_device("KBD", "PNP0303", 0, io_ports(0x60, 1) + io_ports(0x64, 1) + irq(1));
  body += isa_device("MOU", "PNP0F13", 0, irq(12));
  static constexpr struct {
    const char* name;
    uint16_t port;
    uint8_t irq;
  } kSerials[4] = {{"COM1", 0x3f8, 4}, {"COM2", 0x2f8, 3}, {"COM3", 0x3e8, 4}, {"COM4", 0x2e8, 3}};
  for (unsigned i = 0; i < 4; i++) {
    if (board.serial[i]) {
      body += isa_device(kSerials[i].name, "PNP0501", i + 1,
                         io_ports(kSerials[i].port, 8) + irq(kSerials[i].irq));
    }
  }
  if (board.floppies[0] != 0 || board.floppies[1] != 0) body += floppy_controller(board.floppies);
  if (board.parallel) body += isa_device("LPT", "PNP0400", 1, io_ports(0x378, 8) + irq(7));
  return device("ISA", body);
}

uint32_t Builder::dsdt() {
  using namespace aml;
  Term system = device("PCI0", aml::name("_HID", eisa_id("PNP0A03")) + aml::name("_ADR", integer(0)) +
                                   aml::name("_UID", integer(0)) + aml::name("_BBN", integer(0)) +
                                   aml::name("_CRS", pci_resources(board_)) +
                                   aml::name("_PRT", interrupt_routing()) + isa_bridge(board_));
  system += link_device("LNKA", 0, "\\_SB.PCI0.ISA.PRQ0") + link_device("LNKB", 1, "\\_SB.PCI0.ISA.PRQ1") +
            link_device("LNKC", 2, "\\_SB.PCI0.ISA.PRQ2") + link_device("LNKD", 3, "\\_SB.PCI0.ISA.PRQ3") +
            sci_link();
  system += device(
      "HPET",
      aml::name("_HID", eisa_id("PNP0103")) + aml::name("_UID", integer(0)) +
          aml::name("_STA", integer(0x0f)) +
          aml::name("_CRS", resources(memory32_fixed(false, static_cast<uint32_t>(Hpet::kBase), 0x400))));
  // The power management blocks are nobody's else.
  system +=
      device("MBRD", aml::name("_HID", eisa_id("PNP0C02")) + aml::name("_UID", integer(1)) +
                         aml::name("_CRS", resources(io_ports(board_.pm_block, AcpiPmPiix4::kBlockPorts) +
                                                     io_ports(kGpeBlock, AcpiPmPiix4::kGpePorts) +
                                                     io_ports(kSmiCommand, 2))));
  for (uint8_t i = 0; i < board_.processors; i++) {
    const char name[] = {'C', static_cast<char>('0' + i / 100), static_cast<char>('0' + i / 10 % 10),
                         static_cast<char>('0' + i % 10)};
    system += processor(std::string_view(name, 4), i);
  }
  const auto sleep = [](std::string_view name, uint8_t type) {
    return aml::name(name, package({integer(type), integer(type), integer(0), integer(0)}));
  };
  const Term code = scope("\\_SB", system) + sleep("\\_S4", AcpiPmPiix4::kHibernate) +
                    sleep("\\_S5", AcpiPmPiix4::kSoftOff);
  const uint32_t start = begin("DSDT", 1);
  result_.tables.insert(result_.tables.end(), code.bytes().begin(), code.bytes().end());
  end(start);
  return start;
}

AcpiTables Builder::build() {
  const uint32_t facs_table = facs(), dsdt_table = dsdt();
  const std::vector<uint32_t> tables = {fadt(facs_table, dsdt_table), madt(), hpet(), waet()};
  const uint32_t rsdt = root("RSDT", 4, tables), xsdt = root("XSDT", 8, tables);
  rsdp(rsdt, xsdt);
  // Firmware allocates whole pages; with room to spare the size does not change when a table grows by a
  // little.
  align(4096);
  return std::move(result_);
}

}  // namespace

AcpiTables make_acpi_tables(const AcpiBoard& board) {
  return Builder(board).build();
}

void AcpiTables::link(uint64_t address) {
  for (const Pointer& at : pointers) {
    std::vector<uint8_t>& piece = at.in_rsdp ? rsdp : tables;
    uint64_t value = 0;
    for (unsigned i = 0; i < at.size; i++) value |= uint64_t{piece[at.offset + i]} << 8 * i;
    value += address;
    for (unsigned i = 0; i < at.size; i++) piece[at.offset + i] = static_cast<uint8_t>(value >> 8 * i);
  }
  for (const Checksum& at : checksums) {
    std::vector<uint8_t>& piece = at.in_rsdp ? rsdp : tables;
    uint8_t sum = 0;
    for (uint32_t i = 0; i < at.length; i++) sum = static_cast<uint8_t>(sum + piece[at.start + i]);
    piece[at.offset] = static_cast<uint8_t>(piece[at.offset] - sum);
  }
}

// QEMU, hw/acpi/bios-linker-loader.c: commands of 128 bytes.
std::vector<uint8_t> AcpiTables::loader_script() const {
  enum : uint32_t { kAllocate = 1, kAddPointer = 2, kAddChecksum = 3 };
  enum : uint8_t { kHighZone = 1, kFSegment = 2 };
  constexpr size_t kCommandBytes = 128, kFileBytes = 56;
  std::vector<uint8_t> script;
  Writer out(script);
  const auto command = [&](uint32_t which, auto&& fields) {
    const size_t end = script.size() + kCommandBytes;
    out.put(which, 4);
    fields();
    out.zeros(end - script.size());
  };
  const auto file = [&](bool is_rsdp) {
    const std::string_view name = is_rsdp ? kRsdpFile : kTablesFile;
    out.put(name);
    out.zeros(kFileBytes - name.size());
  };
  const auto allocate = [&](bool is_rsdp, uint32_t alignment, uint8_t zone) {
    command(kAllocate, [&] {
      file(is_rsdp);
      out.put(alignment, 4);
      out.put(zone, 1);
    });
  };
  allocate(false, kAlignment, kHighZone);
  allocate(true, 16, kFSegment);
  for (const Pointer& at : pointers) {
    command(kAddPointer, [&] {
      file(at.in_rsdp);
      file(false);
      out.put(at.offset, 4);
      out.put(at.size, 1);
    });
  }
  for (const Checksum& at : checksums) {
    command(kAddChecksum, [&] {
      file(at.in_rsdp);
      out.put(at.offset, 4);
      out.put(at.start, 4);
      out.put(at.length, 4);
    });
  }
  return script;
}

}  // namespace penumbra
