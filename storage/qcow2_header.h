// The header of a qcow2 image, checked.
//
// QEMU, docs/interop/qcow2.txt. All numbers of the format are big-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "storage/image_file.h"

namespace penumbra {

struct Qcow2Header {
  static constexpr uint64_t kDirty = 1, kCorrupt = 2;  // incompatible features that are known here
  static constexpr size_t kVersion2Bytes = 72, kVersion3Bytes = 104;
  static constexpr uint64_t kMostRefcountTableBytes = uint64_t{8} << 20;
  // Offsets of fields that change
  static constexpr size_t kRefcountTableOffset = 48, kRefcountTableClusters = 56, kIncompatible = 72,
                          kAutoclear = 88;

  uint32_t version = 0, cluster_bits = 0, refcount_order = 4;
  uint64_t bytes = 0;  // of the disk
  uint64_t l1_offset = 0, refcount_table_offset = 0, snapshots_offset = 0;
  uint32_t l1_entries = 0, refcount_table_clusters = 0, snapshots = 0;
  uint64_t incompatible = 0, autoclear = 0;
  bool bitmaps = false;  // an extension that refers to clusters
  std::string backing_file, backing_format;

  uint64_t cluster_bytes() const { return uint64_t{1} << cluster_bits; }
  uint64_t l2_entries() const { return cluster_bytes() / 8; }

  // Throws std::runtime_error with what is wrong, without the file's name.
  static Qcow2Header read(const ImageFile& file);
};

}  // namespace penumbra
