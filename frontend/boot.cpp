#include "frontend/boot.h"

#include <stdexcept>
#include <utility>

#include "frontend/boot_format.h"
#include "frontend/host_file.h"

namespace penumbra {

namespace {

// Debian's package "seabios".
constexpr const char* kSeaBios = "/usr/share/seabios/bios-256k.bin";

std::unique_ptr<Boot> make_kernel_boot(const BootRequest& request, const PhysicalMap& map) {
  const bool firmware = request.flash || !request.bios.empty();
  KernelFiles files;
  files.path = request.kernel;
  files.image = read_host_file(request.kernel, map.ram_below_4g(), "RAM");
  files.append = request.append;
  files.initrds = request.initrds;
  if (is_linux_image(files.image))
    return firmware ? make_linux_firmware_boot(std::move(files), map)
                    : make_linux_boot(std::move(files), map);
  if (is_multiboot_image(files.image)) return make_multiboot(std::move(files), map);
  if (is_elf_image(files.image)) return make_pvh_boot(std::move(files), map);
  refuse_image(request.kernel, "is not a bzImage, multiboot or PVH image");
}

}  // namespace

std::unique_ptr<Boot> make_boot(const BootRequest& request, PhysicalMap& map) {
  if (request.kernel.empty()) {
    if (!request.initrds.empty()) throw std::runtime_error("-initrd needs -kernel");
    if (!request.append.empty()) throw std::runtime_error("-append needs -kernel");
    if (request.flash) return std::make_unique<FirmwareBoot>();
    return make_bios_boot(request.bios.empty() ? kSeaBios : request.bios, map);
  }
  if (!request.bios.empty()) make_bios_boot(request.bios, map);
  return make_kernel_boot(request, map);
}

}  // namespace penumbra
