// The 64 Ki I/O ports. Accesses that nothing claims read as ones; overlapping claims of the board are
// refused. What guests place (PCI base addresses) is behind the board's ports, and where two of those
// overlap, the one added first is seen.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/device.h"

namespace penumbra {

class IoBus {
 public:
  // Claims ports [first, first + count) for `device`; port `first` is its offset `device_offset`.
  // Throws std::invalid_argument when a port is claimed already.
  void add(uint16_t first, uint16_t count, Device& device, uint16_t device_offset = 0);

  // Ports that move while the guest runs: nowhere until place(). A window that would end behind the last port
  // is nowhere.
  struct WindowId {
    unsigned index = 0;
  };
  WindowId add_window(uint16_t count, Device& device, uint16_t device_offset = 0);
  void place(WindowId window, std::optional<uint16_t> first);

  // `size` is 1, 2 or 4 bytes. An access that leaves the claimed range of its first port is split into bytes.
  uint32_t read(uint16_t port, unsigned size);
  void write(uint16_t port, unsigned size, uint32_t value);

 private:
  struct Range {
    uint16_t first;
    uint16_t count;
    uint16_t device_offset;
    Device* device;
  };
  const Range* range_at(uint16_t port) const;
  std::vector<Range> ranges_;  // sorted by first
  struct Window {
    Range range;
    bool placed = false;
  };
  std::vector<Window> windows_;
};

}  // namespace penumbra
