// Guest page-table walks: no paging, 32-bit, PAE and 4-level (SDM vol. 3, 4.3 to 4.7).
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <optional>

#include "mmu/address.h"
#include "mmu/physical_map.h"

namespace penumbra {

enum class AccessKind : uint8_t { Read, Write, Fetch };

// Page-fault error code bits (SDM vol. 3, 4.7).
namespace page_fault {
inline constexpr uint32_t kPresent = 1u << 0;
inline constexpr uint32_t kWrite = 1u << 1;
inline constexpr uint32_t kUser = 1u << 2;
inline constexpr uint32_t kReserved = 1u << 3;
inline constexpr uint32_t kFetch = 1u << 4;
}  // namespace page_fault

struct PageFault {
  LinearAddr address;
  uint32_t error_code = 0;
};

enum class PagingMode : uint8_t { None, Bits32, Pae, Levels4 };

// The control-register state that a walk reads. A value, so that a walk has no hidden inputs.
struct PagingState {
  PagingMode mode = PagingMode::None;
  uint64_t root = 0;           // CR3 without PCID and flag bits
  uint64_t pdpte[4] = {};      // PAE: loaded by MOV CR3 (SDM vol. 3, 4.4.1)
  bool write_protect = false;  // CR0.WP
  bool page_size_ext = false;  // CR4.PSE (32-bit paging)
  bool global_pages = false;   // CR4.PGE
  bool no_execute = false;     // EFER.NXE
  bool smep = false;           // CR4.SMEP
  bool smap = false;           // CR4.SMAP
  uint8_t physical_bits = 40;  // MAXPHYADDR, 32 to 52
};

// Who asks: user is CPL 3 (implicit supervisor accesses to descriptor tables pass false);
// `ac` lifts SMAP for explicit supervisor data accesses (EFLAGS.AC).
struct Privilege {
  bool user = false;
  bool ac = false;
};

// What a walk allows. The rights say what the given Privilege may do with the page without another walk.
struct Translation {
  PhysAddr physical;       // of the access itself, not of the page
  bool may_write = false;  // and the dirty bit is set already
  bool may_fetch = false;
  bool global = false;
  bool user = true;                 // U/S at every level: user mode may access it
  bool writable = true;             // R/W at every level
  uint64_t page_bytes = kPageSize;  // 4 KiB, 2 MiB, 4 MiB or 1 GiB
};

class PageWalker {
 public:
  explicit PageWalker(PhysicalMap& map) : map_(map) {}

  // Walks as the hardware would, setting accessed bits and, for writes, the dirty bit.
  std::expected<Translation, PageFault> walk(const PagingState& paging, LinearAddr address, AccessKind access,
                                             Privilege privilege) {
    return walk_entries<true>(paging, address, access, privilege);
  }

  // As a walk for reading, where it would set no accessed bit; may_write tells whether a write would set
  // nothing either.
  std::optional<Translation> foresee(const PagingState& paging, LinearAddr address, Privilege privilege) {
    const auto found = walk_entries<false>(paging, address, AccessKind::Read, privilege);
    return found ? std::optional(*found) : std::nullopt;
  }

  // The entries that a walk reads, from the root on; for state dumps. It ends with the page's entry, or with
  // one that is not present or has reserved bits set.
  struct Step {
    PhysAddr address;
    uint64_t value = 0;
    unsigned page_bits = 12;  // of the linear address that the entry does not index: 39, 30, 22, 21 or 12
    bool malformed = false;
  };
  struct Path {
    std::array<Step, 4> steps{};
    unsigned count = 0;
    std::optional<PhysAddr> physical;  // of the address itself
  };
  Path path(const PagingState& paging, LinearAddr address) const;

  // For debuggers: translates without permission checks and without touching accessed or dirty bits.
  std::expected<PhysAddr, PageFault> probe(const PagingState& paging, LinearAddr address) const;

 private:
  template <bool kMark>
  std::expected<Translation, PageFault> walk_entries(const PagingState& paging, LinearAddr address,
                                                     AccessKind access, Privilege privilege);

  PhysicalMap& map_;
};

}  // namespace penumbra
