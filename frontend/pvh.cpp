// Xen's PVH: ELF images whose note names a 32-bit entry point. Linux' vmlinux is one.
// (Xen's docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h, version 1.)
#include <optional>
#include <utility>

#include "core/little_endian.h"
#include "frontend/board_setup.h"
#include "frontend/boot_format.h"
#include "frontend/boot_info.h"
#include "frontend/boot_memory.h"
#include "frontend/elf_image.h"
#include "frontend/loaded_boot.h"

namespace penumbra {

namespace {

constexpr uint32_t kPhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY

// struct hvm_start_info
constexpr size_t kMagic = 0, kVersion = 4, kModuleCount = 12, kModuleList = 16, kCommandLine = 24,
                 kRootPointer = 32, kMemmap = 40, kMemmapRows = 48, kStartInfoBytes = 56;
constexpr uint32_t kStartMagic = 0x336e'c578;
// struct hvm_modlist_entry and struct hvm_memmap_table_entry
constexpr size_t kModuleStart = 0, kModuleSize = 8, kModuleRowBytes = 32;
constexpr size_t kRangeStart = 0, kRangeSize = 8, kRangeType = 16, kMemmapRowBytes = 24;

constexpr uint64_t kFourGib = uint64_t{1} << 32;

}  // namespace

bool is_elf_image(std::span<const std::byte> image) {
  return ElfImage::is_elf(image);
}

std::unique_ptr<Boot> make_pvh_boot(KernelFiles files, const PhysicalMap& map) {
  BootMemory memory(map);
  const std::span<const std::byte> image = memory.keep(std::move(files.image));
  const ElfImage elf(files.path, image);
  const std::optional<uint64_t> entry = elf.note_value("Xen", kPhys32Entry);
  if (!entry)
    refuse_image(files.path, "is an ELF image with neither a multiboot header nor a PVH entry point");
  elf.place(memory);
  if (!elf.loads(*entry) || *entry >= kFourGib)
    refuse_image(files.path, fmt::format("has its entry point {:#x} outside what it loads", *entry));
  std::vector<PlacedModule> modules;
  for (const std::string& path : files.initrds) modules.push_back(place_module(memory, path, map));

  const auto place = [&](std::vector<std::byte> bytes) {
    return place_info(memory, files, std::move(bytes));
  };
  std::vector<std::byte> info(kStartInfoBytes);
  const std::span<std::byte> fields(info);
  store_field(fields, kMagic, kStartMagic);
  store_field<uint32_t>(fields, kVersion, 1);
  store_field<uint64_t>(fields, kCommandLine, place(text_bytes(files.append)));

  store_field(fields, kRootPointer, kAcpiRootPointer);

  std::vector<std::byte> rows(modules.size() * kModuleRowBytes);
  for (size_t i = 0; i < modules.size(); ++i) {
    const std::span<std::byte> row = std::span(rows).subspan(i * kModuleRowBytes, kModuleRowBytes);
    store_field(row, kModuleStart, modules[i].start);
    store_field(row, kModuleSize, modules[i].size);
  }
  store_field(fields, kModuleCount, static_cast<uint32_t>(modules.size()));
  if (!rows.empty()) store_field<uint64_t>(fields, kModuleList, place(std::move(rows)));

  const std::vector<MemoryRange> ranges = memory_map(map);
  std::vector<std::byte> memmap(ranges.size() * kMemmapRowBytes);
  for (size_t i = 0; i < ranges.size(); ++i) {
    const std::span<std::byte> row = std::span(memmap).subspan(i * kMemmapRowBytes, kMemmapRowBytes);
    store_field(row, kRangeStart, ranges[i].start);
    store_field(row, kRangeSize, ranges[i].size);
    store_field(row, kRangeType, ranges[i].type);
  }
  store_field<uint64_t>(fields, kMemmap, place(std::move(memmap)));
  store_field(fields, kMemmapRows, static_cast<uint32_t>(ranges.size()));

  EntryState state;
  state.rip = *entry;
  state.gpr[kRbx] = place(std::move(info));
  state.gdt = place(boot_gdt(false));
  return std::make_unique<LoadedBoot>(std::move(memory), state);
}

}  // namespace penumbra
