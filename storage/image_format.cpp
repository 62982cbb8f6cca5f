#include "storage/image_format.h"

#include <cstring>

namespace penumbra {

namespace {
bool begins(std::span<const std::byte, kMagicBytes> first, const char* magic, size_t bytes) {
  return std::memcmp(first.data(), magic, bytes) == 0;
}
}  // namespace

bool looks_like_qcow2(std::span<const std::byte, kMagicBytes> first) {
  return begins(first, "QFI\xfb", 4);
}

// The magic numbers of QEMU's other image formats: QED, VMDK, VHDX, Parallels, DMG's and VDI's are further in
// the file.
bool looks_formatted(std::span<const std::byte, kMagicBytes> first) {
  return looks_like_qcow2(first) || begins(first, "QED", 4) || begins(first, "KDMV", 4) ||
         begins(first, "COWD", 4) || begins(first, "vhdxfile", 8) || begins(first, "WithoutF", 8) ||
         begins(first, "WithouFr", 8) || begins(first, "LUKS\xba\xbe", 6) || begins(first, "conectix", 8);
}

}  // namespace penumbra
