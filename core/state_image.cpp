// FXSAVE, XSAVE and their kin (SDM vol. 1, chapters 10.5 and 13): the host's own instruction on the guest's
// live registers and a copy of the guest's image, after the checks that would make it fault.
//
// XSAVEOPT runs as XSAVE: its modified optimization remembers the address of the image last restored, and
// ours is always the same buffer. XSAVES and XRSTORS are not offered (CPUID).
#include "core/host_vector_scope.h"
#include "core/register_access.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

constexpr unsigned kFxsaveBytes = 512, kMxcsr = 24, kMxcsrMask = 28;
constexpr unsigned kXstateBv = 512, kXcompBv = 520, kHeaderEnd = 576, kAvxEnd = 832;
// Parts that FXSAVE leaves to software, and that outside 64-bit mode nothing touches: XMM8 to XMM15 and the
// upper halves of YMM8 to YMM15.
constexpr unsigned kXmm8 = 288, kXmmEnd = 416, kYmm8 = 704;
constexpr uint64_t kSse = 2, kAvx = 4;
constexpr uint64_t kCompacted = uint64_t{1} << 63;

alignas(64) std::byte probe_image[kFxsaveBytes];

// MXCSR bits that may be set (SDM vol. 1, 11.6.6).
uint32_t probe_mxcsr_mask() {
  asm volatile("fxsave64 (%0)" : : "r"(probe_image) : "memory");
  uint32_t mask;
  __builtin_memcpy(&mask, &probe_image[kMxcsrMask], sizeof(mask));
  return mask ? mask : 0xffbf;
}
const uint32_t kMxcsrValid = probe_mxcsr_mask();

bool mxcsr_valid(const std::byte* image) {
  uint32_t mxcsr;
  __builtin_memcpy(&mxcsr, image + kMxcsr, sizeof(mxcsr));
  return !(mxcsr & ~kMxcsrValid);
}

uint64_t header_word(const std::byte* image, unsigned offset) {
  uint64_t value;
  __builtin_memcpy(&value, image + offset, sizeof(value));
  return value;
}

bool header_zero(const std::byte* image, unsigned from, unsigned to) {
  for (; from < to; from += 8) {
    if (header_word(image, from) != 0) return false;
  }
  return true;
}

unsigned image_bytes(uint64_t components) {
  return components & kAvx ? kAvxEnd : kHeaderEnd;
}

void copy_words(std::byte* to, const std::byte* from, unsigned begin, unsigned end) {
  for (; begin < end; begin += 8) __builtin_memcpy(to + begin, from + begin, 8);
}

// SAFETY of all below: the images are 64-byte aligned members of VcpuState with room for components 0 to 2,
// the guest's state is live, and headers and MXCSR have been checked.
void host_xsave(std::byte* image, uint64_t components, bool wide) {
  const auto low = static_cast<uint32_t>(components);
  if (wide) {
    asm volatile("xsave64 (%0)" : : "r"(image), "a"(low), "d"(0) : "memory");
  } else {
    asm volatile("xsave (%0)" : : "r"(image), "a"(low), "d"(0) : "memory");
  }
}

void host_xsavec(std::byte* image, uint64_t components, bool wide) {
  const auto low = static_cast<uint32_t>(components);
  if (wide) {
    asm volatile("xsavec64 (%0)" : : "r"(image), "a"(low), "d"(0) : "memory");
  } else {
    asm volatile("xsavec (%0)" : : "r"(image), "a"(low), "d"(0) : "memory");
  }
}

void host_xrstor(const std::byte* image, uint64_t components, bool wide) {
  const auto low = static_cast<uint32_t>(components);
  if (wide) {
    asm volatile("xrstor64 (%0)" : : "r"(image), "a"(low), "d"(0) : "memory");
  } else {
    asm volatile("xrstor (%0)" : : "r"(image), "a"(low), "d"(0) : "memory");
  }
}

void host_fxsave(std::byte* image, bool wide) {
  if (wide) {
    asm volatile("fxsave64 (%0)" : : "r"(image) : "memory");
  } else {
    asm volatile("fxsave (%0)" : : "r"(image) : "memory");
  }
}

void host_fxrstor(const std::byte* image, bool wide) {
  if (wide) {
    asm volatile("fxrstor64 (%0)" : : "r"(image) : "memory");
  } else {
    asm volatile("fxrstor (%0)" : : "r"(image) : "memory");
  }
}

}  // namespace

