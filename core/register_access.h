// General registers by number and operand size, as instructions read them.
#pragma once

#include <cstdint>

#include "core/vcpu_state.h"

namespace penumbra {

constexpr uint64_t size_mask(unsigned bytes) {
  return bytes >= 8 ? ~uint64_t{0} : (uint64_t{1} << (bytes * 8)) - 1;
}

inline uint64_t read_gpr(const VcpuState& state, unsigned number, unsigned bytes) {
  return state.gpr[number & 15] & size_mask(bytes);
}

// RDMSR, RDTSC and friends: EDX:EAX, both zero-extended.
inline void write_edx_eax(VcpuState& state, uint64_t value) {
  state.gpr[kRax] = value & 0xffff'ffff;
  state.gpr[kRdx] = value >> 32;
}
inline uint64_t read_edx_eax(const VcpuState& state) {
  return (state.gpr[kRdx] << 32) | (state.gpr[kRax] & 0xffff'ffff);
}

}  // namespace penumbra
