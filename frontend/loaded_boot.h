// A kernel that starts in RAM, in protected or long mode, without firmware: what the loaders make.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "frontend/boot.h"
#include "frontend/boot_memory.h"

namespace penumbra {

// The vCPU's state at the entry point: flat segments, interrupts off, no paging unless in long mode.
struct EntryState {
  // The Linux boot protocol's __BOOT_CS and __BOOT_DS; multiboot and PVH leave the selectors open.
  static constexpr uint16_t kCode = 0x10, kData = 0x18;

  uint64_t rip = 0;
  std::array<uint64_t, 16> gpr{};
  uint64_t gdt = 0;  // where boot_gdt() was placed
  uint64_t cr3 = 0;  // identity page tables: start in 64-bit mode; 0: 32-bit protected mode

  void apply(Vcpu& vcpu) const;
};

// Descriptors of EntryState's selectors.
std::vector<std::byte> boot_gdt(bool code64);

class LoadedBoot final : public Boot {
 public:
  LoadedBoot(BootMemory memory, const EntryState& entry) : memory_(std::move(memory)), entry_(entry) {}
  void start(Machine& machine) override;

 private:
  BootMemory memory_;
  EntryState entry_;
};

}  // namespace penumbra
