#include "devices/ata_drive.h"

#include <algorithm>
#include <cassert>
#include <stdexcept>
#include <utility>

#include "devices/chip.h"

namespace penumbra {

namespace {
constexpr uint8_t kDiagnosticPassed = 0x01, kPacketMid = 0x14, kPacketHigh = 0xeb;
constexpr uint8_t kDeviceObsolete = 0xa0;  // bits that read as ones
constexpr uint8_t kDiagnostic = 0x90, kDeviceReset = 0x08;
constexpr size_t kMostData = size_t{1} << 20;
}  // namespace

AtaDrive::AtaDrive(std::string name, BlockDevice& medium, Cable cable)
    : medium_(medium), cable_(cable), name_(std::move(name)) {}

void AtaDrive::identify_cable(AtaIdentify& id) const {
  switch (cable_) {
    // An 80-conductor cable (T13/1532D volume 1, 8.15.43). Firmware looks for no drive 1 where drive 0
    // answers for it (bit 6).
    case Cable::OnlyParallel:
      return id.set(93, 0x604b);
    case Cable::FirstParallel:
      return id.set(93, 0x603b);
    case Cable::SecondParallel:
      return id.set(93, 0x6b00);
    case Cable::Serial:  // ATA8-ACS, 7.16.7
      if (queues()) id.set(75, kQueueDepth - 1);
      id.set(76, queues() ? 0x0106 : 0x0006);  // 1.5 and 3 Gb/s, queuing
      id.set(222, 0x101f);                     // Serial ATA up to 2.5
      return;
  }
}

void AtaDrive::run_queued(const QueuedCommand&, std::vector<std::byte>, QueuedDone) {
  std::unreachable();  // queues() says no
}

void AtaDrive::changed() {
  if (listener_) listener_();
}

// --- Registers

uint8_t AtaDrive::read(Register which, bool previous) const {
  const Registers& from = previous ? previous_ : now_;
  switch (which) {
    case kFeatures:
      return error_;
    case kCount:
      return from.count;
    case kLbaLow:
      return from.lba_low;
    case kLbaMid:
      return from.lba_mid;
    case kLbaHigh:
      return from.lba_high;
    case kDevice:
      return device_ | kDeviceObsolete;
    case kCommand:
      return status_;
    case kData:
      break;
  }
  return 0;
}

void AtaDrive::write(Register which, uint8_t value) {
  const auto push = [value](uint8_t& now, uint8_t& previous) { previous = std::exchange(now, value); };
  if (which == kCommand) {
    if (status_ & kBusy && value != kDeviceReset) return;
    if (phase_ != Phase::None)
      stop();  // the manual leaves a command during a transfer undefined; it is a new one here
    interrupt_ = false;
    if (value == kDiagnostic) return;  // the host adapter's: see diagnose()
    status_ = kBusy;
    error_ = 0;
    execute(value);
    changed();
    return;
  }
  if (status_ & (kBusy | kDataRequest)) return;  // T13/1532D volume 2, 5.2
  switch (which) {
    case kFeatures:
      return push(now_.feature, previous_.feature);
    case kCount:
      return push(now_.count, previous_.count);
    case kLbaLow:
      return push(now_.lba_low, previous_.lba_low);
    case kLbaMid:
      return push(now_.lba_mid, previous_.lba_mid);
    case kLbaHigh:
      return push(now_.lba_high, previous_.lba_high);
    case kDevice:
      device_ = value;
      return;
    default:
      return;
  }
}

void AtaDrive::clear_interrupt() {
  if (!interrupt_) return;
  interrupt_ = false;
  changed();
}

// --- Phases

void AtaDrive::finish(bool interrupts) {
  phase_ = Phase::None;
  status_ = kReady | kServiceOrSeek;
  interrupt_ |= interrupts;
  changed();
}

void AtaDrive::fail(uint8_t error) {
  phase_ = Phase::None;
  error_ = error;
  status_ = kReady | kServiceOrSeek | kError;
  interrupt_ = true;
  changed();
}

void AtaDrive::send(std::vector<std::byte> data, size_t block) {
  assert(!data.empty());
  data_ = std::move(data);
  phase_ = Phase::ToHost;
  interrupts_first_ = true;
  position_ = 0;
  block_ = block;
  begin_block();
}

void AtaDrive::receive(size_t bytes, size_t block, bool interrupts) {
  assert(bytes > 0);
  data_.assign(bytes, std::byte{0});
  phase_ = Phase::FromHost;
  interrupts_first_ = interrupts;
  position_ = 0;
  block_ = block;
  begin_block();
}

void AtaDrive::begin_block() {
  dma_ = block_ == 0;
  const size_t left = data_.size() - position_;
  const size_t bytes = dma_ ? left : std::min(left, block_);
  block_end_ = position_ + bytes;
  if (dma_) {
    status_ = kBusy | kReady | kServiceOrSeek | kDataRequest;
  } else {
    status_ = kReady | kServiceOrSeek | kDataRequest;
    interrupt_ |= position_ != 0 || interrupts_first_;
    block_begins(bytes);
  }
  changed();
}

void AtaDrive::transferred(size_t bytes) {
  assert(phase_ != Phase::None && bytes <= data_.size() - position_);
  position_ += bytes;
  if (position_ == data_.size()) {
    const Phase phase = std::exchange(phase_, Phase::None);
    status_ = kBusy;
    if (phase == Phase::ToHost) {
      sent();
    } else {
      const std::vector<std::byte> data = std::move(data_);
      received(data);
    }
    changed();
  } else if (!dma_ && position_ == block_end_) {
    begin_block();
  }
}

void AtaDrive::submit(std::unique_ptr<BlockRequest> request, std::function<void(BlockRequest&)> then) {
  const size_t bytes = request->data.size();
  request->done = [this, bytes, submission = submission_, then = std::move(then)](BlockRequest& done) {
    under_way_--;
    bytes_under_way_ -= bytes;
    submission == submission_ ? then(done) : changed();
  };
  under_way_++;
  bytes_under_way_ += bytes;
  medium_.submit(std::move(request));
}

// --- Reset

void AtaDrive::stop() {
  submission_++;
  phase_ = Phase::None;
  data_.clear();
  position_ = block_ = block_end_ = 0;
  dma_ = interrupts_first_ = false;
}

// T13/1532D volume 1, 9.12
void AtaDrive::set_signature() {
  const bool packet = is_packet_drive();
  error_ = kDiagnosticPassed;
  now_ = {.feature = 0,
          .count = 1,
          .lba_low = 1,
          .lba_mid = packet ? kPacketMid : uint8_t{0},
          .lba_high = packet ? kPacketHigh : uint8_t{0}};
  previous_ = {};
  device_ = 0;
  status_ = packet ? 0 : kReady | kServiceOrSeek;
}

void AtaDrive::software_reset() {
  stop();
  interrupt_ = false;
  set_signature();
  changed();
}

void AtaDrive::hardware_reset() {
  reset_drive();
  software_reset();
}

void AtaDrive::diagnose() {
  stop();
  set_signature();
  interrupt_ = true;
  changed();
}

// --- State

DeviceState AtaDrive::save() const {
  if (under_way_ != 0) throw std::logic_error(name_ + ": saved with a request under way");
  const auto registers = [](const Registers& r) {
    return DeviceState{r.feature, r.count, r.lba_low, r.lba_mid, r.lba_high};
  };
  DeviceState data = DeviceState::array();
  for (const std::byte byte : data_) data.push_back(static_cast<uint8_t>(byte));
  if (phase_ == Phase::None) data.clear();
  return {{"registers", registers(now_)},
          {"previous", registers(previous_)},
          {"device", device_},
          {"status", status_},
          {"error", error_},
          {"interrupt", interrupt_},
          {"phase", static_cast<unsigned>(phase_)},
          {"data", data},
          {"position", phase_ == Phase::None ? 0 : position_},
          {"block", block_},
          {"interrupts_first", interrupts_first_},
          {"drive", save_drive()}};
}

void AtaDrive::load(const DeviceState& state) {
  const auto registers = [](const DeviceState& from) {
    const auto at = [&from](unsigned i) { return from.at(i).get<uint8_t>(); };
    return Registers{.feature = at(0), .count = at(1), .lba_low = at(2), .lba_mid = at(3), .lba_high = at(4)};
  };
  const Registers now = registers(state.at("registers")), previous = registers(state.at("previous"));
  const auto device = bounded(state, "device", 0xff), status = bounded(state, "status", 0xff),
             error = bounded(state, "error", 0xff), phase = bounded(state, "phase", 2),
             block = bounded(state, "block", kMostData);
  const bool interrupt = state.at("interrupt").get<bool>(), first = state.at("interrupts_first").get<bool>();
  const DeviceState& saved = state.at("data");
  if (saved.size() > kMostData) throw std::invalid_argument(name_ + ": a saved transfer is too long");
  std::vector<std::byte> data;
  for (const DeviceState& byte : saved) data.push_back(static_cast<std::byte>(byte.get<uint8_t>()));
  const auto position = bounded(state, "position", data.size());
  if (phase != 0 && position == data.size())
    throw std::invalid_argument(name_ + ": a saved transfer is empty");
  load_drive(state.at("drive"));
  stop();
  now_ = now;
  previous_ = previous;
  device_ = static_cast<uint8_t>(device);
  status_ = static_cast<uint8_t>(status);
  error_ = static_cast<uint8_t>(error);
  interrupt_ = interrupt;
  interrupts_first_ = first;
  phase_ = static_cast<Phase>(phase);
  data_ = std::move(data);
  position_ = position;
  block_ = block;
  dma_ = block_ == 0;
  block_end_ = dma_ || phase_ == Phase::None ? data_.size()
                                             : std::min(data_.size(), (position_ / block_ + 1) * block_);
}

}  // namespace penumbra
