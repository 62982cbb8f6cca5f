// The tables of an image, changed through memory that is the file's.
//
// What is stored stays when the process is killed, as with pwrite(), but two stores have nothing between
// them: where two calls of pwrite() are killed apart once in a while, an image would have the one change and
// not the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "storage/image_file.h"

namespace penumbra {

// Big-endian fields.
uint64_t load_be(const std::byte* from, unsigned size);
void store_be(std::byte* to, unsigned size, uint64_t value);

class MetadataMap {
 public:
  explicit MetadataMap(ImageFile& file) : file_(file) {}
  ~MetadataMap();
  MetadataMap(const MetadataMap&) = delete;

  // Changes that belong together. Nothing is changed before commit(), which cannot fail.
  class Transaction {
   public:
    explicit Transaction(MetadataMap& map) : map_(map) {}
    // A field of 1, 2, 4 or 8 bytes, aligned, within the file. `copy`, where there is one, is kept the same.
    // An errno.
    int plan(uint64_t offset, unsigned size, uint64_t value, std::byte* copy);
    // What the byte at `offset` will be; `now` if no change is planned.
    std::byte planned(uint64_t offset, std::byte now) const;
    void commit();

   private:
    struct Store {
      uint64_t offset, value;
      unsigned size;
      std::byte *field, *copy;
    };
    MetadataMap& map_;
    std::vector<Store> stores_;
  };

 private:
  static constexpr uint64_t kWindow = 1 << 16, kPage = 4096;
  static constexpr size_t kMostWindows = 128;  // more than a transaction has fields
  struct Window {
    std::byte* memory = nullptr;
    uint32_t reserved = 0;  // pages that have their room on the disk
    uint64_t last_use = 0;
  };
  int prepare(uint64_t offset, unsigned size, std::byte** field);
  int reserve(uint64_t page);
  void unmap_oldest();

  ImageFile& file_;
  std::map<uint64_t, Window> windows_;  // by offset
  uint64_t uses_ = 0;
};

}  // namespace penumbra
