#include "mmu/discard_page.h"

#include <sys/mman.h>

#include <cstring>

namespace penumbra {

void discard_page(PhysicalMap& map, PhysAddr address) {
  if (!map.is_ram(address, 1)) return;
  const PhysicalMap::Page at = map.page(address);
  if (at.written) return;  // a chip's memory
  map.tracker().before_write(at.frame, 0, kPageSize);
  // SAFETY: a page of RAM's own mapping. Of a file the page itself goes, wherever else it is mapped.
  if (madvise(at.host, kPageSize, map.ram_fd() >= 0 ? MADV_REMOVE : MADV_DONTNEED) != 0)
    std::memset(at.host, 0, kPageSize);
}

}  // namespace penumbra
