#include "devices/fw_cfg.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "devices/chip.h"

namespace penumbra {

namespace {
constexpr uint16_t kSelector = 0, kData = 1, kDmaHigh = 4, kDmaLow = 8, kDmaEnd = 12;

// Interface features, key kId
constexpr uint32_t kTraditional = 0x01, kDma = 0x02;

// Control word of the DMA descriptor
constexpr uint32_t kDmaError = 0x01, kDmaRead = 0x02, kDmaSkip = 0x04, kDmaSelect = 0x08, kDmaWrite = 0x10;
constexpr unsigned kDmaDescriptorBytes = 16;  // control, length, address; big-endian

// What the address register reads as; high byte first, as every big-endian field here.
constexpr uint8_t kDmaSignature[] = {'Q', 'E', 'M', 'U', ' ', 'C', 'F', 'G'};

constexpr uint16_t kWriteChannel = 0x4000;  // bit of a key that once allowed writes, ignored as QEMU does
constexpr size_t kNameBytes = 56, kDirectoryEntryBytes = 64;
constexpr size_t kMaxFiles = kWriteChannel - FwCfg::kFirstFile;

constexpr uint64_t k4g = uint64_t{1} << 32;

void append_big_endian(FwCfg::Bytes& to, uint64_t value, unsigned size) {
  for (unsigned i = size; i-- > 0;) to.push_back(static_cast<uint8_t>(value >> 8 * i));
}

uint64_t big_endian(std::span<const uint8_t> bytes) {
  uint64_t value = 0;
  for (const uint8_t byte : bytes) value = value << 8 | byte;
  return value;
}

FwCfg::Bytes little_endian(uint64_t value, unsigned size) {
  FwCfg::Bytes bytes;
  for (unsigned i = 0; i < size; i++) bytes.push_back(static_cast<uint8_t>(value >> 8 * i));
  return bytes;
}
}  // namespace

FwCfg::FwCfg(PhysicalMap& map) : map_(map) {
  items_[kSignature] = {'Q', 'E', 'M', 'U'};
  items_[kId] = little_endian(kTraditional | kDma, 4);
  build_directory();
}

// --- Items

void FwCfg::add_bytes(uint16_t key, Bytes bytes) {
  const bool standard = key < kFirstFile;
  const bool local = key >= kArchitectureLocal && !(key & kWriteChannel);
  if (!standard && !local) throw std::invalid_argument("fw_cfg: no such key");
  if (!items_.try_emplace(key, std::move(bytes)).second) {
    throw std::invalid_argument("fw_cfg: key " + std::to_string(key) + " is taken");
  }
}

void FwCfg::add_u16(uint16_t key, uint16_t value) {
  add_bytes(key, little_endian(value, 2));
}
void FwCfg::add_u32(uint16_t key, uint32_t value) {
  add_bytes(key, little_endian(value, 4));
}
void FwCfg::add_u64(uint16_t key, uint64_t value) {
  add_bytes(key, little_endian(value, 8));
}
void FwCfg::add_string(uint16_t key, const std::string& text) {
  const char* begin = text.c_str();
  add_bytes(key, Bytes(begin, begin + text.size() + 1));
}

void FwCfg::add_file(std::string name, Bytes bytes) {
  insert({.name = std::move(name), .bytes = std::move(bytes), .writable = false, .written = {}});
}

void FwCfg::add_writable_file(std::string name, Bytes bytes, Written written) {
  insert(
      {.name = std::move(name), .bytes = std::move(bytes), .writable = true, .written = std::move(written)});
}

void FwCfg::insert(File file) {
  if (file.name.empty() || file.name.size() >= kNameBytes || file.name.find('\0') != std::string::npos) {
    throw std::invalid_argument("fw_cfg: '" + file.name + "' can't be a file name");
  }
  if (file.bytes.size() > UINT32_MAX) {
    throw std::invalid_argument("fw_cfg: file " + file.name + " is too large");
  }
  if (files_.size() == kMaxFiles) throw std::invalid_argument("fw_cfg: too many files");
  const auto place = std::ranges::lower_bound(files_, file.name, {}, &File::name);
  if (place != files_.end() && place->name == file.name) {
    throw std::invalid_argument("fw_cfg: file " + file.name + " exists already");
  }
  files_.insert(place, std::move(file));
  build_directory();
  select(kSignature);  // keys have moved
}

void FwCfg::build_directory() {
  Bytes directory;
  append_big_endian(directory, files_.size(), 4);
  for (size_t i = 0; i < files_.size(); i++) {
    const size_t end = directory.size() + kDirectoryEntryBytes;
    append_big_endian(directory, files_[i].bytes.size(), 4);
    append_big_endian(directory, kFirstFile + i, 2);
    append_big_endian(directory, 0, 2);  // reserved
    directory.insert(directory.end(), files_[i].name.begin(), files_[i].name.end());
    directory.resize(end);
  }
  items_[kFileDirectory] = std::move(directory);
}

FwCfg::File* FwCfg::selected_file() {
  const size_t index = size_t{selected_} - kFirstFile;
  return index < files_.size() ? &files_[index] : nullptr;
}

const FwCfg::Bytes* FwCfg::selected_item() const {
  const size_t index = size_t{selected_} - kFirstFile;
  if (index < files_.size()) return &files_[index].bytes;
  const auto item = items_.find(selected_);
  return item == items_.end() ? nullptr : &item->second;
}

size_t FwCfg::bytes_left() const {
  const Bytes* item = selected_item();
  return item ? item->size() - offset_ : 0;
}

// --- Registers

void FwCfg::select(uint16_t key) {
  selected_ = static_cast<uint16_t>(key & ~kWriteChannel);
  offset_ = 0;
}

void FwCfg::reset() {
  select(kSignature);
  dma_address_high_ = 0;
}

// An item that is missing, or is read beyond its end, reads as zeros.
uint8_t FwCfg::next_byte() {
  if (bytes_left() == 0) return 0;
  return (*selected_item())[offset_++];
}

uint8_t FwCfg::read_byte(uint16_t offset) {
  if (offset == kData) return next_byte();
  if (offset >= kDmaHigh && offset < kDmaEnd) return kDmaSignature[offset - kDmaHigh];
  return 0xff;
}

uint32_t FwCfg::read(uint16_t offset, unsigned size) {
  uint32_t value = 0;
  for (unsigned i = 0; i < size; i++) {
    value |= uint32_t{read_byte(static_cast<uint16_t>(offset + i))} << 8 * i;
  }
  return value;
}

// The registers take one width each; anything else is ignored.
void FwCfg::write(uint16_t offset, unsigned size, uint32_t value) {
  if (offset == kSelector && size == 2) {
    select(static_cast<uint16_t>(value));
  } else if (offset == kDmaHigh && size == 4) {
    dma_address_high_ = __builtin_bswap32(value);
  } else if (offset == kDmaLow && size == 4) {
    const uint64_t high = std::exchange(dma_address_high_, 0);
    transfer(high << 32 | __builtin_bswap32(value));
  }
}

// --- DMA

// Whether the range is where RAM is. Everything else is refused: it bounds the time that a transfer of 4 GiB
// takes, and a chip is never the target of another chip's DMA outside the first MiB.
bool FwCfg::is_ram(uint64_t address, uint64_t length) const {
  const auto within = [&](uint64_t start, uint64_t bytes) {
    return address >= start && address - start <= bytes && length <= bytes - (address - start);
  };
  return within(0, map_.ram_below_4g()) || within(k4g, map_.ram_above_4g());
}

void FwCfg::transfer(uint64_t descriptor) {
  if (!is_ram(descriptor, kDmaDescriptorBytes)) return;  // nowhere to report an error to
  std::array<uint8_t, kDmaDescriptorBytes> bytes;
  map_.read_bytes(PhysAddr{descriptor}, std::as_writable_bytes(std::span(bytes)));
  const std::span<const uint8_t> fields(bytes);
  const auto control = static_cast<uint32_t>(big_endian(fields.subspan(0, 4)));
  const uint64_t length = big_endian(fields.subspan(4, 4));
  const uint64_t address = big_endian(fields.subspan(8, 8));

  if (control & kDmaSelect) select(static_cast<uint16_t>(control >> 16));
  bool done = true;
  if (control & kDmaRead) {
    done = read_item(address, length);
  } else if (control & kDmaWrite) {
    done = write_item(address, length);
  } else if (control & kDmaSkip) {
    skip(length);
  }
  Bytes result;
  append_big_endian(result, done ? 0 : kDmaError, 4);
  map_.write_bytes(PhysAddr{descriptor}, std::as_bytes(std::span(result)));
}

bool FwCfg::read_item(uint64_t address, uint64_t length) {
  if (!is_ram(address, length)) return false;
  const uint64_t from_item = std::min<uint64_t>(length, bytes_left());
  if (from_item) {
    const auto item = std::span(*selected_item()).subspan(offset_, from_item);
    map_.write_bytes(PhysAddr{address}, std::as_bytes(item));
    offset_ += from_item;
  }
  // What the item doesn't have reads as zeros.
  static constexpr std::array<std::byte, 4096> kZeros{};
  for (uint64_t done = from_item; done < length;) {
    const auto piece = std::min<uint64_t>(length - done, kZeros.size());
    map_.write_bytes(PhysAddr{address + done}, std::span(kZeros).first(piece));
    done += piece;
  }
  return true;
}

bool FwCfg::write_item(uint64_t address, uint64_t length) {
  File* file = selected_file();
  if (length == 0) return true;
  if (!file || !file->writable || length > bytes_left() || !is_ram(address, length)) return false;
  const auto target = std::span(file->bytes).subspan(offset_, length);
  map_.read_bytes(PhysAddr{address}, std::as_writable_bytes(target));
  offset_ += length;
  if (file->written) file->written(file->bytes);
  return true;
}

void FwCfg::skip(uint64_t length) {
  offset_ += std::min<uint64_t>(length, bytes_left());
}

// --- State: what the guest can change. The other items are the machine's configuration.

DeviceState FwCfg::save() const {
  DeviceState written = DeviceState::object();
  for (const File& file : files_) {
    if (file.writable) written[file.name] = file.bytes;
  }
  return {{"version", 1},
          {"selected", selected_},
          {"offset", offset_},
          {"dma_address_high", dma_address_high_},
          {"written", std::move(written)}};
}

void FwCfg::load(const DeviceState& state) {
  require_version(state, 1, name());
  select(state.at("selected").get<uint16_t>());
  skip(state.at("offset").get<uint64_t>());
  state.at("dma_address_high").get_to(dma_address_high_);
  for (File& file : files_) {
    if (!file.writable) continue;
    auto bytes = state.at("written").at(file.name).get<Bytes>();
    if (bytes.size() != file.bytes.size()) {
      throw std::invalid_argument("fw_cfg: saved state: file " + file.name + " has another size");
    }
    file.bytes = std::move(bytes);
    if (file.written) file.written(file.bytes);
  }
}

}  // namespace penumbra
