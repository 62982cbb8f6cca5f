// Multiboot 1 (Multiboot Specification 0.6.96): ELF images and those whose header says what to load.
#include <algorithm>
#include <optional>
#include <utility>

#include "core/little_endian.h"
#include "frontend/boot_format.h"
#include "frontend/boot_info.h"
#include "frontend/boot_memory.h"
#include "frontend/elf_image.h"
#include "frontend/host_file.h"
#include "frontend/loaded_boot.h"

namespace penumbra {

namespace {

// Header (3.1). Its addresses are there when flag 16 is set.
constexpr uint64_t kSearchBytes = 8192;
constexpr uint32_t kHeaderMagic = 0x1bad'b002;
constexpr size_t kFlags = 4, kChecksum = 8, kHeaderAddr = 12, kLoadAddr = 16, kLoadEndAddr = 20,
                 kBssEndAddr = 24, kEntryAddr = 28;
constexpr size_t kShortHeader = 12, kLongHeader = 32;
constexpr uint32_t kHasAddresses = 1u << 16;
// Page-aligned modules, memory information, and a video mode: that one is a wish (3.1.2).
constexpr uint32_t kKnownRequirements = 7, kRequirements = 0xffff;

// Information structure (3.3).
constexpr size_t kInfoFlags = 0, kMemLower = 4, kMemUpper = 8, kCommandLine = 16, kModuleCount = 20,
                 kModuleList = 24, kMmapLength = 44, kMmapAddr = 48, kBootLoaderName = 64, kInfoBytes = 116;
constexpr uint32_t kInfoMemory = 1u << 0, kInfoCommandLine = 1u << 2, kInfoModules = 1u << 3,
                   kInfoMmap = 1u << 6, kInfoBootLoaderName = 1u << 9;
constexpr size_t kModuleStart = 0, kModuleEnd = 4, kModuleString = 8, kModuleRowBytes = 16;
constexpr size_t kMmapRowBytes = 24;
constexpr uint32_t kEntryMagic = 0x2bad'b002;

constexpr uint64_t kFourGib = uint64_t{1} << 32, kKib = 1024;

std::optional<size_t> find_header(std::span<const std::byte> image) {
  const size_t end = std::min<size_t>(image.size(), kSearchBytes);
  for (size_t at = 0; lies_within(at, kShortHeader, end); at += 4) {
    if (load_field<uint32_t>(image, at) != kHeaderMagic) continue;
    const uint32_t sum =
        kHeaderMagic + load_field<uint32_t>(image, at + kFlags) + load_field<uint32_t>(image, at + kChecksum);
    if (sum == 0) return at;
  }
  return std::nullopt;
}

// Loads by the header's addresses; returns the entry point.
uint64_t place_by_header(const std::string& path, std::span<const std::byte> image, size_t header,
                         BootMemory& memory) {
  if (!lies_within(header, kLongHeader, image.size()))
    refuse_image(path, "is truncated: it ends within its multiboot header");
  const auto field = [&](size_t offset) { return uint64_t{load_field<uint32_t>(image, header + offset)}; };
  const uint64_t load = field(kLoadAddr);
  const uint64_t before_header = field(kHeaderAddr) - load;  // wraps when the header is not in what is loaded
  if (field(kHeaderAddr) < load || before_header > header)
    refuse_image(path, "has a damaged multiboot header: header_addr does not fit load_addr");
  const uint64_t from = header - before_header;
  const uint64_t load_end = field(kLoadEndAddr) ? field(kLoadEndAddr) : load + (image.size() - from);
  if (load_end < load) refuse_image(path, "has a damaged multiboot header: load_end_addr is below load_addr");
  if (!lies_within(from, load_end - load, image.size()))
    refuse_image(path, fmt::format("is truncated: it has {} bytes, and its multiboot header wants {}",
                                   image.size(), from + (load_end - load)));
  const uint64_t end = field(kBssEndAddr) ? field(kBssEndAddr) : load_end;
  if (end < load_end)
    refuse_image(path, "has a damaged multiboot header: bss_end_addr is below load_end_addr");
  if (!memory.is_ram(load, end - load))
    refuse_image(path, fmt::format("loads {} at {:#x}, where there is no RAM", size_text(end - load), load));
  const uint64_t entry = field(kEntryAddr);
  if (entry < load || entry >= end)
    refuse_image(path, fmt::format("has its entry point {:#x} outside what it loads", entry));
  memory.place(load, image.subspan(from, load_end - load), end - load);
  return entry;
}

uint64_t place_elf(const std::string& path, std::span<const std::byte> image, BootMemory& memory) {
  if (!ElfImage::is_elf(image))
    refuse_image(path, "is a multiboot image, but neither ELF nor with addresses");
  const ElfImage elf(path, image);
  elf.place(memory);
  const uint64_t entry = elf.physical_entry();
  if (!elf.loads(entry) || entry >= kFourGib)
    refuse_image(path, fmt::format("has its entry point {:#x} outside what it loads", entry));
  return entry;
}

// Splits QEMU's list: a comma ends a name, two stand for one.
void append_module_names(const std::string& list, std::vector<std::string>& names) {
  names.emplace_back();
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] != ',') {
      names.back() += list[i];
    } else if (i + 1 < list.size() && list[i + 1] == ',') {
      names.back() += list[++i];
    } else {
      names.emplace_back();
    }
  }
}

