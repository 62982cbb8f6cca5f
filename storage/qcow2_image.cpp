#include "storage/qcow2_image.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace penumbra {

namespace {
// Entries of L1 and L2 tables
constexpr uint64_t kOwned = uint64_t{1} << 63;  // "copied": the reference count is 1
constexpr uint64_t kCompressed = uint64_t{1} << 62, kZero = 1;
constexpr uint64_t kOffset = 0x00ff'ffff'ffff'fe00;
constexpr uint64_t kSector = 512;
// Snapshot table entries
constexpr uint64_t kSnapshotBytes = 40, kSnapshotL1Offset = 0, kSnapshotL1Entries = 8, kSnapshotIdBytes = 12,
                   kSnapshotNameBytes = 14, kSnapshotExtraBytes = 36;
constexpr uint64_t kMostL1Entries = uint64_t{4} << 20;

constexpr uint64_t kMostTableBytes = uint64_t{32} << 20;  // of L2 tables in memory

[[noreturn]] void damaged(const std::string& what) {
  throw std::runtime_error("is a damaged qcow2 image: " + what + " (qemu-img check -r all may mend it)");
}
}  // namespace

Qcow2Image::Qcow2Image(ImageFile file, const Qcow2Header& header, const ImageOptions& options,
                       std::unique_ptr<DiskImage> backing)
    : file_(std::move(file)),
      header_(header),
      backing_(std::move(backing)),
      read_only_(options.read_only || options.snapshot),
      discards_(options.discard && !read_only_),
      flushes_writes_(options.cache == ImageOptions::Cache::Writethrough ||
                      options.cache == ImageOptions::Cache::Directsync) {
  l1_ = read_table(header_.l1_offset, uint64_t{header_.l1_entries} * 8);
  count_table_ = read_table(header_.refcount_table_offset,
                            uint64_t{header_.refcount_table_clusters} << header_.cluster_bits);
  if (read_only_) return;
  if (header_.incompatible & Qcow2Header::kCorrupt) damaged("it says so itself");
  if (header_.bitmaps)
    throw std::runtime_error("is a qcow2 image with bitmaps, which can only be read (readonly=on)");
  end_ = clusters_of(file_.bytes());
  dirty_bit_ = header_.incompatible & Qcow2Header::kDirty;
  if (dirty_bit_ || header_.version == 2) mend();
}

Qcow2Image::~Qcow2Image() {
  if (read_only_ || !dirty_bit_ || file_.flush() != 0) return;
  std::byte bytes[8];
  store_be(bytes, 8, header_.incompatible & ~Qcow2Header::kDirty);
  if (file_.write(Qcow2Header::kIncompatible, bytes) == 0) file_.flush();
}

bool Qcow2Image::in_file(uint64_t offset, uint64_t length) const {
  const uint64_t size = file_.bytes();
  return offset <= size && length <= size - offset;
}

Qcow2Image::Bytes Qcow2Image::read_table(uint64_t offset, uint64_t length) const {
  if (length != 0 && !in_file(offset, 1)) damaged("a table lies beyond its end");
  Bytes bytes(length);
  if (file_.read(offset, bytes) != 0) throw std::runtime_error("cannot be read");
  return bytes;
}

// --- Mapping

int Qcow2Image::decode(uint64_t entry, Mapping& mapping) const {
  mapping = {};
  if (entry & kCompressed) {
    const unsigned shift = 62 - (header_.cluster_bits - 8);
    mapping.kind = Kind::Compressed;
    mapping.offset = entry & ((uint64_t{1} << shift) - 1);
    const uint64_t sectors = ((entry & (kCompressed - 1)) >> shift) + 1;
    mapping.bytes = sectors * kSector - mapping.offset % kSector;
    return 0;
  }
  mapping.offset = entry & kOffset;
  mapping.bytes = mapping.offset ? cluster_bytes() : 0;
  mapping.owned = entry & kOwned;
  if (header_.version >= 3 && entry & kZero) {
    mapping.kind = Kind::Zero;
  } else if (mapping.offset != 0) {
    mapping.kind = Kind::Data;
  }
  return mapping.offset % cluster_bytes() == 0 ? 0 : EIO;
}

