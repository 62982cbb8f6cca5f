// Segment and system descriptors as they lie in the GDT and LDT (SDM vol. 3, 3.4.5 and 3.5).
#pragma once

#include <cstdint>

#include "core/vcpu_state.h"

namespace penumbra {

// Types of system descriptors (SDM vol. 3, table 3-2).
namespace system_type {
inline constexpr unsigned kTss16 = 1, kLdt = 2, kTss16Busy = 3, kCallGate16 = 4, kTaskGate = 5,
                          kInterruptGate16 = 6, kTrapGate16 = 7, kTss32 = 9, kTss32Busy = 11,
                          kCallGate32 = 12, kInterruptGate32 = 14,
                          kTrapGate32 = 15;  // in long mode the 32-bit numbers mean the 64-bit forms
inline constexpr unsigned kBusy = 2;
}  // namespace system_type

constexpr bool is_canonical(uint64_t address) {
  return static_cast<uint64_t>(static_cast<int64_t>(address << 16) >> 16) == address;
}

constexpr bool is_null(uint16_t selector) {
  return (selector & 0xfffc) == 0;
}
constexpr unsigned rpl_of(uint16_t selector) {
  return selector & 3;
}
// Error code of a fault that a selector caused; `external` is the EXT bit (SDM vol. 3, 6.13).
constexpr uint32_t selector_error(uint16_t selector, uint32_t external = 0) {
  return (selector & 0xfffcu) | external;
}

struct Descriptor {
  uint64_t raw = 0;
  LinearAddr address = {};  // where it was read

  constexpr uint16_t attributes() const { return static_cast<uint16_t>(raw >> 40); }
  constexpr unsigned type() const { return attributes() & Segment::kTypeMask; }
  constexpr unsigned dpl() const { return (attributes() >> 5) & 3; }
  constexpr bool is_segment() const { return attributes() & Segment::kS; }  // else a system descriptor
  constexpr bool present() const { return attributes() & Segment::kPresent; }
  constexpr bool is_long() const { return attributes() & Segment::kLong; }
  constexpr bool big() const { return attributes() & Segment::kBig; }
  constexpr bool is_code() const { return is_segment() && type() & 8; }
  constexpr bool conforming() const { return (type() & 12) == 12; }  // of a code segment
  constexpr bool is_writable_data() const { return is_segment() && (type() & 10) == 2; }
  constexpr bool is_readable() const { return is_segment() && (type() & 10) != 8; }  // not execute-only
  constexpr bool accessed() const { return type() & 1; }

  constexpr uint64_t base() const { return ((raw >> 16) & 0xff'ffff) | ((raw >> 32) & 0xff00'0000); }
  constexpr uint32_t limit() const {
    const uint32_t units = static_cast<uint32_t>((raw & 0xffff) | ((raw >> 32) & 0xf'0000));
    return attributes() & Segment::kGranular ? (units << 12) | 0xfff : units;
  }
  constexpr Segment segment(uint16_t selector) const {
    return {.base = base(), .limit = limit(), .selector = selector, .attributes = attributes()};
  }

  // Gates (SDM vol. 3, figures 5-8 and 6-2). The upper half of a 64-bit gate's offset follows in memory.
  constexpr uint16_t gate_selector() const { return static_cast<uint16_t>(raw >> 16); }
  constexpr uint32_t gate_offset() const {
    return static_cast<uint32_t>((raw & 0xffff) | ((raw >> 32) & 0xffff'0000));
  }
  constexpr unsigned gate_parameters() const { return (raw >> 32) & 0x1f; }
  constexpr unsigned gate_ist() const { return (raw >> 32) & 7; }
};

// A flat segment as SYSCALL, SYSENTER and their returns load it without reading a table.
constexpr Segment flat_segment(uint16_t selector, unsigned type, unsigned dpl, uint16_t size_bits) {
  return {.base = 0,
          .limit = 0xffff'ffff,
          .selector = selector,
          .attributes = static_cast<uint16_t>(type | Segment::kS | dpl << 5 | Segment::kPresent |
                                              Segment::kGranular | 0xf00 | size_bits)};
}

// A null selector: nothing can be reached through it.
constexpr Segment null_segment(uint16_t selector) {
  return {.selector = selector, .attributes = static_cast<uint16_t>(rpl_of(selector) << 5)};
}

// True when [offset, offset + size) lies inside the limit, expand-down segments included (SDM vol. 3, 5.3).
// `data`: type bits mean what they mean for a protected-mode segment.
constexpr bool within_limit(const Segment& segment, uint64_t offset, unsigned size, bool data) {
  const uint64_t last = offset + size - 1;
  if (data && (segment.attributes & (Segment::kS | 12)) == (Segment::kS | 4)) {
    return offset > segment.limit && last <= (segment.big() ? 0xffff'ffffu : 0xffffu);
  }
  return last <= segment.limit;
}

}  // namespace penumbra