Result<Outcome> Vcpu::execute_state_image(const SystemInstruction& insn) {
  if (insn.op != SystemOp::Fxsave && insn.op != SystemOp::Fxrstor) {
    if (!model_.has_xsave() || !(state_.cr4 & cr4::kOsxsave)) return raise(vector::kUd);
  }
  Result<Outcome> outcome;
  switch (insn.op) {
    case SystemOp::Xgetbv:
      outcome = read_xcr();
      break;
    case SystemOp::Xsetbv:
      outcome = write_xcr();
      break;
    case SystemOp::Fxsave:
      outcome = fxsave(insn);
      break;
    case SystemOp::Fxrstor:
      outcome = fxrstor(insn);
      break;
    case SystemOp::Xsavec:
      if (!model_.has_xsavec()) return raise(vector::kUd);
      [[fallthrough]];
    case SystemOp::Xsave:
    case SystemOp::Xsaveopt:
      outcome = xsave(insn);
      break;
    case SystemOp::Xrstor:
      outcome = xrstor(insn);
      break;
    default:
      return raise(vector::kUd);
  }
  if (outcome) advance(insn);
  return outcome;
}

// SDM vol. 2, XGETBV. XCR0 & XINUSE with ECX = 1.
Result<Outcome> Vcpu::read_xcr() {
  const auto number = static_cast<uint32_t>(state_.gpr[kRcx]);
  if (number > 1 || (number == 1 && !model_.has_xgetbv1())) return raise(vector::kGp, 0);
  uint64_t value = state_.xcr0;
  if (number == 1) {
    uint32_t low, high;
    {
      GuestVectorScope scope(state_);
      asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    }
    value &= low;
  }
  write_edx_eax(state_, value);
  return Outcome::Next;
}

// SDM vol. 2, XSETBV.
Result<Outcome> Vcpu::write_xcr() {
  if (state_.cpl != 0) return raise(vector::kGp, 0);
  const uint64_t value = read_edx_eax(state_);
  if (static_cast<uint32_t>(state_.gpr[kRcx]) != 0 || value & ~model_.xcr0_mask() || !(value & 1) ||
      (value & kAvx && !(value & kSse))) {
    return raise(vector::kGp, 0);
  }
  state_.xcr0 = value;
  update_mode();
  return Outcome::Redirect;
}

// Device-not-available, rights, limit and alignment of an image.
Result<LinearAddr> Vcpu::image_address(const SystemInstruction& insn, unsigned size,
                                       AccessKind access) const {
  if (insn.rm != SystemInstruction::kNoRegister) return raise(vector::kUd);
  const bool fx = insn.op == SystemOp::Fxsave || insn.op == SystemOp::Fxrstor;
  if (state_.cr0 & (fx ? cr0::kTs | cr0::kEm : cr0::kTs)) return raise(vector::kNm);
  const uint64_t offset = effective_address(insn), misalignment = fx ? 15 : 63;
  const auto address = linearize(insn.segment, offset, size, access);
  // Of an image that only begins within the limit, the alignment is checked first.
  const auto first = linearize(insn.segment, offset, 1, access);
  if (!address && first && first->value & misalignment) return raise(vector::kGp, 0);
  // The manuals leave the choice between #AC and #GP open; AMD checks dwords first.
  if (address && fx && address->value & 3 && state_.mode.has(ModeBits::kAlignment))
    return raise(vector::kAc, 0);
  if (address && address->value & misalignment) return raise(vector::kGp, 0);
  return address;
}

// Writes what the mode may touch of an image whose memory has been probed.
Result<void> Vcpu::write_image(LinearAddr address, unsigned size) {
  const std::byte* image = state_.callout_buffer.data();
  const TlbView view = current_view();
  if (code64()) return write_linear(address, image, size, view);
  if (auto done = write_linear(address, image, kXmm8, view); !done) return done;
  if (size <= kXmmEnd) return {};
  return write_linear(address + kXmmEnd, image + kXmmEnd, (size > kYmm8 ? kYmm8 : size) - kXmmEnd, view);
}

Result<Outcome> Vcpu::fxsave(const SystemInstruction& insn) {
  const auto address = image_address(insn, kFxsaveBytes, AccessKind::Write);
  if (!address) return std::unexpected(address.error());
  if (auto done = probe_write(*address, kFxsaveBytes, current_view()); !done) {
    return std::unexpected(done.error());
  }
  {
    GuestVectorScope scope(state_);
    host_fxsave(state_.callout_buffer.data(), insn.rex_w);
  }
  // The last 96 bytes are the software's.
  if (auto done = write_image(*address, kXmmEnd); !done) return std::unexpected(done.error());
  return Outcome::Next;
}