int Qcow2Image::look_up(uint64_t cluster, Mapping& mapping) {
  L2Table* table = nullptr;
  if (const int error = l2_table(cluster / header_.l2_entries(), &table)) return error;
  if (!table) {
    mapping = {};
    return 0;
  }
  return decode(load_be(&table->entries[cluster % header_.l2_entries() * 8], 8), mapping);
}

// Null: there is none.
int Qcow2Image::l2_table(uint64_t l1_index, L2Table** table) {
  *table = nullptr;
  if (const auto known = l2_.find(l1_index); known != l2_.end()) {
    *table = &known->second;
    known->second.last_use = ++uses_;
    return 0;
  }
  const uint64_t offset = l1_entry(l1_index) & kOffset;
  if (offset == 0) return 0;
  if (offset % cluster_bytes() != 0 || !in_file(offset, 1)) return EIO;
  Bytes entries(cluster_bytes());
  if (const int error = file_.read(offset, entries)) return error;
  *table = &keep_table(l1_index, std::move(entries));
  return 0;
}

Qcow2Image::L2Table& Qcow2Image::keep_table(uint64_t l1_index, Bytes entries) {
  if ((l2_.size() + 1) * cluster_bytes() > kMostTableBytes) {
    l2_.erase(std::ranges::min_element(l2_, {}, [](const auto& entry) { return entry.second.last_use; }));
  }
  return l2_[l1_index] = {std::move(entries), ++uses_};
}

// A table that may be changed: one that a snapshot uses, too, is copied.
int Qcow2Image::l2_for_writing(uint64_t l1_index, L2Table** table) {
  if (const int error = l2_table(l1_index, table)) return error;
  const uint64_t entry = l1_entry(l1_index), old = entry & kOffset;
  if (*table && entry & kOwned) return 0;
  Bytes entries = *table ? (*table)->entries : Bytes(cluster_bytes());
  uint64_t cluster;
  if (const int error = allocate_table(entries, cluster)) return error;
  Transaction transaction(map_);
  std::vector<uint64_t> freed;
  if (const int error = plan_count(transaction, cluster, 1)) return error;
  if (const int error = transaction.plan(l1_offset(l1_index), 8, cluster << header_.cluster_bits | kOwned,
                                         &l1_[8 * l1_index]))
    return error;
  if (*table) {
    if (const int error = plan_release(transaction, {.offset = old, .bytes = cluster_bytes()}, freed))
      return error;
  }
  transaction.commit();
  *table = &keep_table(l1_index, std::move(entries));
  return 0;
}

// --- Reading

// How many bytes from `cluster` on go on as its mapping begins: data one after the other, or nothing.
uint64_t Qcow2Image::run_length(uint64_t cluster, const Mapping& first, uint64_t most) {
  uint64_t length = cluster_bytes();
  if (first.kind == Kind::Compressed) return length;
  for (; length < most; length += cluster_bytes()) {
    Mapping next;
    if (look_up(++cluster, next) != 0 || next.kind != first.kind || next.owned != first.owned) break;
    if (first.kind == Kind::Data && next.offset != first.offset + length) break;
  }
  return length;
}

int Qcow2Image::read(uint64_t offset, std::span<std::byte> to) {
  while (!to.empty()) {
    const uint64_t cluster = offset >> header_.cluster_bits, within = offset & (cluster_bytes() - 1);
    Mapping mapping;
    if (const int error = look_up(cluster, mapping)) return error;
    const size_t piece =
        std::min<uint64_t>(run_length(cluster, mapping, within + to.size()) - within, to.size());
    if (const int error = read_run(offset, mapping, to.first(piece))) return error;
    to = to.subspan(piece);
    offset += piece;
  }
  return 0;
}

int Qcow2Image::read_run(uint64_t offset, const Mapping& mapping, std::span<std::byte> to) {
  const uint64_t within = offset & (cluster_bytes() - 1);
  switch (mapping.kind) {
    case Kind::Absent:
      return read_backing(offset, to);
    case Kind::Zero:
      std::ranges::fill(to, std::byte{0});
      return 0;
    case Kind::Data:
      return file_.read(mapping.offset + within, to);
    case Kind::Compressed:
      return read_compressed(mapping, within, to);
  }
  return EIO;
}

