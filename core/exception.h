// Guest exceptions as values (SDM vol. 3, chapter 6).
#pragma once

#include <cstdint>
#include <expected>

#include "mmu/page_walker.h"

namespace penumbra {

namespace vector {
inline constexpr uint8_t kDe = 0, kDb = 1, kNmi = 2, kBp = 3, kOf = 4, kBr = 5, kUd = 6, kNm = 7, kDf = 8,
                         kTs = 10, kNp = 11, kSs = 12, kGp = 13, kPf = 14, kMf = 16, kAc = 17, kMc = 18,
                         kXm = 19;
}

struct Exception {
  uint8_t vector = 0;
  bool has_error_code = false;
  uint32_t error_code = 0;
  uint64_t cr2 = 0;   // #PF: faulting linear address
  uint64_t dr6 = 0;   // #DB: bits to set in DR6
  bool trap = false;  // reported after the instruction: RIP is the next one (else the faulting one)
};

template <class T>
using Result = std::expected<T, Exception>;

constexpr std::unexpected<Exception> raise(uint8_t vector) {
  return std::unexpected(Exception{.vector = vector});
}
constexpr std::unexpected<Exception> raise(uint8_t vector, uint32_t error_code) {
  return std::unexpected(Exception{.vector = vector, .has_error_code = true, .error_code = error_code});
}
constexpr std::unexpected<Exception> raise(const PageFault& fault) {
  return std::unexpected(Exception{.vector = vector::kPf,
                                   .has_error_code = true,
                                   .error_code = fault.error_code,
                                   .cr2 = fault.address.value});
}

}  // namespace penumbra
