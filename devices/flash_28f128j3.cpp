#include "devices/flash_28f128j3.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <utility>

namespace penumbra {

namespace {
// 290667, table 4. Reading the array has another code in QEMU's chip, which its firmware may use.
constexpr uint8_t kReadArray = 0xff, kReadArrayToo = 0x00, kReadIdentifier = 0x90, kReadQuery = 0x98,
                  kReadStatus = 0x70, kClearStatus = 0x50, kProgram = 0x40, kProgramToo = 0x10, kErase = 0x20,
                  kWriteToBuffer = 0xe8, kLockSetup = 0x60, kConfirm = 0xd0, kSetLock = 0x01;

// Status register
constexpr uint8_t kReady = 0x80, kEraseError = 0x20, kProgramError = 0x10, kProtected = 0x02,
                  kBadSequence = kReady | kEraseError | kProgramError;

constexpr uint8_t kIntel = 0x89, kDevice = 0x18;
}  // namespace

Flash28F128J3::Flash28F128J3(std::string name, PhysicalMap& map, PhysAddr start,
                             std::span<const std::byte> contents, Store store)
    : name_(std::move(name)),
      map_(map),
      store_(std::move(store)),
      bytes_(contents.size()),
      region_(map.add_flash(start, contents, *this, name_)),
      locked_(contents.size() / kBlockBytes) {
  reset();
}

void Flash28F128J3::reset() {
  next_ = Next::Command;
  status_ = kReady;
  select(Mode::Array);
}

// Only the array can be read without asking the chip.
void Flash28F128J3::select(Mode mode) {
  mode_ = mode;
  map_.set_direct_reads(region_, mode == Mode::Array);
}

// --- Reading

uint64_t Flash28F128J3::mmio_read(uint64_t offset, unsigned size) {
  uint64_t value = 0;
  for (unsigned i = 0; i < size; i++) value |= uint64_t{read_byte(offset + i)} << 8 * i;
  return value;
}

uint8_t Flash28F128J3::read_byte(uint64_t offset) {
  switch (mode_) {
    case Mode::Array:
      return offset < bytes_ ? static_cast<uint8_t>(contents()[offset]) : 0xff;
    case Mode::Status:
      return status_;
    case Mode::Identifier:
      switch (offset % kBlockBytes) {
        case 0:
          return kIntel;
        case 1:
          return kDevice;
        case 2:
          return offset < bytes_ ? locked_[offset / kBlockBytes] : 0;
        default:
          return 0;
      }
    case Mode::Query:
      return query_byte(offset % kBlockBytes);
  }
  return 0xff;
}

// JESD68.01, 4.3: identification, voltages and times, geometry; Intel's extended table.
uint8_t Flash28F128J3::query_byte(uint64_t offset) const {
  constexpr uint64_t kFirst = 0x10;
  constexpr uint8_t kBufferShift = std::countr_zero(kBufferBytes);
  const uint64_t blocks = bytes_ / kBlockBytes - 1;
  const auto size_shift = static_cast<uint8_t>(std::bit_width(bytes_ - 1));
  const uint8_t table[] = {
      'Q',
      'R',
      'Y',
      0x01,
      0x00,
      0x31,
      0x00,
      0x00,
      0x00,
      0x00,
      0x00,  // Intel's command set
      0x27,
      0x36,
      0x00,
      0x00,
      0x07,
      0x07,
      0x0a,
      0x00,
      0x04,
      0x04,
      0x04,
      0x00,  // 2.7 to 3.6 V; times as powers of 2
      size_shift,
      0x00,
      0x00,
      kBufferShift,
      0x00,
      0x01,  // x8; one region of blocks
      static_cast<uint8_t>(blocks),
      static_cast<uint8_t>(blocks >> 8),
      kBlockBytes / 256,
      0,  //
      'P',
      'R',
      'I',
      '1',
      '0',
      0x00,
      0x00,
      0x00,
      0x00,  // nothing beyond the basic commands
  };
  return offset >= kFirst && offset - kFirst < std::size(table) ? table[offset - kFirst] : 0;
}

// --- Writing

void Flash28F128J3::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  for (unsigned i = 0; i < size && offset + i < bytes_; i++)
    write_byte(offset + i, static_cast<uint8_t>(value >> 8 * i));
}

void Flash28F128J3::write_byte(uint64_t offset, uint8_t value) {
  switch (next_) {
    case Next::Command:
      return command(value);
    case Next::ProgramData: {
      next_ = Next::Command;
      const auto data = static_cast<std::byte>(value);
      return program(offset, std::span(&data, 1));
    }
    case Next::EraseConfirm:
      next_ = Next::Command;
      if (value == kConfirm) return erase(offset / kBlockBytes * kBlockBytes);
      status_ |= kBadSequence;
      return;
    case Next::LockSetup:
      next_ = Next::Command;
      return change_locks(offset, value);
    case Next::BufferCount:
      buffer_expected_ = value + 1u;
      buffer_placed_ = false;
      buffer_.fill(0xff);
      next_ = Next::BufferData;
      return;
    case Next::BufferData:
      if (!std::exchange(buffer_placed_, true)) buffer_start_ = offset / kBufferBytes * kBufferBytes;
      if (offset - buffer_start_ >= kBufferBytes) {
        next_ = Next::Command;
        status_ |= kBadSequence;
        return;
      }
      buffer_[offset % kBufferBytes] = value;
      if (--buffer_expected_ == 0) next_ = Next::BufferConfirm;
      return;
    case Next::BufferConfirm:
      next_ = Next::Command;
      if (value != kConfirm) {
        status_ |= kBadSequence;
        return;
      }
      return program(buffer_start_, std::as_bytes(std::span(buffer_)));
  }
}

