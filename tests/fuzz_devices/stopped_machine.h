// A machine that runs nothing, for what talks to one.
#pragma once

#include <memory>
#include <optional>
#include <stdexcept>

#include "core/machine.h"
#include "devices/pc_board.h"
#include "frontend/balloon_watch.h"
#include "frontend/key_typer.h"
#include "frontend/media_drives.h"
#include "frontend/monitor.h"

namespace penumbra {

class StoppedMachine {
 public:
  StoppedMachine() {
    machine.set_engine(std::make_unique<NoEngine>());
    auto made = std::make_unique<PcBoard>(machine, machine.clock(), machine.io(), machine.map(),
                                          machine.interrupt_line(), board_options());
    board_ = made.get();
    machine.set_board(std::move(made));
    actions.keys =
        &keys_.emplace(machine.clock(), [this](KeyCode code, bool down) { board_->key(code, down); });
    actions.balloon = &balloon_.emplace(machine.clock(), *board_->balloon(), [] {});
    actions.balloon_id = "balloon";
    drives_.add({.name = "disk", .id = {}, .image = {.path = "disk.img"}, .format = "raw"});
    drives_.add({.name = "cd", .id = "id", .image = {}, .format = {}, .removable = &cdrom_, .cdrom = true});
    actions.drives = &drives_;
    actions.press_power_button = [this] { board_->power_management().press_power_button(); };
  }

  Machine machine{[] {
    MachineOptions options;
    options.ram_bytes = uint64_t{2} << 20;
    options.cpu = "base";
    return options;
  }()};
  MonitorActions actions;  // without a screen, whose pictures would go to files of any name

 private:
  class NoEngine : public Engine {
    void run() override {}
    void step() override {}
    void interrupt() override {}
    void discard_translations() override {}
  };
  static PcBoardOptions board_options() {
    PcBoardOptions options;
    options.balloon = true;
    return options;
  }
  PcBoard* board_ = nullptr;
  std::optional<KeyTyper> keys_;
  std::optional<BalloonWatch> balloon_;
  RemovableDevice cdrom_{nullptr, machine.events()};
  // Without files, whose names would be any.
  MediaDrives drives_{
      [](const ImageOptions& image) -> MediaDrives::Medium { throw std::runtime_error(image.path); }};
};

}  // namespace penumbra
