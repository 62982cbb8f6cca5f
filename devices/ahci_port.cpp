#include "devices/ahci_port.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "core/little_endian.h"
#include "devices/chip.h"

namespace penumbra {

namespace {
// Registers (3.3)
enum : uint32_t {
  kListBase = 0x00,
  kListBaseUpper = 0x04,
  kFisBase = 0x08,
  kFisBaseUpper = 0x0c,
  kInterruptStatus = 0x10,
  kInterruptEnable = 0x14,
  kCommand = 0x18,
  kTaskFile = 0x20,
  kSignature = 0x24,
  kLinkStatus = 0x28,
  kLinkControl = 0x2c,
  kLinkError = 0x30,
  kActive = 0x34,
  kIssue = 0x38,
};
// Interrupt causes (3.3.5)
constexpr uint32_t kRegisterFis = 1u << 0, kPioSetupFis = 1u << 1, kDeviceBitsFis = 1u << 3,
                   kDescriptorProcessed = 1u << 5, kConnectChange = 1u << 6, kReadyChange = 1u << 22,
                   kOverflow = 1u << 24, kBusFatal = 1u << 29, kTaskFileError = 1u << 30;
constexpr uint32_t kAllCauses = 0xfdc0'00ff, kNotStored = kConnectChange | kReadyChange;
// Command and status (3.3.7)
constexpr uint32_t kStart = 1u << 0, kSpinUp = 1u << 1, kPowerOn = 1u << 2, kListOverride = 1u << 3,
                   kFisEnable = 1u << 4, kFisRunning = 1u << 14, kListRunning = 1u << 15,
                   kPacketDevice = 1u << 24, kPacketLed = 1u << 25;
constexpr uint32_t kCommandWritable = kStart | kFisEnable | kPacketDevice | kPacketLed | 0xf000'0000u;
constexpr unsigned kCurrentSlotShift = 8;
// Link control and error (3.3.11, 3.3.12)
constexpr uint32_t kDetection = 0x0f, kDetectionReset = 1, kDetectionOff = 4, kLinkControlBits = 0x0fff;
constexpr uint32_t kLinkUp = 0x113;  // device present, 1.5 Gb/s, active
constexpr uint32_t kReadyChanged = 1u << 16, kExchanged = 1u << 26;

// Command list and command table (4.2.2, 4.2.3)
constexpr unsigned kHeaderBytes = 32, kFisBytes = 64, kRegionBytes = 16;
constexpr uint64_t kPacketOffset = 0x40, kRegionsOffset = 0x80, kTransferredOffset = 4;
constexpr uint32_t kRegionBytesMask = 0x3f'ffff, kRegionInterrupts = 1u << 31;

// The received FIS structure (4.2.1), and types of FIS
constexpr uint32_t kPioArea = 0x20, kRegisterArea = 0x40, kDeviceBitsArea = 0x58;
constexpr uint8_t kHostToDevice = 0x27, kDeviceToHost = 0x34, kPioSetup = 0x5f, kDeviceBits = 0xa1;
constexpr uint8_t kIsCommand = 0x80, kFisInterrupts = 0x40, kToHost = 0x20, kSoftwareReset = 0x04;

constexpr uint8_t kReadQueued = 0x60, kWriteQueued = 0x61, kDiagnostic = 0x90, kPacket = 0xa0;

// Of all queued commands that are under way: bounds the memory that a guest can claim.
constexpr size_t kMostUnderWay = size_t{64} << 20;

uint8_t byte(std::span<const std::byte> bytes, size_t at) {
  return static_cast<uint8_t>(bytes[at]);
}
}  // namespace

void AhciPort::attach(std::unique_ptr<AtaDrive> drive) {
  drive_ = std::move(drive);
  drive_->set_listener([this] { run(); });
  drive_->hardware_reset();
  signature();
}

// --- Registers

// Two of its bits are those of the link's errors (3.3.5).
uint32_t AhciPort::interrupt_status() const {
  return status_ | (link_error_ & kExchanged ? kConnectChange : 0) |
         (link_error_ & kReadyChanged ? kReadyChange : 0);
}

uint32_t AhciPort::link_status() const {
  const uint32_t detection = link_control_ & kDetection;
  if (!drive_ || detection == kDetectionReset) return 0;
  return detection == kDetectionOff ? kDetectionOff : kLinkUp;
}

uint32_t AhciPort::task_file() const {
  constexpr uint32_t kNoDrive = 0x7f;
  if (link_status() != kLinkUp) return kNoDrive;
  const uint8_t hidden = cleared_ ? AtaDrive::kBusy | AtaDrive::kDataRequest : 0;
  // From a command's start to its end, even when the drive has ended it.
  const uint8_t busy = slot_ != kSlots ? AtaDrive::kBusy : 0;
  return static_cast<uint8_t>((drive_->status() | busy) & ~hidden) |
         uint32_t{drive_->read(AtaDrive::kFeatures, false)} << 8;
}

bool AhciPort::running() const {
  return command_ & kStart && drive_ && link_status() == kLinkUp && !halted_;
}

uint32_t AhciPort::read(uint32_t offset) const {
  switch (offset) {
    case kListBase:
      return static_cast<uint32_t>(list_);
    case kListBaseUpper:
      return static_cast<uint32_t>(list_ >> 32);
    case kFisBase:
      return static_cast<uint32_t>(received_);
    case kFisBaseUpper:
      return static_cast<uint32_t>(received_ >> 32);
    case kInterruptStatus:
      return interrupt_status();
    case kInterruptEnable:
      return enable_;
    case kCommand:
      return command_ | kSpinUp | kPowerOn | (command_ & kFisEnable ? kFisRunning : 0) |
             (command_ & kStart ? kListRunning | last_slot_ << kCurrentSlotShift : 0);
    case kTaskFile:
      return task_file();
    case kSignature:
      return signature_;
    case kLinkStatus:
      return link_status();
    case kLinkControl:
      return link_control_;
    case kLinkError:
      return link_error_;
    case kActive:
      return active_;
    case kIssue:
      return issued_;
    default:
      return 0;
  }
}

void AhciPort::write(uint32_t offset, uint32_t value) {
  const auto low = [value](uint64_t& address, uint32_t alignment) {
    address = (address & ~uint64_t{0xffff'ffff}) | (value & ~(alignment - 1));
  };
  const auto high = [value](uint64_t& address) { address = (address & 0xffff'ffff) | uint64_t{value} << 32; };
  switch (offset) {
    case kListBase:
      return low(list_, 1024);
    case kListBaseUpper:
      return high(list_);
    case kFisBase:
      return low(received_, 256);
    case kFisBaseUpper:
      return high(received_);
    case kInterruptStatus:
      status_ &= ~value;
      return changed_(false);
    case kInterruptEnable: {
      const bool before = interrupt();
      enable_ = value & kAllCauses;
      return changed_(interrupt() && !before);
    }
    case kCommand:
      return write_command(value);
    case kLinkControl:
      return write_link_control(value);
    case kLinkError:
      link_error_ &= ~value;
      return changed_(false);
    case kActive:
      if (command_ & kStart) active_ |= value;
      return;
    case kIssue:
      if (!(command_ & kStart)) return;
      issued_ |= value;
      return run();
    default:
      return;
  }
}

void AhciPort::raise(uint32_t causes) {
  status_ |= causes;
  if (causes & enable_) changed_(true);
}

void AhciPort::write_command(uint32_t value) {
  const uint32_t before = std::exchange(command_, value & kCommandWritable);
  if (value & kListOverride) cleared_ = true;
  if (before & ~command_ & kStart) stop();
  run();
}

// The commands that are not done are forgotten; the drive goes on with what it does (10.3.2).
void AhciPort::stop() {
  issued_ = active_ = 0;
  slot_ = kSlots;
  regions_ = {};
  bytes_ = 0;
  packet_awaited_ = pio_read_ = false;
  halted_ = false;
  queued_ = 0;
  round_++;
}

// --- Resets

void AhciPort::write_link_control(uint32_t value) {
  const uint32_t before = link_control_ & kDetection;
  link_control_ = value & kLinkControlBits;
  if (before == kDetectionReset && (link_control_ & kDetection) != kDetectionReset) link_reset();
}

// COMRESET; the drive answers with its signature.
void AhciPort::link_reset() {
  slot_ = kSlots;
  queued_ = 0;
  round_++;
  cleared_ = in_reset_ = packet_awaited_ = pio_read_ = false;
  if (!drive_) return;
  drive_->hardware_reset();
  link_error_ |= kExchanged;
  signature();
  changed_(interrupt());
}

void AhciPort::signature() {
  const auto register_value = [this](AtaDrive::Register which) {
    return uint32_t{drive_->read(which, false)};
  };
  signature_ = register_value(AtaDrive::kLbaHigh) << 24 | register_value(AtaDrive::kLbaMid) << 16 |
               register_value(AtaDrive::kLbaLow) << 8 | register_value(AtaDrive::kCount);
  post(kRegisterArea, drive_registers(kDeviceToHost, false));
}

void AhciPort::controller_reset() {
  command_ = 0;
  status_ = enable_ = 0;
  link_control_ = link_error_ = 0;
  signature_ = 0xffff'ffff;
  last_slot_ = kSlots - 1;
  stop();
  link_reset();
  link_error_ = 0;
}

void AhciPort::reset() {
  controller_reset();
  list_ = received_ = 0;
}

// --- Frames from the drive

AhciPort::Fis AhciPort::drive_registers(uint8_t type, bool interrupts) const {
  Fis fis{};
  const auto put = [&fis](size_t at, uint8_t value) { fis[at] = static_cast<std::byte>(value); };
  put(0, type);
  put(1, interrupts ? kFisInterrupts : 0);
  put(2, drive_->status());
  put(3, drive_->read(AtaDrive::kFeatures, false));
  put(4, drive_->read(AtaDrive::kLbaLow, false));
  put(5, drive_->read(AtaDrive::kLbaMid, false));
  put(6, drive_->read(AtaDrive::kLbaHigh, false));
  put(7, drive_->read(AtaDrive::kDevice, false));
  put(8, drive_->read(AtaDrive::kLbaLow, true));
  put(9, drive_->read(AtaDrive::kLbaMid, true));
  put(10, drive_->read(AtaDrive::kLbaHigh, true));
  put(12, drive_->read(AtaDrive::kCount, false));
  put(13, drive_->read(AtaDrive::kCount, true));
  return fis;
}

void AhciPort::post(uint32_t area, std::span<const std::byte> fis) {
  if (!(command_ & kFisEnable)) return;
  if (!dma_.write(received_ + area, fis)) bus_error();
}

void AhciPort::bus_error() {
  halted_ = true;
  raise(kBusFatal);
}

// --- The command list

// As far as it goes now. The drive tells that it changed while it is given commands and data.
void AhciPort::run() {
  if (busy_) return;
  busy_ = true;
  while (running() && (slot_ != kSlots ? go_on() : start_next())) {
  }
  busy_ = false;
}

// Slots take turns (5.3.8).
bool AhciPort::start_next() {
  if (issued_ == 0) return false;
  unsigned slot = last_slot_;
  do slot = (slot + 1) % kSlots;
  while (!(issued_ >> slot & 1));

  std::array<std::byte, kHeaderBytes> header;
  std::array<std::byte, kFisBytes> fis;
  if (!dma_.read(list_ + slot * kHeaderBytes, header)) return bus_error(), false;
  const uint64_t table = load_field<uint64_t>(header, 8) & ~uint64_t{0x7f};
  if (!dma_.read(table, fis)) return bus_error(), false;
  const Regions regions{.table = table, .entries = load_field<uint16_t>(header, 2)};
  const bool is_command = byte(fis, 1) & kIsCommand;
  const uint8_t command = byte(fis, 2);
  const bool queued = is_command && drive_->queues() && (command == kReadQueued || command == kWriteQueued);
  // A command waits until the drive can take it; a reset does not.
  if (is_command) {
    if (drive_->status() & (AtaDrive::kBusy | AtaDrive::kDataRequest) && !cleared_) return false;
    if (queued ? drive_->bytes_under_way() >= kMostUnderWay : queued_ > 0) return false;
  }
  last_slot_ = slot;
  if (byte(fis, 0) != kHostToDevice || !is_command) {
    issued_ &= ~(1u << slot);
    if (byte(fis, 0) != kHostToDevice) return true;
    const bool resets = byte(fis, 15) & kSoftwareReset;
    if (std::exchange(in_reset_, resets) && !resets) {
      cleared_ = false;
      queued_ = 0;
      round_++;
      drive_->software_reset();
      signature();
    }
    return true;
  }
  cleared_ = false;
  queued ? start_queued(slot, fis, regions) : start_command(slot, fis, regions);
  return true;
}

void AhciPort::start_command(unsigned slot, std::span<const std::byte> fis, const Regions& regions) {
  const auto load = [&](AtaDrive::Register which, size_t previous, size_t now) {
    drive_->write(which, byte(fis, previous));
    drive_->write(which, byte(fis, now));
  };
  load(AtaDrive::kFeatures, 11, 3);
  load(AtaDrive::kCount, 13, 12);
  load(AtaDrive::kLbaLow, 8, 4);
  load(AtaDrive::kLbaMid, 9, 5);
  load(AtaDrive::kLbaHigh, 10, 6);
  drive_->write(AtaDrive::kDevice, byte(fis, 7));
  const uint8_t command = byte(fis, 2);
  slot_ = slot;
  regions_ = regions;
  bytes_ = 0;
  packet_awaited_ = command == kPacket && drive_->is_packet_drive();
  pio_read_ = false;
  if (command == kDiagnostic) {
    drive_->diagnose();
  } else {
    drive_->write(AtaDrive::kCommand, command);
  }
}

// Whether anything happened: the drive is waited for otherwise.
bool AhciPort::go_on() {
  if (drive_->phase() != AtaDrive::Phase::None) return move_block();
  if (drive_->status() & AtaDrive::kBusy) return false;
  end_command();
  return true;
}

bool AhciPort::move_block() {
  const bool to_memory = drive_->phase() == AtaDrive::Phase::ToHost;
  const auto data = drive_->data().first(drive_->dma() ? drive_->data().size() : drive_->block_left());
  if (!to_memory && std::exchange(packet_awaited_, false)) {
    if (!dma_.read(regions_.table + kPacketOffset, data)) return bus_error(), false;
    drive_->transferred(data.size());
    return true;
  }
  Fis fis = drive_registers(kPioSetup, drive_->interrupt());
  const bool pio = !drive_->dma(), interrupts = drive_->interrupt();
  const size_t bytes = data.size();
  drive_->clear_interrupt();
  switch (move(regions_, data, to_memory)) {
    case Moved::All:
      break;
    case Moved::Less:
      raise(kOverflow);
      if (to_memory) break;  // the rest is lost
      halted_ = true;        // there is nothing to give: software has to reset the drive
      return false;
    case Moved::Failed:
      bus_error();
      return false;
  }
  bytes_ += static_cast<uint32_t>(bytes);
  drive_->transferred(bytes);
  if (pio) {
    pio_read_ |= to_memory;
    if (to_memory) fis[1] |= std::byte{kToHost};
    fis[15] = static_cast<std::byte>(drive_->status());
    fis[16] = static_cast<std::byte>(bytes);
    fis[17] = static_cast<std::byte>(bytes >> 8);
    post(kPioArea, fis);
    if (interrupts) raise(kPioSetupFis);
  }
  if (std::exchange(regions_.interrupts, false)) raise(kDescriptorProcessed);
  return true;
}

// A PIO read ends with its last block's frame, all else with the drive's registers.
void AhciPort::end_command() {
  const bool interrupts = drive_->interrupt(), failed = drive_->status() & AtaDrive::kError;
  drive_->clear_interrupt();
  std::array<std::byte, 4> transferred;
  store_field(transferred, 0, bytes_);
  const unsigned slot = std::exchange(slot_, kSlots);
  if (!dma_.write(list_ + slot * kHeaderBytes + kTransferredOffset, transferred)) return bus_error();
  // A command that failed stays issued and stops the port (6.2.2.1).
  if (!failed) issued_ &= ~(1u << slot);
  halted_ = failed;
  if (!pio_read_ || interrupts) post(kRegisterArea, drive_registers(kDeviceToHost, interrupts));
  raise((interrupts ? kRegisterFis : 0) | (failed ? kTaskFileError : 0));
}

// --- Queued commands

void AhciPort::start_queued(unsigned slot, std::span<const std::byte> fis, Regions regions) {
  AtaDrive::QueuedCommand command;
  command.write = byte(fis, 2) == kWriteQueued;
  command.force_unit_access = byte(fis, 7) & 0x80;
  command.tag = slot;
  for (unsigned i = 0; i < 3; i++)
    command.sector |= uint64_t{byte(fis, 4 + i)} << 8 * i | uint64_t{byte(fis, 8 + i)} << (24 + 8 * i);
  command.sectors = byte(fis, 3) | uint32_t{byte(fis, 11)} << 8;
  if (command.sectors == 0) command.sectors = 65'536;
  issued_ &= ~(1u << slot);  // the drive took it

  const size_t bytes = size_t{command.sectors} * AtaDrive::kSectorBytes;
  std::vector<std::byte> data;
  if (command.write) {
    data.resize(bytes);
    const Moved moved = move(regions, data, false);
    if (moved != Moved::All) {
      if (moved == Moved::Failed) return bus_error();
      halted_ = true;
      return raise(kOverflow);
    }
  }
  queued_++;
  drive_->run_queued(command, std::move(data),
                     [this, slot, regions, round = round_](bool failed, std::span<std::byte> read) {
                       if (round == round_) queued_ended(slot, regions, failed, read);
                     });
}

void AhciPort::queued_ended(unsigned slot, Regions regions, bool failed, std::span<std::byte> data) {
  queued_--;
  if (failed) {
    // The drive has dropped the others (Serial ATA 2.6, 13.6.4.1). Which ones did not end is in PxSACT.
    queued_ = 0;
    round_++;
    halted_ = true;
  } else {
    const Moved moved = move(regions, data, true);
    if (moved == Moved::Failed) return bus_error();
    if (moved == Moved::Less) raise(kOverflow);
    active_ &= ~(1u << slot);
  }
  Fis fis{};
  fis[0] = std::byte{kDeviceBits};
  fis[1] = std::byte{kFisInterrupts};
  fis[2] = static_cast<std::byte>(drive_->status() & 0x77);
  fis[3] = static_cast<std::byte>(drive_->read(AtaDrive::kFeatures, false));
  if (!failed) fis[4 + slot / 8] = static_cast<std::byte>(bit(slot % 8));
  post(kDeviceBitsArea, std::span(fis).first(8));
  raise(kDeviceBitsFis | (failed ? kTaskFileError : 0) | (regions.interrupts ? kDescriptorProcessed : 0));
  run();
}

// --- The command's regions of memory (4.2.3.3)

AhciPort::Moved AhciPort::move(Regions& regions, std::span<std::byte> data, bool to_memory) {
  while (!data.empty()) {
    if (regions.entry >= regions.entries) return Moved::Less;
    std::array<std::byte, kRegionBytes> entry;
    if (!dma_.read(regions.table + kRegionsOffset + uint64_t{regions.entry} * kRegionBytes, entry))
      return Moved::Failed;
    const uint32_t length = (load_field<uint32_t>(entry, 12) & kRegionBytesMask) + 1;
    const uint64_t address = load_field<uint64_t>(entry, 0) + regions.offset;
    const size_t left = length - std::min(length, regions.offset);  // the entry may have changed
    const auto piece = data.first(std::min(left, data.size()));
    if (!piece.empty() && !(to_memory ? dma_.write(address, piece) : dma_.read(address, piece)))
      return Moved::Failed;
    data = data.subspan(piece.size());
    regions.offset += static_cast<uint32_t>(piece.size());
    if (regions.offset < length) continue;
    regions.interrupts |= (load_field<uint32_t>(entry, 12) & kRegionInterrupts) != 0;
    regions.entry++;
    regions.offset = 0;
  }
  return Moved::All;
}

// --- State

DeviceState AhciPort::save() const {
  return {
      {"list", list_},
      {"received", received_},
      {"status", status_},
      {"enable", enable_},
      {"command", command_},
      {"signature", signature_},
      {"link_control", link_control_},
      {"link_error", link_error_},
      {"active", active_},
      {"issued", issued_},
      {"halted", halted_},
      {"cleared", cleared_},
      {"in_reset", in_reset_},
      {"last_slot", last_slot_},
      {"slot", slot_},
      {"regions", {regions_.table, regions_.entries, regions_.entry, regions_.offset, regions_.interrupts}},
      {"bytes", bytes_},
      {"packet_awaited", packet_awaited_},
      {"pio_read", pio_read_},
      {"drive", drive_ ? drive_->save() : DeviceState(nullptr)}};
}

void AhciPort::load(const DeviceState& state) {
  const auto number = [&state](const char* name, uint64_t limit = 0xffff'ffff) {
    return static_cast<uint32_t>(bounded(state, name, limit));
  };
  const uint32_t status = number("status"), enable = number("enable"), command = number("command"),
                 signature = number("signature"), link_control = number("link_control", kLinkControlBits),
                 link_error = number("link_error"), active = number("active"), issued = number("issued"),
                 last_slot = number("last_slot", kSlots - 1), slot = number("slot", kSlots),
                 bytes = number("bytes");
  const uint64_t list = bounded(state, "list", ~uint64_t{0x3ff}),
                 received = bounded(state, "received", ~uint64_t{0xff});
  const bool halted = state.at("halted").get<bool>(), cleared = state.at("cleared").get<bool>(),
             in_reset = state.at("in_reset").get<bool>(),
             packet_awaited = state.at("packet_awaited").get<bool>(),
             pio_read = state.at("pio_read").get<bool>();
  const DeviceState& saved = state.at("regions");
  const Regions regions{.table = saved.at(0).get<uint64_t>(),
                        .entries = saved.at(1).get<uint32_t>(),
                        .entry = saved.at(2).get<uint32_t>(),
                        .offset = saved.at(3).get<uint32_t>(),
                        .interrupts = saved.at(4).get<bool>()};
  if (regions.entries > 0xffff || regions.offset > kRegionBytesMask || (slot != kSlots && !drive_))
    throw std::invalid_argument("ahci_port: impossible saved state");
  if (drive_) drive_->load(state.at("drive"));
  list_ = list;
  received_ = received;
  status_ = status & kAllCauses & ~kNotStored;
  enable_ = enable & kAllCauses;
  command_ = command & kCommandWritable;
  signature_ = signature;
  link_control_ = link_control;
  link_error_ = link_error;
  active_ = active;
  issued_ = issued;
  halted_ = halted;
  cleared_ = cleared;
  in_reset_ = in_reset;
  last_slot_ = last_slot;
  slot_ = slot;
  regions_ = regions;
  bytes_ = bytes;
  packet_awaited_ = packet_awaited;
  pio_read_ = pio_read;
  queued_ = 0;
  round_++;
}

}  // namespace penumbra
