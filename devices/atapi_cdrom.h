// An ATAPI CD-ROM or DVD-ROM drive: packet commands over the ATA task file.
//
// T13/1532D volume 1, 8.23 and 9.10 (PACKET); SFF-8020i and MMC-3 (T10/1363D) for the commands themselves.
// The medium is one data track of 2048-byte sectors. Not modelled: audio, changers, tray timing, writing.
#pragma once

#include <array>
#include <cstdint>

#include "devices/ata_drive.h"
#include "devices/ata_identify.h"

namespace penumbra {

class AtapiCdrom : public AtaDrive {
 public:
  static constexpr unsigned kSectorBytes = 2048;

  AtapiCdrom(std::string name, BlockDevice& medium, Cable cable);

  bool is_packet_drive() const override { return true; }

 protected:
  void execute(uint8_t command) override;
  void sent() override;
  void received(std::span<const std::byte> data) override;
  void block_begins(size_t bytes) override;
  void reset_drive() override;
  DeviceState save_drive() const override;
  void load_drive(const DeviceState& state) override;

 private:
  static constexpr unsigned kPacketBytes = 12;
  using Packet = std::array<uint8_t, kPacketBytes>;
  struct Sense {
    uint8_t key = 0, code = 0, qualifier = 0;
  };

  uint32_t sectors() const { return static_cast<uint32_t>(medium_.bytes() / kSectorBytes); }
  void identify();
  void run(const Packet& packet);
  void reply(std::vector<uint8_t> data, size_t allocated);
  void done();
  void check_condition(Sense sense);
  bool medium_ready();
  void read_sectors(uint32_t first, uint32_t count);
  void read_on();
  void send_data(std::vector<std::byte> data);
  void read_cd(const Packet& packet);
  void read_toc(const Packet& packet);
  void mode_sense(const Packet& packet);
  void get_configuration(const Packet& packet);
  void get_event_status(const Packet& packet);
  void read_disc_information(const Packet& packet);
  void read_dvd_structure(const Packet& packet);
  void start_stop(const Packet& packet);
  std::vector<uint8_t> inquiry() const;
  bool is_dvd() const;

  AtaTransferMode transfer_mode_;
  Sense sense_;
  unsigned seen_generation_ = 0;  // of the medium
  bool medium_event_ = false;     // for GET EVENT STATUS NOTIFICATION

  // The command under way.
  bool packet_ = false;  // the packet itself is awaited
  bool packet_dma_ = false;
  size_t byte_limit_ = 0;  // of a block of data
  uint32_t sector_ = 0, left_ = 0;
};

}  // namespace penumbra
