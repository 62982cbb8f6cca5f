// A board with every chip that it can have, its media and networks in memory.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "devices/pc_board.h"
#include "tests/devices/chip_fixture.h"
#include "tests/devices/memory_disk.h"
#include "tests/devices/memory_network.h"

namespace penumbra {

class BoardControl : public MachineControl {
 public:
  unsigned resets = 0, exits = 0;
  bool a20 = true;
  void request_reset() override { resets++; }
  void request_exit(int) override { exits++; }
  void request_nmi() override {}
  void set_a20(bool open) override { a20 = open; }
};

class MuteServer : public FileServer {
 public:
  void submit(std::vector<std::byte>, size_t, Answer done) override { done({}); }
  void reset() override {}
};

struct FullBoard {
  TestClock time;
  BoardControl control;
  IoBus io;
  PhysicalMap map{uint64_t{4} << 20};
  TestLine intr;
  MemoryDisk disk{64 * 512}, disc{40 * 2048}, virtio_disk{64 * 512}, ahci_disk{64 * 512}, floppy{1'474'560};
  MemoryNetwork network, second_network;
  MuteServer folder;
  PcBoard board{control, time.clock(), io, map, intr.input(), options()};

  PcBoardOptions options() {
    PcBoardOptions result;
    result.ide[0][1] = {.medium = &disk, .serial = "1"};
    result.ide[1][0] = {.medium = &disc, .cdrom = true, .serial = {}};
    result.ahci.resize(1);
    result.ahci[0].drives[0] = {.medium = &ahci_disk, .serial = "3"};
    result.ahci[0].drives[2] = {.medium = &disc, .cdrom = true, .serial = {}};
    result.floppies[0] = &floppy;
    result.virtio_disks = {{.medium = &virtio_disk, .serial = "2"}};
    result.network_cards = {
        {.network = &network, .address = {0x52, 0x54, 0, 0x12, 0x34, 0x56}, .place = {}},
        {.model = PcBoardOptions::NetworkCard::Model::VirtioNet, .network = &second_network, .place = {}}};
    result.entropy = [](std::span<std::byte> to) { std::ranges::fill(to, std::byte{0x5a}); };
    result.balloon = true;
    result.shared_folders = {{.server = &folder, .tag = "share"}};
    result.virtio_ports = {{{.number = 0, .console = true, .name = "console", .out = [](uint8_t) {}}}};
    for (ByteSink& sink : result.serial_out) sink = [](uint8_t) {};
    result.debug_consoles = {{.port = 0xe9, .sink = [](uint8_t) {}}, {.port = 0x402, .sink = [](uint8_t) {}}};
    result.debug_exit_port = 0xf4;
    result.parallel_out = [](uint8_t) {};
    result.testdev = true;
    result.virtio_keyboard = result.virtio_tablet = true;
    result.flashes = {{.contents = std::vector<std::byte>(256 * 1024, std::byte{0x90}), .store = {}}};
    result.start_time = 1'700'000'000;
    return result;
  }

  Device& chip(std::string_view name) {
    for (Device* chip : board.chips()) {
      if (chip->name() == name) return *chip;
    }
    throw std::invalid_argument(std::string(name));
  }
};

}  // namespace penumbra