void Flash28F128J3::command(uint8_t code) {
  switch (code) {
    case kReadArray:
    case kReadArrayToo:
      return select(Mode::Array);
    case kReadIdentifier:
      return select(Mode::Identifier);
    case kReadQuery:
      return select(Mode::Query);
    case kReadStatus:
      return select(Mode::Status);
    case kClearStatus:
      // With SR.7, and to the array: OVMF knows QEMU's chip from RAM and ROM by that.
      status_ = 0;
      return select(Mode::Array);
    case kProgram:
    case kProgramToo:
      next_ = Next::ProgramData;
      return select(Mode::Status);
    case kErase:
      next_ = Next::EraseConfirm;
      return select(Mode::Status);
    case kWriteToBuffer:
      status_ |= kReady;  // the extended status register: a buffer is free
      next_ = Next::BufferCount;
      return select(Mode::Status);
    case kLockSetup:
      next_ = Next::LockSetup;
      return select(Mode::Status);
    default:
      return select(Mode::Array);
  }
}

// Programming clears bits; only erasing sets them.
void Flash28F128J3::program(uint64_t offset, std::span<const std::byte> bytes) {
  if (protects(offset, kProgramError)) return;
  for (size_t i = 0; i < bytes.size(); i++) contents()[offset + i] &= bytes[i];
  keep(offset, bytes.size(), kProgramError);
}

void Flash28F128J3::erase(uint64_t offset) {
  if (protects(offset, kEraseError)) return;
  std::ranges::fill(contents().subspan(offset, kBlockBytes), std::byte{0xff});
  keep(offset, kBlockBytes, kEraseError);
}

// One block's lock bit is set; all are cleared together.
void Flash28F128J3::change_locks(uint64_t offset, uint8_t code) {
  status_ |= kReady;
  if (code == kSetLock) {
    locked_[offset / kBlockBytes] = 1;
  } else if (code == kConfirm) {
    std::ranges::fill(locked_, uint8_t{0});
  } else {
    status_ |= kBadSequence;
  }
}

bool Flash28F128J3::protects(uint64_t offset, uint8_t error) {
  status_ |= kReady;
  if (store_ && !locked_[offset / kBlockBytes]) return false;
  status_ |= error | kProtected;
  return true;
}

void Flash28F128J3::keep(uint64_t offset, uint64_t bytes, uint8_t error) {
  const uint64_t first = offset / kSectorBytes * kSectorBytes;
  const uint64_t end = (offset + bytes + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
  if (!store_(first, contents().subspan(first, end - first))) status_ |= error;
}

// --- State

DeviceState Flash28F128J3::save() const {
  return {{"version", 1},
          {"mode", mode_},
          {"next", next_},
          {"status", status_},
          {"buffer_start", buffer_start_},
          {"buffer_expected", buffer_expected_},
          {"buffer_placed", buffer_placed_},
          {"buffer", to_hex(buffer_)},
          {"locked", to_hex(locked_)}};
}

void Flash28F128J3::load(const DeviceState& state) {
  require_version(state, 1, name());
  const auto mode = static_cast<Mode>(bounded(state, "mode", static_cast<uint64_t>(Mode::Query)));
  const auto next = static_cast<Next>(bounded(state, "next", static_cast<uint64_t>(Next::BufferConfirm)));
  const auto status = bounded(state, "status", 0xff);
  const uint64_t start = bounded(state, "buffer_start", bytes_ - kBufferBytes);
  const uint64_t expected = bounded(state, "buffer_expected", kBufferBytes);
  if (next == Next::BufferData && expected == 0) throw std::invalid_argument(name_ + ": no byte is expected");
  const bool placed = state.at("buffer_placed").get<bool>();
  const std::string buffer = saved_bytes(state, "buffer", kBufferBytes, kBufferBytes);
  const std::string locked = saved_bytes(state, "locked", locked_.size(), locked_.size());
  if (std::ranges::any_of(locked, [](char lock) { return lock != 0 && lock != 1; }))
    throw std::invalid_argument(name_ + ": lock bits are damaged");
  next_ = next;
  status_ = static_cast<uint8_t>(status);
  buffer_start_ = start / kBufferBytes * kBufferBytes;
  buffer_expected_ = static_cast<unsigned>(expected);
  buffer_placed_ = placed;
  std::ranges::copy(buffer, buffer_.begin());
  std::ranges::copy(locked, locked_.begin());
  select(mode);
}

}  // namespace penumbra
