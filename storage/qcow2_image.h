// A qcow2 image, version 2 or 3, with its backing file.
//
// QEMU, docs/interop/qcow2.txt. A killed process leaves an image whose counts and references agree
// (metadata_map.h). A host that loses its power may not: version 3 images have their dirty bit set while they
// are written to, and one that is found with it, or any of version 2, has its reference counts computed anew
// when it is opened for writing. Clusters that were freed are used again only after a flush, and tables never
// lie in such.
//
// Not modelled: encryption, external data files, extended L2 entries, zstd, taking internal snapshots (an
// image that has some keeps them intact). Images with bitmaps are read only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "storage/disk_image.h"
#include "storage/image_file.h"
#include "storage/metadata_map.h"
#include "storage/qcow2_header.h"

namespace penumbra {

class Qcow2Image final : public DiskImage {
 public:
  // Throws std::runtime_error, without the file's name. `header` is the file's, `backing` what it names.
  Qcow2Image(ImageFile file, const Qcow2Header& header, const ImageOptions& options,
             std::unique_ptr<DiskImage> backing);
  ~Qcow2Image() override;

  std::string_view format() const override { return "qcow2"; }
  uint64_t bytes() const override { return header_.bytes; }
  bool read_only() const override { return read_only_; }
  bool discards() const override { return discards_; }
  unsigned threads() const override { return 1; }
  int read(uint64_t offset, std::span<std::byte> to) override;
  int write(uint64_t offset, std::span<const std::byte> from) override;
  int write_zeroes(uint64_t offset, uint64_t length) override;
  int discard(uint64_t offset, uint64_t length) override;
  int flush() override;

 private:
  using Bytes = std::vector<std::byte>;
  using Transaction = MetadataMap::Transaction;
  enum class Kind : uint8_t { Absent, Zero, Data, Compressed };
  struct Mapping {
    Kind kind = Kind::Absent;
    uint64_t offset = 0;  // of the data; of a Zero cluster's room, or 0
    uint64_t bytes = 0;   // that it takes in the file
    bool owned = false;   // nobody else refers to it: it may be written in place
  };
  struct L2Table {
    Bytes entries;
    uint64_t last_use = 0;
  };

  // Mapping
  int l2_table(uint64_t l1_index, L2Table** table);
  int l2_for_writing(uint64_t l1_index, L2Table** table);
  L2Table& keep_table(uint64_t l1_index, Bytes entries);
  int look_up(uint64_t cluster, Mapping& mapping);
  int decode(uint64_t entry, Mapping& mapping) const;
  uint64_t l1_entry(uint64_t index) const { return load_be(&l1_[8 * index], 8); }
  uint64_t l1_offset(uint64_t index) const { return header_.l1_offset + 8 * index; }
  uint64_t run_length(uint64_t cluster, const Mapping& first, uint64_t most);
  // Data
  int read_run(uint64_t offset, const Mapping& mapping, std::span<std::byte> to);
  int read_compressed(const Mapping& mapping, uint64_t within, std::span<std::byte> to);
  int read_backing(uint64_t offset, std::span<std::byte> to);
  int write_new(uint64_t cluster, uint64_t within, const Mapping& old, std::span<const std::byte> from);
  int replace(uint64_t cluster, const Mapping& old, uint64_t entry, std::optional<uint64_t> fresh);
  int clear(uint64_t offset, uint64_t length, bool must_be_zero);
  // Clusters of the file
  int allocate(uint64_t& cluster, bool& fresh);
  int allocate_table(std::span<const std::byte> contents, uint64_t& cluster);
  // Reference counts
  int count_block(uint64_t cluster, Bytes** block);
  int count_of(uint64_t cluster, uint64_t& count);
  int ensure_count_block(uint64_t cluster);
  int grow_count_table(uint64_t entries);
  int plan_count(Transaction& transaction, uint64_t cluster, uint64_t count);
  int plan_release(Transaction& transaction, const Mapping& mapping, std::vector<uint64_t>& freed);
  void set_count(Bytes& block, uint64_t index, uint64_t count) const;
  uint64_t get_count(const Bytes& block, uint64_t index) const;
  int mark_dirty();
  // Counting anew
  void mend();
  std::vector<uint64_t> count_everything();
  void count_tree(std::vector<uint64_t>& counts, const Bytes& l1);
  void count_range(std::vector<uint64_t>& counts, uint64_t offset, uint64_t length) const;
  void set_owned_bits(const std::vector<uint64_t>& counts);

  uint64_t cluster_bytes() const { return header_.cluster_bytes(); }
  uint64_t clusters_of(uint64_t length) const {
    return (length + cluster_bytes() - 1) >> header_.cluster_bits;
  }
  uint64_t counts_per_block() const { return cluster_bytes() * 8 >> header_.refcount_order; }
  bool in_file(uint64_t offset, uint64_t length) const;
  Bytes read_table(uint64_t offset, uint64_t length) const;  // throws

  ImageFile file_;
  Qcow2Header header_;
  std::unique_ptr<DiskImage> backing_;
  const bool read_only_, discards_, flushes_writes_;

  // Tables as in the file.
  Bytes l1_, count_table_;
  std::map<uint64_t, L2Table> l2_;          // by index in l1_; some of them
  std::map<uint64_t, Bytes> count_blocks_;  // by index in count_table_; those that were needed
  uint64_t uses_ = 0;
  std::optional<uint64_t> inflated_offset_;  // of the compressed cluster that is in inflated_
  Bytes inflated_;

  // For writing only.
  MetadataMap map_{file_};
  uint64_t end_ = 0;                      // clusters from this one on are beyond the file's end
  uint64_t first_free_ = 0;               // no cluster before it is used for data
  std::optional<uint64_t> lowest_freed_;  // since the last flush
  bool dirty_bit_ = false;
};

}  // namespace penumbra
