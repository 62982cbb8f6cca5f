#include "devices/fdc_82077aa.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace penumbra {

namespace {
// Ports (2.1)
enum : uint16_t { kOutput = 2, kTape = 3, kStatusAndRate = 4, kFifo = 5, kDirection = 7 };
// Digital output, main status, data rate select
constexpr uint8_t kNotReset = 0x04, kGate = 0x08;
constexpr uint8_t kRequest = 0x80, kToHost = 0x40, kNonDma = 0x20, kCommandBusy = 0x10;
constexpr uint8_t kRateReset = 0x80, kRateBits = 0x03;
constexpr uint8_t kDiskChange = 0x80;

// Commands (5.1), without their option bits
enum : uint8_t {
  kSpecify = 0x03,
  kSenseDrive = 0x04,
  kWrite = 0x05,
  kRead = 0x06,
  kRecalibrate = 0x07,
  kSenseInterrupt = 0x08,
  kWriteDeleted = 0x09,
  kReadId = 0x0a,
  kReadDeleted = 0x0c,
  kFormatTrack = 0x0d,
  kDumpRegisters = 0x0e,
  kSeek = 0x0f,
  kVersion = 0x10,
  kPerpendicular = 0x12,
  kConfigure = 0x13,
  kLock = 0x14,
  kVerify = 0x16,
};
constexpr uint8_t kMultiTrack = 0x80, kRelative = 0x80, kInwards = 0x40;
constexpr uint8_t kEnhancedController = 0x90;

// Status 0 to 3 (6)
constexpr uint8_t kAbnormal = 0x40, kInvalid = 0x80, kPollChange = 0xc0, kSeekEnd = 0x20,
                  kEquipmentCheck = 0x10;
constexpr uint8_t kMissingMark = 0x01, kNotWritable = 0x02, kNoData = 0x04, kDataError = 0x20,
                  kEndOfCylinder = 0x80;
constexpr uint8_t kWrongCylinder = 0x10, kDataErrorInData = 0x20;
constexpr uint8_t kAlwaysReady = 0x28, kTrack0 = 0x10, kWriteProtected = 0x40;

constexpr unsigned kSectorBytes = 512, kSizeCode = 2, kMostSectors = 36;
constexpr uint8_t kPowerOnConfiguration = 0x20, kNoPolling = 0x10;
constexpr uint8_t kLastCylinder = 84;

// By size. Rates: 0 500 kb/s, 1 300 (double density in a drive for high density), 2 250, 3 1000.
constexpr Fdc82077aa::Format kFormats[] = {
    {40, 1, 8, 1, 2}, {40, 1, 9, 1, 2},  {40, 2, 8, 1, 2},  {40, 2, 9, 1, 2},
    {80, 2, 9, 2, 4}, {80, 2, 15, 0, 2}, {80, 2, 18, 0, 4}, {80, 2, 36, 3, 5},
};

// With its parameters; 0: there is no such command.
unsigned length_of(uint8_t code) {
  switch (code & 0x1f) {
    case kWrite:
    case kRead:
    case kWriteDeleted:
    case kReadDeleted:
    case kVerify:
      return 9;
    case kFormatTrack:
      return 6;
    case kReadId:
      return 2;
    default:
      break;
  }
  switch (code) {
    case kSpecify:
    case kSeek:
    case kRelative | kSeek:
    case kRelative | kInwards | kSeek:
      return 3;
    case kSenseDrive:
    case kRecalibrate:
    case kPerpendicular:
      return 2;
    case kConfigure:
      return 4;
    case kSenseInterrupt:
    case kDumpRegisters:
    case kVersion:
    case kLock:
    case 0x80 | kLock:
      return 1;
    default:
      return 0;
  }
}
}  // namespace

Fdc82077aa::Format Fdc82077aa::format_of(uint64_t bytes) {
  for (const Format& format : kFormats) {
    if (bytes <= format.bytes()) return format;
  }
  return kFormats[std::size(kFormats) - 1];
}

Fdc82077aa::Format Fdc82077aa::largest_of(uint8_t drive_type) {
  Format largest;
  for (const Format& format : kFormats) {
    if (format.drive_type == drive_type) largest = format;
  }
  return largest;
}

