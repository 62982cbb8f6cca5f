// One port of an AHCI controller: its registers, its command list in memory, and the drive at its other end.
//
// Serial ATA AHCI 1.3.1, 3.3 and 5; frame information structures (FIS): Serial ATA 2.6, 10.3. A non-queued
// command moves its data at once whenever the drive is ready; queued ones run beside each other, and one's
// data is moved when it ends. The frames that move data and that accept a queued command (DMA setup, data)
// leave no trace in memory. Not modelled: port multipliers, power states, command completion coalescing,
// enclosure management.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "devices/ata_drive.h"
#include "devices/pci_dma.h"

namespace penumbra {

class AhciPort {
 public:
  static constexpr unsigned kSlots = 32;
  static constexpr uint32_t kBytes = 0x80;  // of registers

  // `changed`: interrupt() may have changed; `news`: an enabled cause of interrupts was added.
  AhciPort(const PciDma& dma, std::function<void(bool news)> changed)
      : dma_(dma), changed_(std::move(changed)) {}

  // Once, before the machine runs.
  void attach(std::unique_ptr<AtaDrive> drive);
  AtaDrive* drive() { return drive_.get(); }
  const AtaDrive* drive() const { return drive_.get(); }

  uint32_t read(uint32_t offset) const;  // multiples of 4
  void write(uint32_t offset, uint32_t value);
  bool interrupt() const { return interrupt_status() & enable_; }

  // The controller's own reset keeps where the lists in memory are (10.4.3).
  void controller_reset();
  void reset();
  DeviceState save() const;
  void load(const DeviceState& state);

 private:
  using Fis = std::array<std::byte, 20>;
  // The memory of a command.
  struct Regions {
    uint64_t table = 0;
    uint32_t entries = 0, entry = 0, offset = 0;  // of the table; where the next byte goes
    bool interrupts = false;                      // an entry that was used up asks for an interrupt
  };
  enum class Moved : uint8_t { All, Less, Failed };

  uint32_t interrupt_status() const;
  uint32_t task_file() const;
  uint32_t link_status() const;
  bool running() const;
  void raise(uint32_t causes);
  void write_command(uint32_t value);
  void write_link_control(uint32_t value);
  void stop();
  void link_reset();
  void signature();

  void run();
  bool start_next();
  void start_command(unsigned slot, std::span<const std::byte> fis, const Regions& regions);
  void start_queued(unsigned slot, std::span<const std::byte> fis, Regions regions);
  void queued_ended(unsigned slot, Regions regions, bool failed, std::span<std::byte> data);
  bool go_on();
  bool move_block();
  void end_command();
  Moved move(Regions& regions, std::span<std::byte> data, bool to_memory);
  void bus_error();

  Fis drive_registers(uint8_t type, bool interrupts) const;
  void post(uint32_t area, std::span<const std::byte> fis);

  const PciDma& dma_;
  std::function<void(bool news)> changed_;
  std::unique_ptr<AtaDrive> drive_;

  uint64_t list_ = 0, received_ = 0;  // addresses of the command list and of the received FIS
  uint32_t status_ = 0, enable_ = 0, command_ = 0, link_control_ = 0, link_error_ = 0;
  uint32_t signature_ = 0xffff'ffff;
  uint32_t active_ = 0, issued_ = 0;  // PxSACT, PxCI
  bool halted_ = false;               // by an error, until software stops the port
  bool cleared_ = false;              // BSY and DRQ are hidden (PxCMD.CLO)
  bool in_reset_ = false;             // a control FIS has set SRST
  unsigned last_slot_ = kSlots - 1;

  // The command that the drive works on, unless it is queued.
  unsigned slot_ = kSlots;  // kSlots: none
  Regions regions_;
  uint32_t bytes_ = 0;           // moved
  bool packet_awaited_ = false;  // the drive wants the command's ATAPI packet
  bool pio_read_ = false;        // it has sent data by PIO

  unsigned queued_ = 0;  // commands of this round that the drive works on
  unsigned round_ = 0;   // those of earlier ones are forgotten
  bool busy_ = false;    // in run()
};

}  // namespace penumbra
