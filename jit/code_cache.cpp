#include "jit/code_cache.h"

#include <sys/mman.h>

#include <cassert>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

#include "mmu/address.h"

namespace penumbra::jit {

CodeCache::CodeCache(size_t bytes) : size_(bytes) {
  const auto fail = [](const char* what) {
    throw std::runtime_error(std::string("code cache: ") + what + ": " + std::strerror(errno));
  };
  // The poll page precedes the executable view, so that translated code reaches it with a 32-bit
  // displacement.
  const auto reserve = [this] {
    return mmap(nullptr, reserved_bytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  };
  void* reserved = reserve();
  while (reserved == MAP_FAILED && size_ > kSmallest) {
    size_ /= 2;
    reserved = reserve();
  }
  if (reserved == MAP_FAILED) fail("mmap");
  poll_page_ = static_cast<std::byte*>(reserved);
  executable_ = poll_page_ + kPageSize;
  // Shared, as private memory could become one mapping with its neighbour, and take another mapping, that the
  // host may refuse, each time that its protection changes.
  const void* poll = mmap(poll_page_, kPageSize, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  void* rx = mmap(executable_, size_, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (poll == MAP_FAILED || rx == MAP_FAILED) fail("mmap");
  // An old size of zero: a second mapping of the same pages (mremap(2)). A memfd would do as well, but perf
  // names nothing in one.
  void* rw = mremap(rx, 0, size_, MREMAP_MAYMOVE);
  if (rw == MAP_FAILED) fail("mremap");
  if (mprotect(rw, size_, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
  writable_ = static_cast<std::byte*>(rw);
  if (mprotect(data().data(), data().size(), PROT_READ | PROT_WRITE) != 0) fail("mprotect");
  madvise(data().data(), data().size(), MADV_HUGEPAGE);  // only speed depends on it
}

size_t CodeCache::reserved_bytes() const {
  return kPageSize + (1 + kDataBytes) * size_;
}

CodeCache::~CodeCache() {
  munmap(poll_page_, reserved_bytes());
  munmap(writable_, size_);
}

uint64_t CodeCache::append(std::span<const std::byte> code) {
  assert(code.size() <= free_bytes());
  const uint64_t address = next_address();
  std::memcpy(writable_ + used_, code.data(), code.size());
  used_ += (code.size() + 15) & ~size_t{15};
  if (used_ > size_) used_ = size_;
  return address;
}

void CodeCache::patch(uint64_t address, std::span<const std::byte> code) {
  assert(contains(address));
  std::memcpy(writable_ + (address - reinterpret_cast<uint64_t>(executable_)), code.data(), code.size());
}

}  // namespace penumbra::jit
