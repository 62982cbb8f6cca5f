// What most chips share: an eight-bit data bus, and versioned state.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/device.h"
#include "devices/hex.h"

namespace penumbra {

// A chip with an eight-bit data bus: wider accesses reach it as bytes at consecutive offsets, low byte first,
// as an ISA bus does it.
class ByteDevice : public Device {
 public:
  uint32_t read(uint16_t offset, unsigned size) final;
  void write(uint16_t offset, unsigned size, uint32_t value) final;

 protected:
  // Any offset may come; one that the chip doesn't have reads as ones.
  virtual uint8_t read_byte(uint16_t offset) = 0;
  virtual void write_byte(uint16_t offset, uint8_t value) = 0;
};

// Throws std::invalid_argument unless `state` was saved in this version of the chip's format.
void require_version(const DeviceState& state, int version, std::string_view chip);

// Member `name` of a saved state, for untrusted archives: throws std::invalid_argument when it is above
// `limit`, and what nlohmann::json throws when it is missing or no number.
uint64_t bounded(const DeviceState& state, const char* name, uint64_t limit);

// Bytes that were saved with to_hex(): throws as bounded() does, unless there are `least` to `most`.
std::string saved_bytes(const DeviceState& state, const char* name, size_t least, size_t most);

constexpr uint8_t bit(unsigned number) {
  return static_cast<uint8_t>(1u << (number & 7));
}

}  // namespace penumbra
