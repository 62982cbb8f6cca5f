// The image formats that make_boot() knows, one file each.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "frontend/boot.h"

namespace penumbra {

// The vCPU's reset leaves it at the reset vector, which is in a ROM or a flash chip.
class FirmwareBoot : public Boot {
 public:
  bool through_firmware() const override { return true; }
  void start(Machine& machine) override {}
};

struct KernelFiles {
  std::string path;
  std::vector<std::byte> image;
  std::vector<std::string> initrds;  // as given
  std::string append;
};

[[noreturn]] inline void refuse_image(const std::string& path, std::string_view why) {
  throw std::runtime_error(fmt::format("{}: {}", path, why));
}

// linux_boot.cpp: Documentation/x86/boot.rst of the Linux kernel
bool is_linux_image(std::span<const std::byte> image);
std::unique_ptr<Boot> make_linux_boot(KernelFiles files, const PhysicalMap& map);
// By firmware that finds it in fw_cfg: SeaBIOS with roms/linuxboot.asm, OVMF.
std::unique_ptr<Boot> make_linux_firmware_boot(KernelFiles files, const PhysicalMap& map);

// multiboot.cpp: Multiboot Specification 0.6.96
bool is_multiboot_image(std::span<const std::byte> image);
std::unique_ptr<Boot> make_multiboot(KernelFiles files, const PhysicalMap& map);

// pvh.cpp: Xen's docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h
bool is_elf_image(std::span<const std::byte> image);
std::unique_ptr<Boot> make_pvh_boot(KernelFiles files, const PhysicalMap& map);

// bios.cpp: maps the image now; it starts at the reset vector, where the vCPU's reset leaves it.
std::unique_ptr<Boot> make_bios_boot(const std::string& path, PhysicalMap& map);

}  // namespace penumbra
