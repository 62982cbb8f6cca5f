// Memory for what lives as long as the translations it describes: allocated piece by piece, given up at once.
#pragma once

#include <cassert>
#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

namespace penumbra::jit {

class Arena {
 public:
  explicit Arena(std::span<std::byte> memory) : memory_(memory) {}

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
  void clear() { used_ = 0; }
  size_t free_bytes() const { return memory_.size() - used_; }

 private:
  static constexpr size_t kAlignment = 8;

  // `bytes`: at most free_bytes().
  void* allocate(size_t bytes) {
    bytes = (bytes + kAlignment - 1) & ~(kAlignment - 1);
    assert(bytes <= free_bytes());
    void* const result = memory_.data() + used_;
    used_ += bytes;
    return result;
  }

  std::span<std::byte> memory_;
  size_t used_ = 0;
};

}  // namespace penumbra::jit