// Beyond a backing file's end the disk reads as zeros.
int Qcow2Image::read_backing(uint64_t offset, std::span<std::byte> to) {
  const uint64_t size = backing_ ? backing_->bytes() : 0;
  const size_t there = offset < size ? std::min<uint64_t>(size - offset, to.size()) : 0;
  std::ranges::fill(to.subspan(there), std::byte{0});
  return there ? backing_->read(offset, to.first(there)) : 0;
}

int Qcow2Image::read_compressed(const Mapping& mapping, uint64_t within, std::span<std::byte> to) {
  if (inflated_offset_ != mapping.offset) {
    inflated_offset_.reset();
    inflated_.resize(cluster_bytes());
    Bytes packed(mapping.bytes);
    if (const int error = file_.read(mapping.offset, packed)) return error;
    z_stream stream{};
    constexpr int kRawDeflate = -15;
    if (inflateInit2(&stream, kRawDeflate) != Z_OK) return ENOMEM;
    // SAFETY: zlib's bytes are unsigned char; it does not write to its input.
    stream.next_in = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_in = static_cast<uInt>(packed.size());
    stream.next_out = reinterpret_cast<Bytef*>(inflated_.data());
    stream.avail_out = static_cast<uInt>(inflated_.size());
    inflate(&stream, Z_FINISH);  // the stream's end may not be in the last sector
    const bool whole = stream.avail_out == 0;
    inflateEnd(&stream);
    if (!whole) return EIO;
    inflated_offset_ = mapping.offset;
  }
  std::ranges::copy(std::span(inflated_).subspan(within, to.size()), to.begin());
  return 0;
}

// --- Writing

int Qcow2Image::write(uint64_t offset, std::span<const std::byte> from) {
  if (const int error = mark_dirty()) return error;
  while (!from.empty()) {
    const uint64_t cluster = offset >> header_.cluster_bits, within = offset & (cluster_bytes() - 1);
    Mapping mapping;
    if (const int error = look_up(cluster, mapping)) return error;
    size_t piece = std::min<uint64_t>(cluster_bytes() - within, from.size());
    if (mapping.kind == Kind::Data && mapping.owned) {
      piece = std::min<uint64_t>(run_length(cluster, mapping, within + from.size()) - within, from.size());
      if (const int error = file_.write(mapping.offset + within, from.first(piece))) return error;
    } else if (const int error = write_new(cluster, within, mapping, from.first(piece))) {
      return error;
    }
    from = from.subspan(piece);
    offset += piece;
  }
  return flushes_writes_ ? flush() : 0;
}

// A cluster of the disk that has none of its own in the file.
int Qcow2Image::write_new(uint64_t cluster, uint64_t within, const Mapping& old,
                          std::span<const std::byte> from) {
  const bool has_room = old.kind == Kind::Zero && old.offset != 0 && old.owned;
  uint64_t target = old.offset >> header_.cluster_bits;
  bool fresh = false;
  if (!has_room) {
    if (const int error = allocate(target, fresh)) return error;
  }
  const uint64_t offset = target << header_.cluster_bits;
  // Beyond the file's end everything is zero.
  const bool rest_is_zero = fresh && (old.kind == Kind::Zero || (old.kind == Kind::Absent && !backing_));
  if (rest_is_zero || from.size() == cluster_bytes()) {
    if (const int error = file_.write(offset + within, from)) return error;
  } else {
    Bytes whole(cluster_bytes());
    if (const int error = read_run(cluster << header_.cluster_bits, old, whole)) return error;
    std::ranges::copy(from, whole.begin() + static_cast<ptrdiff_t>(within));
    if (const int error = file_.write(offset, whole)) return error;
  }
  return replace(cluster, old, offset | kOwned, has_room ? std::nullopt : std::optional(target));
}

