// What the machine starts with: an image given with -kernel or -bios, read and checked once, set up at every
// reset.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/machine.h"
#include "mmu/physical_map.h"

namespace penumbra {

struct BootRequest {
  std::string kernel;  // path; empty: none
  // Linux: one file. PVH: files. Multiboot: modules, each a list "FILE ARGUMENTS,FILE ARGUMENTS..." in which
  // a doubled comma is one.
  std::vector<std::string> initrds;
  std::string append;
  std::string bios;  // path; empty: none
};

class Boot {
 public:
  virtual ~Boot() = default;
  // After the chips' and the vCPU's reset: copies the images into RAM and sets the vCPU's state.
  virtual void start(Machine& machine) = 0;
};

// Formats are tried in QEMU's order: Linux bzImage, multiboot, PVH. Firmware given beside a kernel is mapped,
// and the kernel started. Throws std::runtime_error with one line naming the file and what is wrong.
std::unique_ptr<Boot> make_boot(const BootRequest& request, PhysicalMap& map);

}  // namespace penumbra
