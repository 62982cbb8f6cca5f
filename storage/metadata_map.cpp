#include "storage/metadata_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstring>

namespace penumbra {

uint64_t load_be(const std::byte* from, unsigned size) {
  uint64_t value = 0;
  for (unsigned i = 0; i < size; i++) value = value << 8 | static_cast<uint8_t>(from[i]);
  return value;
}

void store_be(std::byte* to, unsigned size, uint64_t value) {
  for (unsigned i = 0; i < size; i++) to[i] = static_cast<std::byte>(value >> 8 * (size - 1 - i));
}

namespace {
// One store: a table is never seen with half of an entry.
template <class Word>
void store_word(std::byte* to, uint64_t value) {
  std::array<std::byte, sizeof(Word)> bytes;
  store_be(bytes.data(), sizeof(Word), value);
  Word word;
  std::memcpy(&word, bytes.data(), sizeof word);
  // SAFETY: plan() took aligned offsets only, and windows are aligned to pages.
  std::atomic_ref(*reinterpret_cast<Word*>(to)).store(word);
}
}  // namespace

MetadataMap::~MetadataMap() {
  for (auto& [offset, window] : windows_) munmap(window.memory, kWindow);
}

int MetadataMap::Transaction::plan(uint64_t offset, unsigned size, uint64_t value, std::byte* copy) {
  assert(offset % size == 0 && stores_.size() < kMostWindows);
  std::byte* field;
  if (const int error = map_.prepare(offset, size, &field)) return error;
  stores_.push_back({offset, value, size, field, copy});
  return 0;
}

std::byte MetadataMap::Transaction::planned(uint64_t offset, std::byte now) const {
  for (const Store& store : stores_) {
    if (store.offset == offset && store.size == 1) now = static_cast<std::byte>(store.value);
  }
  return now;
}

void MetadataMap::Transaction::commit() {
  // Their pages are made writable beforehand: a page fault between two stores would be time to be killed in.
  for (const Store& store : stores_) {
    // SAFETY: bytes have no alignment.
    std::atomic_ref(*reinterpret_cast<uint8_t*>(store.field)).fetch_or(0);
  }
  for (const Store& store : stores_) {
    switch (store.size) {
      case 1:
        store_word<uint8_t>(store.field, store.value);
        break;
      case 2:
        store_word<uint16_t>(store.field, store.value);
        break;
      case 4:
        store_word<uint32_t>(store.field, store.value);
        break;
      default:
        store_word<uint64_t>(store.field, store.value);
        break;
    }
  }
  for (const Store& store : stores_) {
    if (store.copy) store_be(store.copy, store.size, store.value);
  }
  stores_.clear();
}

int MetadataMap::prepare(uint64_t offset, unsigned size, std::byte** field) {
  if (offset + size > file_.bytes()) return EIO;
  const uint64_t start = offset & ~(kWindow - 1), page = (offset - start) / kPage;
  if (!windows_.contains(start)) {
    if (windows_.size() >= kMostWindows) unmap_oldest();
    std::byte* memory = file_.map(start, kWindow);
    if (!memory) return errno;
    windows_[start].memory = memory;
  }
  Window& window = windows_[start];
  window.last_use = ++uses_;
  if (!(window.reserved >> page & 1)) {
    if (const int error = reserve(start + page * kPage)) return error;
    window.reserved |= uint32_t{1} << page;
  }
  *field = window.memory + (offset - start);
  return 0;
}

// A hole that is stored to on a full disk would be a SIGBUS; a write says it.
int MetadataMap::reserve(uint64_t page) {
  std::array<std::byte, kPage> bytes;
  const std::span piece =
      std::span(bytes).first(static_cast<size_t>(std::min<uint64_t>(kPage, file_.bytes() - page)));
  if (const int error = file_.read(page, piece)) return error;
  return file_.write(page, piece);
}

void MetadataMap::unmap_oldest() {
  const auto oldest =
      std::ranges::min_element(windows_, {}, [](const auto& entry) { return entry.second.last_use; });
  munmap(oldest->second.memory, kWindow);
  windows_.erase(oldest);
}

}  // namespace penumbra