// `cluster` of the disk is what `entry` says from now on, which refers to cluster `fresh` of the file, unless
// it had that already; what it was is free then.
int Qcow2Image::replace(uint64_t cluster, const Mapping& old, uint64_t entry, std::optional<uint64_t> fresh) {
  const uint64_t l1_index = cluster / header_.l2_entries(), in_table = cluster % header_.l2_entries() * 8;
  L2Table* table;
  if (const int error = l2_for_writing(l1_index, &table)) return error;
  Transaction transaction(map_);
  std::vector<uint64_t> freed;
  if (fresh) {
    if (const int error = plan_count(transaction, *fresh, 1)) return error;
  }
  if (const int error =
          transaction.plan((l1_entry(l1_index) & kOffset) + in_table, 8, entry, &table->entries[in_table]))
    return error;
  if (old.offset != 0 && old.offset != (entry & kOffset)) {
    if (const int error = plan_release(transaction, old, freed)) return error;
  }
  transaction.commit();
  for (const uint64_t free : freed) {
    lowest_freed_ = std::min(free, lowest_freed_.value_or(free));
    if (discards_) file_.punch_hole(free << header_.cluster_bits, cluster_bytes());
  }
  return 0;
}

int Qcow2Image::write_zeroes(uint64_t offset, uint64_t length) {
  return clear(offset, length, true);
}

int Qcow2Image::discard(uint64_t offset, uint64_t length) {
  return discards_ ? clear(offset, length, false) : 0;
}

int Qcow2Image::clear(uint64_t offset, uint64_t length, bool must_be_zero) {
  if (const int error = mark_dirty()) return error;
  while (length > 0) {
    const uint64_t cluster = offset >> header_.cluster_bits, within = offset & (cluster_bytes() - 1);
    const uint64_t piece = std::min(cluster_bytes() - within, length);
    // The disk's last cluster may be cut off.
    const bool whole = within == 0 && (piece == cluster_bytes() || offset + piece == bytes());
    Mapping mapping;
    if (const int error = look_up(cluster, mapping)) return error;
    const bool absent_is_zero = !backing_ || cluster << header_.cluster_bits >= backing_->bytes();
    const bool is_zero = mapping.kind == Kind::Zero || (mapping.kind == Kind::Absent && absent_is_zero);
    if (whole && (absent_is_zero || header_.version >= 3)) {
      if (!is_zero || mapping.offset != 0) {
        if (const int error = replace(cluster, mapping, absent_is_zero ? 0 : kZero, std::nullopt))
          return error;
      }
    } else if (must_be_zero && !is_zero) {
      if (const int error = write(offset, Bytes(piece))) return error;
    }
    offset += piece;
    length -= piece;
  }
  return flushes_writes_ ? flush() : 0;
}

// What was freed before a flush can hold something else after it.
int Qcow2Image::flush() {
  if (const int error = file_.flush()) return error;
  if (lowest_freed_) first_free_ = std::min(first_free_, *lowest_freed_);
  lowest_freed_.reset();
  return 0;
}

// Before the first change.
int Qcow2Image::mark_dirty() {
  if (dirty_bit_ || header_.version < 3) return 0;
  header_.incompatible |= Qcow2Header::kDirty;
  std::byte bytes[8];
  // What others know of the contents does not hold any more.
  if (header_.autoclear != 0) {
    store_be(bytes, 8, header_.autoclear = 0);
    if (const int error = file_.write(Qcow2Header::kAutoclear, bytes)) return error;
  }
  store_be(bytes, 8, header_.incompatible);
  if (const int error = file_.write(Qcow2Header::kIncompatible, bytes)) return error;
  if (const int error = file_.flush()) return error;
  dirty_bit_ = true;
  return 0;
}

// --- Clusters of the file

// For data. `fresh`: it lies beyond the file's end and reads as zeros.
int Qcow2Image::allocate(uint64_t& cluster, bool& fresh) {
  for (; first_free_ < end_; first_free_++) {
    uint64_t count;
    if (const int error = count_of(first_free_, count)) return error;
    if (count != 0) continue;
    cluster = first_free_++;
    fresh = false;
    return ensure_count_block(cluster);
  }
  cluster = end_++;
  first_free_ = end_;
  fresh = !file_.is_block_device();
  return ensure_count_block(cluster);
}

// For a table, which is new ground: what a table was written over by must not come back with a loss of power.
int Qcow2Image::allocate_table(std::span<const std::byte> contents, uint64_t& cluster) {
  cluster = end_++;
  if (const int error = file_.write(cluster << header_.cluster_bits, contents)) return error;
  return ensure_count_block(cluster);
}

// --- Reference counts

