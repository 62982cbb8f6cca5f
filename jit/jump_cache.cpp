#include "jit/jump_cache.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace penumbra::jit {

namespace {
constexpr size_t kTableBytes = size_t{JumpCache::kSlots} * 16;
}

JumpCache::JumpCache() {
  void* table =
      mmap(nullptr, kTableBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (table == MAP_FAILED) throw std::runtime_error("jump cache: mmap: " + std::string(std::strerror(errno)));
  keys_ = static_cast<uint64_t*>(table);
  code_ = keys_ + kSlots;
  keys_[0] = 1;  // zero is the key of RIP 0, which belongs in slot 0
}

JumpCache::~JumpCache() {
  munmap(keys_, kTableBytes);
}

void JumpCache::insert(uint64_t rip, uint64_t code, uint64_t page, uint64_t other_page, bool global) {
  has_non_global_ |= !global;
  const unsigned slot = rip & (kSlots - 1);
  keys_[slot] = -rip;
  code_[slot] = code;
  if (filled_count_ < kMaxLog) filled_[filled_count_] = static_cast<uint16_t>(slot);
  if (filled_count_ <= kMaxLog) ++filled_count_;
  for (const uint64_t number : {page, other_page}) {
    const unsigned bit = number % kPageBits;
    pages_[bit / 64] |= uint64_t{1} << bit % 64;
  }
}

void JumpCache::forget(uint64_t rip) {
  const unsigned slot = rip & (kSlots - 1);
  if (keys_[slot] + rip == 0) keys_[slot] = slot == 0;
}

void JumpCache::clear() {
  if (filled_count_ <= kMaxLog) {
    for (unsigned i = 0; i < filled_count_; ++i) keys_[filled_[i]] = 0;
  } else {
    for (unsigned slot = 0; slot < kSlots; ++slot) keys_[slot] = 0;
  }
  keys_[0] = 1;
  filled_count_ = 0;
  has_non_global_ = false;
  for (uint64_t& word : pages_) word = 0;
}

void JumpCache::forget_page(uint64_t page) {
  const unsigned bit = page % kPageBits;
  if (pages_[bit / 64] >> bit % 64 & 1) clear();
}

}  // namespace penumbra::jit
