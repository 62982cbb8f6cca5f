// What all ATA drives share: the task file, the phases in which data passes, and interrupts.
//
// AT Attachment with Packet Interface 7 (T13/1532D), volumes 1 and 2. A host adapter (an IDE channel, an AHCI
// port) writes the registers and moves the data; it is told when anything changed and looks at what the drive
// wants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "devices/ata_identify.h"
#include "devices/block_device.h"

namespace penumbra {

class AtaDrive {
 public:
  // Registers of the command block by their offset.
  enum Register : uint8_t { kData, kFeatures, kCount, kLbaLow, kLbaMid, kLbaHigh, kDevice, kCommand };
  // Status
  static constexpr uint8_t kError = 0x01, kDataRequest = 0x08, kServiceOrSeek = 0x10, kDeviceFault = 0x20,
                           kReady = 0x40, kBusy = 0x80;
  // Error
  static constexpr uint8_t kAborted = 0x04, kNotFound = 0x10, kMediaChanged = 0x20, kUncorrectable = 0x40;
  static constexpr unsigned kSectorBytes = 512;

  // How the drive is connected: what it says of itself differs, and only a serial one has queued commands.
  enum class Cable : uint8_t { OnlyParallel, FirstParallel, SecondParallel, Serial };
  AtaDrive(std::string name, BlockDevice& medium, Cable cable);
  virtual ~AtaDrive() = default;
  AtaDrive(const AtaDrive&) = delete;
  AtaDrive& operator=(const AtaDrive&) = delete;

  const std::string& name() const { return name_; }
  virtual bool is_packet_drive() const = 0;

  // Called after anything below may have changed.
  void set_listener(std::function<void()> listener) { listener_ = std::move(listener); }

  // kCommand reads as the status; `previous`: what a register held before it was last written (HOB).
  uint8_t read(Register which, bool previous) const;
  void write(Register which, uint8_t value);
  uint8_t status() const { return status_; }
  bool interrupt() const { return interrupt_; }
  void clear_interrupt();

  // --- Data. While a phase other than None lasts, data() is what is left of it.
  enum class Phase : uint8_t { None, ToHost, FromHost };
  Phase phase() const { return phase_; }
  bool dma() const { return dma_; }  // how the phase's data passes
  std::span<std::byte> data() { return std::span(data_).subspan(position_); }
  // Bytes until the drive interrupts (PIO): at most data().size().
  size_t block_left() const { return block_end_ - position_; }
  // The host moved that many bytes: at most data().size(), in PIO at most block_left().
  void transferred(size_t bytes);

  // --- Native command queuing (ATA8-ACS (T13/1699D), 4.15). A host has up to kQueueDepth such commands under
  // way, and no other one meanwhile.
  static constexpr unsigned kQueueDepth = 32;
  struct QueuedCommand {
    bool write = false, force_unit_access = false;
    unsigned tag = 0;
    uint64_t sector = 0;
    uint32_t sectors = 0;
  };
  // What a read was asked for; empty after a write or a failure.
  using QueuedDone = std::function<void(bool failed, std::span<std::byte> data)>;
  virtual bool queues() const { return false; }
  // `data` is as long as the command's sectors, or empty for a read. `done` is called once; never when a
  // reset or another queued command's failure aborts this one.
  virtual void run_queued(const QueuedCommand& command, std::vector<std::byte> data, QueuedDone done);

  // Data of requests to the medium that have not ended, of aborted commands, too.
  size_t bytes_under_way() const { return bytes_under_way_; }

  // Power-on and software reset; both end what is under way.
  void hardware_reset();
  void software_reset();
  // EXECUTE DEVICE DIAGNOSTIC, which both drives of a channel run.
  void diagnose();

  DeviceState save() const;
  void load(const DeviceState& state);

 protected:
  struct Registers {
    uint8_t feature = 0, count = 0, lba_low = 0, lba_mid = 0, lba_high = 0;
  };
  // The command in the task file. It ends with finish() or fail(), now or later.
  virtual void execute(uint8_t command) = 0;
  // All of send()'s data was taken, or all of receive()'s is in `data`.
  virtual void sent() = 0;
  virtual void received(std::span<const std::byte> data) = 0;
  // A block of that many bytes begins (PIO).
  virtual void block_begins(size_t bytes) {}
  virtual void reset_drive() = 0;
  virtual DeviceState save_drive() const = 0;
  virtual void load_drive(const DeviceState& state) = 0;

  // Words of the identification that tell of the cable.
  void identify_cable(AtaIdentify& id) const;
  void set_signature();
  void finish(bool interrupts = true);
  void fail(uint8_t error);
  // PIO in blocks of `block` bytes; DMA with block 0.
  void send(std::vector<std::byte> data, size_t block);
  void receive(size_t bytes, size_t block, bool interrupts);
  // Submits a request; `then` is not called when the drive was reset meanwhile, or stop() called.
  void submit(std::unique_ptr<BlockRequest> request, std::function<void(BlockRequest&)> then);
  // Ends what is under way.
  void stop();
  void changed();

  BlockDevice& medium_;
  const Cable cable_;
  Registers now_, previous_;
  uint8_t device_ = 0, status_ = 0, error_ = 0;

 private:
  void begin_block();

  const std::string name_;
  std::function<void()> listener_;
  bool interrupt_ = false;
  Phase phase_ = Phase::None;
  bool dma_ = false, interrupts_first_ = false;
  std::vector<std::byte> data_;
  size_t position_ = 0, block_ = 0, block_end_ = 0;
  unsigned submission_ = 0;  // requests of an earlier one are forgotten
  unsigned under_way_ = 0;
  size_t bytes_under_way_ = 0;
};

}  // namespace penumbra