uint64_t Qcow2Image::get_count(const Bytes& block, uint64_t index) const {
  const unsigned bits = 1u << header_.refcount_order;
  if (bits >= 8) return load_be(&block[index * bits / 8], bits / 8);
  return static_cast<uint8_t>(block[index * bits / 8]) >> index * bits % 8 & ((1u << bits) - 1);
}

void Qcow2Image::set_count(Bytes& block, uint64_t index, uint64_t count) const {
  const unsigned bits = 1u << header_.refcount_order;
  if (bits >= 8) return store_be(&block[index * bits / 8], bits / 8, count);
  std::byte& byte = block[index * bits / 8];
  const uint64_t shift = index * bits % 8;
  byte =
      (byte & ~static_cast<std::byte>(((1u << bits) - 1) << shift)) | static_cast<std::byte>(count << shift);
}

// Null: there is none, all its counts are 0.
int Qcow2Image::count_block(uint64_t cluster, Bytes** block) {
  *block = nullptr;
  const uint64_t index = cluster / counts_per_block();
  if (const auto known = count_blocks_.find(index); known != count_blocks_.end()) {
    *block = &known->second;
    return 0;
  }
  if (index >= count_table_.size() / 8) return 0;
  const uint64_t offset = load_be(&count_table_[8 * index], 8) & kOffset;
  if (offset == 0) return 0;
  if (offset % cluster_bytes() != 0 || !in_file(offset, 1)) return EIO;
  Bytes bytes(cluster_bytes());
  if (const int error = file_.read(offset, bytes)) return error;
  *block = &(count_blocks_[index] = std::move(bytes));
  return 0;
}

int Qcow2Image::count_of(uint64_t cluster, uint64_t& count) {
  Bytes* block;
  if (const int error = count_block(cluster, &block)) return error;
  count = block ? get_count(*block, cluster % counts_per_block()) : 0;
  return 0;
}

int Qcow2Image::ensure_count_block(uint64_t cluster) {
  Bytes* block;
  if (const int error = count_block(cluster, &block)) return error;
  if (block) return 0;
  const uint64_t index = cluster / counts_per_block();
  if (index >= count_table_.size() / 8) {
    if (const int error = grow_count_table(index + 1)) return error;
    // The new table's own clusters may have needed the block.
    if (const int error = count_block(cluster, &block)) return error;
    if (block) return 0;
  }
  const uint64_t own = end_++;
  Bytes bytes(cluster_bytes());
  const bool counts_itself = own / counts_per_block() == index;
  if (counts_itself) set_count(bytes, own % counts_per_block(), 1);
  if (const int error = file_.write(own << header_.cluster_bits, bytes)) return error;
  Transaction transaction(map_);
  if (!counts_itself) {
    if (const int error = ensure_count_block(own)) return error;
    if (const int error = plan_count(transaction, own, 1)) return error;
  }
  if (const int error = transaction.plan(header_.refcount_table_offset + 8 * index, 8,
                                         own << header_.cluster_bits, &count_table_[8 * index]))
    return error;
  transaction.commit();
  count_blocks_[index] = std::move(bytes);
  return 0;
}

