// What a case starts from and what it ends with, the same for the bare CPU and the translator.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "tests/fuzzer/kind.h"

namespace penumbra::fuzz {

// Registers that XSAVE components 0 to 2 hold. FIP, FDP and FOP are left out.
struct VectorState {
  uint16_t fcw = 0x37f, fsw = 0;
  uint8_t tags = 0;                             // abridged: a set bit is a register in use
  std::array<std::array<uint8_t, 10>, 8> st{};  // ST(0) first
  uint32_t mxcsr = 0x1f80;
  std::array<std::array<uint64_t, 4>, 16> ymm{};
};

inline constexpr size_t kXsaveBytes = 832;
void store_vector_state(const VectorState& state, std::byte* image);  // XSAVE standard format, kXsaveBytes
VectorState load_vector_state(const std::byte* image);                // honours XSTATE_BV

struct MachineState {
  std::array<uint64_t, 16> gpr{};
  uint64_t rip = 0, rflags = 0x202;
  std::array<uint16_t, 6> selectors{};  // as ModRM.reg counts them: ES CS SS DS FS GS
  uint64_t fs_base = 0, gs_base = 0;
  VectorState vector;
};

struct Outcome {
  MachineState state;
  uint8_t vector = 0;
  uint32_t error_code = 0;
  uint64_t cr2 = 0;
  bool timeout = false;
  bool halted = false;    // real mode: HLT ended it, and no exception
  bool unmapped = false;  // Unicorn: an address beyond all memory, or code outside the code pages
};

// The memory of a case: 16 pages at a linear address below 4 GiB, and at a second one above in 64-bit mode.
// Both the guest's page tables and the native mapping have these rights.
namespace area {
inline constexpr uint64_t kLow = 0x1000'0000, kHigh = 0x5a5a'1000'0000;
inline constexpr uint64_t kReal =
    0x1'0000;  // in real mode, where all of it is readable, writable and executable
inline constexpr uint64_t kPage = 0x1000, kPages = 16, kBytes = kPages * kPage;
inline constexpr uint64_t kCode = 1 * kPage, kCodeEnd = 4 * kPage;  // read, write, execute
inline constexpr uint64_t kData = 5 * kPage, kDataEnd = 9 * kPage;  // read, write
inline constexpr uint64_t kReadOnly = 9 * kPage, kReadOnlyEnd = 10 * kPage;
inline constexpr uint64_t kIsland = 11 * kPage, kIslandEnd = 12 * kPage;  // read, write; nothing around
inline constexpr uint64_t kStack = 13 * kPage, kStackEnd = 15 * kPage;    // read, write
struct Rights {
  bool present, write, execute;
};
constexpr Rights rights(uint64_t page) {
  switch (page) {
    case 1:
    case 2:
    case 3:
      return {true, true, true};
    case 5:
    case 6:
    case 7:
    case 8:
    case 11:
    case 13:
    case 14:
      return {true, true, false};
    case 9:
      return {true, false, false};
    default:
      return {false, false, false};
  }
}
}  // namespace area

// Selectors as Linux gives them to user code; the guest has the same.
namespace selector {
inline constexpr uint16_t kCode32 = 0x23, kData = 0x2b, kCode64 = 0x33;
inline constexpr uint16_t kReal = area::kReal >> 4;
}  // namespace selector

using Memory = std::vector<std::byte>;  // area::kBytes

// One program: where it starts, what memory holds.
struct Program {
  Kind kind = Kind::Bits64;
  MachineState start;
  Memory memory;
};

inline bool accessible(const Program& program, uint64_t page) {
  return program.kind == Kind::Real || area::rights(page).present;
}

}  // namespace penumbra::fuzz
