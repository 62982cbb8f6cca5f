// What the machine starts with: an image given with -kernel or -bios, read and checked once, set up at every
// reset.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/machine.h"
#include "devices/fw_cfg.h"
#include "mmu/physical_map.h"

namespace penumbra {

struct BootRequest {
  std::string kernel;  // path; empty: none
  // Linux: one file. PVH: files. Multiboot: modules, each a list "FILE ARGUMENTS,FILE ARGUMENTS..." in which
  // a doubled comma is one.
  std::vector<std::string> initrds;
  std::string append;
  std::string bios;    // path; empty: none
  bool flash = false;  // firmware is in the board's flash chips
};

class Boot {
 public:
  virtual ~Boot() = default;
  // Once, when there is a board: what firmware takes from there.
  virtual void describe(FwCfg& fw_cfg) const {}
  // Whether start() leaves all to firmware.
  virtual bool through_firmware() const { return false; }
  // After the chips' and the vCPU's reset: copies the images into RAM and sets the vCPU's state.
  virtual void start(Machine& machine) = 0;
};

// Formats are tried in QEMU's order: Linux bzImage, multiboot, PVH. Firmware given beside a Linux kernel
// starts, and finds the kernel in fw_cfg; beside another it is mapped, and the kernel started. Throws
// std::runtime_error with one line naming the file and what is wrong.
std::unique_ptr<Boot> make_boot(const BootRequest& request, PhysicalMap& map);

}  // namespace penumbra