Result<Outcome> Vcpu::fxrstor(const SystemInstruction& insn) {
  const auto address = image_address(insn, kFxsaveBytes, AccessKind::Read);
  if (!address) return std::unexpected(address.error());
  std::byte* image = state_.callout_buffer.data();
  if (auto done = read_linear(*address, image, kFxsaveBytes, current_view()); !done) {
    return std::unexpected(done.error());
  }
  if (!mxcsr_valid(image)) return raise(vector::kGp, 0);
  GuestVectorScope scope(state_);
  if (!code64()) {
    // While the state is live the memory image is free for use.
    host_fxsave(state_.guest_vector_state.data(), true);
    copy_words(image, state_.guest_vector_state.data(), kXmm8, kXmmEnd);
  }
  host_fxrstor(image, insn.rex_w);
  return Outcome::Next;
}

// XSAVE, XSAVEOPT, XSAVEC. The image is read first: components and header words that the instruction leaves
// alone must come back as they were, and XSAVE reads XSTATE_BV.
Result<Outcome> Vcpu::xsave(const SystemInstruction& insn) {
  const uint64_t components = read_edx_eax(state_) & state_.xcr0;
  const unsigned size = image_bytes(components);
  const auto address = image_address(insn, size, AccessKind::Write);
  if (!address) return std::unexpected(address.error());
  std::byte* image = state_.callout_buffer.data();
  const TlbView view = current_view();
  if (auto done = probe_write(*address, size, view); !done) return std::unexpected(done.error());
  if (auto done = read_linear(*address, image, size, view); !done) return std::unexpected(done.error());
  {
    GuestVectorScope scope(state_);
    if (insn.op == SystemOp::Xsavec) {
      host_xsavec(image, components, insn.rex_w);
    } else {
      host_xsave(image, components, insn.rex_w);
    }
  }
  if (auto done = write_image(*address, size); !done) return std::unexpected(done.error());
  return Outcome::Next;
}

// SDM vol. 1, 13.8.
Result<Outcome> Vcpu::xrstor(const SystemInstruction& insn) {
  const uint64_t components = read_edx_eax(state_) & state_.xcr0;
  const auto address = image_address(insn, kHeaderEnd, AccessKind::Read);
  if (!address) return std::unexpected(address.error());
  std::byte* image = state_.callout_buffer.data();
  const TlbView view = current_view();
  if (auto done = read_linear(*address, image, kHeaderEnd, view); !done) return std::unexpected(done.error());

  const uint64_t present = header_word(image, kXstateBv), compacted = header_word(image, kXcompBv);
  bool loads_mxcsr;
  if (compacted & kCompacted) {
    const uint64_t held = compacted & ~kCompacted;
    if (!model_.has_xsavec() || held & ~state_.xcr0 || present & ~held ||
        !header_zero(image, kXcompBv + 8, kHeaderEnd)) {
      return raise(vector::kGp, 0);
    }
    loads_mxcsr = components & present & kSse;
  } else {
    if (present & ~state_.xcr0 || !header_zero(image, kXcompBv, kXcompBv + 16)) return raise(vector::kGp, 0);
    loads_mxcsr = components & (kSse | kAvx);
  }
  if (loads_mxcsr && !mxcsr_valid(image)) return raise(vector::kGp, 0);
  if (components & present & kAvx) {
    const auto whole = image_address(insn, kAvxEnd, AccessKind::Read);
    if (!whole) return std::unexpected(whole.error());
    if (auto done = read_linear(*address + kHeaderEnd, image + kHeaderEnd, kAvxEnd - kHeaderEnd, view);
        !done) {
      return std::unexpected(done.error());
    }
  }

  GuestVectorScope scope(state_);
  if (code64()) {
    host_xrstor(image, components, insn.rex_w);
    return Outcome::Next;
  }
  // Outside 64-bit mode the upper eight registers keep their contents. While the state is live the memory
  // image is free for use.
  std::byte* before = state_.guest_vector_state.data();
  const uint64_t vectors = state_.xcr0 & (kSse | kAvx);
  host_xsave(before, vectors, true);
  host_xrstor(image, components, insn.rex_w);
  if (vectors) {
    for (unsigned i = kXstateBv; i < kHeaderEnd; i += 8) __builtin_memset(image + i, 0, 8);
    host_xsave(image, vectors, true);
    copy_words(image, before, kXmm8, kXmmEnd);
    if (vectors & kAvx) copy_words(image, before, kYmm8, kAvxEnd);
    __builtin_memcpy(image + kXstateBv, &vectors, sizeof(vectors));
    host_xrstor(image, vectors, true);
  }
  return Outcome::Next;
}

}  // namespace penumbra
