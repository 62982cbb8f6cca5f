// The configuration space of one PCI function: identity, command and status, base addresses, capabilities.
//
// PCI Local Bus Specification 3.0, chapter 6: header type 00h. What a function has beyond the header it adds
// as bytes with a value at reset and a mask of the bits that software may write. Not modelled: built-in self
// test, the cache line size's and the latency timer's effects (both are stored), parity and system errors.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/device.h"

namespace penumbra {

class PciConfig {
 public:
  // Registers of the header.
  static constexpr uint8_t kCommand = 0x04, kStatus = 0x06, kBase0 = 0x10, kRomBase = 0x30,
                           kCapabilities = 0x34, kInterruptLine = 0x3c, kInterruptPin = 0x3d;
  // Command
  static constexpr uint16_t kIoSpace = 0x0001, kMemorySpace = 0x0002, kBusMaster = 0x0004,
                            kInterruptDisable = 0x0400;
  // Status
  static constexpr uint16_t kInterruptStatus = 0x0008, kHasCapabilities = 0x0010;

  struct Identity {
    uint16_t vendor = 0, device = 0;
    uint8_t revision = 0;
    uint32_t class_code = 0;  // base class, subclass, programming interface: 24 bits
    uint16_t subsystem_vendor = 0, subsystem = 0;
    bool multifunction = false;
    uint8_t interrupt_pin = 0;  // 1: INTA#; 0: none
  };
  explicit PciConfig(const Identity& identity);

  // Where a base address register decodes now; nowhere without a value. Called on every change.
  using Placement = std::function<void(std::optional<uint64_t> address)>;
  // Sizes are powers of two, I/O at least 4 bytes and memory at least 16. A wide one takes the next register,
  // too.
  void add_io_base(unsigned index, uint32_t size, Placement placement);
  void add_memory_base(unsigned index, uint64_t size, Placement placement, bool wide = false,
                       bool prefetchable = false);
  void add_rom_base(uint32_t size, Placement placement);

  // `size` bytes (1, 2, 4) at `offset`: value after reset, and which bits software writes or clears by
  // writing ones.
  void define(uint8_t offset, unsigned size, uint32_t value, uint32_t writable = 0,
              uint32_t write_one_clears = 0);
  // Appends a capability; its first two bytes are the ID and the link, the rest is for define().
  void add_capability(uint8_t id, uint8_t offset);

  // Told after each write by software and each reset, with the range that may have changed; not after a load.
  void set_write_listener(std::function<void(unsigned offset, unsigned size)> listener) {
    write_listener_ = std::move(listener);
  }

  uint32_t read(unsigned offset, unsigned size) const;  // beyond the end: ones
  void write(unsigned offset, unsigned size, uint32_t value);

  uint8_t byte(uint8_t offset) const { return bytes_[offset]; }
  uint16_t word(uint8_t offset) const { return static_cast<uint16_t>(read(offset, 2)); }
  uint32_t dword(uint8_t offset) const { return read(offset, 4); }
  // From the chip's side: whatever the masks say.
  void set(uint8_t offset, unsigned size, uint32_t value);

  bool bus_master() const { return word(kCommand) & kBusMaster; }
  bool interrupts_disabled() const { return word(kCommand) & kInterruptDisable; }

  void reset();
  DeviceState save() const;
  void load(const DeviceState& state);

 private:
  static constexpr unsigned kBytes = 256;
  struct Base {
    uint8_t offset;
    bool io, wide, rom;
    uint64_t size;
    Placement placement;
    std::optional<uint64_t> seen;  // what `placement` was told
  };
  void place_bases();
  std::optional<uint64_t> address_of(const Base& base) const;

  std::array<uint8_t, kBytes> bytes_{}, reset_{}, writable_{}, clears_{};
  uint8_t last_link_ = kCapabilities;
  std::vector<Base> bases_;
  std::function<void(unsigned offset, unsigned size)> write_listener_;
};

}  // namespace penumbra
