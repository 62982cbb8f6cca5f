#include "storage/qcow2_header.h"

#include <array>
#include <stdexcept>
#include <vector>

#include "storage/metadata_map.h"

namespace penumbra {

namespace {
// Fields
constexpr size_t kVersion = 4, kBackingOffset = 8, kBackingBytes = 16, kClusterBits = 20, kSize = 24,
                 kCrypt = 32, kL1Entries = 36, kL1Offset = 40, kSnapshots = 60, kSnapshotsOffset = 64,
                 kRefcountOrder = 96, kHeaderLength = 100;
constexpr uint32_t kBackingFormatExtension = 0xe279'2aca, kBitmapsExtension = 0x2385'2875,
                   kEndOfExtensions = 0;
constexpr uint32_t kLongestBackingName = 1023;
// A disk of that size needs an L1 table of 32 MiB with the usual clusters.
constexpr uint64_t kMostBytes = uint64_t{1} << 51;
constexpr uint64_t kMostL1Bytes = uint64_t{32} << 20;

[[noreturn]] void refuse(const std::string& why) {
  throw std::runtime_error("is a damaged qcow2 image: " + why);
}
}  // namespace

Qcow2Header Qcow2Header::read(const ImageFile& file) {
  std::array<std::byte, kVersion3Bytes> bytes;
  if (file.read(0, bytes) != 0) throw std::runtime_error("cannot be read");
  const auto u32 = [&bytes](size_t at) { return static_cast<uint32_t>(load_be(bytes.data() + at, 4)); };
  const auto u64 = [&bytes](size_t at) { return load_be(bytes.data() + at, 8); };
  Qcow2Header header;
  header.version = u32(kVersion);
  if (header.version != 2 && header.version != 3)
    throw std::runtime_error("is a qcow image of version " + std::to_string(header.version) +
                             ", which is not known here");
  header.cluster_bits = u32(kClusterBits);
  if (header.cluster_bits < 9 || header.cluster_bits > 21) refuse("its cluster size");
  if (u32(kCrypt) != 0) throw std::runtime_error("is an encrypted qcow2 image, which is not known here");
  uint32_t length = kVersion2Bytes;
  if (header.version == 3) {
    header.incompatible = u64(kIncompatible);
    header.autoclear = u64(kAutoclear);
    header.refcount_order = u32(kRefcountOrder);
    length = u32(kHeaderLength);
    if (const uint64_t unknown = header.incompatible & ~(kDirty | kCorrupt))
      throw std::runtime_error("is a qcow2 image with features that are not known here (" +
                               std::to_string(unknown) + ")");
    if (header.refcount_order > 6) refuse("its reference counts' size");
    if (length < kVersion3Bytes || length > header.cluster_bytes()) refuse("its header's length");
  }
  const uint64_t cluster_mask = header.cluster_bytes() - 1;
  header.bytes = u64(kSize);
  if (header.bytes > kMostBytes) refuse("its size");
  header.bytes = (header.bytes + 511) & ~uint64_t{511};
  header.l1_entries = u32(kL1Entries);
  header.l1_offset = u64(kL1Offset);
  const uint64_t covered = header.cluster_bytes() * header.l2_entries();
  if (uint64_t{header.l1_entries} * 8 > kMostL1Bytes || header.l1_offset & cluster_mask ||
      header.l1_entries < (header.bytes + covered - 1) / covered)
    refuse("its L1 table");
  header.refcount_table_offset = u64(kRefcountTableOffset);
  header.refcount_table_clusters = u32(kRefcountTableClusters);
  if (header.refcount_table_offset & cluster_mask || header.refcount_table_offset == 0 ||
      header.refcount_table_clusters == 0 ||
      uint64_t{header.refcount_table_clusters} << header.cluster_bits > Qcow2Header::kMostRefcountTableBytes)
    refuse("its reference count table");
  header.snapshots = u32(kSnapshots);
  header.snapshots_offset = u64(kSnapshotsOffset);
  if (header.snapshots > 65'536 || header.snapshots_offset & cluster_mask) refuse("its snapshot table");

  const uint64_t backing_offset = u64(kBackingOffset);
  const uint32_t backing_bytes = u32(kBackingBytes);
  if (backing_offset != 0) {
    if (backing_bytes == 0 || backing_bytes > kLongestBackingName ||
        backing_offset > header.cluster_bytes() - backing_bytes)
      refuse("its backing file's name");
    std::vector<std::byte> name(backing_bytes);
    if (file.read(backing_offset, name) != 0) throw std::runtime_error("cannot be read");
    for (const std::byte byte : name) header.backing_file += static_cast<char>(byte);
  }
  // Header extensions: a type, a length, data padded to 8 bytes.
  std::vector<std::byte> cluster(header.cluster_bytes());
  if (file.read(0, cluster) != 0) throw std::runtime_error("cannot be read");
  for (uint64_t at = length; at + 8 <= cluster.size();) {
    const auto type = static_cast<uint32_t>(load_be(cluster.data() + at, 4)),
               size = static_cast<uint32_t>(load_be(cluster.data() + at + 4, 4));
    if (type == kEndOfExtensions || size > cluster.size() - at - 8) break;
    header.bitmaps |= type == kBitmapsExtension;
    if (type == kBackingFormatExtension) {
      for (uint32_t i = 0; i < size; i++) header.backing_format += static_cast<char>(cluster[at + 8 + i]);
    }
    at += 8 + ((uint64_t{size} + 7) & ~uint64_t{7});
  }
  return header;
}

}  // namespace penumbra
