#include "devices/pci_function.h"

#include <algorithm>
#include <bit>
#include <string_view>
#include <vector>

namespace penumbra {

namespace {

uint8_t byte_at(std::span<const std::byte> image, size_t at) {
  return at < image.size() ? static_cast<uint8_t>(image[at]) : 0;
}

// iPXE's one image for virtio names today's device, firmware runs a ROM only for the function that it names:
// the first image is made this function's, as QEMU does it. A byte that its entry jumps over keeps the
// checksum.
void adopt(std::span<std::byte> image, uint32_t vendor_and_device) {
  constexpr size_t kHeader = 0x18, kSpare = 6;
  const size_t data = byte_at(image, kHeader) | size_t{byte_at(image, kHeader + 1)} << 8;
  constexpr std::string_view kSignature = "PCIR";
  for (size_t i = 0; i < kSignature.size(); i++) {
    if (byte_at(image, data + i) != static_cast<uint8_t>(kSignature[i])) return;
  }
  for (size_t i = 0; i < sizeof vendor_and_device && data + kSignature.size() + i < image.size(); i++) {
    std::byte& byte = image[data + kSignature.size() + i];
    const auto wanted = static_cast<uint8_t>(vendor_and_device >> 8 * i);
    const auto change = static_cast<uint8_t>(static_cast<uint8_t>(byte) - wanted);
    byte = static_cast<std::byte>(wanted);
    image[kSpare] = static_cast<std::byte>(static_cast<uint8_t>(image[kSpare]) + change);
  }
}

}  // namespace

void PciFunction::add_rom(PhysicalMap& map, std::span<const std::byte> rom) {
  if (rom.empty()) return;
  std::vector<std::byte> image(rom.begin(), rom.end());
  image.resize(std::bit_ceil(std::max<size_t>(image.size(), kPageSize)), std::byte{0xff});
  adopt(image, config_.dword(0));
  const auto region = map.add_pci_rom(image);
  config_.add_rom_base(static_cast<uint32_t>(image.size()), [&map, region](std::optional<uint64_t> address) {
    map.place(region, address ? std::optional(PhysAddr{*address}) : std::nullopt);
  });
}

}  // namespace penumbra
