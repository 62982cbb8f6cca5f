#include "devices/ide_piix3.h"

#include <algorithm>
#include <utility>

#include "core/little_endian.h"
#include "devices/chip.h"

namespace penumbra {

namespace {
constexpr unsigned kBusMasterBase = 4;  // BMIBA is base address 4
constexpr uint8_t kTiming = 0x40;

// Bus-master registers of a channel; the second one's are 8 bytes behind
constexpr uint16_t kCommand = 0, kStatus = 2, kTable = 4, kChannelPorts = 8;
constexpr uint8_t kStart = 0x01, kToMemory = 0x08;                                       // BMICOM
constexpr uint8_t kActive = 0x01, kDmaError = 0x02, kInterrupt = 0x04, kCapable = 0x60;  // BMISTA

constexpr unsigned kDescriptorBytes = 8;
constexpr uint32_t kEndOfTable = 0x8000'0000, kMostBytes = 0x1'0000;
// A table is 64 KiB at most: more than that many descriptors are a loop of empty ones.
constexpr unsigned kMostDescriptors = 0x1'0000 / kDescriptorBytes;
}  // namespace

IdePiix3::IdePiix3(PhysicalMap& map, IoBus& io, LineOutput primary, LineOutput secondary)
    : PciFunction({.vendor = 0x8086,
                   .device = 0x7010,
                   .revision = 0,
                   .class_code = 0x01'01'80,
                   .subsystem_vendor = 0x1af4,
                   .subsystem = 0x1100}),
      dma_(map, config_),
      channels_{Channel(std::move(primary), [this] { changed(0); }),
                Channel(std::move(secondary), [this] { changed(1); })} {
  config_.define(PciConfig::kCommand, 2, 0, 0x0005);
  config_.define(PciConfig::kStatus, 2, 0x0280, 0, 0x3800);
  config_.define(kTiming, 4, 0x8000'8000, 0xf3ff'f3ff);  // both channels decode
  config_.define(0x44, 1, 0, 0xff);
  const auto window = io.add_window(kBusMasterPorts, *this, kBusMaster);
  config_.add_io_base(kBusMasterBase, kBusMasterPorts, [&io, window](std::optional<uint64_t> address) {
    io.place(window, address ? std::optional(static_cast<uint16_t>(*address)) : std::nullopt);
  });
}

// --- Ports

uint32_t IdePiix3::read(uint16_t offset, unsigned size) {
  for (unsigned i = 0; i < kChannels; i++) {
    if (offset >= kCommandBlocks[i] && offset < kCommandBlocks[i] + kCommandPorts) {
      return channels_[i].ide.read_command(static_cast<uint16_t>(offset - kCommandBlocks[i]), size);
    }
    if (offset == kControlBlocks[i]) return 0xffff'ff00 | channels_[i].ide.read_control();
  }
  uint32_t value = 0;
  for (unsigned i = 0; i < size; i++) {
    const unsigned at = offset + i;
    const bool there = at >= kBusMaster && at < kBusMaster + kBusMasterPorts;
    value |= uint32_t{there ? read_bus_master(static_cast<uint16_t>(at - kBusMaster)) : uint8_t{0xff}}
             << 8 * i;
  }
  return value;
}

void IdePiix3::write(uint16_t offset, unsigned size, uint32_t value) {
  for (unsigned i = 0; i < kChannels; i++) {
    if (offset >= kCommandBlocks[i] && offset < kCommandBlocks[i] + kCommandPorts) {
      return channels_[i].ide.write_command(static_cast<uint16_t>(offset - kCommandBlocks[i]), size, value);
    }
    if (offset == kControlBlocks[i]) return channels_[i].ide.write_control(static_cast<uint8_t>(value));
  }
  for (unsigned i = 0; i < size; i++) {
    const unsigned at = offset + i;
    if (at >= kBusMaster && at < kBusMaster + kBusMasterPorts) {
      write_bus_master(static_cast<uint16_t>(at - kBusMaster), static_cast<uint8_t>(value >> 8 * i));
    }
  }
}

uint8_t IdePiix3::read_bus_master(uint16_t offset) const {
  const Channel& channel = channels_[offset / kChannelPorts];
  const unsigned at = offset % kChannelPorts;
  switch (at) {
    case kCommand:
      return channel.command;
    case kStatus:
      return channel.status;
    default:
      return at < kTable ? 0 : static_cast<uint8_t>(channel.table >> 8 * (at - kTable));
  }
}

void IdePiix3::write_bus_master(uint16_t offset, uint8_t value) {
  Channel& channel = channels_[offset / kChannelPorts];
  const unsigned at = offset % kChannelPorts;
  if (at == kCommand) {
    const bool starts = value & ~channel.command & kStart;
    channel.command = value & (kStart | kToMemory);
    if (starts) {
      channel.status |= kActive;
      channel.next = channel.table;
      channel.bytes_left = 0;
      channel.last = false;
      move_data(channel);
    } else if (!(value & kStart)) {
      channel.status &= static_cast<uint8_t>(~kActive);
    }
  } else if (at == kStatus) {
    const uint8_t cleared = value & (kDmaError | kInterrupt);
    channel.status = static_cast<uint8_t>((channel.status & ~(kCapable | cleared)) | (value & kCapable));
  } else if (at >= kTable) {
    const unsigned shift = 8 * (at - kTable);
    channel.table = ((channel.table & ~(uint32_t{0xff} << shift)) | uint32_t{value} << shift) & ~uint32_t{3};
  }
}

// --- Bus-master DMA

// SFF-8038i, 2.2: the status remembers the drive's interrupt.
void IdePiix3::changed(unsigned number) {
  Channel& channel = channels_[number];
  const bool interrupts = channel.ide.interrupt();
  if (interrupts && !channel.interrupted) channel.status |= kInterrupt;
  channel.interrupted = interrupts;
  move_data(channel);
}

void IdePiix3::stop(Channel& channel, uint8_t status) {
  channel.status = static_cast<uint8_t>((channel.status & ~kActive) | status);
}

bool IdePiix3::next_descriptor(Channel& channel) {
  std::array<std::byte, kDescriptorBytes> bytes;
  if (!dma_.read(channel.next, bytes)) return false;
  const auto control = load_field<uint32_t>(bytes, 4);
  channel.address = load_field<uint32_t>(bytes, 0) & ~uint32_t{1};
  channel.bytes_left = control & 0xfffe;
  if (channel.bytes_left == 0) channel.bytes_left = kMostBytes;
  channel.last = control & kEndOfTable;
  channel.next += kDescriptorBytes;
  return true;
}

// As long as the drive wants DMA and there are descriptors. A table that ends sooner than the drive's data
// ends the transfer without an interrupt (SFF-8038i, 3.1): the drive waits for a reset.
void IdePiix3::move_data(Channel& channel) {
  if (channel.moving) return;  // the drive tells that it changed while it is given data
  channel.moving = true;
  unsigned descriptors = 0;
  while (channel.status & kActive) {
    AtaDrive* drive = channel.ide.selected();
    if (!drive || drive->phase() == AtaDrive::Phase::None || !drive->dma()) break;
    const bool to_memory = drive->phase() == AtaDrive::Phase::ToHost;
    if (to_memory != ((channel.command & kToMemory) != 0)) break;
    if (channel.bytes_left == 0) {
      if (channel.last) {
        stop(channel, 0);
        break;
      }
      if (++descriptors > kMostDescriptors || !next_descriptor(channel)) {
        stop(channel, kDmaError);
        break;
      }
    }
    const auto data = drive->data().first(std::min<size_t>(channel.bytes_left, drive->data().size()));
    const bool moved = to_memory ? dma_.write(channel.address, data) : dma_.read(channel.address, data);
    if (!moved) {
      stop(channel, kDmaError);
      break;
    }
    channel.address += static_cast<uint32_t>(data.size());
    channel.bytes_left -= static_cast<uint32_t>(data.size());
    const bool table_ends = channel.last && channel.bytes_left == 0;
    drive->transferred(data.size());
    if (table_ends && drive->phase() == AtaDrive::Phase::None) stop(channel, 0);
  }
  channel.moving = false;
}

// --- State

void IdePiix3::reset() {
  config_.reset();
  for (Channel& channel : channels_) {
    channel.command = channel.status = 0;
    channel.table = channel.next = channel.address = channel.bytes_left = 0;
    channel.last = false;
    channel.ide.reset();
    channel.status = 0;
  }
}

DeviceState IdePiix3::save() const {
  DeviceState channels = DeviceState::array();
  for (const Channel& channel : channels_) {
    channels.push_back({{"ide", channel.ide.save()},
                        {"command", channel.command},
                        {"status", channel.status},
                        {"table", channel.table},
                        {"next", channel.next},
                        {"address", channel.address},
                        {"bytes_left", channel.bytes_left},
                        {"last", channel.last},
                        {"interrupted", channel.interrupted}});
  }
  return {{"version", 1}, {"config", config_.save()}, {"channels", channels}};
}

void IdePiix3::load(const DeviceState& state) {
  require_version(state, 1, name());
  for (unsigned i = 0; i < kChannels; i++) {
    const DeviceState& saved = state.at("channels").at(i);
    Channel& channel = channels_[i];
    const auto bytes_left = bounded(saved, "bytes_left", kMostBytes);
    channel.ide.load(saved.at("ide"));
    channel.command = static_cast<uint8_t>(bounded(saved, "command", kStart | kToMemory));
    channel.status =
        static_cast<uint8_t>(bounded(saved, "status", kCapable | kInterrupt | kDmaError | kActive));
    saved.at("table").get_to(channel.table);
    saved.at("next").get_to(channel.next);
    saved.at("address").get_to(channel.address);
    channel.bytes_left = static_cast<uint32_t>(bytes_left);
    saved.at("last").get_to(channel.last);
    saved.at("interrupted").get_to(channel.interrupted);
  }
  config_.load(state.at("config"));
}

}  // namespace penumbra
