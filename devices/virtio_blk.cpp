#include "devices/virtio_blk.h"

#include <algorithm>
#include <array>
#include <bit>
#include <stdexcept>
#include <utility>

#include "core/little_endian.h"
#include "devices/ata_disk.h"
#include "devices/chip.h"

namespace penumbra {

namespace {
// Features (5.2.3)
constexpr uint64_t kSizeMax = 1u << 1, kSegMax = 1u << 2, kGeometry = 1u << 4, kReadOnly = 1u << 5,
                   kBlockSize = 1u << 6, kFlush = 1u << 9, kTopology = 1u << 10, kDiscard = 1u << 13,
                   kWriteZeroes = 1u << 14;
// Requests (5.2.6)
enum : uint32_t {
  kIn = 0,
  kOut = 1,
  kFlushRequest = 4,
  kGetId = 8,
  kDiscardRequest = 11,
  kWriteZeroesRequest = 13
};
enum : uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };
constexpr size_t kHeaderBytes = 16, kIdBytes = 20, kRangeBytes = 16;
constexpr uint64_t kSector = 512;
constexpr uint32_t kMostSegments = 254;  // the queue's size less header and status
constexpr uint32_t kMostSegmentBytes = 1u << 16;
constexpr size_t kMostBytes = size_t{kMostSegments} * kMostSegmentBytes;  // of a request
// Of all that are under way: bounds the memory that a guest can claim. What is beyond waits in its queue.
constexpr size_t kMostUnderWay = size_t{64} << 20;
constexpr uint16_t kQueueSize = 256;
constexpr uint32_t kMostRangeSectors = 1u << 22;
constexpr uint32_t kUnmap = 1;
constexpr uint32_t kUsualDiscard = 4096;
}  // namespace

VirtioBlk::VirtioBlk(PhysicalMap& map, BlockDevice& medium, std::string serial, BlockSizes sizes)
    : map_(map), medium_(medium), serial_(std::move(serial)), sizes_(sizes) {}

uint64_t VirtioBlk::features() const {
  uint64_t features = kSizeMax | kSegMax | kGeometry | kBlockSize | kFlush | kTopology | kWriteZeroes;
  if (medium_.read_only()) features |= kReadOnly;
  if (medium_.discards()) features |= kDiscard;
  return features;
}

// 5.2.4
uint8_t VirtioBlk::read_configuration(unsigned offset) const {
  std::array<uint8_t, 60> bytes{};
  const auto put = [&bytes](unsigned at, unsigned size, uint64_t value) {
    for (unsigned i = 0; i < size; i++) bytes[at + i] = static_cast<uint8_t>(value >> 8 * i);
  };
  const AtaDisk::Geometry geometry = AtaDisk::default_geometry(medium_.bytes());
  put(0, 8, medium_.bytes() / kSector);
  put(8, 4, kMostSegmentBytes);
  put(12, 4, kMostSegments);
  put(16, 2, geometry.cylinders);
  put(18, 1, geometry.heads);
  put(19, 1, geometry.sectors);
  put(20, 4, sizes_.logical);
  // Topology, in logical blocks
  put(24, 1, static_cast<uint64_t>(std::countr_zero(sizes_.physical / sizes_.logical)));
  put(26, 2, std::max(sizes_.least_request / sizes_.logical, 1u));
  put(28, 4, sizes_.best_request / sizes_.logical);
  put(32, 1, 1);                  // write cache on
  put(36, 4, kMostRangeSectors);  // discard
  put(40, 4, 1);
  put(44, 4, sizes_.discard ? sizes_.discard / kSector : kUsualDiscard / kSector);
  put(48, 4, kMostRangeSectors);  // write zeroes
  put(52, 4, 1);
  put(56, 1, medium_.discards());
  return offset < bytes.size() ? bytes[offset] : 0;
}

// A driver may offer the same buffers again before they are given back.
bool VirtioBlk::full() const {
  return bytes_under_way_ >= kMostUnderWay || under_way_ >= kQueueSize;
}

std::vector<uint16_t> VirtioBlk::queue_sizes() const {
  return {kQueueSize};
}

void VirtioBlk::notified(unsigned number) {
  while (!full()) {
    auto buffer = queue(number).take();
    if (!buffer) return;
    run(std::move(*buffer));
  }
}

// The status is the last byte that the device may write.
void VirtioBlk::end(const VirtqueueBuffer& buffer, uint8_t status, uint32_t written) {
  const std::array byte = {static_cast<std::byte>(status)};
  if (buffer.writable_bytes() > 0) buffer.write(map_, buffer.writable_bytes() - 1, byte);
  give_back(0, buffer, written + 1);
}