Fdc82077aa::Fdc82077aa(Dma8237& dma, LineOutput interrupt, std::array<BlockDevice*, kDrives> drives)
    : dma_(dma), interrupt_(std::move(interrupt)), drives_(drives) {
  change_.fill(true);
}

// --- Registers

// While the change line is active, that of the drive that the digital output register selects.
bool Fdc82077aa::changed(unsigned drive) const {
  if (drive >= kDrives || !drives_[drive]) return false;
  return change_[drive] || drives_[drive]->bytes() == 0 ||
         generations_[drive] != drives_[drive]->generation();
}

uint8_t Fdc82077aa::main_status() const {
  if (!(output_ & kNotReset)) return 0;
  switch (phase_) {
    case Phase::Command:
      return bytes_.empty() ? kRequest : kRequest | kCommandBusy;
    case Phase::Busy:
      return kCommandBusy;
    case Phase::ToHost:
    case Phase::FromHost:
      if (!non_dma_) return kCommandBusy;
      return kRequest | kNonDma | kCommandBusy | (phase_ == Phase::ToHost ? kToHost : 0);
    case Phase::Result:
      return kRequest | kToHost | kCommandBusy;
  }
  return 0;
}

uint8_t Fdc82077aa::read_byte(uint16_t offset) {
  switch (offset) {
    case kOutput:
      return output_;
    case kTape:
      return tape_;
    case kStatusAndRate:
      return main_status();
    case kFifo:
      return read_fifo();
    case kDirection:
      return changed(output_ & 3) ? kDiskChange : 0;
    default:
      return 0xff;
  }
}

void Fdc82077aa::write_byte(uint16_t offset, uint8_t value) {
  switch (offset) {
    case kOutput: {
      const uint8_t before = std::exchange(output_, value);
      if (value & ~before & kNotReset) software_reset();
      if (before & ~value & kNotReset) set_interrupt(false);
      set_interrupt(level_);  // the gate may have moved
      return;
    }
    case kTape:
      tape_ = value & 3;
      return;
    case kStatusAndRate:
      rate_ = value & kRateBits;
      precompensation_ = value >> 2 & 7;
      if (value & kRateReset) software_reset();
      return;
    case kFifo:
      return write_fifo(value);
    case kDirection:
      rate_ = value & kRateBits;
      return;
    default:
      return;
  }
}

void Fdc82077aa::set_interrupt(bool level) {
  level_ = level;
  const bool line = level && output_ & kGate;
  if (std::exchange(line_, line) != line) interrupt_(line);
}

uint8_t Fdc82077aa::read_fifo() {
  if (phase_ == Phase::ToHost && non_dma_) {
    const auto value = static_cast<uint8_t>(data_[position_++]);
    if (position_ == data_.size()) moved_all(false);
    return value;
  }
  if (phase_ != Phase::Result) return 0;
  set_interrupt(false);
  const uint8_t value = result_.front();
  result_.erase(result_.begin());
  if (result_.empty()) {
    phase_ = Phase::Command;
    bytes_.clear();
  }
  return value;
}

void Fdc82077aa::write_fifo(uint8_t value) {
  if (!(output_ & kNotReset)) return;
  if (phase_ == Phase::FromHost && non_dma_) {
    data_[position_++] = static_cast<std::byte>(value);
    if (position_ == data_.size()) moved_all(false);
    return;
  }
  if (phase_ != Phase::Command) return;
  bytes_.push_back(value);
  const unsigned length = length_of(bytes_[0]);
  if (length == 0) return result({kInvalid}, false);
  if (bytes_.size() == length) execute();
}

// --- Commands

void Fdc82077aa::result(std::vector<uint8_t> bytes, bool interrupts) {
  result_ = std::move(bytes);
  phase_ = Phase::Result;
  data_.clear();
  position_ = 0;
  if (interrupts) set_interrupt(true);
}

