#include "devices/chip.h"

#include <stdexcept>
#include <string>

namespace penumbra {

uint32_t ByteDevice::read(uint16_t offset, unsigned size) {
  uint32_t value = 0;
  for (unsigned i = 0; i < size; i++) {
    value |= uint32_t{read_byte(static_cast<uint16_t>(offset + i))} << 8 * i;
  }
  return value;
}

void ByteDevice::write(uint16_t offset, unsigned size, uint32_t value) {
  for (unsigned i = 0; i < size; i++) {
    write_byte(static_cast<uint16_t>(offset + i), static_cast<uint8_t>(value >> 8 * i));
  }
}

void require_version(const DeviceState& state, int version, std::string_view chip) {
  if (state.at("version").get<int>() == version) return;
  throw std::invalid_argument(std::string(chip) + ": saved by another version");
}

uint64_t bounded(const DeviceState& state, const char* name, uint64_t limit) {
  const auto value = state.at(name).get<uint64_t>();
  if (value > limit) throw std::invalid_argument(std::string("saved state: ") + name + " is out of range");
  return value;
}

std::string saved_bytes(const DeviceState& state, const char* name, size_t least, size_t most) {
  auto bytes = from_hex(state.at(name).get<std::string>());
  if (!bytes || bytes->size() < least || bytes->size() > most)
    throw std::invalid_argument("saved state: " + std::string(name) + " is damaged");
  return *std::move(bytes);
}

}  // namespace penumbra
