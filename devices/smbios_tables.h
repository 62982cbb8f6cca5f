// What the board tells of itself to management software: DMTF's System Management BIOS Reference
// Specification 2.8 (DSP0134), with a 32-bit entry point. Firmware copies the tables to where it likes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace penumbra {

// What people choose; an empty text is one of our own, or none.
struct SmbiosOptions {
  // Type 0. Without it firmware tells of itself.
  struct Firmware {
    std::string vendor, version, date, release;  // release: MAJOR.MINOR
    bool uefi = false;
  };
  std::optional<Firmware> firmware;
  struct Part {
    std::string manufacturer, product, version, serial, asset, sku, family, location;
  };
  Part system, board, chassis, processor, memory;  // types 1, 2, 3, 4, 17
  std::vector<std::string> oem_strings;            // type 11
  std::array<uint8_t, 16> uuid{};                  // as it is written: big-endian
};

struct SmbiosTables {
  static constexpr const char *kAnchorFile = "etc/smbios/smbios-anchor",
                              *kTablesFile = "etc/smbios/smbios-tables";
  std::vector<uint8_t> anchor, tables;  // address and checksums of the anchor are firmware's
};

SmbiosTables make_smbios_tables(const SmbiosOptions& options, uint64_t ram_below_4g, uint64_t ram_above_4g);

}  // namespace penumbra
