// Gigabit Ethernet controller Intel 82540EM, QEMU's e1000.
//
// PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual, 317453, revision 4.0 (the
// sections named here). Not modelled: delayed interrupts (RDTR, RADV, TIDV, TADV: causes come at once and ITR
// alone holds them back, as 13.4.30 recommends), flow control frames, wake-up and manageability, the packet
// checksum of receive descriptors (reads 0), writing the EEPROM, the packet buffer's diagnostic window. A
// frame that finds no receive descriptors waits in the network, where the chip would drop it once its own
// buffer is full.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/io_bus.h"
#include "core/virtual_clock.h"
#include "devices/network_backend.h"
#include "devices/pci_dma.h"
#include "devices/pci_function.h"

namespace penumbra {

class Ethernet82540em : public PciFunction, private MmioHandler {
 public:
  static constexpr uint16_t kPorts = 64;
  static constexpr uint64_t kRegisterBytes = 0x2'0000;

  Ethernet82540em(std::string name, PhysicalMap& map, IoBus& io, VirtualClock& clock, LineOutput interrupt,
                  NetworkBackend& network, const MacAddress& address);

  std::string_view name() const override { return name_; }
  // The I/O-mapped window to the registers (13.2.2).
  uint32_t read(uint16_t offset, unsigned size) override;
  void write(uint16_t offset, unsigned size, uint32_t value) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

  static constexpr unsigned kEepromWords = 64;
  const std::array<uint16_t, kEepromWords>& eeprom() const { return eeprom_; }

 private:
  // Registers below this offset are kept in one array; which of them exist, and their writable bits, is a
  // table.
  static constexpr uint32_t kStoredBytes = 0x6000;
  static constexpr unsigned kPhyRegisters = 32;

  // 3.3.6: parameters that a context descriptor sets for the data descriptors after it.
  struct Offload {
    uint8_t ip_start = 0, ip_offset = 0, tcp_start = 0, tcp_offset = 0, header_bytes = 0;
    uint16_t ip_end = 0, tcp_end = 0, segment_bytes = 0;
    bool tcp = false, ipv4 = false;
  };
  // The packet whose descriptors come now, from its first one to the one with EOP.
  struct Outgoing {
    bool started = false, segmented = false, insert_ip = false, insert_tcp = false, too_long = false;
    uint16_t segments = 0;
    size_t payload_bytes = 0;
    std::optional<uint16_t> tag;    // VLAN
    std::vector<std::byte> bytes;   // of a segmented one: the payload that is not sent yet
    std::vector<std::byte> header;  // of a segmented one
  };
  // The EEPROM's serial interface (5.3.2, Microwire).
  struct Serial {
    unsigned command_bits = 0, command = 0, address = 0, data_bits = 0;
    bool reading = false, out = false;
  };

  // MmioHandler
  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

  uint32_t read_register(uint32_t offset);
  void write_register(uint32_t offset, uint32_t value);
  uint32_t& at(uint32_t offset) { return stored_[offset / 4]; }
  uint32_t at(uint32_t offset) const { return stored_[offset / 4]; }
  void count(uint32_t statistic, uint64_t by = 1);
  void count_octets(uint32_t low, uint64_t bytes);
  void count_size(uint32_t first, size_t bytes);

  void write_control(uint32_t value);
  void write_eecd(uint32_t value);
  void write_mdic(uint32_t value);
  uint16_t read_phy(unsigned number) const;
  void write_phy(unsigned number, uint16_t value);
  void reset_phy();
  void reset_registers();
  bool link_up() const;

  void raise(uint32_t causes);
  void update_interrupt();
  void drive(bool level);

  void transmit();
  void transmit_data(uint64_t address, uint64_t control, bool legacy);
  void take_context(uint64_t first, uint64_t second);
  void finish_packet(uint64_t control, bool legacy);
  void send_segments(bool last);
  void send_frame(std::vector<std::byte>& frame);

  enum class Match : uint8_t { None, Exact, Inexact };
  Match match(std::span<const std::byte> frame) const;
  bool receive(std::span<const std::byte> frame);
  void store_frame(uint16_t status, uint16_t special);
  uint16_t checksum_status(std::span<const std::byte> frame) const;
  size_t buffer_bytes() const;
  uint32_t ring_size(uint32_t length_register) const;
  uint64_t ring_base(uint32_t low_register) const;

  const std::string name_;
  PciDma dma_;
  VirtualClock& clock_;
  LineOutput interrupt_;
  NetworkBackend& network_;
  std::array<uint16_t, kEepromWords> eeprom_;
  std::array<uint32_t, kStoredBytes / 4> stored_{};
  std::array<uint16_t, kPhyRegisters> phy_{};
  uint32_t io_address_ = 0;
  uint32_t causes_ = 0;  // ICR
  bool asserted_ = false;
  Nanoseconds next_interrupt_ = 0;  // not before
  Timer throttle_;                  // for next_interrupt_
  Timer continue_;                  // transmission that gave way to the guest's code
  unsigned frames_sent_ = 0;
  Offload offloads_[2];  // for checksums alone; for segmentation
  Outgoing outgoing_;
  Serial serial_;
  bool transmitting_ = false;
  std::vector<std::byte> scratch_;  // a frame on its way to memory
};

}  // namespace penumbra