void Fdc82077aa::execute() {
  const auto done = [this] {
    phase_ = Phase::Command;
    bytes_.clear();
  };
  if (bytes_.size() > 1) selected_ = bytes_[1] & 3;
  switch (command()) {
    case kSpecify:
      specified_ = bytes_[1];
      specified_head_ = bytes_[2];
      non_dma_ = bytes_[2] & 1;
      return done();
    case kSenseDrive: {
      uint8_t status = static_cast<uint8_t>(kAlwaysReady | (bytes_[1] & 7));
      if (tracks_[selected_] == 0 && medium()) status |= kTrack0;
      if (ready() && medium()->read_only()) status |= kWriteProtected;
      return result({status}, false);
    }
    case kRecalibrate:
      tracks_[selected_] = 0;
      seek_ended(selected_, medium() ? kSeekEnd : kSeekEnd | kAbnormal | kEquipmentCheck);
      return done();
    case kSeek: {
      int track = bytes_[2];
      if (bytes_[0] & kRelative) track = tracks_[selected_] + (bytes_[0] & kInwards ? track : -track);
      tracks_[selected_] = static_cast<uint8_t>(std::clamp<int>(track, 0, kLastCylinder));
      seek_ended(selected_, kSeekEnd | (bytes_[1] & 4));
      return done();
    }
    case kSenseInterrupt: {
      set_interrupt(false);
      if (reset_senses_ > 0) {
        const auto drive = static_cast<uint8_t>(4 - reset_senses_--);
        return result({static_cast<uint8_t>(kPollChange | drive), tracks_[drive]}, false);
      }
      if (sense_ == kInvalid) return result({kInvalid}, false);
      return result({std::exchange(sense_, uint8_t{kInvalid}), sense_track_}, false);
    }
    case kVersion:
      return result({kEnhancedController}, false);
    case kConfigure:
      configuration_ = bytes_[2];
      precompensation_ = bytes_[3];
      return done();
    case kPerpendicular:
      perpendicular_ = bytes_[1] & 0x7f;
      return done();
    case kLock:
      lock_ = bytes_[0] & 0x80;
      return result({static_cast<uint8_t>(lock_ << 4)}, false);
    case kDumpRegisters:
      return result(
          {tracks_[0], tracks_[1], tracks_[2], tracks_[3], specified_, specified_head_, last_sector_,
           static_cast<uint8_t>(lock_ << 7 | perpendicular_), configuration_, precompensation_},
          false);
    case kReadId:
      at_ = {.cylinder = tracks_[selected_], .head = static_cast<uint8_t>(bytes_[1] >> 2 & 1), .sector = 1};
      if (!ready() || format().rate != rate_ || at_.head >= format().heads ||
          at_.cylinder >= format().cylinders)
        return transfer_ended(kAbnormal, kMissingMark, 0);
      return transfer_ended(0, 0, 0);
    default:
      return start_transfer();
  }
}

void Fdc82077aa::seek_ended(unsigned drive, uint8_t st0) {
  sense_ = static_cast<uint8_t>(st0 | drive);
  sense_track_ = tracks_[drive];
  if (drive < kDrives && drives_[drive] && drives_[drive]->bytes() != 0) {
    change_[drive] = false;
    generations_[drive] = drives_[drive]->generation();
  }
  set_interrupt(true);
}

// --- Transfers

void Fdc82077aa::transfer_ended(uint8_t st0, uint8_t st1, uint8_t st2) {
  result({static_cast<uint8_t>(st0 | at_.head << 2 | selected_), st1, st2, at_.cylinder, at_.head, at_.sector,
          kSizeCode},
         true);
}

uint64_t Fdc82077aa::offset_of(const Address& address) const {
  const Format format_now = format();
  return ((uint64_t{address.cylinder} * format_now.heads + address.head) * format_now.sectors +
          address.sector - 1) *
         kSectorBytes;
}

