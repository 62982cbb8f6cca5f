// Guest memory by linear address. The fast case is a software TLB entry: compare the tag, add, copy.
#include <algorithm>

#include "core/descriptor.h"
#include "core/host_vector_scope.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

// Powers of two up to 8 are one load and one store, as the guest expects of an aligned access. The C
// library's memcpy uses vector registers, which hold the guest's state.
inline void copy_bytes(std::byte* to, const std::byte* from, unsigned size) {
  switch (size) {
    case 1:
      *to = *from;
      return;
    case 2:
      __builtin_memcpy(to, from, 2);
      return;
    case 4:
      __builtin_memcpy(to, from, 4);
      return;
    case 8:
      __builtin_memcpy(to, from, 8);
      return;
    default:
      for (; size >= 8; size -= 8, to += 8, from += 8) __builtin_memcpy(to, from, 8);
      for (; size != 0; --size) *to++ = *from++;
  }
}

// SAFETY: a TLB tag matched, so address + addend lies in the mapped page of guest RAM or ROM.
inline std::byte* host_of(const TlbEntry& entry, LinearAddr address) {
  return reinterpret_cast<std::byte*>(address.value + entry.addend);
}

// Largest power of two up to 8 that is not more than `size`: what chips accept.
inline unsigned piece(unsigned size) {
  return size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
}

constexpr uint64_t last_page(LinearAddr address, unsigned size) {
  return (address + (size - 1)).page().value;
}

}  // namespace

Result<PhysAddr> Vcpu::translate(LinearAddr address, AccessKind access, TlbView view) {
  address = wrap(address.value);
  const uint64_t page = address.page().value;
  const TlbEntry& entry = tlb_.entry(view, address);
  const bool hit = access == AccessKind::Write ? entry.write_tag == page
                                               : entry.read_tag == page && (access == AccessKind::Read ||
                                                                            entry.info & TlbEntry::kFetch);
  if (hit) return start_of(entry.frame()) + address.page_offset();

  const PagingState paging = paging_state();
  const auto translation = walker_.walk(paging, address, access, privilege_of(view));
  if (!translation) return raise(translation.error());
  // With SMAP but without SMEP, a supervisor may fetch from a user page that it may not read: no entry, since
  // its read tag would let data reads through.
  if (!(access == AccessKind::Fetch && paging.smap && !paging.smep && view == TlbView::Supervisor)) {
    tlb_.fill(view, address, *translation);
  }
  return map_.behind_a20(translation->physical);
}

bool Vcpu::may_jump_to(uint64_t rip) const {
  return code64() ? is_canonical(rip) : rip <= state_.segments[kCs].limit;
}

Result<PhysAddr> Vcpu::translate_fetch(LinearAddr address) {
  if (code64()) {
    if (!is_canonical(address.value)) return raise(vector::kGp, 0);
  } else {
    address = wrap(address.value);
    const Segment& cs = state_.segments[kCs];
    if (static_cast<uint32_t>(address.value - cs.base) > cs.limit) return raise(vector::kGp, 0);
  }
  return translate(address, AccessKind::Fetch, current_view());
}

Result<uint64_t> Vcpu::read_linear(LinearAddr address, unsigned size, TlbView view) {
  uint64_t value = 0;
  const TlbEntry& entry = tlb_.entry(view, address);
  if (entry.read_tag == last_page(address, size)) [[likely]] {
    copy_bytes(reinterpret_cast<std::byte*>(&value), host_of(entry, address), size);
    return value;
  }
  if (auto done = read_slow(address, reinterpret_cast<std::byte*>(&value), size, view); !done) {
    return std::unexpected(done.error());
  }
  return value;
}

Result<void> Vcpu::write_linear(LinearAddr address, uint64_t value, unsigned size, TlbView view) {
  return write_linear(address, &value, size, view);
}

Result<void> Vcpu::read_linear(LinearAddr address, void* to, unsigned size, TlbView view) {
  const TlbEntry& entry = tlb_.entry(view, address);
  if (entry.read_tag == last_page(address, size)) [[likely]] {
    copy_bytes(static_cast<std::byte*>(to), host_of(entry, address), size);
    return {};
  }
  return read_slow(address, static_cast<std::byte*>(to), size, view);
}

Result<void> Vcpu::write_linear(LinearAddr address, const void* from, unsigned size, TlbView view) {
  const TlbEntry& entry = tlb_.entry(view, address);
  if (entry.write_tag == last_page(address, size)) [[likely]] {
    copy_bytes(host_of(entry, address), static_cast<const std::byte*>(from), size);
    return {};
  }
  return write_slow(address, static_cast<const std::byte*>(from), size, view);
}