void VirtioBlk::run(VirtqueueBuffer buffer) {
  std::array<std::byte, kHeaderBytes> header{};
  if (buffer.read(map_, 0, header) != kHeaderBytes || buffer.writable_bytes() == 0)
    return end(buffer, kIoError, 0);
  const auto type = load_field<uint32_t>(header, 0);
  const auto sector = load_field<uint64_t>(header, 8);
  const size_t out_bytes = buffer.readable_bytes() - kHeaderBytes, in_bytes = buffer.writable_bytes() - 1;
  auto request = std::make_unique<BlockRequest>();
  const auto set_offset = [&request, this](uint64_t first) {
    const bool fits = first <= ~uint64_t{0} / kSector && first * kSector % sizes_.logical == 0;
    if (fits) request->offset = first * kSector;
    return fits;
  };
  using enum BlockRequest::Kind;
  switch (type) {
    case kIn:
      if (in_bytes % sizes_.logical != 0 || in_bytes > kMostBytes || !set_offset(sector))
        return end(buffer, kIoError, 0);
      request->kind = Read;
      request->data.resize(in_bytes);
      return submit(std::move(buffer), std::move(request));
    case kOut:
      if (out_bytes % sizes_.logical != 0 || out_bytes > kMostBytes || !set_offset(sector))
        return end(buffer, kIoError, 0);
      request->kind = Write;
      request->data.resize(out_bytes);
      buffer.read(map_, kHeaderBytes, request->data);
      return submit(std::move(buffer), std::move(request));
    case kFlushRequest:
      request->kind = Flush;
      return submit(std::move(buffer), std::move(request));
    case kGetId: {
      std::array<std::byte, kIdBytes> id{};
      for (size_t i = 0; i < std::min(kIdBytes, serial_.size()); i++)
        id[i] = static_cast<std::byte>(serial_[i]);
      const size_t bytes = std::min(in_bytes, kIdBytes);
      buffer.write(map_, 0, std::span(id).first(bytes));
      return end(buffer, kOk, static_cast<uint32_t>(bytes));
    }
    case kDiscardRequest:
    case kWriteZeroesRequest: {
      std::array<std::byte, kRangeBytes> range{};
      if (out_bytes != kRangeBytes || buffer.read(map_, kHeaderBytes, range) != kRangeBytes)
        return end(buffer, kUnsupported, 0);
      const auto sectors = load_field<uint32_t>(range, 8), flags = load_field<uint32_t>(range, 12);
      const bool discard = type == kDiscardRequest;
      if ((discard && !medium_.discards()) || flags & ~(discard ? 0 : kUnmap))
        return end(buffer, kUnsupported, 0);
      if (sectors > kMostRangeSectors || sectors * kSector % sizes_.logical != 0 ||
          !set_offset(load_field<uint64_t>(range, 0)))
        return end(buffer, kIoError, 0);
      request->kind = discard ? Discard : WriteZeroes;
      request->bytes = uint64_t{sectors} * kSector;
      return submit(std::move(buffer), std::move(request));
    }
    default:
      return end(buffer, kUnsupported, 0);
  }
}

void VirtioBlk::submit(VirtqueueBuffer buffer, std::unique_ptr<BlockRequest> request) {
  const size_t bytes = request->data.size();
  request->done = [this, bytes, round = round_, buffer = std::move(buffer)](BlockRequest& done) {
    const bool was_full = full();
    under_way_--;
    bytes_under_way_ -= bytes;
    if (round != round_) return;
    uint32_t written = 0;
    if (done.kind == BlockRequest::Kind::Read && done.error == 0) {
      written = static_cast<uint32_t>(buffer.write(map_, 0, done.data));
    }
    end(buffer, done.error ? kIoError : kOk, written);
    if (was_full) notified(0);
  };
  under_way_++;
  bytes_under_way_ += bytes;
  medium_.submit(std::move(request));
}

void VirtioBlk::reset() {
  round_++;
}

DeviceState VirtioBlk::save() const {
  if (under_way_ != 0) throw std::logic_error("virtio_blk: saved with a request under way");
  return DeviceState::object();
}

void VirtioBlk::load(const DeviceState& state) {
  if (!state.is_object()) throw std::invalid_argument("virtio_blk: no saved state");
  round_++;
}

}  // namespace penumbra
