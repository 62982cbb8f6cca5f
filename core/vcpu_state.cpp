#include "core/vcpu_state.h"

#include <sys/mman.h>

#include <stdexcept>

namespace penumbra {

void* VcpuState::operator new(size_t bytes, std::align_val_t) {
  // MAP_32BIT: within the first 2 GiB (mmap(2)).
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("no memory below 2 GiB for the vCPU's state");
  return memory;
}

void VcpuState::operator delete(void* memory, size_t bytes, std::align_val_t) noexcept {
  munmap(memory, bytes);
}

}  // namespace penumbra
