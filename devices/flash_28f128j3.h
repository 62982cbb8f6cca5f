// NOR flash for firmware and its variables: what QEMU's pc machine has for -drive if=pflash.
//
// Intel StrataFlash 28F128J3A (290667), Common Flash Interface (JESD68.01). As on that machine, data is eight
// bits wide, blocks have 4 KiB and the size is what the image has. Not modelled: the time that erasing and
// programming take and their suspension, the protection register; lock bits are lost with the power.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "devices/chip.h"
#include "mmu/physical_map.h"

namespace penumbra {

class Flash28F128J3 : public Device, public MmioHandler {
 public:
  static constexpr uint64_t kBlockBytes = 4096, kSectorBytes = 512;
  // Keeps what was programmed or erased, in whole sectors; false when it cannot be kept, which fails the
  // guest's command.
  using Store = std::function<bool(uint64_t offset, std::span<const std::byte> bytes)>;

  // `contents` are whole blocks. Without `store` the chip is write-protected.
  Flash28F128J3(std::string name, PhysicalMap& map, PhysAddr start, std::span<const std::byte> contents,
                Store store);

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

  // Device: as through memory.
  std::string_view name() const override { return name_; }
  uint32_t read(uint16_t offset, unsigned size) override {
    return static_cast<uint32_t>(mmio_read(offset, size));
  }
  void write(uint16_t offset, unsigned size, uint32_t value) override { mmio_write(offset, size, value); }
  void reset() override;
  DeviceState save() const override;  // without the contents, as a disk's
  void load(const DeviceState& state) override;

 private:
  enum class Mode : uint8_t { Array, Status, Identifier, Query };
  // What the next write cycle is.
  enum class Next : uint8_t {
    Command,
    ProgramData,
    EraseConfirm,
    LockSetup,
    BufferCount,
    BufferData,
    BufferConfirm
  };
  static constexpr size_t kBufferBytes = 256;

  std::span<std::byte> contents() { return map_.device_ram(region_); }
  void select(Mode mode);
  uint8_t read_byte(uint64_t offset);
  uint8_t query_byte(uint64_t offset) const;
  void write_byte(uint64_t offset, uint8_t value);
  void command(uint8_t code);
  void program(uint64_t offset, std::span<const std::byte> bytes);
  void erase(uint64_t offset);
  void change_locks(uint64_t offset, uint8_t code);
  bool protects(uint64_t offset, uint8_t error);
  void keep(uint64_t offset, uint64_t bytes, uint8_t error);

  std::string name_;
  PhysicalMap& map_;
  Store store_;
  uint64_t bytes_;
  PhysicalMap::RegionId region_;
  Mode mode_ = Mode::Array;
  Next next_ = Next::Command;
  uint8_t status_ = 0;
  // Write to buffer: where it goes, a multiple of its size; bytes still to come; what came, ones elsewhere.
  uint64_t buffer_start_ = 0;
  unsigned buffer_expected_ = 0;
  bool buffer_placed_ = false;
  std::array<uint8_t, kBufferBytes> buffer_{};
  std::vector<uint8_t> locked_;  // 1 or 0 a block
};

}  // namespace penumbra
