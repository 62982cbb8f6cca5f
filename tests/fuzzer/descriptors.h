// The descriptor tables that programs find, natively and in the guest: Linux' GDT as far as user code can
// load from it, and an LDT of our own with 16-bit code and segments that are not flat.
#pragma once

#include <iterator>

#include "core/descriptor.h"
#include "tests/fuzzer/machine_state.h"

namespace penumbra::fuzz {

inline constexpr unsigned kGdtEntries = 16;
// Linux keeps the number of the CPU in the limit of this one.
inline constexpr unsigned kCpuNumberEntry = 15;

constexpr uint64_t make_descriptor(uint32_t base, uint32_t limit, uint8_t access, unsigned flags) {
  return (limit & 0xffff) | uint64_t{base & 0xff'ffff} << 16 | uint64_t{access} << 40 |
         uint64_t{limit >> 16 & 0xf} << 48 | uint64_t{flags} << 52 | uint64_t{base >> 24} << 56;
}

namespace ldt {
// Access bytes: present, DPL 3, accessed.
inline constexpr uint8_t kReadOnly = 0xf1, kReadWrite = 0xf3, kExpandDown = 0xf7, kExecuteOnly = 0xf9,
                         kCode = 0xfb, kPresentBit = 0x80;
inline constexpr unsigned kSmall = 0, kBig = 4;  // D or B
inline constexpr uint32_t kBase = area::kLow, kAll = area::kBytes - 1;

inline constexpr uint64_t kEntries[] = {
    make_descriptor(kBase, kAll, kCode, kSmall),
    make_descriptor(kBase, kAll, kReadWrite, kSmall),
    make_descriptor(kBase, 0x7fff, kReadWrite, kSmall),
    make_descriptor(kBase, 0x6fff, kExpandDown, kSmall),
    make_descriptor(kBase, kAll, kReadOnly, kSmall),
    make_descriptor(kBase, kAll, kReadWrite & ~kPresentBit, kSmall),
    make_descriptor(kBase, kAll, kCode, kBig),
    make_descriptor(kBase, kAll, kExecuteOnly, kSmall),
    make_descriptor(kBase + 0x5000, 0x3fff, kReadWrite, kBig),
    make_descriptor(kBase, 0x5fff, kExpandDown, kBig),
    make_descriptor(kBase, kAll, kCode & ~kPresentBit, kSmall),
};

constexpr uint16_t selector_of(unsigned index) {
  return static_cast<uint16_t>(index << 3 | 7);
}
inline constexpr uint16_t kCode16 = selector_of(0), kData16 = selector_of(1), kShort = selector_of(2),
                          kExpandDown16 = selector_of(3), kReadOnly16 = selector_of(4),
                          kCode32 = selector_of(6), kExecuteOnly16 = selector_of(7),
                          kBased32 = selector_of(8), kExpandDown32 = selector_of(9);
}  // namespace ldt

// Null descriptors for what user code cannot load.
constexpr uint64_t gdt_entry(unsigned index) {
  if (index == selector::kCode32 / 8) return make_descriptor(0, 0xf'ffff, ldt::kCode, 0xc);
  if (index == selector::kData / 8) return make_descriptor(0, 0xf'ffff, ldt::kReadWrite, 0xc);
  if (index == selector::kCode64 / 8) return make_descriptor(0, 0xf'ffff, ldt::kCode, 0xa);
  return 0;
}

constexpr Descriptor descriptor_of(uint16_t chosen) {
  const unsigned index = chosen >> 3;
  if (chosen & 4) return {.raw = index < std::size(ldt::kEntries) ? ldt::kEntries[index] : 0};
  return {.raw = gdt_entry(index)};
}

}  // namespace penumbra::fuzz
