#include "jit/jump_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace penumbra::jit {

namespace {
constexpr size_t kTableBytes = size_t{JumpCache::kSlots} * sizeof(JumpCache::Entry);
}

JumpCache::JumpCache() {
  if (!__builtin_cpu_supports("sse4.2")) throw std::runtime_error("jump cache: the host has no SSE4.2");
  void* table =
      mmap(nullptr, kTableBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (table == MAP_FAILED) throw std::runtime_error("jump cache: mmap: " + std::string(std::strerror(errno)));
  entries_ = static_cast<Entry*>(table);
  entries_[0].key = 1;  // zero is the key of RIP 0, which belongs in slot 0
}

JumpCache::~JumpCache() {
  munmap(entries_, kTableBytes);
}

void JumpCache::insert(uint64_t rip, uint64_t code, uint64_t stack_known, uint64_t page, uint64_t other_page,
                       bool global) {
  const unsigned slot = slot_of(rip);
  entries_[slot] = {.key = -rip, .code = code, .stack_known = stack_known};
  (global ? global_ : local_).add(slot);
  for (const uint64_t number : {page, other_page}) {
    const unsigned bit = page_bit(number);
    pages_[bit / 64] |= uint64_t{1} << bit % 64;
  }
}

void JumpCache::forget(uint64_t rip) {
  const unsigned slot = slot_of(rip);
  if (entries_[slot].key + rip == 0) entries_[slot].key = slot == 0;
}

void JumpCache::empty(Log& log) {
  if (log.count <= kMaxLog) {
    for (unsigned i = 0; i < log.count; ++i) entries_[log.slots[i]].key = 0;
  } else {
    for (unsigned slot = 0; slot < kSlots; ++slot) entries_[slot].key = 0;
  }
  entries_[0].key = 1;
  log.count = 0;
}

void JumpCache::clear_non_global() {
  if (local_.count == 0) return;
  empty(local_);
  if (global_.count == 0) pages_ = {};
}

void JumpCache::clear() {
  empty(global_);
  empty(local_);
  pages_ = {};
}

void JumpCache::forget_page(const Log& log, uint64_t page) {
  for (unsigned i = 0; i < log.count; ++i) {
    Entry& entry = entries_[log.slots[i]];
    const uint64_t linear = signature.cs_base - entry.key;
    // A block that starts on the page before may go on here.
    if (page - (linear >> kPageShift) <= 1) entry.key = log.slots[i] == 0;
  }
}

void JumpCache::forget_pages(uint64_t first, uint64_t count) {
  if (count == 1) {
    forget_page(first);
    return;
  }
  for (uint64_t page = first; page < first + std::min<uint64_t>(count, kPageBits); ++page) {
    if (!holds_page(page)) continue;
    clear();
    return;
  }
}

void JumpCache::forget_page(uint64_t page) {
  if (!holds_page(page)) return;
  // Outside 64-bit mode linear addresses wrap: not worth a closer look.
  if (global_.count > kMaxLog || local_.count > kMaxLog || signature.cs_base != 0) {
    clear();
  } else {
    forget_page(global_, page);
    forget_page(local_, page);
  }
}

}  // namespace penumbra::jit
