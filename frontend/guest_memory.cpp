#include "frontend/guest_memory.h"

#include <algorithm>

namespace penumbra {

namespace {

size_t piece(uint64_t address, size_t left) {
  return std::min<size_t>(left, kPageSize - (address & kPageOffsetMask));
}

bool is_canonical(uint64_t address) {
  return address + (uint64_t{1} << 47) < uint64_t{1} << 48;
}

}  // namespace

std::expected<PhysAddr, PageFault> GuestMemory::translate(Space space, uint64_t address) const {
  if (space == Space::Physical) return PhysAddr{address};
  if (!vcpu_.long_mode()) {
    address &= 0xffff'ffff;
  } else if (!is_canonical(address)) {
    return std::unexpected(PageFault{.address = {address}, .error_code = 0});
  }
  return PageWalker(vcpu_.map()).probe(vcpu_.paging_state(), {address});
}

size_t GuestMemory::read(Space space, uint64_t address, std::span<uint8_t> to) const {
  size_t done = 0;
  while (done < to.size()) {
    const size_t bytes = piece(address + done, to.size() - done);
    const auto physical = translate(space, address + done);
    if (!physical || vcpu_.map().page(*physical).kind == PhysicalMap::PageKind::Mmio) break;
    vcpu_.map().read_bytes(*physical, std::as_writable_bytes(to.subspan(done, bytes)));
    done += bytes;
  }
  return done;
}

size_t GuestMemory::write(Space space, uint64_t address, std::span<const uint8_t> from) {
  size_t done = 0;
  while (done < from.size()) {
    const size_t bytes = piece(address + done, from.size() - done);
    const auto physical = translate(space, address + done);
    if (!physical || vcpu_.map().page(*physical).kind != PhysicalMap::PageKind::Ram) break;
    vcpu_.map().write_bytes(*physical, std::as_bytes(from.subspan(done, bytes)));
    done += bytes;
  }
  return done;
}

}  // namespace penumbra