void Fdc82077aa::start_transfer() {
  const bool formats = command() == kFormatTrack;
  const auto head = static_cast<uint8_t>(bytes_[1] >> 2 & 1);
  at_ = formats ? Address{.cylinder = tracks_[selected_], .head = head, .sector = 1}
                : Address{.cylinder = bytes_[2], .head = bytes_[3], .sector = bytes_[4]};
  const uint8_t size_code = bytes_[formats ? 2 : 5];
  if (!ready() || format().rate != rate_) return transfer_ended(kAbnormal, kMissingMark, 0);
  const Format format_now = format();
  if (at_.cylinder >= format_now.cylinders) return transfer_ended(kAbnormal, kNoData, kWrongCylinder);
  if (size_code != kSizeCode || at_.head != head || head >= format_now.heads || at_.sector == 0 ||
      at_.sector > format_now.sectors)
    return transfer_ended(kAbnormal, kNoData, 0);
  tracks_[selected_] = at_.cylinder;
  const bool reads = command() == kRead || command() == kReadDeleted || command() == kVerify;
  if (!reads && medium()->read_only()) return transfer_ended(kAbnormal, kNotWritable, 0);
  terminal_count_ = false;
  position_ = 0;
  if (formats) {
    format_left_ = bytes_[3];
    if (format_left_ == 0 || format_left_ > kMostSectors) return transfer_ended(kAbnormal, kNoData, 0);
    data_.assign(4 * format_left_, std::byte{0});
    phase_ = Phase::FromHost;
    return move_data();
  }
  last_sector_ = bytes_[6];
  if (reads) return read_on();
  data_.assign(size_t{span()} * kSectorBytes, std::byte{0});
  phase_ = Phase::FromHost;
  move_data();
}

// Sectors from the present one to the last one that the command names, or the track has.
uint32_t Fdc82077aa::span() const {
  const unsigned last = std::min(last_sector_, format().sectors);
  return last >= at_.sector ? last - at_.sector + 1u : 1u;
}

// After the sector that was dealt with last (5.1.1, table of result phases): whether the command has another
// one.
bool Fdc82077aa::advance() {
  if (at_.sector != std::min(last_sector_, format().sectors) && at_.sector < format().sectors) {
    at_.sector++;
    return true;
  }
  at_.sector = 1;
  if (bytes_[0] & kMultiTrack && at_.head == 0 && format().heads > 1) {
    at_.head = 1;
    return true;
  }
  if (bytes_[0] & kMultiTrack) at_.head = 0;
  at_.cylinder++;
  return false;
}

void Fdc82077aa::submit(BlockRequest::Kind kind, uint64_t offset, std::vector<std::byte> data,
                        std::function<void(BlockRequest&)> then) {
  auto request = std::make_unique<BlockRequest>();
  request->kind = kind;
  request->offset = offset;
  request->data = std::move(data);
  request->done = [this, round = round_, then = std::move(then)](BlockRequest& done) {
    under_way_--;
    if (round == round_) then(done);
  };
  phase_ = Phase::Busy;
  under_way_++;
  medium()->submit(std::move(request));
}

void Fdc82077aa::read_on() {
  if (!ready()) return transfer_ended(kAbnormal, kMissingMark, 0);
  // An image may be shorter than its diskette: the rest reads as zeros.
  const uint64_t offset = offset_of(at_), end = std::max(medium()->bytes(), offset);
  const size_t bytes = size_t{span()} * kSectorBytes, there = std::min<uint64_t>(bytes, end - offset);
  submit(BlockRequest::Kind::Read, there ? offset : 0, std::vector<std::byte>(there),
         [this, bytes](BlockRequest& read) {
           if (read.error) return transfer_ended(kAbnormal, kDataError, kDataErrorInData);
           data_ = std::move(read.data);
           data_.resize(bytes);
           position_ = 0;
           phase_ = Phase::ToHost;
           if (command() == kVerify) {
             position_ = data_.size();
             return moved_all(false);
           }
           move_data();
         });
}

void Fdc82077aa::dma_ready() {
  if ((phase_ == Phase::ToHost || phase_ == Phase::FromHost) && !non_dma_) move_data();
}

void Fdc82077aa::move_data() {
  if (non_dma_) return set_interrupt(true);
  const auto data = std::span(data_).subspan(position_);
  const Dma8237::Moved moved =
      phase_ == Phase::ToHost ? dma_.to_memory(kDmaChannel, data) : dma_.from_memory(kDmaChannel, data);
  position_ += moved.bytes;
  if (moved.terminal_count || position_ == data_.size()) moved_all(moved.terminal_count);
}