// A larger table at the file's end, with the blocks that count it and themselves.
int Qcow2Image::grow_count_table(uint64_t entries) {
  const uint64_t old_offset = header_.refcount_table_offset;
  const uint64_t old_clusters = header_.refcount_table_clusters;
  // Room for twice as much, and for the blocks of the table itself.
  const uint64_t clusters = clusters_of((std::max(entries, count_table_.size() / 8 * 2) + 64) * 8);
  if (clusters << header_.cluster_bits > Qcow2Header::kMostRefcountTableBytes) return EFBIG;
  const uint64_t first = end_;
  Bytes table = count_table_;
  table.resize(clusters << header_.cluster_bits);
  std::map<uint64_t, uint64_t> blocks;  // new ones: where they are
  uint64_t end = first + clusters;
  for (uint64_t at = first; at < end; at++) {
    const uint64_t index = at / counts_per_block();
    if (index >= table.size() / 8) return EFBIG;
    if (load_be(&table[8 * index], 8) != 0) continue;
    blocks[index] = end;
    store_be(&table[8 * index], 8, end++ << header_.cluster_bits);
  }
  std::map<uint64_t, Bytes> contents;
  for (const auto& [index, at] : blocks) contents[index] = Bytes(cluster_bytes());
  Transaction transaction(map_);
  end_ = end;
  for (uint64_t at = first; at < end; at++) {
    const uint64_t index = at / counts_per_block();
    if (contents.contains(index)) {
      set_count(contents[index], at % counts_per_block(), 1);
    } else if (const int error = plan_count(transaction, at, 1)) {
      return error;
    }
  }
  for (const auto& [index, at] : blocks) {
    if (const int error = file_.write(at << header_.cluster_bits, contents[index])) return error;
  }
  if (const int error = file_.write(first << header_.cluster_bits, table)) return error;
  if (const int error =
          transaction.plan(Qcow2Header::kRefcountTableOffset, 8, first << header_.cluster_bits, nullptr))
    return error;
  if (const int error = transaction.plan(Qcow2Header::kRefcountTableClusters, 4, clusters, nullptr))
    return error;
  transaction.commit();
  header_.refcount_table_offset = first << header_.cluster_bits;
  header_.refcount_table_clusters = static_cast<uint32_t>(clusters);
  count_table_ = std::move(table);
  for (auto& [index, bytes] : contents) count_blocks_[index] = std::move(bytes);
  Transaction release(map_);
  for (uint64_t i = 0; i < old_clusters; i++) {
    if (const int error = plan_count(release, (old_offset >> header_.cluster_bits) + i, 0)) return error;
  }
  release.commit();
  return 0;
}

// The block must be there.
int Qcow2Image::plan_count(Transaction& transaction, uint64_t cluster, uint64_t count) {
  Bytes* block;
  if (const int error = count_block(cluster, &block)) return error;
  if (!block) return EIO;
  const unsigned bits = 1u << header_.refcount_order;
  const uint64_t index = cluster % counts_per_block(), at = index * bits / 8;
  const uint64_t offset = (load_be(&count_table_[cluster / counts_per_block() * 8], 8) & kOffset) + at;
  if (bits >= 8) return transaction.plan(offset, bits / 8, count, &(*block)[at]);
  // Its byte holds others' counts, which may change, too.
  Bytes byte{transaction.planned(offset, (*block)[at])};
  set_count(byte, index % (8 / bits), count);
  return transaction.plan(offset, 1, static_cast<uint8_t>(byte[0]), &(*block)[at]);
}

// One reference less to what `mapping` takes; `freed` gets what nobody refers to any more.
int Qcow2Image::plan_release(Transaction& transaction, const Mapping& mapping, std::vector<uint64_t>& freed) {
  const uint64_t last = (mapping.offset + mapping.bytes - 1) >> header_.cluster_bits;
  if (mapping.kind == Kind::Compressed) inflated_offset_.reset();
  for (uint64_t cluster = mapping.offset >> header_.cluster_bits; cluster <= last; cluster++) {
    uint64_t count;
    if (const int error = count_of(cluster, count)) return error;
    if (count == 0) return EIO;
    if (const int error = plan_count(transaction, cluster, count - 1)) return error;
    if (count == 1) freed.push_back(cluster);
  }
  return 0;
}

// --- Counting anew

void Qcow2Image::count_range(std::vector<uint64_t>& counts, uint64_t offset, uint64_t length) const {
  if (length == 0) return;
  const uint64_t first = offset >> header_.cluster_bits, last = (offset + length - 1) >> header_.cluster_bits;
  if (last < first || last >= counts.size()) damaged("it refers to what is beyond its end");
  for (uint64_t cluster = first; cluster <= last; cluster++) counts[cluster]++;
}

void Qcow2Image::count_tree(std::vector<uint64_t>& counts, const Bytes& l1) {
  for (uint64_t i = 0; i < l1.size() / 8; i++) {
    const uint64_t offset = load_be(&l1[8 * i], 8) & kOffset;
    if (offset == 0) continue;
    if (offset % cluster_bytes() != 0) damaged("an L2 table is not aligned");
    count_range(counts, offset, cluster_bytes());
    const Bytes entries = read_table(offset, cluster_bytes());
    for (uint64_t j = 0; j < entries.size() / 8; j++) {
      Mapping mapping;
      if (decode(load_be(&entries[8 * j], 8), mapping) != 0) damaged("a cluster is not aligned");
      if (mapping.offset != 0) count_range(counts, mapping.offset, mapping.bytes);
    }
  }
}