// Each row is preceded by its own size without that field.
std::vector<std::byte> memory_rows(const PhysicalMap& map) {
  const std::vector<MemoryRange> ranges = memory_map(map);
  std::vector<std::byte> rows(ranges.size() * kMmapRowBytes);
  for (size_t i = 0; i < ranges.size(); ++i) {
    const std::span<std::byte> row = std::span(rows).subspan(i * kMmapRowBytes, kMmapRowBytes);
    store_field(row, 0, static_cast<uint32_t>(kMmapRowBytes - 4));
    store_field(row, 4, ranges[i].start);
    store_field(row, 12, ranges[i].size);
    store_field(row, 20, ranges[i].type);
  }
  return rows;
}

}  // namespace

bool is_multiboot_image(std::span<const std::byte> image) {
  return find_header(image).has_value();
}

std::unique_ptr<Boot> make_multiboot(KernelFiles files, const PhysicalMap& map) {
  BootMemory memory(map);
  const std::span<const std::byte> image = memory.keep(std::move(files.image));
  const size_t header = *find_header(image);
  const uint32_t flags = load_field<uint32_t>(image, header + kFlags);
  if (const uint32_t unknown = flags & kRequirements & ~kKnownRequirements)
    refuse_image(files.path,
                 fmt::format("requires multiboot features {:#x} that are not known here", unknown));

  const uint64_t entry = flags & kHasAddresses ? place_by_header(files.path, image, header, memory)
                                               : place_elf(files.path, image, memory);

  std::vector<std::string> names;
  std::vector<PlacedModule> modules;
  for (const std::string& list : files.initrds) append_module_names(list, names);
  for (const std::string& name : names) {
    const std::string path = name.substr(0, name.find(' '));
    if (path.empty()) throw std::runtime_error("-initrd: a module without a file name");
    modules.push_back(place_module(memory, path, map));
  }

  const auto place = [&](std::vector<std::byte> bytes) {
    return place_info(memory, files, std::move(bytes));
  };
  std::vector<std::byte> info(kInfoBytes);
  const auto set = [&](size_t offset, uint64_t value) {
    store_field(std::span(info), offset, static_cast<uint32_t>(value));
  };
  // As QEMU and GRUB do: the command line starts with the image's name.
  set(kCommandLine, place(text_bytes(files.append.empty() ? files.path : files.path + ' ' + files.append)));
  set(kBootLoaderName, place(text_bytes("penumbra")));
  set(kMemLower, kLowMemoryEnd / kKib);
  set(kMemUpper, (map.ram_below_4g() - kHighMemory) / kKib);

  const std::vector<std::byte> mmap = memory_rows(map);
  set(kMmapLength, mmap.size());
  set(kMmapAddr, place(mmap));

  std::vector<std::byte> rows(modules.size() * kModuleRowBytes);
  for (size_t i = 0; i < modules.size(); ++i) {
    const PlacedModule& module = modules[i];
    const std::span<std::byte> row = std::span(rows).subspan(i * kModuleRowBytes, kModuleRowBytes);
    store_field(row, kModuleStart, static_cast<uint32_t>(module.start));
    store_field(row, kModuleEnd, static_cast<uint32_t>(module.start + module.size));
    store_field(row, kModuleString, place(text_bytes(names[i])));
  }
  set(kModuleCount, modules.size());
  if (!rows.empty()) set(kModuleList, place(std::move(rows)));
  set(kInfoFlags, kInfoMemory | kInfoCommandLine | kInfoModules | kInfoMmap | kInfoBootLoaderName);

  EntryState state;
  state.rip = entry;
  state.gpr[kRax] = kEntryMagic;
  state.gpr[kRbx] = place(std::move(info));
  state.gdt = place(boot_gdt(false));
  return std::make_unique<LoadedBoot>(std::move(memory), state);
}

}  // namespace penumbra
