// QEMU's firmware configuration device: how a board hands its description, tables, and a kernel to firmware
// and to guests that look for it.
//
// QEMU, docs/specs/fw_cfg: the I/O port form with the DMA interface. Not modelled: writes through the data
// register, which QEMU ignores as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "mmu/physical_map.h"

namespace penumbra {

class FwCfg : public Device {
 public:
  // Standard keys.
  static constexpr uint16_t kSignature = 0x00, kId = 0x01, kUuid = 0x02, kRamSize = 0x03, kNoGraphic = 0x04,
                            kCpuCount = 0x05, kMachineId = 0x06, kKernelAddress = 0x07, kKernelSize = 0x08,
                            kKernelCommandLine = 0x09, kInitrdAddress = 0x0a, kInitrdSize = 0x0b,
                            kBootDevice = 0x0c, kNumaData = 0x0d, kBootMenu = 0x0e, kMaxCpuCount = 0x0f,
                            kKernelEntry = 0x10, kKernelData = 0x11, kInitrdData = 0x12,
                            kCommandLineAddress = 0x13, kCommandLineSize = 0x14, kCommandLineData = 0x15,
                            kSetupAddress = 0x16, kSetupSize = 0x17, kSetupData = 0x18, kFileDirectory = 0x19,
                            kFirstFile = 0x20;
  static constexpr uint16_t kArchitectureLocal = 0x8000;

  using Bytes = std::vector<uint8_t>;

  // Makes a device with the signature, the interface version and an empty directory. `map` is for DMA.
  explicit FwCfg(PhysicalMap& map);

  // Items under a standard or architecture-local key. All throw std::invalid_argument when the key is taken
  // or is one that the device makes itself.
  void add_bytes(uint16_t key, Bytes bytes);
  void add_u16(uint16_t key, uint16_t value);
  void add_u32(uint16_t key, uint32_t value);
  void add_u64(uint16_t key, uint64_t value);
  void add_string(uint16_t key, const std::string& text);  // with its terminating zero

  // A named item; the directory stays sorted by name, and keys follow it. Throws std::invalid_argument when
  // the name is empty, taken or longer than 55 bytes, or the directory is full.
  void add_file(std::string name, Bytes bytes);
  // A file that the guest may write, as a whole or in part but not beyond its end; `written` is told the
  // contents after each write and load.
  using Written = std::function<void(std::span<const uint8_t> contents)>;
  void add_writable_file(std::string name, Bytes bytes, Written written);

  // Offsets: 0 selector (16 bits), 1 data, 4 to 11 the address register of the DMA interface.
  std::string_view name() const override { return "fw_cfg"; }
  uint32_t read(uint16_t offset, unsigned size) override;
  void write(uint16_t offset, unsigned size, uint32_t value) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  struct File {
    std::string name;
    Bytes bytes;
    bool writable = false;
    Written written;
  };

  void insert(File file);
  void build_directory();
  File* selected_file();
  const Bytes* selected_item() const;
  size_t bytes_left() const;
  uint8_t read_byte(uint16_t offset);
  uint8_t next_byte();
  void select(uint16_t key);

  bool is_ram(uint64_t address, uint64_t length) const;
  void transfer(uint64_t descriptor);
  bool read_item(uint64_t address, uint64_t length);
  bool write_item(uint64_t address, uint64_t length);
  void skip(uint64_t length);

  PhysicalMap& map_;
  std::map<uint16_t, Bytes> items_;
  std::vector<File> files_;  // sorted by name; file i has key kFirstFile + i
  uint16_t selected_ = kSignature;
  uint64_t offset_ = 0;            // in the selected item, never beyond its end
  uint32_t dma_address_high_ = 0;  // until the low half comes
};

}  // namespace penumbra
