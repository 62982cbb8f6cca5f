// What every chip of the machine can do. Chips know registers; only the board knows ports, lines and
// addresses.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string_view>

namespace penumbra {

// Named, versioned state of a device: what save() returns and load() takes.
using DeviceState = nlohmann::json;

// A chip with byte-wide or wider registers on the I/O bus. `offset` counts from the first port of the range
// that the board gave it; `size` is 1, 2 or 4 bytes. Any access is harmless.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view name() const = 0;
  virtual uint32_t read(uint16_t offset, unsigned size) = 0;
  virtual void write(uint16_t offset, unsigned size, uint32_t value) = 0;
  virtual void reset() = 0;
  virtual DeviceState save() const = 0;
  virtual void load(const DeviceState& state) = 0;
};

// An output pin of a chip: the board connects it to an input elsewhere. Called with the new level.
using LineOutput = std::function<void(bool level)>;

// Where a chip sends bytes that leave the machine.
using ByteSink = std::function<void(uint8_t byte)>;

}  // namespace penumbra
