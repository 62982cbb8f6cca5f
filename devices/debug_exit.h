// A port that ends the machine (QEMU's isa-debug-exit): writing `value` at any width exits with
// (value << 1) | 1, so that a guest's exit is never status 0, which is a regular power-off.
#pragma once

#include <functional>
#include <utility>

#include "core/device.h"
#include "devices/chip.h"

namespace penumbra {

class DebugExit : public Device {
 public:
  explicit DebugExit(std::function<void(int exit_code)> exit) : exit_(std::move(exit)) {}

  std::string_view name() const override { return "debug_exit"; }
  uint32_t read(uint16_t offset, unsigned size) override { return 0; }
  void write(uint16_t offset, unsigned size, uint32_t value) override {
    exit_(static_cast<int>(value << 1 | 1));
  }
  void reset() override {}
  DeviceState save() const override { return {{"version", 1}}; }
  void load(const DeviceState& state) override { require_version(state, 1, name()); }

 private:
  std::function<void(int exit_code)> exit_;
};

}  // namespace penumbra
