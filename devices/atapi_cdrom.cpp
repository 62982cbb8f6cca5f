#include "devices/atapi_cdrom.h"

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "devices/chip.h"

namespace penumbra {

namespace {
// ATA commands
constexpr uint8_t kDeviceReset = 0x08, kPacketCommand = 0xa0, kIdentifyPacketDevice = 0xa1,
                  kIdentifyDevice = 0xec, kSetFeatures = 0xef, kCheckPowerMode = 0xe5, kSleep = 0xe6,
                  kStandbyImmediate = 0xe0;
constexpr uint8_t kSetTransferMode = 0x03, kPowerActive = 0xff;
constexpr uint8_t kFeatureDma = 0x01;                          // of PACKET
constexpr uint8_t kCommandPhase = 0x01, kToHostReason = 0x02;  // interrupt reason, in the count register

// Packet commands (MMC-3, chapter 6)
enum : uint8_t {
  kTestUnitReady = 0x00,
  kRequestSense = 0x03,
  kInquiry = 0x12,
  kStartStopUnit = 0x1b,
  kPreventAllowRemoval = 0x1e,
  kReadCapacity = 0x25,
  kRead10 = 0x28,
  kSeek10 = 0x2b,
  kReadToc = 0x43,
  kGetConfiguration = 0x46,
  kGetEventStatus = 0x4a,
  kReadDiscInformation = 0x51,
  kModeSense10 = 0x5a,
  kRead12 = 0xa8,
  kReadDvdStructure = 0xad,
  kSetCdSpeed = 0xbb,
  kMechanismStatus = 0xbd,
  kReadCd = 0xbe,
};
// Sense keys and codes (MMC-3, annex A)
constexpr uint8_t kNotReady = 0x02, kMediumError = 0x03, kIllegalRequest = 0x05, kUnitAttention = 0x06;
constexpr uint8_t kInvalidCommand = 0x20, kOutOfRange = 0x21, kInvalidField = 0x24, kMediumChanged = 0x28,
                  kNoMedium = 0x3a, kUnrecoveredRead = 0x11, kRemovalPrevented = 0x53, kIllegalMode = 0x64;

constexpr uint32_t kChunkSectors = 64;
// Larger than any CD: 80 minutes of 75 frames a second.
constexpr uint64_t kMostCdSectors = 80 * 60 * 75;
constexpr uint16_t kProfileCd = 0x0008, kProfileDvd = 0x0010;

void put16(std::vector<uint8_t>& to, unsigned at, uint32_t value) {
  to[at] = static_cast<uint8_t>(value >> 8);
  to[at + 1] = static_cast<uint8_t>(value);
}
void put32(std::vector<uint8_t>& to, unsigned at, uint32_t value) {
  put16(to, at, value >> 16);
  put16(to, at + 2, value);
}
uint32_t get16(std::span<const uint8_t> from, unsigned at) {
  return uint32_t{from[at]} << 8 | from[at + 1];
}
uint32_t get24(std::span<const uint8_t> from, unsigned at) {
  return get16(from, at) << 8 | from[at + 2];
}
uint32_t get32(std::span<const uint8_t> from, unsigned at) {
  return get24(from, at) << 8 | from[at + 3];
}

// Minutes, seconds and frames of a sector; the first one is 2 seconds in (MMC-3, 4.2.2).
void put_msf(std::vector<uint8_t>& to, unsigned at, uint32_t sector) {
  const uint32_t frames = sector + 150;
  to[at] = 0;
  to[at + 1] = static_cast<uint8_t>(frames / 75 / 60);
  to[at + 2] = static_cast<uint8_t>(frames / 75 % 60);
  to[at + 3] = static_cast<uint8_t>(frames % 75);
}
}  // namespace

AtapiCdrom::AtapiCdrom(std::string name, BlockDevice& medium, Cable cable)
    : AtaDrive(std::move(name), medium, cable), seen_generation_(medium.generation()) {}

bool AtapiCdrom::is_dvd() const {
  return sectors() > kMostCdSectors;
}

void AtapiCdrom::reset_drive() {
  transfer_mode_ = {};
  sense_ = {};
  medium_event_ = packet_ = packet_dma_ = false;
  byte_limit_ = 0;
  sector_ = left_ = 0;
  seen_generation_ = medium_.generation();
  medium_.lock_tray(false);
}

// --- ATA commands

void AtapiCdrom::execute(uint8_t command) {
  switch (command) {
    case kPacketCommand:
      packet_dma_ = now_.feature & kFeatureDma;
      byte_limit_ = now_.lba_mid | size_t{now_.lba_high} << 8;
      packet_ = true;
      left_ = 0;
      receive(kPacketBytes, kPacketBytes, false);
      now_.count = kCommandPhase;
      return;
    case kIdentifyPacketDevice:
      return identify();
    case kIdentifyDevice:  // and show what is here instead of a disk (T13/1532D volume 1, 8.15.5.2)
    case 0x20:             // READ SECTORS does the same
      set_signature();
      return fail(kAborted);
    case kDeviceReset:
      reset_drive();
      return software_reset();
    case kSetFeatures:
      if (now_.feature == kSetTransferMode && transfer_mode_.set(now_.count)) return finish();
      return fail(kAborted);
    case kCheckPowerMode:
      now_.count = kPowerActive;
      return finish();
    case kStandbyImmediate:
    case kStandbyImmediate + 1:
    case kSleep:
      return finish();
    default:
      return fail(kAborted);
  }
}

void AtapiCdrom::identify() {
  AtaIdentify id;
  id.set(0, 0x8580);  // ATAPI CD-ROM, removable, data within 3 ms, 12-byte packets
  id.set_text(10, 10, "");
  id.set_text(23, 4, "1.0");
  id.set_text(27, 20, "Penumbra DVD-ROM");
  id.set(48, 1);
  id.set(49, 0x0b00);
  id.set(53, 0x0006);
  id.set(63, transfer_mode_.multiword_word());
  id.set(64, 0x0003);
  for (unsigned i = 65; i <= 68; i++) id.set(i, 120);
  id.set(80, 0x00f0);
  id.set(82, 0x0210);  // DEVICE RESET, PACKET
  id.set(83, 0x4000);
  id.set(84, 0x4000);
  id.set(85, 0x0210);
  id.set(87, 0x4000);
  id.set(88, transfer_mode_.ultra_word());
  identify_cable(id);
  left_ = 0;
  packet_dma_ = false;
  byte_limit_ = AtaDrive::kSectorBytes;
  send(id.bytes(), AtaDrive::kSectorBytes);
}

// --- The packet's phases

void AtapiCdrom::received(std::span<const std::byte> data) {
  if (!packet_ || data.size() != kPacketBytes) return fail(kAborted);
  packet_ = false;
  Packet packet;
  for (unsigned i = 0; i < kPacketBytes; i++) packet[i] = static_cast<uint8_t>(data[i]);
  run(packet);
}

// T13/1532D volume 1, 9.10: the byte count of the block, and that data goes to the host.
void AtapiCdrom::block_begins(size_t bytes) {
  if (packet_) return;
  now_.count = kToHostReason;
  now_.lba_mid = static_cast<uint8_t>(bytes);
  now_.lba_high = static_cast<uint8_t>(bytes >> 8);
}

void AtapiCdrom::done() {
  now_.count = kToHostReason | kCommandPhase;
  finish();
}

void AtapiCdrom::check_condition(Sense sense) {
  sense_ = sense;
  left_ = 0;
  now_.count = kToHostReason | kCommandPhase;
  fail(static_cast<uint8_t>(sense.key << 4 | (sense.key == kIllegalRequest ? kAborted : 0)));
}

void AtapiCdrom::send_data(std::vector<std::byte> data) {
  if (packet_dma_) return send(std::move(data), 0);
  // 0 and FFFFh mean FFFEh; an odd limit counts only for a last block (9.10.1).
  size_t limit = byte_limit_ == 0 || byte_limit_ == 0xffff ? 0xfffe : byte_limit_;
  if (limit > 1) limit &= ~size_t{1};
  send(std::move(data), limit);
}

void AtapiCdrom::reply(std::vector<uint8_t> data, size_t allocated) {
  if (data.size() > allocated) data.resize(allocated);
  if (data.empty()) return done();
  const auto bytes = std::as_bytes(std::span(data));
  send_data({bytes.begin(), bytes.end()});
}

void AtapiCdrom::sent() {
  if (left_ > 0) return read_on();
  now_.count = kToHostReason | kCommandPhase;
  finish();
}

// False when the command has ended with what keeps it from the medium.
bool AtapiCdrom::medium_ready() {
  if (medium_.bytes() == 0) {
    check_condition({kNotReady, kNoMedium, 0});
    return false;
  }
  return true;
}

void AtapiCdrom::run(const Packet& packet) {
  const uint8_t command = packet[0];
  if (seen_generation_ != medium_.generation()) {
    seen_generation_ = medium_.generation();
    medium_event_ = true;
    // The commands that tell about the drive itself do not report it (MMC-3, 4.1.6.1).
    if (command != kInquiry && command != kRequestSense && command != kGetConfiguration &&
        command != kGetEventStatus) {
      return check_condition(medium_.bytes() ? Sense{kUnitAttention, kMediumChanged, 0}
                                             : Sense{kNotReady, kNoMedium, 0});
    }
  }
  switch (command) {
    case kTestUnitReady:
      if (medium_ready()) done();
      return;
    case kRequestSense: {
      std::vector<uint8_t> data(18);
      data[0] = 0xf0;
      data[2] = sense_.key;
      data[7] = 10;
      data[12] = sense_.code;
      data[13] = sense_.qualifier;
      sense_ = {};
      return reply(std::move(data), packet[4]);
    }
    case kInquiry:
      if (packet[1] & 3) return check_condition({kIllegalRequest, kInvalidField, 0});
      return reply(inquiry(), packet[4]);
    case kStartStopUnit:
      return start_stop(packet);
    case kPreventAllowRemoval:
      medium_.lock_tray(packet[4] & 1);
      return done();
    case kReadCapacity: {
      if (!medium_ready()) return;
      std::vector<uint8_t> data(8);
      put32(data, 0, sectors() - 1);
      put32(data, 4, kSectorBytes);
      return reply(std::move(data), data.size());
    }
    case kRead10:
      return read_sectors(get32(packet, 2), get16(packet, 7));
    case kRead12:
      return read_sectors(get32(packet, 2), get32(packet, 6));
    case kReadCd:
      return read_cd(packet);
    case kSeek10:
      if (!medium_ready()) return;
      if (get32(packet, 2) >= sectors()) return check_condition({kIllegalRequest, kOutOfRange, 0});
      return done();
    case kReadToc:
      return read_toc(packet);
    case kGetConfiguration:
      return get_configuration(packet);
    case kGetEventStatus:
      return get_event_status(packet);
    case kReadDiscInformation:
      return read_disc_information(packet);
    case kReadDvdStructure:
      return read_dvd_structure(packet);
    case kModeSense10:
      return mode_sense(packet);
    case kSetCdSpeed:
      return done();
    case kMechanismStatus: {
      std::vector<uint8_t> data(8);
      return reply(std::move(data), get16(packet, 8));
    }
    default:
      return check_condition({kIllegalRequest, kInvalidCommand, 0});
  }
}

// --- Reading

void AtapiCdrom::read_sectors(uint32_t first, uint32_t count) {
  if (!medium_ready()) return;
  if (first > sectors() || count > sectors() - first)
    return check_condition({kIllegalRequest, kOutOfRange, 0});
  if (count == 0) return done();
  sector_ = first;
  left_ = count;
  read_on();
}

void AtapiCdrom::read_on() {
  // What was read until now is of another medium.
  if (seen_generation_ != medium_.generation()) return check_condition({kNotReady, kNoMedium, 0});
  const uint32_t count = std::min(left_, kChunkSectors);
  auto request = std::make_unique<BlockRequest>();
  request->kind = BlockRequest::Kind::Read;
  request->offset = uint64_t{sector_} * kSectorBytes;
  request->data.resize(size_t{count} * kSectorBytes);
  submit(std::move(request), [this, count](BlockRequest& read) {
    if (read.error) return check_condition({kMediumError, kUnrecoveredRead, 0});
    sector_ += count;
    left_ -= count;
    send_data(std::move(read.data));
  });
}

// User data only: audio and raw sectors are not kept in an image.
void AtapiCdrom::read_cd(const Packet& packet) {
  constexpr uint8_t kUserData = 0x10;
  const uint32_t count = get24(packet, 6);
  const uint8_t wanted = packet[9] & 0xf8;
  if (count == 0 || wanted == 0) return medium_ready() ? done() : void();
  if (wanted != kUserData) return check_condition({kIllegalRequest, kIllegalMode, 0});
  read_sectors(get32(packet, 2), count);
}

// --- What the drive and the medium are

std::vector<uint8_t> AtapiCdrom::inquiry() const {
  std::vector<uint8_t> data(36, ' ');
  data[0] = 0x05;  // CD-ROM
  data[1] = 0x80;  // removable
  data[2] = 0x00;
  data[3] = 0x21;  // ATAPI-2, response format 1
  data[4] = static_cast<uint8_t>(data.size() - 5);
  data[5] = data[6] = data[7] = 0;
  const auto text = [&data](unsigned at, std::string_view value) {
    std::ranges::copy(value, data.begin() + at);
  };
  text(8, "PENUMBRA");
  text(16, "DVD-ROM");
  text(32, "1.0");
  return data;
}

void AtapiCdrom::read_toc(const Packet& packet) {
  if (!medium_ready()) return;
  const bool msf = packet[1] & 2;
  const uint8_t format = packet[2] & 0x0f ? packet[2] & 0x0f : packet[9] >> 6, start = packet[6];
  const auto address = [msf](std::vector<uint8_t>& to, unsigned at, uint32_t sector) {
    msf ? put_msf(to, at, sector) : put32(to, at, sector);
  };
  constexpr uint8_t kLeadOut = 0xaa, kDataTrack = 0x14;
  std::vector<uint8_t> data = {0, 0, 1, 1};
  const auto descriptor = [&](uint8_t track, uint32_t sector) {
    data.insert(data.end(), {0, kDataTrack, track, 0, 0, 0, 0, 0});
    address(data, static_cast<unsigned>(data.size() - 4), sector);
  };
  switch (format) {
    case 0:  // tracks
      if (start > 1 && start != kLeadOut) return check_condition({kIllegalRequest, kInvalidField, 0});
      if (start <= 1) descriptor(1, 0);
      descriptor(kLeadOut, sectors());
      break;
    case 1:  // sessions
      descriptor(1, 0);
      break;
    case 2: {  // raw: first track, last track, lead-out, the track
      for (const uint8_t point : {0xa0, 0xa1, 0xa2, 0x01}) {
        data.insert(data.end(), {1, kDataTrack, 0, point, 0, 0, 0, 0, 0, 0, 0});
        const auto at = static_cast<unsigned>(data.size() - 4);
        if (point == 0xa0 || point == 0xa1) {
          data[at + 1] = 1;
        } else {
          address(data, at, point == 0xa2 ? sectors() : 0);
        }
      }
      break;
    }
    default:
      return check_condition({kIllegalRequest, kInvalidField, 0});
  }
  put16(data, 0, static_cast<uint32_t>(data.size() - 2));
  reply(std::move(data), get16(packet, 7));
}

void AtapiCdrom::get_configuration(const Packet& packet) {
  const uint16_t start = static_cast<uint16_t>(get16(packet, 2));
  const unsigned type = packet[1] & 3;  // all, current ones, one
  if (type == 3) return check_condition({kIllegalRequest, kInvalidField, 0});
  const uint16_t profile = medium_.bytes() == 0 ? 0 : is_dvd() ? kProfileDvd : kProfileCd;
  struct Feature {
    uint16_t code;
    std::vector<uint8_t> bytes;  // from the version byte on, without the length
    bool current;
  };
  const auto current = [profile](uint16_t p) { return static_cast<uint8_t>(profile == p); };
  const Feature features[] = {
      {0x0000, {0x03, 0, 0x10, current(kProfileDvd), 0, 0, 0x08, current(kProfileCd), 0}, true},  // profiles
      {0x0001, {0x0b, 0, 0, 0, 2, 1, 0, 0, 0}, true},          // core: ATAPI
      {0x0003, {0x03, 0x29, 0, 0, 0}, true},                   // removable: tray, can be ejected and locked
      {0x0010, {0x00, 0, 0, 8, 0, 0, 1, 0, 0}, profile != 0},  // random readable, 2048-byte blocks
      {0x001e, {0x08, 0, 0, 0, 0}, profile == kProfileCd},     // CD read
      {0x001f, {0x00}, profile == kProfileDvd},                // DVD read
  };
  std::vector<uint8_t> data(8);
  put16(data, 6, profile);
  for (const Feature& feature : features) {
    if (type == 2 ? feature.code != start : feature.code < start || (type == 1 && !feature.current)) continue;
    data.push_back(static_cast<uint8_t>(feature.code >> 8));
    data.push_back(static_cast<uint8_t>(feature.code));
    data.push_back(static_cast<uint8_t>((feature.bytes[0] & ~1) | (feature.current ? 1 : 0)));
    data.push_back(static_cast<uint8_t>(feature.bytes.size() - 1));
    data.insert(data.end(), feature.bytes.begin() + 1, feature.bytes.end());
  }
  put32(data, 0, static_cast<uint32_t>(data.size() - 4));
  reply(std::move(data), get16(packet, 7));
}

void AtapiCdrom::get_event_status(const Packet& packet) {
  constexpr uint8_t kPolled = 1, kMediaClass = 0x10, kMediaEvents = 4, kNoEventClass = 0x80;
  enum : uint8_t { kNoChange, kEjectRequest, kNewMedia, kMediaRemoval };
  constexpr uint8_t kTrayOpen = 1, kPresent = 2;
  if (!(packet[1] & kPolled)) return check_condition({kIllegalRequest, kInvalidField, 0});
  std::vector<uint8_t> data = {0, 2, kNoEventClass, kMediaClass};
  if (packet[4] & kMediaClass) {
    const bool present = medium_.bytes() != 0;
    uint8_t event = kNoChange;
    if (std::exchange(medium_event_, false)) {
      event = present ? kNewMedia : kMediaRemoval;
    } else if (medium_.take_eject_request()) {
      event = kEjectRequest;
    }
    data[2] = kMediaEvents;
    const auto state = static_cast<uint8_t>((medium_.tray_open() ? kTrayOpen : 0) | (present ? kPresent : 0));
    data.insert(data.end(), {event, state, 0, 0});
    put16(data, 0, static_cast<uint32_t>(data.size() - 2));
  }
  reply(std::move(data), get16(packet, 7));
}

void AtapiCdrom::read_disc_information(const Packet& packet) {
  if (!medium_ready()) return;
  std::vector<uint8_t> data(34);
  put16(data, 0, 32);
  data[2] = 0x0e;                             // last session complete, disc finalized
  data[3] = data[4] = data[5] = data[6] = 1;  // first track, sessions, first and last track of the last one
  data[7] = 0x20;                             // unrestricted use
  data[8] = 0x00;                             // CD-DA or CD-ROM
  reply(std::move(data), get16(packet, 7));
}

// Format 0: the physical format of a DVD-ROM (MMC-3, 6.27.3.2).
void AtapiCdrom::read_dvd_structure(const Packet& packet) {
  if (!medium_ready()) return;
  if (!is_dvd()) return check_condition({kIllegalRequest, 0x30, 0x02});  // incompatible medium
  if (packet[7] != 0 || packet[6] != 0) return check_condition({kIllegalRequest, kInvalidField, 0});
  constexpr uint32_t kFirstSector = 0x3'0000;
  std::vector<uint8_t> data(2052);
  put16(data, 0, 2050);
  data[4] = 1;     // DVD-ROM, part version 1
  data[5] = 0x0f;  // 120 mm, rate not specified
  data[6] = 1;     // one layer, read only
  put32(data, 8, kFirstSector);
  put32(data, 12, kFirstSector + sectors() - 1);
  reply(std::move(data), get16(packet, 8));
}

void AtapiCdrom::mode_sense(const Packet& packet) {
  constexpr uint8_t kErrorRecovery = 0x01, kCapabilities = 0x2a, kAll = 0x3f, kControlBits = 0xc0,
                    kSaved = 0xc0;
  const uint8_t page = packet[2] & 0x3f;
  if ((packet[2] & kControlBits) == kSaved) return check_condition({kIllegalRequest, 0x39, 0});
  if (page != kErrorRecovery && page != kCapabilities && page != kAll) {
    return check_condition({kIllegalRequest, kInvalidField, 0});
  }
  std::vector<uint8_t> data(8);
  data[2] = medium_.bytes() == 0 ? 0x70 : is_dvd() ? 0x41 : 0x01;
  if (page != kCapabilities) data.insert(data.end(), {kErrorRecovery, 6, 0, 5, 0, 0, 0, 0});
  if (page != kErrorRecovery) {
    std::vector<uint8_t> capabilities = {
        kCapabilities, 18, 0x3b, 0, 0x70, 0x60, 0x29, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0};
    if (medium_.tray_locked()) capabilities[6] |= 2;
    put16(capabilities, 8, 706);  // 4 times 176 kB/s
    put16(capabilities, 14, 706);
    data.insert(data.end(), capabilities.begin(), capabilities.end());
  }
  put16(data, 0, static_cast<uint32_t>(data.size() - 2));
  reply(std::move(data), get16(packet, 7));
}

void AtapiCdrom::start_stop(const Packet& packet) {
  const bool start = packet[4] & 1, load_eject = packet[4] & 2;
  if (load_eject) {
    if (!start && medium_.tray_locked() && !medium_.tray_open())
      return check_condition({kIllegalRequest, kRemovalPrevented, 2});
    medium_.move_tray(!start);
  }
  done();
}

// --- State

DeviceState AtapiCdrom::save_drive() const {
  return {{"transfer_mode", transfer_mode_.mode},
          {"sense", {sense_.key, sense_.code, sense_.qualifier}},
          {"locked", medium_.tray_locked()},
          {"medium_event", medium_event_},
          {"packet", packet_},
          {"packet_dma", packet_dma_},
          {"byte_limit", byte_limit_},
          {"sector", sector_},
          {"left", left_}};
}

void AtapiCdrom::load_drive(const DeviceState& state) {
  AtaTransferMode mode;
  if (!mode.set(static_cast<uint8_t>(bounded(state, "transfer_mode", 0xff)))) {
    throw std::invalid_argument(name() + ": impossible saved state");
  }
  const auto left = bounded(state, "left", sectors()), sector = bounded(state, "sector", sectors() - left),
             limit = bounded(state, "byte_limit", 0xffff);
  const DeviceState& sense = state.at("sense");
  sense_ = {sense.at(0).get<uint8_t>(), sense.at(1).get<uint8_t>(), sense.at(2).get<uint8_t>()};
  medium_.lock_tray(state.at("locked").get<bool>());
  state.at("medium_event").get_to(medium_event_);
  state.at("packet").get_to(packet_);
  state.at("packet_dma").get_to(packet_dma_);
  transfer_mode_ = mode;
  byte_limit_ = limit;
  sector_ = static_cast<uint32_t>(sector);
  left_ = static_cast<uint32_t>(left);
}

}  // namespace penumbra
