// Small vocabulary for emitting host code around guest instructions: operands in the VcpuState, flag spills.
#pragma once

#include <asmjit/x86.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "core/vcpu_state.h"
#include "jit/block.h"
#include "jit/jump_cache.h"

namespace penumbra::jit {

namespace x86 = asmjit::x86;

// Host registers that hold no guest register (design 3.3): guest r9 to r11 live in VcpuState::gpr.
inline const x86::Gp kHostAddend = x86::r9;  // memory path: host address = kHostAddend + kLinear
inline const x86::Gp kLinear = x86::r10;  // linear address or offset of an access; jump target at block ends
inline const x86::Gp kTemp = x86::r11;

// Between blocks, and in all of them but loops (RegisterSwap).
constexpr bool usually_in_memory(unsigned gpr) {
  return gpr >= kR9 && gpr <= kR11;
}

// Uses of VcpuState::scratch by translated code.
enum class Scratch : unsigned { Rax, Continue, Linear, Operand, Rdi, Jump, Target };

// Host register of a guest register that lives in one.
inline x86::Gp host_gpr(unsigned gpr) {
  return x86::gpq(gpr);
}

// The low 1, 2, 4 or 8 bytes of a register.
inline x86::Gp sized(const x86::Gp& gpr, unsigned bytes) {
  switch (bytes) {
    case 1:
      return gpr.r8();
    case 2:
      return gpr.r16();
    case 4:
      return gpr.r32();
    default:
      return gpr.r64();
  }
}

// An assembler that knows where the VcpuState is: below 2 GiB (VcpuState::operator new), so that its fields
// are absolute operands that cost no register.
class Emitter : public x86::Assembler {
 public:
  explicit Emitter(const VcpuState& state, asmjit::CodeHolder* code = nullptr)
      : x86::Assembler(code), state_(reinterpret_cast<uint64_t>(&state)) {}

  uint64_t state_address(size_t offset) const { return state_ + offset; }
  x86::Mem state_field(size_t offset, uint32_t size) const { return x86::ptr_abs(state_ + offset, size); }
  x86::Mem gpr_field(unsigned gpr, uint32_t size = 8) const {
    return state_field(offsetof(VcpuState, gpr) + gpr * 8, size);
  }
  x86::Mem scratch_field(Scratch slot, uint32_t size = 8) const {
    return state_field(offsetof(VcpuState, scratch) + static_cast<unsigned>(slot) * 8, size);
  }
  x86::Mem segment_base_field(SegmentIndex segment) const {
    return state_field(offsetof(VcpuState, segments) + segment * sizeof(Segment) + offsetof(Segment, base),
                       8);
  }

  // Short where `thing` is near the code, as the arena is.
  void load_address(const x86::Gp& to, const void* thing) {
    const auto address = reinterpret_cast<uint64_t>(thing);
    constexpr int64_t kNear = INT32_MAX - (1 << 20);
    if (std::abs(static_cast<int64_t>(address - code()->baseAddress())) <= kNear) {
      lea(to, x86::ptr_rel(address));
    } else {
      mov(to, asmjit::Imm(address));
    }
  }

  // Jumps to the host code of the RIP in kLinear, which is `rip` if that is known, or goes on with what
  // `miss` emits; no flag changes. `stack_known`: what the region of RSP is (WarmEntry).
  template <class Miss>
  void search_jump_cache(std::optional<uint64_t> rip, bool stack_known, Miss miss) {
    const asmjit::Label hit = newLabel();
    mov(kHostAddend, state_field(offsetof(VcpuState, jump_cache), 8));
    size_t offset = 0;
    if (rip) {
      offset = JumpCache::slot_of(*rip) * sizeof(JumpCache::Entry);
    } else {
      static_assert(sizeof(JumpCache::Entry) == 24 && JumpCache::kSlots == 1 << 16);
      mov(kTemp.r32(), 0);
      crc32(kTemp, kLinear);
      movzx(kTemp.r32(), kTemp.r16());
      lea(kTemp, x86::ptr(kTemp, kTemp, 1));
      lea(kHostAddend, x86::ptr(kHostAddend, kTemp, 3));
    }
    const auto field = [offset](size_t member) {
      return x86::ptr(kHostAddend, static_cast<int32_t>(offset + member), 8);
    };
    mov(kTemp, x86::rcx);
    mov(x86::rcx, field(offsetof(JumpCache::Entry, key)));
    lea(x86::rcx, x86::ptr(x86::rcx, kLinear));
    jecxz(x86::rcx, hit);
    mov(x86::rcx, kTemp);
    miss();
    bind(hit);
    mov(x86::rcx, kTemp);
    jmp(field(stack_known ? offsetof(JumpCache::Entry, stack_known) : offsetof(JumpCache::Entry, code)));
  }

  // Saves the arithmetic flags to the VcpuState, changing no register and no flag.
  void spill_flags();
  // The reverse.
  void restore_flags();
  // Guest registers that live in host registers, to and from VcpuState::gpr. No flag is changed.
  void save_gprs();
  void load_gprs();

 private:
  uint64_t state_;
};

}  // namespace penumbra::jit
