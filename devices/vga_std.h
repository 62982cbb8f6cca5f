// The display adapter that QEMU calls "std": a VGA with Bochs' display interface (DISPI), on PCI.
//
// IBM Personal System/2 Hardware Interface Technical Reference, "Video Subsystem"; QEMU,
// docs/specs/standard-vga: device 1234:1111 with frame buffer (base address 0), registers in memory (base
// address 2) and ROM. Memory is four interleaved planes (vga_registers.h), which the linear frame buffer
// shows as it is. Chain 4 and odd/even put consecutive cells next to each other, as Super VGAs do, where
// IBM's VGA leaves gaps. Not modelled: EDID, light pen, the switch sense, retrace interrupts, what the CRTC's
// word and doubleword addressing does to addresses beyond the screen.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "core/io_bus.h"
#include "core/virtual_clock.h"
#include "devices/pci_function.h"
#include "devices/vga_registers.h"
#include "mmu/physical_map.h"

namespace penumbra {

class VgaStd : public PciFunction {
 public:
  // Offsets of the ports: legacy ones count from 3B0h; DISPI's words of index and data overlap.
  static constexpr uint16_t kFirstPort = 0x3b0, kLegacyPorts = 0x30, kDispiIndex = 0x100, kDispiData = 0x101,
                            kDispiPorts = 3;
  static constexpr uint64_t kMemoryBytes = uint64_t{16} << 20, kWindow = 0xa'0000, kWindowBytes = 0x2'0000;

  // `rom`: the expansion ROM; empty: none. Takes the legacy window of the map; the ports are the board's to
  // give.
  VgaStd(VirtualClock& clock, PhysicalMap& map, std::span<const std::byte> rom);

  const VgaRegisters& registers() const { return registers_; }
  std::span<const std::byte> memory() const { return memory_; }

  // Whether the image may have changed since watch(). Any thread.
  bool changed() const { return changed_.load(std::memory_order_relaxed); }
  // Starts to wait for the next change.
  void watch() { map_.watch_writes(frame_buffer_); }

  std::string_view name() const override { return "vga_std"; }
  uint32_t read(uint16_t offset, unsigned size) override;
  void write(uint16_t offset, unsigned size, uint32_t value) override;
  void reset() override;
  // The registers: memory is memory, as RAM.
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  // The window at A0000h, through sequencer and graphics controller.
  class Window final : public MmioHandler {
   public:
    explicit Window(VgaStd& vga) : vga_(vga) {}
    uint64_t mmio_read(uint64_t offset, unsigned size) override;
    void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

   private:
    VgaStd& vga_;
  };
  // Base address 2.
  class Registers final : public MmioHandler {
   public:
    explicit Registers(VgaStd& vga) : vga_(vga) {}
    uint64_t mmio_read(uint64_t offset, unsigned size) override;
    void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

   private:
    VgaStd& vga_;
  };

  void change() { changed_.store(true, std::memory_order_relaxed); }
  uint8_t read_port(uint16_t port);
  void write_port(uint16_t port, uint8_t value);
  bool decodes(uint16_t port) const;
  void write_crtc(uint8_t value);
  void write_attribute(uint8_t value);
  uint8_t status();
  uint8_t dac_read();
  void dac_write(uint8_t value);

  uint16_t dispi_read() const;
  void dispi_write(uint16_t value);
  void dispi_enable(uint16_t value);
  void dispi_fit();
  bool chained() const;

  // Where in the cells an offset in the 128 KiB window leads; false: nowhere.
  bool window_address(uint64_t& offset) const;
  uint8_t window_read(uint64_t offset);
  void window_write(uint64_t offset, uint8_t value);
  uint32_t cell(uint64_t counter) const;
  void write_cell(uint64_t counter, uint8_t value, uint32_t planes);

  VirtualClock& clock_;
  PhysicalMap& map_;
  std::atomic<bool> changed_{true};
  PhysicalMap::RegionId frame_buffer_;
  std::span<std::byte> memory_;
  Window window_{*this};
  Registers registers_window_{*this};

  VgaRegisters registers_;
  uint8_t sequencer_index_, graphics_index_, crtc_index_, attribute_index_;
  bool attribute_data_next_;  // the next write to 3C0h is data
  uint8_t dac_read_index_, dac_write_index_, dac_component_;
  bool dac_reading_;
  std::array<uint8_t, 3> dac_pending_;
  uint16_t dispi_index_;
  uint32_t latches_;
};

}  // namespace penumbra
