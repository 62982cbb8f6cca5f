// Guest memory as a debugger sees it: by linear address through the page tables without leaving a trace in
// them, or by physical address. Registers of chips are left alone, since reading them may change them.
#pragma once

#include <cstdint>
#include <expected>
#include <span>

#include "core/vcpu.h"

namespace penumbra {

class GuestMemory {
 public:
  explicit GuestMemory(Vcpu& vcpu) : vcpu_(vcpu) {}

  enum class Space : uint8_t { Linear, Physical };
  // Bytes that were read or written before the first one that cannot be. ROM cannot be written.
  size_t read(Space space, uint64_t address, std::span<uint8_t> to) const;
  size_t write(Space space, uint64_t address, std::span<const uint8_t> from);

 private:
  std::expected<PhysAddr, PageFault> translate(Space space, uint64_t address) const;

  Vcpu& vcpu_;
};

}  // namespace penumbra
