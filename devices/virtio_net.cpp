#include "devices/virtio_net.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

#include "core/little_endian.h"
#include "devices/chip.h"
#include "devices/internet_checksum.h"

namespace penumbra {

namespace {
enum : unsigned { kReceiveQueue, kTransmitQueue };
constexpr uint16_t kQueueSize = 256;
// Features (5.1.3)
constexpr uint64_t kChecksum = 1u << 0, kMac = 1u << 5, kMergeable = 1u << 15, kStatus = 1u << 16;
// The header before each frame (5.1.6): flags, GSO type, header length, GSO size, checksum's start and
// offset, buffers
constexpr size_t kHeaderBytes = 12, kLegacyHeaderBytes = 10, kChecksumStart = 6, kChecksumOffset = 8,
                 kBuffers = 10;
constexpr std::byte kNeedsChecksum{1};
constexpr size_t kMostFrame = 65'550;
constexpr size_t kUdpChecksum = 6;  // where it is in its header
constexpr uint16_t kLinkUp = 1;
}  // namespace

VirtioNet::VirtioNet(PhysicalMap& map, NetworkBackend& network, const MacAddress& address)
    : map_(map), network_(network), address_(address) {
  network_.set_receiver([this](std::span<const std::byte> frame) { return receive(frame); });
}

uint64_t VirtioNet::features() const {
  return kChecksum | kMac | kMergeable | kStatus;
}

std::vector<uint16_t> VirtioNet::queue_sizes() const {
  return {kQueueSize, kQueueSize};
}

// 5.1.4
uint8_t VirtioNet::read_configuration(unsigned offset) const {
  if (offset < address_.size()) return address_[offset];
  return offset == address_.size() ? kLinkUp : 0;
}

void VirtioNet::start(uint64_t features) {
  agreed_ = features;
  network_.ready();
}

// 5.1.6.1: the last field is there for drivers of today, and for older ones that merge buffers.
size_t VirtioNet::header_bytes() const {
  return agreed_.value_or(0) & (kVersion1 | kMergeable) ? kHeaderBytes : kLegacyHeaderBytes;
}

void VirtioNet::notified(unsigned number) {
  if (number == kReceiveQueue) network_.ready();
  if (number == kTransmitQueue) transmit();
}

// --- Transmission (5.1.6.2)

void VirtioNet::transmit() {
  while (auto buffer = queue(kTransmitQueue).take()) {
    send(*buffer);
    give_back(kTransmitQueue, *buffer, 0);
  }
}

void VirtioNet::send(const VirtqueueBuffer& buffer) {
  const size_t header_size = header_bytes(), bytes = buffer.readable_bytes();
  if (bytes <= header_size || bytes - header_size > kMostFrame) return;
  std::array<std::byte, kHeaderBytes> header{};
  buffer.read(map_, 0, std::span(header).first(header_size));
  frame_.resize(bytes - header_size);
  buffer.read(map_, header_size, frame_);
  if ((header[0] & kNeedsChecksum) != std::byte{0}) {
    const size_t start = load_field<uint16_t>(header, kChecksumStart),
                 offset = load_field<uint16_t>(header, kChecksumOffset);
    if (start + offset + 2 > frame_.size()) return;
    uint16_t sum = internet_checksum(std::span(frame_).subspan(start));
    if (sum == 0 && offset == kUdpChecksum) sum = 0xffff;
    frame_[start + offset] = static_cast<std::byte>(sum >> 8);
    frame_[start + offset + 1] = static_cast<std::byte>(sum);
  }
  network_.send(frame_);
}

// --- Reception (5.1.6.4)

bool VirtioNet::receive(std::span<const std::byte> frame) {
  if (!agreed_) return true;
  const size_t needed = header_bytes() + frame.size();
  const bool merges = *agreed_ & kMergeable;
  size_t room = 0;
  for (const VirtqueueBuffer& buffer : spare_) room += buffer.writable_bytes();
  while (room < needed && (merges || spare_.empty())) {
    auto buffer = queue(kReceiveQueue).take();
    if (!buffer) return false;
    room += buffer->writable_bytes();
    spare_.push_back(std::move(*buffer));
  }
  std::array<std::byte, kHeaderBytes> header{};
  store_field(header, kBuffers, static_cast<uint16_t>(spare_.size()));
  frame_.assign(header.begin(), header.begin() + static_cast<ptrdiff_t>(header_bytes()));
  frame_.insert(frame_.end(), frame.begin(), frame.end());
  // A single buffer that is too small loses the frame.
  const auto whole = room < needed ? std::span<const std::byte>() : std::span<const std::byte>(frame_);
  size_t done = 0;
  for (const VirtqueueBuffer& buffer : spare_) {
    const size_t written = whole.size() == done ? 0 : buffer.write(map_, 0, whole.subspan(done));
    done += written;
    give_back(kReceiveQueue, buffer, static_cast<uint32_t>(written));
  }
  spare_.clear();
  return true;
}

// --- State

void VirtioNet::reset() {
  agreed_.reset();
  spare_.clear();
}

DeviceState VirtioNet::save() const {
  DeviceState spare = DeviceState::array();
  for (const VirtqueueBuffer& buffer : spare_) {
    DeviceState pieces = DeviceState::array();
    for (const VirtqueueBuffer::Piece& piece : buffer.writable)
      pieces.push_back({{"address", piece.address}, {"bytes", piece.bytes}});
    spare.push_back({{"head", buffer.head}, {"writable", pieces}});
  }
  return {{"agreed", agreed_ ? DeviceState(*agreed_) : DeviceState(nullptr)}, {"spare", spare}};
}

void VirtioNet::load(const DeviceState& state) {
  std::optional<uint64_t> agreed;
  if (!state.at("agreed").is_null()) agreed = state.at("agreed").get<uint64_t>();
  std::vector<VirtqueueBuffer> spare;
  size_t bytes = 0;
  for (const DeviceState& saved : state.at("spare")) {
    VirtqueueBuffer buffer;
    buffer.head = static_cast<uint16_t>(bounded(saved, "head", kQueueSize - 1));
    for (const DeviceState& piece : saved.at("writable")) {
      buffer.writable.push_back({.address = piece.at("address").get<uint64_t>(),
                                 .bytes = static_cast<uint32_t>(bounded(piece, "bytes", UINT32_MAX))});
    }
    bytes += buffer.writable_bytes();
    spare.push_back(std::move(buffer));
  }
  if (bytes > kMostFrame + kHeaderBytes || spare.size() > kQueueSize)
    throw std::invalid_argument("virtio_net: more saved buffers than a frame needs");
  agreed_ = agreed;
  spare_ = std::move(spare);
}

}  // namespace penumbra
