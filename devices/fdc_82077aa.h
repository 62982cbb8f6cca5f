// The floppy disk controller with up to two drives.
//
// Intel 82077AA (290166); QEMU's isa-fdc for how a drive and its diskette are told from an image. Head
// movement takes no time and is implied by every command that names a cylinder; a diskette has the standard
// formats with 512-byte sectors. Not modelled: scan commands, perpendicular mode's effect, gaps, tape drives,
// single density, sector sizes but 512, deleted data marks (they are not kept).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "devices/block_device.h"
#include "devices/chip.h"
#include "devices/dma_8237.h"

namespace penumbra {

class Fdc82077aa : public ByteDevice {
 public:
  static constexpr unsigned kDrives = 2, kDmaChannel = 2;
  // Offsets of its ports, from 3F0h on; 6 is not its own.
  static constexpr uint16_t kPorts = 6, kDirectionPort = 7;

  struct Format {
    uint8_t cylinders = 0, heads = 0, sectors = 0;  // of a track
    uint8_t rate = 0;                               // as CCR has it
    uint8_t drive_type = 0;                         // as CMOS has it: what drive takes such a diskette
    constexpr uint64_t bytes() const { return uint64_t{cylinders} * heads * sectors * 512; }
  };
  // Of a diskette of that many bytes; one that holds no standard format is as the next larger one.
  static Format format_of(uint64_t bytes);
  // The largest that drives of a type take.
  static Format largest_of(uint8_t drive_type);

  // `drives`: null where there is none.
  Fdc82077aa(Dma8237& dma, LineOutput interrupt, std::array<BlockDevice*, kDrives> drives);

  // A drive asks for DMA again: the controller's channel may have been set up.
  void dma_ready();

  std::string_view name() const override { return "fdc_82077aa"; }
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 protected:
  uint8_t read_byte(uint16_t offset) override;
  void write_byte(uint16_t offset, uint8_t value) override;

 private:
  enum class Phase : uint8_t {
    Command,   // parameters are awaited
    Busy,      // the medium is at work
    ToHost,    // data_ from position_ on
    FromHost,  // the same
    Result
  };
  struct Address {
    uint8_t cylinder = 0, head = 0, sector = 1;
  };

  void software_reset();
  void write_control(uint8_t value);
  uint8_t main_status() const;
  uint8_t read_fifo();
  void write_fifo(uint8_t value);
  void execute();
  void result(std::vector<uint8_t> bytes, bool interrupts);
  void transfer_ended(uint8_t st0, uint8_t st1, uint8_t st2);
  void seek_ended(unsigned drive, uint8_t st0);
  void start_transfer();
  uint32_t span() const;
  bool advance();
  void read_on();
  void move_data();
  void moved_all(bool terminal_count);
  void write_done();
  void format_next();
  void submit(BlockRequest::Kind kind, uint64_t offset, std::vector<std::byte> data,
              std::function<void(BlockRequest&)> then);
  void set_interrupt(bool level);

  BlockDevice* medium() const { return selected_ < kDrives ? drives_[selected_] : nullptr; }
  bool ready() const { return medium() && medium()->bytes() != 0; }
  Format format() const { return format_of(medium()->bytes()); }
  uint64_t offset_of(const Address& address) const;
  uint8_t command() const { return bytes_.empty() ? 0 : bytes_[0] & 0x1f; }
  bool changed(unsigned drive) const;

  Dma8237& dma_;
  LineOutput interrupt_;
  const std::array<BlockDevice*, kDrives> drives_;

  uint8_t output_ = 0, rate_ = 0, tape_ = 0;
  uint8_t specified_ = 0, specified_head_ = 0, configuration_ = 0x20, precompensation_ = 0,
          perpendicular_ = 0;
  bool lock_ = false, non_dma_ = false;
  std::array<uint8_t, 4> tracks_{};              // present cylinder numbers
  std::array<unsigned, kDrives> generations_{};  // of the medium when the change line was last cleared
  std::array<bool, kDrives> change_{};           // since power-on or a change
  uint8_t reset_senses_ = 0;                     // SENSE INTERRUPTs that a reset still owes
  uint8_t sense_ = 0x80;                         // ST0 for the next SENSE INTERRUPT; 80h: none
  uint8_t sense_track_ = 0;

  Phase phase_ = Phase::Command;
  std::vector<uint8_t> bytes_;   // command and parameters
  std::vector<uint8_t> result_;  // what is left of it
  unsigned selected_ = 0;
  Address at_;
  uint8_t last_sector_ = 0;
  std::vector<std::byte> data_;
  size_t position_ = 0;
  unsigned format_left_ = 0;  // sectors
  bool terminal_count_ = false;
  bool level_ = false, line_ = false;  // before and after the gate
  unsigned round_ = 0, under_way_ = 0;
};

}  // namespace penumbra
