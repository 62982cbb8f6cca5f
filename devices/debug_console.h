// A port that prints the bytes written to it (Bochs' port E9, QEMU's isa-debugcon). It reads as E9h, which is
// how a program finds out that it is there.
#pragma once

#include <string>
#include <utility>

#include "devices/chip.h"

namespace penumbra {

class DebugConsole : public ByteDevice {
 public:
  DebugConsole(std::string name, ByteSink out) : name_(std::move(name)), out_(std::move(out)) {}

  std::string_view name() const override { return name_; }
  void reset() override {}
  DeviceState save() const override { return {{"version", 1}}; }
  void load(const DeviceState& state) override { require_version(state, 1, name_); }

 protected:
  uint8_t read_byte(uint16_t offset) override { return offset == 0 ? 0xe9 : 0xff; }
  void write_byte(uint16_t offset, uint8_t value) override {
    if (offset == 0 && out_) out_(value);
  }

 private:
  const std::string name_;
  ByteSink out_;
};

}  // namespace penumbra
