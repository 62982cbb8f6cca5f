// The board's description for operating systems: ACPI tables, in one piece that firmware moves and links.
//
// ACPI 6.4, chapter 5; the FADT and the DSDT as QEMU's pc machine has them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace penumbra {

struct AcpiBoard {
  uint16_t pm_block = 0x600;  // of the PIIX4
  uint64_t ram_below_4g = 0;
  uint8_t processors = 1;
  bool serial[4] = {};
  bool parallel = false;
  std::array<uint8_t, 2> floppies{};  // types of drives as CMOS has them, 0: no drive
};

// Bytes with places to mend once their address is known.
struct AcpiTables {
  struct Pointer {
    uint32_t offset, size;  // of a field that holds the target's offset in `tables`
    bool in_rsdp;
  };
  struct Checksum {
    uint32_t offset, start, length;
    bool in_rsdp;
  };
  static constexpr uint32_t kAlignment = 64;  // of `tables`; the RSDP's is 16

  std::vector<uint8_t> tables, rsdp;
  std::vector<Pointer> pointers;
  std::vector<Checksum> checksums;  // after the pointers; the field holds zero until then

  // For an address of the caller's choice: adds it to the pointers and computes the checksums.
  void link(uint64_t tables_address);
  // QEMU's linker and loader script for firmware, which finds the two pieces under these names.
  static constexpr const char *kTablesFile = "etc/acpi/tables", *kRsdpFile = "etc/acpi/rsdp",
                              *kLoaderFile = "etc/table-loader";
  std::vector<uint8_t> loader_script() const;
};

AcpiTables make_acpi_tables(const AcpiBoard& board);

}  // namespace penumbra