// What is in data_ up to position_ has passed. Without a terminal count a command goes on to its last sector,
// and that is an error (6.2, EN) unless it only verifies.
void Fdc82077aa::moved_all(bool terminal_count) {
  set_interrupt(false);
  terminal_count_ = terminal_count;
  if (command() == kFormatTrack) {
    format_left_ = static_cast<unsigned>(position_ / 4);
    position_ = 0;
    return format_next();
  }
  if (phase_ == Phase::FromHost) return write_done();
  bool more = true;
  for (size_t sector = 0; sector < (position_ + kSectorBytes - 1) / kSectorBytes; sector++) more = advance();
  if (terminal_count) return transfer_ended(0, 0, 0);
  if (more) return read_on();
  command() == kVerify ? transfer_ended(0, 0, 0) : transfer_ended(kAbnormal, kEndOfCylinder, 0);
}

// The sectors that were given; the last one may be in part, and is filled up with zeros (5.1.3).
void Fdc82077aa::write_done() {
  const size_t sectors = (position_ + kSectorBytes - 1) / kSectorBytes;
  if (!ready()) return transfer_ended(kAbnormal, kMissingMark, 0);
  data_.resize(sectors * kSectorBytes);
  submit(BlockRequest::Kind::Write, offset_of(at_), std::move(data_), [this, sectors](BlockRequest& written) {
    if (written.error) return transfer_ended(kAbnormal, kDataError, 0);
    bool more = true;
    for (size_t sector = 0; sector < sectors; sector++) more = advance();
    if (terminal_count_) return transfer_ended(0, 0, 0);
    if (!more) return transfer_ended(kAbnormal, kEndOfCylinder, 0);
    data_.assign(size_t{span()} * kSectorBytes, std::byte{0});
    position_ = 0;
    phase_ = Phase::FromHost;
    move_data();
  });
}

// One sector after the other, by the identifications that the host gave.
void Fdc82077aa::format_next() {
  if (format_left_ == 0 || !ready())
    return transfer_ended(ready() ? 0 : kAbnormal, ready() ? 0 : kMissingMark, 0);
  const Format format_now = format();
  const auto field = [this](unsigned i) { return static_cast<uint8_t>(data_[position_ + i]); };
  at_ = {.cylinder = field(0), .head = field(1), .sector = field(2)};
  if (at_.cylinder >= format_now.cylinders || at_.head >= format_now.heads || at_.sector == 0 ||
      at_.sector > format_now.sectors)
    return transfer_ended(kAbnormal, kNoData, 0);
  position_ += 4;
  format_left_--;
  submit(BlockRequest::Kind::Write, offset_of(at_),
         std::vector(kSectorBytes, static_cast<std::byte>(bytes_[5])), [this](BlockRequest& written) {
           if (written.error) return transfer_ended(kAbnormal, kDataError, 0);
           format_next();
         });
}

// --- Reset and state

void Fdc82077aa::software_reset() {
  round_++;
  phase_ = Phase::Command;
  bytes_.clear();
  result_.clear();
  data_.clear();
  position_ = 0;
  format_left_ = 0;
  terminal_count_ = false;
  tracks_ = {};
  sense_ = kInvalid;
  sense_track_ = 0;
  if (!lock_) configuration_ = kPowerOnConfiguration;
  reset_senses_ = configuration_ & kNoPolling ? 0 : 4;
  set_interrupt(reset_senses_ != 0);
}

void Fdc82077aa::reset() {
  lock_ = non_dma_ = false;
  software_reset();
  output_ = tape_ = rate_ = 0;
  specified_ = specified_head_ = precompensation_ = perpendicular_ = 0;
  reset_senses_ = 0;
  change_.fill(true);
  generations_ = {};
  at_ = {};
  selected_ = last_sector_ = 0;
  set_interrupt(false);
}

DeviceState Fdc82077aa::save() const {
  if (under_way_ != 0) throw std::logic_error("fdc_82077aa: saved with a request under way");
  DeviceState data = DeviceState::array();
  for (const std::byte byte : data_) data.push_back(static_cast<uint8_t>(byte));
  return {{"version", 1},
          {"output", output_},
          {"rate", rate_},
          {"tape", tape_},
          {"specified", {specified_, specified_head_}},
          {"configuration", configuration_},
          {"precompensation", precompensation_},
          {"perpendicular", perpendicular_},
          {"lock", lock_},
          {"non_dma", non_dma_},
          {"tracks", tracks_},
          {"change", {changed(0), changed(1)}},
          {"reset_senses", reset_senses_},
          {"sense", sense_},
          {"sense_track", sense_track_},
          {"phase", static_cast<unsigned>(phase_)},
          {"bytes", bytes_},
          {"result", result_},
          {"selected", selected_},
          {"at", {at_.cylinder, at_.head, at_.sector}},
          {"last_sector", last_sector_},
          {"data", data},
          {"position", position_},
          {"format_left", format_left_},
          {"terminal_count", terminal_count_},
          {"level", level_}};
}

