// An ATA hard disk: PIO, multiple-sector and DMA transfers, 28-bit and 48-bit addresses, cylinders, heads and
// sectors, TRIM, native command queuing.
//
// AT Attachment with Packet Interface 7 (T13/1532D), volume 1; ATA8-ACS (T13/1699D) for what is newer. Not
// modelled: SMART, security, host protected area, power states (a disk is always ready), streaming.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "devices/ata_drive.h"
#include "devices/ata_identify.h"

namespace penumbra {

class AtaDisk : public AtaDrive {
 public:
  struct Geometry {
    uint32_t cylinders = 0, heads = 0, sectors = 0;
  };
  // What a disk of that size says of itself: at most 16383 cylinders of 16 heads and 63 sectors.
  static Geometry default_geometry(uint64_t bytes);

  // Of the sizes it tells the physical one; its logical sectors have 512 bytes.
  AtaDisk(std::string name, BlockDevice& medium, Cable cable, std::string serial, BlockSizes sizes = {});

  bool is_packet_drive() const override { return false; }
  bool queues() const override { return cable_ == Cable::Serial; }
  void run_queued(const QueuedCommand& command, std::vector<std::byte> data, QueuedDone done) override;

 protected:
  void execute(uint8_t command) override;
  void sent() override;
  void received(std::span<const std::byte> data) override;
  void reset_drive() override;
  DeviceState save_drive() const override;
  void load_drive(const DeviceState& state) override;

 private:
  enum class Way : uint8_t { None, Read, Write, Verify, Trim };
  enum class Addressing : uint8_t { Lba28, Lba48 };

  uint64_t sectors() const { return medium_.bytes() / kSectorBytes; }
  bool set_range(Addressing addressing);
  void set_address(uint64_t sector);
  void begin(Way way, Addressing addressing, unsigned block_sectors);
  void go_on(bool first);
  void io_failed(BlockRequest& request);
  void identify();
  void set_features();
  void flush();
  void read_log();
  void queued_failed(const QueuedCommand& command, uint8_t error, const QueuedDone& done);
  void trim(std::span<const std::byte> list);
  void trim_next();

  const std::string serial_;
  const BlockSizes sizes_;
  const Geometry physical_;
  Geometry logical_;  // INITIALIZE DEVICE PARAMETERS
  AtaTransferMode transfer_mode_;
  bool write_cache_ = true;
  uint8_t multiple_ = 0;  // sectors a block; 0: READ and WRITE MULTIPLE are off

  // The command under way.
  Way way_ = Way::None;
  bool lba48_ = false;
  uint64_t sector_ = 0;                               // the next one to transfer
  uint32_t left_ = 0;                                 // sectors
  uint32_t block_sectors_ = 0;                        // 0: DMA
  std::vector<std::pair<uint64_t, uint64_t>> trims_;  // byte ranges, the next one last

  // The queued command that failed, until its log is read.
  struct QueuedFailure {
    uint8_t error = 0, tag = 0;  // error 0: none
    uint64_t sector = 0;
    uint32_t sectors = 0;
  };
  QueuedFailure queued_failure_;
};

}  // namespace penumbra
