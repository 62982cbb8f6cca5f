// Memory for what lives as long as the translations it describes: allocated piece by piece, given up at once.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace penumbra::jit {

class Arena {
 public:
  // Addresses stay the same until clear(), which runs no destructors.
  template <class T>
  T* make(T value = {}) {
    static_assert(std::is_trivially_destructible_v<T> && alignof(T) <= kAlignment);
    return new (allocate(sizeof(T))) T(std::move(value));
  }
  template <class T>
  T* copy(std::span<const T> values) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    T* const to = static_cast<T*>(allocate(values.size_bytes()));
    std::uninitialized_copy(values.begin(), values.end(), to);
    return to;
  }
  void clear() {
    chunks_.clear();
    free_ = 0;
  }
  size_t bytes() const { return chunks_.size() * kChunkBytes; }

 private:
  static constexpr size_t kChunkBytes = 256 * 1024;
  static constexpr size_t kAlignment = 8;

  // `bytes`: at most kChunkBytes.
  void* allocate(size_t bytes) {
    bytes = (bytes + kAlignment - 1) & ~(kAlignment - 1);
    if (bytes > free_) {
      chunks_.push_back(std::make_unique_for_overwrite<std::byte[]>(kChunkBytes));
      free_ = kChunkBytes;
    }
    void* const result = chunks_.back().get() + (kChunkBytes - free_);
    free_ -= bytes;
    return result;
  }

  std::vector<std::unique_ptr<std::byte[]>> chunks_;
  size_t free_ = 0;  // bytes left at the end of the last chunk
};

}  // namespace penumbra::jit
