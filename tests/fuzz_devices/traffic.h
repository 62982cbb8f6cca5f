// A guest that knows where a chip is, and little else: accesses to its registers, and bytes in the memory
// that it reaches by DMA.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/io_bus.h"
#include "devices/pci_function.h"
#include "mmu/physical_map.h"
#include "tests/devices/chip_fixture.h"
#include "tests/devices/memory_disk.h"
#include "tests/fuzz_devices/input.h"

namespace penumbra {

struct Place {
  enum class Kind : uint8_t { Ports, Memory, Configuration };
  Kind kind = Kind::Ports;
  uint64_t first = 0;
  uint32_t count = 0;
  PciFunction* function = nullptr;  // Configuration
};

class Traffic {
 public:
  // Where rings, tables and buffers are: guests fill it, chips are told of it.
  static constexpr uint64_t kMemory = 0x1'0000;
  static constexpr uint32_t kMemoryBytes = 0x1'0000;

  Traffic(IoBus& io, PhysicalMap& map, std::vector<Place> places)
      : io_(io), map_(map), places_(std::move(places)) {}

  // One access, or some bytes stored in memory.
  void step(Input& input) {
    const uint8_t what = input.byte();
    if (what >= 192 || places_.empty()) {
      const auto bytes = input.bytes(1 + what % 32);
      map_.write_bytes({address(input)}, std::as_bytes(bytes));
      return;
    }
    const Place& place = places_[what % places_.size()];
    const unsigned size = 1u << input.below(place.kind == Place::Kind::Memory ? 4 : 3);
    const uint32_t offset = input.below(place.count);
    const bool writes = input.byte() % 3 != 0;
    switch (place.kind) {
      case Place::Kind::Ports: {
        const auto port = static_cast<uint16_t>(place.first + offset);
        writes ? io_.write(port, size, static_cast<uint32_t>(value(input)))
               : static_cast<void>(io_.read(port, size));
        return;
      }
      case Place::Kind::Memory: {
        // As the processor does: no access leaves a page.
        const PhysAddr at{place.first + offset / size * size};
        writes ? map_.write(at, size, value(input)) : static_cast<void>(map_.read(at, size));
        return;
      }
      case Place::Kind::Configuration:
        writes ? place.function->config().write(offset, size, static_cast<uint32_t>(value(input)))
               : static_cast<void>(place.function->config().read(offset, size));
        return;
    }
  }

  static uint64_t address(Input& input) { return kMemory + input.below(kMemoryBytes); }

  // Small numbers, addresses, single bits, all ones, anything.
  static uint64_t value(Input& input) {
    switch (input.below(8)) {
      case 0:
        return input.word();
      case 1:
        return input.dword();
      case 2:
        return input.qword();
      case 3:
        return address(input) & ~uint64_t{15};
      case 4:
        return uint64_t{1} << input.below(64);
      case 5:
        return ~uint64_t{0};
      default:
        return input.byte();
    }
  }

 private:
  IoBus& io_;
  PhysicalMap& map_;
  const std::vector<Place> places_;
};

// One of the things that may happen, and for how many of a byte's 256 values it does.
struct Action {
  unsigned weight;
  std::function<void()> act;
};

// The thing that the input's next byte chooses. While weights and order stay, so does what an input means.
inline void choose(Input& input, std::span<const Action> actions) {
  unsigned left = input.byte();
  for (const Action& action : actions) {
    if (left < action.weight) return action.act();
    left -= action.weight;
  }
  abort();  // the weights are less than 256
}

// What chips are plugged into.
struct Bench {
  TestClock time;
  IoBus io;
  PhysicalMap map{uint64_t{1} << 20};
  TestLine line;

  void put(uint64_t address, unsigned size, uint64_t value) { map.write({address}, size, value); }
  // The medium waits, goes on, fails once.
  static void disturb(MemoryDisk& medium, Input& input) {
    medium.holds = input.below(2);
    medium.next_error = input.below(8) == 0 ? EIO : 0;
    if (!medium.holds) medium.release();
  }
  // What is saved can be loaded. With a request under way nothing is saved.
  static void reload(Device& chip) {
    DeviceState saved;
    try {
      saved = chip.save();
    } catch (const std::logic_error&) {
      return;
    }
    chip.load(saved);
  }
};

}  // namespace penumbra
