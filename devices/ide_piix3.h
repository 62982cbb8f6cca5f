// The IDE controller: two channels at their ISA ports, and bus-master DMA.
//
// Intel 82371SB (PIIX3), 290550, function 1; SFF-8038i, Bus Master IDE Controller 1.0. Not modelled: transfer
// timing (the registers are stored). Bus-master transfers happen at once, when the drive and the guest are
// ready.
#pragma once

#include <array>
#include <memory>

#include "core/io_bus.h"
#include "devices/ide_channel.h"
#include "devices/pci_dma.h"
#include "devices/pci_function.h"

namespace penumbra {

class IdePiix3 : public PciFunction {
 public:
  static constexpr unsigned kChannels = 2;
  // Device offsets of the ports: the blocks stand where the board puts them, the bus-master block moves with
  // BMIBA.
  static constexpr uint16_t kCommandBlocks[kChannels] = {0x00, 0x08},
                            kControlBlocks[kChannels] = {0x10, 0x11}, kBusMaster = 0x20;
  static constexpr uint16_t kCommandPorts = 8, kControlPorts = 1, kBusMasterPorts = 16;

  // `interrupts`: IRQ 14 and 15.
  IdePiix3(PhysicalMap& map, IoBus& io, LineOutput primary, LineOutput secondary);

  void attach(unsigned channel, unsigned number, std::unique_ptr<AtaDrive> drive) {
    channels_[channel].ide.attach(number, std::move(drive));
  }
  AtaDrive* drive(unsigned channel, unsigned number) { return channels_[channel].ide.drive(number); }

  std::string_view name() const override { return "ide_piix3"; }
  uint32_t read(uint16_t offset, unsigned size) override;
  void write(uint16_t offset, unsigned size, uint32_t value) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  struct Channel {
    Channel(LineOutput interrupt, std::function<void()> changed)
        : ide(std::move(interrupt), std::move(changed)) {}
    IdeChannel ide;
    uint8_t command = 0, status = 0;
    uint32_t table = 0;    // descriptor table pointer
    uint32_t next = 0;     // address of the next descriptor, while active
    uint32_t address = 0;  // what is left of the current one
    uint32_t bytes_left = 0;
    bool last = false;         // the current one ends the table
    bool interrupted = false;  // level of the channel's interrupt when last looked at
    bool moving = false;
  };
  uint8_t read_bus_master(uint16_t offset) const;
  void write_bus_master(uint16_t offset, uint8_t value);
  void changed(unsigned number);
  void move_data(Channel& channel);
  bool next_descriptor(Channel& channel);
  void stop(Channel& channel, uint8_t status);

  PciDma dma_;
  std::array<Channel, kChannels> channels_;
};

}  // namespace penumbra