// Both pages are translated before the first byte moves, so that a fault on the second one leaves no trace.
Result<void> Vcpu::read_slow(LinearAddr address, std::byte* to, unsigned size, TlbView view) {
  LinearAddr at = wrap(address.value);
  unsigned in_page = std::min<unsigned>(size, static_cast<unsigned>(kPageSize - at.page_offset()));
  auto physical = translate(at, AccessKind::Read, view);
  if (!physical) return std::unexpected(physical.error());
  PhysAddr next{};
  if (in_page < size) {
    auto second = translate(at + in_page, AccessKind::Read, view);
    if (!second) return std::unexpected(second.error());
    next = *second;
  }
  if (debug_.watching()) debug_.note_access(at, size, false);
  while (size != 0) {
    const TlbEntry& entry = tlb_.entry(view, at);
    if (entry.read_tag == at.page().value) {
      copy_bytes(to, host_of(entry, at), in_page);
      to += in_page;
    } else {
      HostVectorScope scope(state_);
      const bool mmio = map_.page(*physical).kind == PhysicalMap::PageKind::Mmio;
      for (unsigned left = in_page; left != 0;) {
        const unsigned bytes = piece(left);
        const uint64_t value = map_.read(*physical, bytes);
        copy_bytes(to, reinterpret_cast<const std::byte*>(&value), bytes);
        *physical = *physical + bytes;
        to += bytes;
        left -= bytes;
        stats_.mmio_reads += mmio;
      }
    }
    size -= in_page;
    at = wrap(at.value + in_page);
    in_page = size;
    physical = next;
  }
  return {};
}

Result<void> Vcpu::write_slow(LinearAddr address, const std::byte* from, unsigned size, TlbView view) {
  LinearAddr at = wrap(address.value);
  unsigned in_page = std::min<unsigned>(size, static_cast<unsigned>(kPageSize - at.page_offset()));
  auto physical = translate(at, AccessKind::Write, view);
  if (!physical) return std::unexpected(physical.error());
  PhysAddr next{};
  if (in_page < size) {
    auto second = translate(at + in_page, AccessKind::Write, view);
    if (!second) return std::unexpected(second.error());
    next = *second;
  }
  if (debug_.watching()) debug_.note_access(at, size, true);
  while (size != 0) {
    const TlbEntry& entry = tlb_.entry(view, at);
    if (entry.write_tag == at.page().value) {
      copy_bytes(host_of(entry, at), from, in_page);
      from += in_page;
    } else {
      // A chip, ROM, or a page that holds translated code: the map tells the page tracker, whose listener is
      // the translator.
      HostVectorScope scope(state_);
      const bool mmio = map_.page(*physical).kind == PhysicalMap::PageKind::Mmio;
      for (unsigned left = in_page; left != 0;) {
        const unsigned bytes = piece(left);
        uint64_t value = 0;
        copy_bytes(reinterpret_cast<std::byte*>(&value), from, bytes);
        map_.write(*physical, bytes, value);
        *physical = *physical + bytes;
        from += bytes;
        left -= bytes;
        stats_.mmio_writes += mmio;
      }
    }
    size -= in_page;
    at = wrap(at.value + in_page);
    in_page = size;
    physical = next;
  }
  return {};
}

Result<void> Vcpu::probe_write(LinearAddr address, unsigned size, TlbView view) {
  const LinearAddr first = wrap(address.value);
  if (auto physical = translate(first, AccessKind::Write, view); !physical) {
    return std::unexpected(physical.error());
  }
  if (!crosses_page(first, size)) return {};
  if (auto physical = translate(wrap(first.value + size - 1).page(), AccessKind::Write, view); !physical) {
    return std::unexpected(physical.error());
  }
  return {};
}

void Vcpu::set_sp(uint64_t value) {
  const uint64_t mask = stack_mask();
  // A 32-bit stack pointer zero-extends; a 16-bit one leaves the upper bits of ESP alone.
  state_.gpr[kRsp] = mask == 0xffff ? (state_.gpr[kRsp] & ~mask) | (value & mask) : value & mask;
}

Result<void> Vcpu::push(uint64_t value, unsigned bytes) {
  const uint64_t sp = (state_.gpr[kRsp] - bytes) & stack_mask();
  auto address = linearize(kSs, sp, bytes, AccessKind::Write);
  if (!address) return std::unexpected(address.error());
  if (misaligned(*address, bytes)) return raise(vector::kAc, 0);
  if (auto done = write_linear(*address, value, bytes, current_view()); !done) return done;
  set_sp(sp);
  return {};
}

