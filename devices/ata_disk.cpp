#include "devices/ata_disk.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "core/little_endian.h"
#include "devices/chip.h"

namespace penumbra {

namespace {
// Commands (T13/1532D volume 1, annex B)
enum : uint8_t {
  kNop = 0x00,
  kDataSetManagement = 0x06,
  kRecalibrate = 0x10,  // to 1Fh
  kReadSectors = 0x20,
  kReadSectorsNoRetry = 0x21,
  kReadSectorsExt = 0x24,
  kReadDmaExt = 0x25,
  kReadNativeMaxExt = 0x27,
  kReadMultipleExt = 0x29,
  kReadLogExt = 0x2f,
  kWriteSectors = 0x30,
  kWriteSectorsNoRetry = 0x31,
  kWriteSectorsExt = 0x34,
  kWriteDmaExt = 0x35,
  kWriteMultipleExt = 0x39,
  kWriteDmaFuaExt = 0x3d,
  kReadVerify = 0x40,
  kReadVerifyNoRetry = 0x41,
  kReadVerifyExt = 0x42,
  kSeek = 0x70,  // to 7Fh
  kInitializeDeviceParameters = 0x91,
  kStandbyImmediateOld = 0x94,  // to 99h without 98h's answer: power commands of ATA-3
  kCheckPowerModeOld = 0x98,
  kSleepOld = 0x99,
  kReadMultiple = 0xc4,
  kWriteMultiple = 0xc5,
  kSetMultiple = 0xc6,
  kReadDma = 0xc8,
  kReadDmaNoRetry = 0xc9,
  kWriteDma = 0xca,
  kWriteDmaNoRetry = 0xcb,
  kWriteMultipleFuaExt = 0xce,
  kStandbyImmediate = 0xe0,
  kIdleImmediate = 0xe1,
  kStandby = 0xe2,
  kIdle = 0xe3,
  kCheckPowerMode = 0xe5,
  kSleep = 0xe6,
  kFlushCache = 0xe7,
  kFlushCacheExt = 0xea,
  kIdentifyDevice = 0xec,
  kSetFeatures = 0xef,
  kReadNativeMax = 0xf8,
};
// SET FEATURES
constexpr uint8_t kEnableWriteCache = 0x02, kSetTransferMode = 0x03, kDisableWriteCache = 0x82;
constexpr uint8_t kPowerActive = 0xff;
constexpr uint8_t kTrim = 0x01;

constexpr uint8_t kLbaMode = 0x40;  // of the device register
constexpr uint32_t kMostMultiple = 16;
constexpr uint32_t kChunkSectors = 512;  // a request's: bounds the memory that a guest can claim
constexpr uint64_t kLba28Sectors = uint64_t{1} << 28, kLba48Sectors = uint64_t{1} << 48;
constexpr unsigned kTrimEntries = AtaDrive::kSectorBytes / 8;
}  // namespace

AtaDisk::Geometry AtaDisk::default_geometry(uint64_t bytes) {
  constexpr uint32_t kHeads = 16, kSectors = 63, kMostCylinders = 16'383;
  const uint64_t cylinders = bytes / kSectorBytes / (kHeads * kSectors);
  return {.cylinders = static_cast<uint32_t>(std::clamp<uint64_t>(cylinders, 2, kMostCylinders)),
          .heads = kHeads,
          .sectors = kSectors};
}

AtaDisk::AtaDisk(std::string name, BlockDevice& medium, Cable cable, std::string serial, BlockSizes sizes)
    : AtaDrive(std::move(name), medium, cable),
      serial_(std::move(serial)),
      sizes_(sizes),
      physical_(default_geometry(medium.bytes())),
      logical_(physical_) {}

void AtaDisk::reset_drive() {
  logical_ = physical_;
  transfer_mode_ = {};
  write_cache_ = true;
  multiple_ = 0;
  way_ = Way::None;
  lba48_ = false;
  sector_ = 0;
  left_ = block_sectors_ = 0;
  trims_.clear();
  queued_failure_ = {};
}

void AtaDisk::execute(uint8_t command) {
  using enum Addressing;
  switch (command) {
    case kReadSectors:
    case kReadSectorsNoRetry:
      return begin(Way::Read, Lba28, 1);
    case kReadSectorsExt:
      return begin(Way::Read, Lba48, 1);
    case kWriteSectors:
    case kWriteSectorsNoRetry:
      return begin(Way::Write, Lba28, 1);
    case kWriteSectorsExt:
      return begin(Way::Write, Lba48, 1);
    case kReadMultiple:
    case kReadMultipleExt:
      if (multiple_ == 0) return fail(kAborted);
      return begin(Way::Read, command == kReadMultiple ? Lba28 : Lba48, multiple_);
    case kWriteMultiple:
    case kWriteMultipleExt:
    case kWriteMultipleFuaExt:
      if (multiple_ == 0) return fail(kAborted);
      return begin(Way::Write, command == kWriteMultiple ? Lba28 : Lba48, multiple_);
    case kReadDma:
    case kReadDmaNoRetry:
      return begin(Way::Read, Lba28, 0);
    case kReadDmaExt:
      return begin(Way::Read, Lba48, 0);
    case kWriteDma:
    case kWriteDmaNoRetry:
      return begin(Way::Write, Lba28, 0);
    case kWriteDmaExt:
    case kWriteDmaFuaExt:
      return begin(Way::Write, Lba48, 0);
    case kReadVerify:
    case kReadVerifyNoRetry:
      return begin(Way::Verify, Lba28, 1);
    case kReadVerifyExt:
      return begin(Way::Verify, Lba48, 1);
    case kDataSetManagement:
      if (!(now_.feature & kTrim) || !medium_.discards() || now_.count == 0) return fail(kAborted);
      way_ = Way::Trim;
      return receive(size_t{now_.count} * kSectorBytes, 0, false);
    case kReadLogExt:
      return read_log();
    case kIdentifyDevice:
      return identify();
    case kSetFeatures:
      return set_features();
    case kFlushCache:
    case kFlushCacheExt:
      return flush();
    case kSetMultiple:
      // 0 switches READ and WRITE MULTIPLE off.
      if (now_.count > kMostMultiple || (now_.count & (now_.count - 1))) return fail(kAborted);
      multiple_ = now_.count;
      return finish();
    case kInitializeDeviceParameters:
      if (now_.count == 0) return fail(kAborted);
      logical_.heads = (device_ & 0x0fu) + 1;
      logical_.sectors = now_.count;
      logical_.cylinders = static_cast<uint32_t>(
          std::clamp<uint64_t>(sectors() / (logical_.heads * logical_.sectors), 1, 65'535));
      return finish();
    case kReadNativeMax:
      set_address(std::min(sectors(), kLba28Sectors) - 1);
      return finish();
    case kReadNativeMaxExt:
      lba48_ = true;
      set_address(sectors() - 1);
      return finish();
    case kCheckPowerMode:
    case kCheckPowerModeOld:
      now_.count = kPowerActive;
      return finish();
    case kStandbyImmediateOld:
    case kStandbyImmediateOld + 1:
    case kStandbyImmediateOld + 2:
    case kStandbyImmediateOld + 3:
    case kSleepOld:
    case kStandbyImmediate:
    case kIdleImmediate:
    case kStandby:
    case kIdle:
    case kSleep:
      return finish();
    case kNop:
      return fail(kAborted);
    default:
      break;
  }
  if ((command & 0xf0) == kRecalibrate || (command & 0xf0) == kSeek) return finish();
  fail(kAborted);
}

// --- Addresses

// False when the range leaves the disk or the address is none.
bool AtaDisk::set_range(Addressing addressing) {
  lba48_ = addressing == Addressing::Lba48;
  uint64_t sector = 0;
  if (lba48_) {
    left_ = now_.count | uint32_t{previous_.count} << 8;
    if (left_ == 0) left_ = 65'536;
    const auto half = [](const Registers& r) {
      return uint64_t{r.lba_low} | uint64_t{r.lba_mid} << 8 | uint64_t{r.lba_high} << 16;
    };
    sector = half(now_) | half(previous_) << 24;
  } else {
    left_ = now_.count ? now_.count : 256;
    if (device_ & kLbaMode) {
      sector = uint64_t{device_ & 0x0fu} << 24 | uint64_t{now_.lba_high} << 16 | uint64_t{now_.lba_mid} << 8 |
               now_.lba_low;
    } else {
      const uint64_t cylinder = now_.lba_high << 8 | now_.lba_mid, head = device_ & 0x0fu;
      if (now_.lba_low == 0 || now_.lba_low > logical_.sectors || head >= logical_.heads) return false;
      sector = (cylinder * logical_.heads + head) * logical_.sectors + now_.lba_low - 1;
    }
  }
  sector_ = sector;
  return sector < sectors() && left_ <= sectors() - sector;
}

// Where a failed command stopped, in the form in which the address came.
void AtaDisk::set_address(uint64_t sector) {
  if (!lba48_ && !(device_ & kLbaMode)) {
    const uint64_t cylinder = sector / (logical_.heads * logical_.sectors);
    now_.lba_low = static_cast<uint8_t>(sector % logical_.sectors + 1);
    now_.lba_mid = static_cast<uint8_t>(cylinder);
    now_.lba_high = static_cast<uint8_t>(cylinder >> 8);
    device_ = static_cast<uint8_t>((device_ & 0xf0) | sector / logical_.sectors % logical_.heads);
    return;
  }
  now_.lba_low = static_cast<uint8_t>(sector);
  now_.lba_mid = static_cast<uint8_t>(sector >> 8);
  now_.lba_high = static_cast<uint8_t>(sector >> 16);
  if (lba48_) {
    previous_.lba_low = static_cast<uint8_t>(sector >> 24);
    previous_.lba_mid = static_cast<uint8_t>(sector >> 32);
    previous_.lba_high = static_cast<uint8_t>(sector >> 40);
  } else {
    device_ = static_cast<uint8_t>((device_ & 0xf0) | (sector >> 24 & 0x0f));
  }
}

// --- Reads and writes, in chunks

void AtaDisk::begin(Way way, Addressing addressing, unsigned block_sectors) {
  if (!set_range(addressing)) {
    sector_ = left_ = 0;
    return fail(kNotFound);
  }
  if (way == Way::Write && medium_.read_only()) {
    left_ = 0;
    return fail(kAborted);
  }
  way_ = way;
  block_sectors_ = block_sectors;
  if (way == Way::Verify) {
    left_ = 0;
    return finish();
  }
  go_on(true);
}

// The chunk at `sector_`. The first block that the host writes is not announced by an interrupt.
void AtaDisk::go_on(bool first) {
  // Whole blocks, so that none spans two chunks.
  const uint32_t sectors = std::min(left_, kChunkSectors);
  static_assert(kChunkSectors % kMostMultiple == 0);
  const size_t bytes = size_t{sectors} * kSectorBytes, block = size_t{block_sectors_} * kSectorBytes;
  if (way_ == Way::Write) return receive(bytes, block, !first);
  auto request = std::make_unique<BlockRequest>();
  request->kind = BlockRequest::Kind::Read;
  request->offset = sector_ * kSectorBytes;
  request->data.resize(bytes);
  submit(std::move(request), [this, block](BlockRequest& done) {
    if (done.error) return io_failed(done);
    sector_ += done.data.size() / kSectorBytes;
    left_ -= static_cast<uint32_t>(done.data.size() / kSectorBytes);
    send(std::move(done.data), block);
  });
}

void AtaDisk::io_failed(BlockRequest& request) {
  set_address(request.offset / kSectorBytes);
  left_ = 0;
  fail(request.kind == BlockRequest::Kind::Read ? kUncorrectable : kAborted);
}

// PIO reads end without an interrupt: the last one announced the last block.
void AtaDisk::sent() {
  if (way_ == Way::Read && left_ > 0) return go_on(false);
  finish(block_sectors_ == 0);
}

void AtaDisk::received(std::span<const std::byte> data) {
  if (way_ == Way::Trim) return trim(data);
  if (data.size() / kSectorBytes > left_) return fail(kAborted);  // a damaged saved state
  auto request = std::make_unique<BlockRequest>();
  request->kind = BlockRequest::Kind::Write;
  request->offset = sector_ * kSectorBytes;
  request->data.assign(data.begin(), data.end());
  submit(std::move(request), [this](BlockRequest& done) {
    if (done.error) return io_failed(done);
    sector_ += done.data.size() / kSectorBytes;
    left_ -= static_cast<uint32_t>(done.data.size() / kSectorBytes);
    if (left_ > 0) return go_on(false);
    if (!write_cache_) return flush();
    finish();
  });
}

void AtaDisk::flush() {
  auto request = std::make_unique<BlockRequest>();
  request->kind = BlockRequest::Kind::Flush;
  submit(std::move(request), [this](BlockRequest& done) { done.error ? fail(kAborted) : finish(); });
}

// ATA8-ACS (T13/1699D), 7.10.3: entries of a 48-bit address and a 16-bit count.
void AtaDisk::trim(std::span<const std::byte> list) {
  trims_.clear();
  for (size_t at = 0; at + 8 <= list.size(); at += 8) {
    const auto entry = load_field<uint64_t>(list, at);
    const uint64_t sector = entry & (kLba48Sectors - 1), count = entry >> 48;
    if (count == 0) continue;
    if (sector >= sectors() || count > sectors() - sector) {
      trims_.clear();
      return fail(kNotFound);
    }
    trims_.push_back({sector * kSectorBytes, count * kSectorBytes});
  }
  std::ranges::reverse(trims_);
  trim_next();
}

void AtaDisk::trim_next() {
  if (trims_.empty()) return finish();
  auto request = std::make_unique<BlockRequest>();
  request->kind = BlockRequest::Kind::Discard;
  std::tie(request->offset, request->bytes) = trims_.back();
  trims_.pop_back();
  submit(std::move(request), [this](BlockRequest& done) {
    if (!done.error) return trim_next();
    trims_.clear();
    fail(kAborted);
  });
}

// --- Native command queuing (ATA8-ACS, 4.15, 7.25, 7.64)

void AtaDisk::run_queued(const QueuedCommand& command, std::vector<std::byte> data, QueuedDone done) {
  error_ = 0;
  status_ = kReady | kServiceOrSeek;
  if (command.sector >= sectors() || command.sectors > sectors() - command.sector)
    return queued_failed(command, kNotFound, done);
  if (command.write && medium_.read_only()) return queued_failed(command, kAborted, done);
  auto request = std::make_unique<BlockRequest>();
  request->kind = command.write ? BlockRequest::Kind::Write : BlockRequest::Kind::Read;
  request->offset = command.sector * kSectorBytes;
  request->data = std::move(data);
  if (!command.write) request->data.resize(size_t{command.sectors} * kSectorBytes);
  submit(std::move(request), [this, command, done = std::move(done)](BlockRequest& ended) {
    if (ended.error) return queued_failed(command, command.write ? kAborted : kUncorrectable, done);
    if (!command.write) return done(false, ended.data);
    if (write_cache_ && !command.force_unit_access) return done(false, {});
    auto flush = std::make_unique<BlockRequest>();
    flush->kind = BlockRequest::Kind::Flush;
    submit(std::move(flush), [this, command, done](BlockRequest& flushed) {
      flushed.error ? queued_failed(command, kAborted, done) : done(false, {});
    });
  });
}

// Ends the other ones, too (4.15.2).
void AtaDisk::queued_failed(const QueuedCommand& command, uint8_t error, const QueuedDone& done) {
  stop();
  error_ = error;
  status_ = kReady | kServiceOrSeek | kError;
  queued_failure_ = {.error = error,
                     .tag = static_cast<uint8_t>(command.tag),
                     .sector = command.sector,
                     .sectors = command.sectors};
  done(true, {});
}

// The directory and the log of queued errors (ATA8-ACS, 7.25 and annex A).
void AtaDisk::read_log() {
  constexpr uint8_t kDirectory = 0x00, kQueuedErrors = 0x10;
  const unsigned count = now_.count | unsigned{previous_.count} << 8;
  const uint8_t log = now_.lba_low;
  if (!queues() || count != 1 || now_.lba_mid != 0 || (log != kDirectory && log != kQueuedErrors))
    return fail(kAborted);
  std::vector<std::byte> page(kSectorBytes);
  const auto put = [&page](unsigned at, uint64_t value) { page[at] = static_cast<std::byte>(value); };
  if (log == kDirectory) {
    put(0, 1);                  // version
    put(2 * kQueuedErrors, 1);  // pages
  } else {
    constexpr uint8_t kNotQueued = 0x80;
    const QueuedFailure& failure = queued_failure_;
    const uint64_t sector = failure.sector;
    put(0, failure.error ? failure.tag : kNotQueued);
    put(2, kReady | kServiceOrSeek | (failure.error ? kError : 0));
    put(3, failure.error);
    for (unsigned i = 0; i < 3; i++) {
      put(4 + i, sector >> 8 * i);
      put(8 + i, sector >> (24 + 8 * i));
    }
    put(7, kLbaMode);
    put(12, failure.sectors);
    put(13, failure.sectors >> 8);
    uint8_t sum = 0;
    for (const std::byte byte : page) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(byte));
    put(kSectorBytes - 1, static_cast<uint8_t>(-sum));
    queued_failure_ = {};
  }
  way_ = Way::None;
  left_ = 0;
  block_sectors_ = 1;
  send(std::move(page), kSectorBytes);
}

// --- IDENTIFY DEVICE (T13/1532D volume 1, 8.15) and SET FEATURES

void AtaDisk::identify() {
  const auto word = [](uint32_t value) { return static_cast<uint16_t>(value); };
  const uint16_t log_bit = queues() ? 0x20 : 0;
  AtaIdentify id;
  id.set(0, 0x0040);  // not removable
  id.set(1, word(physical_.cylinders));
  id.set(3, word(physical_.heads));
  id.set(6, word(physical_.sectors));
  id.set_text(10, 10, serial_);
  id.set_text(23, 4, "1.0");
  id.set_text(27, 20, "Penumbra hard disk");
  id.set(47, 0x8000 | kMostMultiple);
  id.set(48, 1);       // 32-bit data port, before ATA-3
  id.set(49, 0x0b00);  // IORDY, LBA, DMA
  id.set(50, 0x4000);
  id.set(51, 0x0200);  // PIO and DMA timing modes, before ATA-3
  id.set(52, 0x0200);
  id.set(53, 0x0007);  // words 54 to 58, 64 to 70 and 88 are there
  id.set(54, word(logical_.cylinders));
  id.set(55, word(logical_.heads));
  id.set(56, word(logical_.sectors));
  id.set32(57, logical_.cylinders * logical_.heads * logical_.sectors);
  id.set(59, multiple_ ? 0x0100 | multiple_ : 0);
  id.set32(60, static_cast<uint32_t>(std::min(sectors(), kLba28Sectors - 1)));
  id.set(63, transfer_mode_.multiword_word());
  id.set(64, 0x0003);                                  // PIO 3 and 4
  for (unsigned i = 65; i <= 68; i++) id.set(i, 120);  // cycle times in nanoseconds
  id.set(80, 0x00f0);                                  // ATA-4 to ATA-7
  id.set(82, 0x4020);                                  // NOP, write cache
  id.set(83, 0x7400);                                  // FLUSH CACHE, FLUSH CACHE EXT, 48-bit addresses
  id.set(84, log_bit | 0x4040);                        // WRITE DMA FUA EXT, READ LOG EXT
  id.set(85, word(0x4000 | (write_cache_ ? 0x20 : 0)));
  id.set(86, 0x3400);
  id.set(87, log_bit | 0x4040);
  id.set(88, transfer_mode_.ultra_word());
  identify_cable(id);
  id.set64(100, std::min(sectors(), kLba48Sectors - 1));
  const auto shift =
      static_cast<uint32_t>(std::countr_zero(sizes_.physical / static_cast<uint32_t>(kSectorBytes)));
  id.set(106,
         word(0x4000 | (shift ? 0x2000 | shift : 0)));  // logical sectors in a physical one: a power of two
  if (medium_.discards()) {
    id.set(69, 0x4020);  // trimmed sectors read as zeros, always
    id.set(105, 1);      // most sectors of a list
    id.set(169, kTrim);
  }
  way_ = Way::None;
  left_ = 0;
  block_sectors_ = 1;
  send(id.bytes(), kSectorBytes);
}

void AtaDisk::set_features() {
  switch (now_.feature) {
    case kSetTransferMode:
      return transfer_mode_.set(now_.count) ? finish() : fail(kAborted);
    case kEnableWriteCache:
      write_cache_ = true;
      return finish();
    case kDisableWriteCache:
      write_cache_ = false;
      return flush();
    case 0x55:  // look-ahead off and on, power-on defaults kept or restored: nothing here depends on them
    case 0xaa:
    case 0x66:
    case 0xcc:
      return finish();
    default:
      return fail(kAborted);
  }
}

// --- State

DeviceState AtaDisk::save_drive() const {
  return {{"heads", logical_.heads},
          {"sectors", logical_.sectors},
          {"cylinders", logical_.cylinders},
          {"transfer_mode", transfer_mode_.mode},
          {"write_cache", write_cache_},
          {"multiple", multiple_},
          {"way", static_cast<unsigned>(way_)},
          {"lba48", lba48_},
          {"sector", sector_},
          {"left", left_},
          {"block_sectors", block_sectors_},
          {"queued_failure",
           {queued_failure_.error, queued_failure_.tag, queued_failure_.sector, queued_failure_.sectors}}};
}

void AtaDisk::load_drive(const DeviceState& state) {
  const auto number = [&state](const char* name, uint64_t limit) {
    return static_cast<uint32_t>(bounded(state, name, limit));
  };
  const Geometry logical = {.cylinders = number("cylinders", 65'535),
                            .heads = number("heads", 16),
                            .sectors = number("sectors", 255)};
  AtaTransferMode mode;
  const auto way = number("way", static_cast<unsigned>(Way::Trim)), left = number("left", 65'536);
  const uint64_t sector = bounded(state, "sector", kLba48Sectors);
  const auto multiple = number("multiple", kMostMultiple), block = number("block_sectors", kMostMultiple);
  if (logical.heads == 0 || logical.sectors == 0 ||
      !mode.set(static_cast<uint8_t>(number("transfer_mode", 0xff))) || (multiple & (multiple - 1)) ||
      (block & (block - 1)) || sector > sectors() || left > sectors() - sector) {
    throw std::invalid_argument(name() + ": impossible saved state");
  }
  const DeviceState& failed = state.at("queued_failure");
  const QueuedFailure failure = {.error = failed.at(0).get<uint8_t>(),
                                 .tag = failed.at(1).get<uint8_t>(),
                                 .sector = failed.at(2).get<uint64_t>(),
                                 .sectors = failed.at(3).get<uint32_t>()};
  state.at("write_cache").get_to(write_cache_);
  state.at("lba48").get_to(lba48_);
  logical_ = logical;
  transfer_mode_ = mode;
  multiple_ = static_cast<uint8_t>(multiple);
  way_ = static_cast<Way>(way);
  sector_ = sector;
  left_ = left;
  block_sectors_ = block;
  queued_failure_ = failure;
  trims_.clear();
}

}  // namespace penumbra
