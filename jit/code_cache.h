// Memory for translated code: shared memory mapped twice, once writable and once executable, so that no page
// is both through the same mapping. Allocation only moves forward; when it is full, everything after the
// fixed part (runtime thunks) is given up at once. Beside it is memory for what the code and its descriptions
// share, near enough for 32-bit displacements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace penumbra::jit {

class CodeCache {
 public:
  // `bytes`: multiple of 4 KiB; half as many, and half of that, where the host has no address space for more.
  // Throws std::runtime_error when it refuses the mappings.
  explicit CodeCache(size_t bytes);
  ~CodeCache();
  CodeCache(const CodeCache&) = delete;
  CodeCache& operator=(const CodeCache&) = delete;

  size_t size() const { return size_; }
  size_t used() const { return used_; }
  size_t free_bytes() const { return size_ - used_; }

  // Executable address that the next append() will have.
  uint64_t next_address() const { return reinterpret_cast<uint64_t>(executable_) + used_; }
  // Copies code in; the caller made sure that it fits. Returns its executable address.
  uint64_t append(std::span<const std::byte> code);

  // Overwrites code at executable address `address`, for links and invalidation. vCPU thread only: x86 sees
  // its own stores to code after the next jump (SDM vol. 3, 8.1.3).
  void patch(uint64_t address, std::span<const std::byte> code);

  // Everything appended so far stays for ever (runtime thunks).
  void fix() { fixed_ = used_; }
  void clear() { used_ = fixed_; }

  bool contains(uint64_t address) const { return address - reinterpret_cast<uint64_t>(executable_) < size_; }

  // For the Arena: twice as much as there is for code.
  std::span<std::byte> data() const { return {executable_ + size_, kDataBytes * size_}; }

  // A page next to the code that translated code reads on back edges; see Translator::interrupt().
  std::byte* poll_page() const { return poll_page_; }

 private:
  static constexpr size_t kDataBytes = 2;  // for each of code
  static constexpr size_t kSmallest = 8 << 20;
  size_t reserved_bytes() const;

  size_t size_;
  size_t used_ = 0;
  size_t fixed_ = 0;
  std::byte* executable_ = nullptr;
  std::byte* writable_ = nullptr;
  std::byte* poll_page_ = nullptr;
};

}  // namespace penumbra::jit