Result<uint64_t> Vcpu::read_stack(uint64_t offset, unsigned bytes) {
  auto address = linearize(kSs, (state_.gpr[kRsp] + offset) & stack_mask(), bytes, AccessKind::Read);
  if (!address) return std::unexpected(address.error());
  if (misaligned(*address, bytes)) return raise(vector::kAc, 0);
  return read_linear(*address, bytes, current_view());
}

Result<void> Vcpu::read_stack_frame(uint64_t offset, uint64_t* values, unsigned count, unsigned bytes) {
  const uint64_t mask = stack_mask();
  const uint64_t sp = (state_.gpr[kRsp] + offset) & mask;
  if (sp > mask - count * bytes) {  // wraps at the top of the stack segment: one item at a time
    for (unsigned i = 0; i < count; ++i) {
      auto value = read_stack(offset + i * bytes, bytes);
      if (!value) return std::unexpected(value.error());
      values[i] = *value;
    }
    return {};
  }
  auto address = linearize(kSs, sp, count * bytes, AccessKind::Read);
  if (!address) return std::unexpected(address.error());
  if (misaligned(*address, bytes)) return raise(vector::kAc, 0);
  if (bytes == 8) return read_linear(*address, values, count * 8, current_view());
  std::byte image[kMaxFrameItems * 4];
  if (auto done = read_linear(*address, image, count * bytes, current_view()); !done) return done;
  for (unsigned i = 0; i < count; ++i) {
    values[i] = 0;
    copy_bytes(reinterpret_cast<std::byte*>(&values[i]), image + i * bytes, bytes);
  }
  return {};
}

// A frame is written at once, but the processor pushes item by item: CR2 holds the first push that fails.
std::unexpected<Exception> Vcpu::first_push_fault(LinearAddr top, unsigned count, unsigned bytes,
                                                  TlbView view, const Exception& fault) {
  for (unsigned i = 1; i <= count; ++i) {
    if (auto done = probe_write(wrap(top.value - i * bytes), bytes, view); !done)
      return std::unexpected(done.error());
  }
  return std::unexpected(fault);
}

Result<uint64_t> Vcpu::write_frame(const StackTarget& stack, uint64_t sp, const uint64_t* values,
                                   unsigned count, unsigned bytes) {
  const auto linear = [&](uint64_t offset, unsigned size) -> Result<LinearAddr> {
    if (stack.mask == ~uint64_t{0}) {
      if (!is_canonical(offset) || !is_canonical(offset + size - 1))
        return raise(vector::kSs, stack.error_code);
      return LinearAddr{offset};
    }
    if (!within_limit(stack.segment, offset, size, state_.cr0 & cr0::kPe))
      return raise(vector::kSs, stack.error_code);
    return wrap(static_cast<uint32_t>(stack.segment.base + offset));
  };
  const unsigned size = count * bytes;
  const uint64_t bottom = (sp - size) & stack.mask;
  if (stack.same_privilege && misaligned({stack.segment.base + bottom}, bytes)) return raise(vector::kAc, 0);
  if (bottom > stack.mask - size) {
    // SP wraps inside the frame, which is legal for single pushes: check all of them, then write.
    for (unsigned i = 1; i <= count; ++i) {
      auto address = linear((sp - i * bytes) & stack.mask, bytes);
      if (!address) return std::unexpected(address.error());
      if (auto done = probe_write(*address, bytes, stack.view); !done) return std::unexpected(done.error());
    }
    for (unsigned i = 1; i <= count; ++i) {
      auto address = linear((sp - i * bytes) & stack.mask, bytes);
      if (auto done = write_linear(*address, values[i - 1], bytes, stack.view); !done) {
        return std::unexpected(done.error());
      }
    }
    return bottom;
  }
  std::byte image[kMaxFrameItems * 8];
  for (unsigned i = 0; i < count; ++i) {
    copy_bytes(image + (count - 1 - i) * bytes, reinterpret_cast<const std::byte*>(&values[i]), bytes);
  }
  auto address = linear(bottom, size);
  if (!address) return std::unexpected(address.error());
  if (auto done = write_linear(*address, image, size, stack.view); !done) {
    // What a far call has pushed before the fault stays.
    for (unsigned i = 1; stack.same_privilege && i <= count; ++i) {
      if (!write_linear(wrap(address->value + size - i * bytes), values[i - 1], bytes, stack.view)) break;
    }
    return first_push_fault(*address + size, count, bytes, stack.view, done.error());
  }
  return bottom;
}

}  // namespace penumbra
