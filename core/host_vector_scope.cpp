// Light code by necessity: between the two halves the registers are the guest's.
#include "core/host_vector_scope.h"

namespace penumbra {

namespace {

struct HostSupport {
  bool xsave = false;
  bool avx = false;
  uint32_t mask = 3;  // components that the guest can have: x87, SSE, AVX
};

HostSupport probe_host() {
  HostSupport host;
  uint32_t eax = 1, ebx, ecx = 0, edx;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  host.xsave = ecx & 1u << 27;  // OSXSAVE
  if (!host.xsave) return host;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  host.mask = low & 7;
  host.avx = host.mask & 4;
  return host;
}

const HostSupport kHost = probe_host();

constexpr uint32_t kDefaultMxcsr = 0x1f80;
constexpr unsigned kMxcsr = 24, kXstateBv = 512;
// First bytes of the image: FCW, FSW (ES is bit 7), abridged tag word.
constexpr uint64_t kX87Compared = 0xff'0080'ffff, kX87Default = 0x37f;

}  // namespace

void save_guest_vector_state(VcpuState& state) {
  std::byte* image = state.guest_vector_state.data();
  if (kHost.xsave) [[likely]] {
    // SAFETY: 64-byte aligned and large enough for components 0 to 2 in standard format.
    asm volatile("xsave64 (%0)" : : "r"(image), "a"(kHost.mask), "d"(0) : "memory");
    if (kHost.avx) asm volatile("vzeroupper");
  } else {
    asm volatile("fxsave64 (%0)" : : "r"(image) : "memory");
    const uint64_t present = 3;
    __builtin_memcpy(image + kXstateBv, &present, sizeof(present));
  }
  // FNINIT is slow, and nearly always there is nothing to do: no tag in use, no unmasked exception pending.
  uint64_t x87;
  __builtin_memcpy(&x87, image, sizeof(x87));
  if ((x87 & kX87Compared) != kX87Default) asm volatile("fninit");
  uint32_t mxcsr;
  __builtin_memcpy(&mxcsr, image + kMxcsr, sizeof(mxcsr));
  if (mxcsr != kDefaultMxcsr) asm volatile("ldmxcsr %0" : : "m"(kDefaultMxcsr));
  state.vector_state_live = false;
}

void load_guest_vector_state(VcpuState& state) {
  const std::byte* image = state.guest_vector_state.data();
  if (kHost.xsave) [[likely]] {
    // SAFETY: as above; the header is XSAVE's own or Vcpu::reset()'s, so it cannot raise #GP.
    asm volatile("xrstor64 (%0)" : : "r"(image), "a"(kHost.mask), "d"(0) : "memory");
  } else {
    asm volatile("fxrstor64 (%0)" : : "r"(image) : "memory");
  }
  state.vector_state_live = true;
}

}  // namespace penumbra
