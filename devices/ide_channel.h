// One IDE channel: the command and control block registers of up to two drives, and their interrupt.
//
// T13/1532D volume 2 (parallel transport), chapters 5 and 7.
#pragma once

#include <array>
#include <functional>
#include <memory>

#include "devices/ata_drive.h"
#include "devices/chip.h"

namespace penumbra {

class IdeChannel {
 public:
  // `changed`: after anything that may have changed what the selected drive wants.
  IdeChannel(LineOutput interrupt, std::function<void()> changed);

  // `number` 0 or 1, once each, before the machine runs.
  void attach(unsigned number, std::unique_ptr<AtaDrive> drive);
  AtaDrive* drive(unsigned number) { return drives_[number].get(); }
  AtaDrive* selected() { return drives_[selected_].get(); }

  // Command block: 8 registers; the data port takes words and doublewords, the others bytes.
  uint32_t read_command(uint16_t offset, unsigned size);
  void write_command(uint16_t offset, unsigned size, uint32_t value);
  // Control block: alternate status and device control.
  uint8_t read_control();
  void write_control(uint8_t value);

  bool interrupt() const { return level_; }

  void reset();
  DeviceState save() const;
  void load(const DeviceState& state);

 private:
  uint32_t read_data(unsigned size);
  void write_data(unsigned size, uint32_t value);
  uint8_t read_register(AtaDrive::Register which);
  void write_register(AtaDrive::Register which, uint8_t value);
  uint8_t status() const;
  bool wants_interrupt() const;
  void update();

  LineOutput interrupt_;
  std::function<void()> changed_;
  std::array<std::unique_ptr<AtaDrive>, 2> drives_;
  unsigned selected_ = 0;
  uint8_t control_ = 0;
  bool level_ = false;
};

}  // namespace penumbra