void Fdc82077aa::load(const DeviceState& state) {
  require_version(state, 1, name());
  const auto byte = [&state](const char* name, unsigned limit = 0xff) {
    return static_cast<uint8_t>(bounded(state, name, limit));
  };
  const auto bytes = state.at("bytes").get<std::vector<uint8_t>>(),
             saved_result = state.at("result").get<std::vector<uint8_t>>(),
             data = state.at("data").get<std::vector<uint8_t>>(),
             specified = state.at("specified").get<std::vector<uint8_t>>(),
             at = state.at("at").get<std::vector<uint8_t>>();
  const auto tracks = state.at("tracks").get<std::array<uint8_t, 4>>();
  const auto change = state.at("change").get<std::array<bool, kDrives>>();
  const auto phase = static_cast<Phase>(byte("phase", static_cast<unsigned>(Phase::Result)));
  const auto position = bounded(state, "position", data.size());
  const bool transfers = phase == Phase::ToHost || phase == Phase::FromHost;
  const unsigned length = bytes.empty() ? 0 : length_of(bytes[0]);
  const uint8_t code = bytes.empty() ? 0 : bytes[0] & 0x1f;
  const bool is_transfer = length == 9 || length == 6;
  if (phase == Phase::Busy || data.size() > kMostSectors * kSectorBytes ||
      bytes.size() > std::max(length, 1u) || specified.size() != 2 || at.size() != 3 ||
      saved_result.size() > 10 || (phase == Phase::Result) == saved_result.empty() ||
      (phase == Phase::Command && !bytes.empty() && bytes.size() == length) ||
      (transfers && (!is_transfer || bytes.size() != length || position == data.size() ||
                     (phase == Phase::ToHost && code == kFormatTrack))))
    throw std::invalid_argument("fdc_82077aa: impossible saved state");
  const auto output = byte("output"), rate = byte("rate", 3), tape = byte("tape", 3),
             configuration = byte("configuration"), precompensation = byte("precompensation"),
             perpendicular = byte("perpendicular", 0x7f), senses = byte("reset_senses", 4),
             sense = byte("sense"), sense_track = byte("sense_track"), selected = byte("selected", 3),
             last_sector = byte("last_sector"), format_left = byte("format_left", kMostSectors);
  const bool lock = state.at("lock").get<bool>(), non_dma = state.at("non_dma").get<bool>(),
             terminal_count = state.at("terminal_count").get<bool>(), level = state.at("level").get<bool>();
  if (transfers && (selected >= kDrives || !drives_[selected]))
    throw std::invalid_argument("fdc_82077aa: no such drive");
  round_++;
  output_ = output;
  rate_ = rate;
  tape_ = tape;
  specified_ = specified[0];
  specified_head_ = specified[1];
  configuration_ = configuration;
  precompensation_ = precompensation;
  perpendicular_ = perpendicular;
  lock_ = lock;
  non_dma_ = non_dma;
  tracks_ = tracks;
  change_ = change;
  for (unsigned i = 0; i < kDrives; i++) generations_[i] = drives_[i] ? drives_[i]->generation() : 0;
  reset_senses_ = senses;
  sense_ = sense;
  sense_track_ = sense_track;
  phase_ = phase;
  bytes_ = bytes;
  result_ = saved_result;
  selected_ = selected;
  at_ = {.cylinder = at[0], .head = at[1], .sector = at[2]};
  last_sector_ = last_sector;
  data_.clear();
  for (const uint8_t value : data) data_.push_back(static_cast<std::byte>(value));
  position_ = position;
  format_left_ = format_left;
  terminal_count_ = terminal_count;
  level_ = level;
  line_ = level && output_ & kGate;
}

}  // namespace penumbra
