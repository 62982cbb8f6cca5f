// Reader of the MOO files in which the SingleStepTests project publishes what a chip did: one instruction a
// case, registers and memory before and after.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace penumbra::test {

// In the files' order.
enum MooRegister : uint8_t {
  kMooAx,
  kMooBx,
  kMooCx,
  kMooDx,
  kMooCs,
  kMooSs,
  kMooDs,
  kMooEs,
  kMooSp,
  kMooBp,
  kMooSi,
  kMooDi,
  kMooIp,
  kMooFlags
};
inline constexpr unsigned kMooRegisters = 14;

struct MooByte {
  uint32_t address;  // physical
  uint8_t value;
};

struct MooCase {
  uint32_t index = 0;          // in the set that the file is a subset of
  std::string name;            // disassembly
  std::vector<uint8_t> bytes;  // the instruction and the HLT that ends the case
  std::array<uint16_t, kMooRegisters> before{}, after{};
  std::vector<MooByte> memory_before, memory_changed;
  std::optional<uint8_t> exception;  // vector taken, by INT n too
};

// Cases of one gzip file. Throws std::runtime_error naming the file when it cannot be read or is no MOO file.
std::vector<MooCase> read_moo_file(const std::filesystem::path& path);

}  // namespace penumbra::test
