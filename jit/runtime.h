// The fixed host code that surrounds translated blocks: entry and exit, and the thunks that carry a call from
// translated code into C++ and back. Generated once, at the start of the code cache.
#pragma once

#include <cstdint>

#include "core/vcpu_state.h"
#include "jit/code_cache.h"

namespace penumbra::jit {

class Translator;

// Signature of every C++ helper that translated code may call; they stand in jit/helpers.cpp. They are light
// code. `linear` and `detail` are kLinear and kTemp at the call, `site` the host address where translated
// code would go on. Returns 0 to go on there, else the host address to jump to with all guest state loaded
// from the VcpuState.
using Helper = uint64_t (*)(Translator& translator, uint64_t linear, uint64_t detail, uint64_t site) noexcept;

// Host addresses of the thunks. Unless said otherwise a thunk expects the flags spilled or dead and
// kHostAddend to hold the host address to go on at.
struct Thunks {
  uint64_t enter = 0;  // C++: void(uint64_t host_code); runs translated code until it leaves
  uint64_t leave = 0;  // back to C++; all state is in the VcpuState
  uint64_t tlb_miss =
      0;  // kLinear: address; kTemp: MissDetail; goes on with an addend for this access in kHostAddend
  uint64_t system = 0;         // kTemp: SystemInstruction*
  uint64_t system_end = 0;     // likewise, when the block ends with it
  uint64_t callout_begin = 0;  // kLinear: offset; kTemp: MemoryAccess*
  uint64_t callout_end = 0;    // kTemp: MemoryAccess*
  uint64_t gather = 0;         // kTemp: GatherAccess*
  uint64_t masked_move = 0;    // kLinear: offset; kTemp: MemoryAccess*
  uint64_t window_miss = 0;    // VcpuState::rip: the instruction that no window serves; flags in the host
  uint64_t window_miss_spilled = 0;  // likewise, flags spilled
  // kLinear: address; kTemp: WindowSite*; goes on with the delta of the address's region in kHostAddend
  uint64_t window_select = 0;
  uint64_t single_step = 0;           // kLinear: RIP of the next instruction; never goes on
  uint64_t single_step_indirect = 0;  // likewise; kTemp: IndirectBranch*
  // Block ends, with the flags in the host's RFLAGS; never go on.
  uint64_t lookup = 0;           // kLinear: RIP to go to
  uint64_t lookup_indirect = 0;  // likewise; kTemp: IndirectBranch*
  uint64_t link = 0;             // kTemp: BlockLink*
  uint64_t link_shared = 0;      // likewise, of a shared block
  uint64_t redispatch = 0;  // kLinear: RIP, if the block is shared; kTemp: Block* whose translation is dead
  // Where the host-fault handler sends the vCPU after it has set VcpuState::rip and ::site.
  uint64_t interrupted = 0;    // flags in the host's RFLAGS
  uint64_t fault = 0;          // flags in the host's RFLAGS
  uint64_t fault_spilled = 0;  // flags spilled or dead
};

Thunks generate_thunks(CodeCache& cache, Translator& translator);

// kTemp at Thunks::tlb_miss.
struct MissDetail {
  static constexpr uint32_t kWrite = 1u << 16;
  static constexpr uint32_t kAligned = 1u << 17;
  static constexpr uint32_t kX87 = 1u << 18;
  static constexpr uint32_t kLanes = 1u << 19;
  static constexpr uint32_t size(uint32_t detail) { return detail & 0xffff; }
};

}  // namespace penumbra::jit
