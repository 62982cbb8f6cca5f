// CPUID: what the host has and the translator passes, masked by a named model (--cpu max, --cpu base).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace penumbra {

struct CpuidLeaf {
  uint32_t function = 0, index = 0;
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

class CpuModel {
 public:
  // "max": everything the host has and the translator passes. "base": x86-64 with SSE2 only, same on every
  // host. Throws std::invalid_argument for another name.
  explicit CpuModel(std::string_view name);

  // Static part of a leaf; bits that follow machine state (OSXSAVE, XSAVE size) are patched in by the vCPU.
  // Out-of-range leaves answer as the highest basic one does on Intel, or zero on AMD.
  CpuidLeaf leaf(uint32_t function, uint32_t index) const;

  bool has_avx() const { return avx_; }
  uint64_t xcr0_mask() const { return avx_ ? 7 : 3; }  // bits that XSETBV accepts
  uint64_t cr4_mask() const;                           // bits that MOV CR4 accepts
  uint64_t efer_mask() const;
  uint8_t physical_bits() const { return 40; }
  uint64_t tsc_hz() const { return tsc_hz_; }

 private:
  std::vector<CpuidLeaf> leaves_;
  bool avx_ = false;
  uint64_t tsc_hz_ = 0;
};

}  // namespace penumbra
