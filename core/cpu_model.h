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

  bool is_amd() const { return amd_; }
  bool has_avx() const { return avx_; }
  bool has_xsave() const { return xsave_; }
  bool has_xgetbv1() const { return xgetbv1_; }
  bool has_xsavec() const { return xsavec_; }
  bool has_monitor() const { return monitor_; }
  bool has_smap() const { return cr4_mask_ & (1u << 21); }
  bool has_spec_ctrl() const { return spec_ctrl_; }                  // MSRs IA32_SPEC_CTRL and IA32_PRED_CMD
  uint64_t arch_capabilities() const { return arch_capabilities_; }  // MSR 0x10A; 0: there is none

  uint64_t xcr0_mask() const { return avx_ ? 7 : 3; }  // bits that XSETBV accepts
  uint64_t cr4_mask() const { return cr4_mask_; }      // bits that MOV CR4 accepts
  uint64_t efer_mask() const { return efer_mask_; }
  uint8_t physical_bits() const { return 40; }

  // Rate of the host's TSC, which is the guest's too. Measured once a process when CPUID does not say.
  uint64_t tsc_hz() const { return tsc_hz_; }
  // Of the crystal that CPUID.15h speaks of, which is the rate of the local APIC's timer (SDM vol.
  // 3, 10.5.4).
  uint64_t crystal_hz() const { return tsc_hz_ / 2; }

 private:
  void make_max();
  void make_base();
  void add(CpuidLeaf leaf) { leaves_.push_back(leaf); }
  void add_brand(std::string_view brand);
  void add_hypervisor();
  const CpuidLeaf* find(uint32_t function, uint32_t index) const;

  std::vector<CpuidLeaf> leaves_;
  bool amd_ = false, avx_ = false, xsave_ = false, xgetbv1_ = false, xsavec_ = false, monitor_ = false;
  bool spec_ctrl_ = false;
  uint64_t cr4_mask_ = 0, efer_mask_ = 0, arch_capabilities_ = 0;
  uint64_t tsc_hz_ = 0;
};

}  // namespace penumbra
