// Model-specific registers that nothing but RDMSR and WRMSR reads (the others live in VcpuState).
#pragma once

#include <array>
#include <cstdint>

namespace penumbra {

struct ModelRegisters {
  static constexpr unsigned kVariableMtrrs = 8;

  uint64_t misc_enable = 0x1801;  // fast strings; no BTS, no PEBS
  uint64_t debug_control = 0;
  uint64_t spec_control = 0;
  uint64_t machine_check_status = 0;

  uint64_t mtrr_default_type = 0;
  std::array<uint64_t, 11> mtrr_fixed{};
  std::array<uint64_t, 2 * kVariableMtrrs> mtrr_variable{};  // base, mask

  // AMD
  uint64_t hwcr = uint64_t{1} << 24;  // TscFreqSel: the TSC counts at the P0 frequency
  uint64_t syscfg = 0;
  uint64_t nb_config = 0;
  uint64_t top_mem = 0, top_mem2 = 0;
  uint64_t interrupt_pending = 0;
  uint64_t mmio_config_base = 0;
  std::array<uint64_t, 16> core_config{};  // c001_1020 to c001_102f

  // KVM's paravirtual clock: physical address | enable bit
  uint64_t kvm_wall_clock = 0, kvm_system_time = 0;
};

}  // namespace penumbra