// How often each cluster of the file is referred to.
std::vector<uint64_t> Qcow2Image::count_everything() {
  std::vector<uint64_t> counts(end_);
  count_range(counts, 0, cluster_bytes());
  count_range(counts, header_.l1_offset, l1_.size());
  count_tree(counts, l1_);
  count_range(counts, header_.refcount_table_offset, count_table_.size());
  for (uint64_t i = 0; i < count_table_.size() / 8; i++) {
    const uint64_t offset = load_be(&count_table_[8 * i], 8) & kOffset;
    if (offset % cluster_bytes() != 0) damaged("a block of reference counts is not aligned");
    if (offset != 0) count_range(counts, offset, cluster_bytes());
  }
  uint64_t at = header_.snapshots_offset;
  for (uint32_t i = 0; i < header_.snapshots; i++) {
    const Bytes entry = read_table(at, kSnapshotBytes);
    const uint64_t l1_offset = load_be(&entry[kSnapshotL1Offset], 8),
                   l1_entries = load_be(&entry[kSnapshotL1Entries], 4);
    if (l1_entries > kMostL1Entries || l1_offset % cluster_bytes() != 0) damaged("a snapshot's L1 table");
    count_range(counts, l1_offset, 8 * l1_entries);
    count_tree(counts, read_table(l1_offset, 8 * l1_entries));
    const uint64_t length = kSnapshotBytes + load_be(&entry[kSnapshotExtraBytes], 4) +
                            load_be(&entry[kSnapshotIdBytes], 2) + load_be(&entry[kSnapshotNameBytes], 2);
    at += (length + 7) & ~uint64_t{7};
  }
  count_range(counts, header_.snapshots_offset, at - header_.snapshots_offset);
  return counts;
}

void Qcow2Image::mend() {
  const auto check = [](int error) {
    if (error)
      throw std::runtime_error("its reference counts cannot be mended: " + std::string(std::strerror(error)));
  };
  if (end_ / counts_per_block() >= Qcow2Header::kMostRefcountTableBytes / 8)
    damaged("its file is too large to be counted");
  const std::vector<uint64_t> counts = count_everything();
  if (header_.snapshots == 0 && counts.size() > 0 && counts[0] != 1) damaged("its header is somebody's data");
  for (uint64_t cluster = 0; cluster < counts.size(); cluster++) {
    uint64_t now;
    check(count_of(cluster, now));
    if (now == counts[cluster]) continue;
    check(mark_dirty());
    check(ensure_count_block(cluster));
    Transaction transaction(map_);
    check(plan_count(transaction, cluster, counts[cluster]));
    transaction.commit();
  }
  set_owned_bits(counts);
}

// What a snapshot refers to, too, must not be written in place.
void Qcow2Image::set_owned_bits(const std::vector<uint64_t>& counts) {
  const auto check = [](int error) {
    if (error) throw std::runtime_error("its tables cannot be mended: " + std::string(std::strerror(error)));
  };
  const auto owned = [&counts, this](uint64_t offset) {
    const uint64_t cluster = offset >> header_.cluster_bits;
    return offset != 0 && cluster < counts.size() && counts[cluster] == 1;
  };
  for (uint64_t i = 0; i < l1_.size() / 8; i++) {
    const uint64_t entry = l1_entry(i), offset = entry & kOffset;
    if (offset == 0) continue;
    if (owned(offset) != ((entry & kOwned) != 0)) {
      Transaction transaction(map_);
      check(mark_dirty());
      check(transaction.plan(l1_offset(i), 8, entry ^ kOwned, &l1_[8 * i]));
      transaction.commit();
    }
    Bytes entries = read_table(offset, cluster_bytes());
    for (uint64_t j = 0; j < entries.size() / 8; j++) {
      const uint64_t of_cluster = load_be(&entries[8 * j], 8);
      if (of_cluster & kCompressed || owned(of_cluster & kOffset) == ((of_cluster & kOwned) != 0)) continue;
      Transaction transaction(map_);
      check(mark_dirty());
      check(transaction.plan(offset + 8 * j, 8, of_cluster ^ kOwned, &entries[8 * j]));
      transaction.commit();
    }
  }
}

}  // namespace penumbra
