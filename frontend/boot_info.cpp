#include "frontend/boot_info.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "frontend/host_file.h"

namespace penumbra {

namespace {

constexpr uint64_t kFourGib = uint64_t{1} << 32;
// The first pages belong to the BIOS and to boot sectors.
constexpr uint64_t kInfoStart = 0x9000, kInfoAlignment = 16;

}  // namespace

PlacedModule place_module(BootMemory& memory, const std::string& path, const PhysicalMap& map) {
  const uint64_t low_ram = map.ram_below_4g();
  std::vector<std::byte> bytes = read_host_file(path, low_ram, "RAM");
  const uint64_t size = bytes.size();
  std::optional<uint64_t> start =
      memory.find_free(size, kPageSize, std::max(kHighMemory, memory.end()), kFourGib);
  if (!start) start = memory.find_free(size, kPageSize, kHighMemory, kFourGib);
  if (!start)
    refuse_image(path, fmt::format("has {}, and the kernel leaves no room for it in {} of RAM",
                                   size_text(size), size_text(low_ram)));
  memory.place(*start, std::move(bytes));
  return {.start = *start, .size = size};
}

uint32_t place_info(BootMemory& memory, const KernelFiles& files, std::vector<std::byte> bytes) {
  const std::optional<uint64_t> address =
      memory.find_free(bytes.size(), kInfoAlignment, kInfoStart, kFourGib);
  if (!address) refuse_image(files.path, "leaves no RAM for what it is told about the machine");
  memory.place(*address, std::move(bytes));
  return static_cast<uint32_t>(*address);
}

}  // namespace penumbra
