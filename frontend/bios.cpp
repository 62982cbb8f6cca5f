// Firmware images: mapped to end at 4 GiB, with their last part below 1 MiB too, as chip sets decode them.
#include "devices/pc_board.h"
#include "frontend/boot_format.h"
#include "frontend/host_file.h"

namespace penumbra {

namespace {

constexpr uint64_t kUnit = 64 * 1024, kLargest = uint64_t{16} << 20, kFourGib = uint64_t{1} << 32;

}  // namespace

std::unique_ptr<Boot> make_bios_boot(const std::string& path, PhysicalMap& map) {
  const std::vector<std::byte> image = read_host_file(path, kLargest, "a firmware image");
  if (image.size() % kUnit != 0)
    refuse_image(path, fmt::format("has {} bytes; a firmware image is a multiple of 64 KiB", image.size()));
  map.add_rom(PhysAddr{kFourGib - image.size()}, image);
  PcBoard::add_low_firmware(map, image);
  return std::make_unique<FirmwareBoot>();
}

}  // namespace penumbra
