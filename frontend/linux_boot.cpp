// The Linux boot protocol, from 2.02 on (Documentation/x86/boot.rst): enters the kernel's protected-mode part
// directly, at its 64-bit entry point if it has one and else at the 32-bit one.
#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

#include "core/little_endian.h"
#include "frontend/board_setup.h"
#include "frontend/boot_format.h"
#include "frontend/boot_memory.h"
#include "frontend/host_file.h"
#include "frontend/linuxboot_rom.h"
#include "frontend/loaded_boot.h"

namespace penumbra {

namespace {

// Offsets in the image, and in boot_params too.
constexpr size_t kSetupSects = 0x1f1, kSysSize = 0x1f4, kBootFlag = 0x1fe, kJumpLength = 0x201,
                 kMagic = 0x202, kVersion = 0x206, kTypeOfLoader = 0x210, kLoadFlags = 0x211,
                 kCode32Start = 0x214, kRamdiskImage = 0x218, kRamdiskSize = 0x21c, kHeapEndPtr = 0x224,
                 kCmdLinePtr = 0x228, kInitrdAddrMax = 0x22c, kKernelAlignment = 0x230, kRelocatable = 0x234,
                 kXloadFlags = 0x236, kCmdlineSize = 0x238, kPrefAddress = 0x258, kInitSize = 0x260;
constexpr size_t kHeaderStart = kSetupSects, kHeaderBase = 0x202, kHeaderLimit = 0x290;
// boot_params only.
constexpr size_t kAcpiRootPointerField = 0x70, kE820Count = 0x1e8, kE820Table = 0x2d0, kE820RowBytes = 20,
                 kBootParamsBytes = 4096;

constexpr uint32_t kHdrS = 0x5372'6448;
constexpr uint8_t kLoadedHigh = 1, kCanUseHeap = 0x80;  // of loadflags
constexpr uint16_t kXlfKernel64 = 1;                    // of xloadflags
constexpr uint8_t kUnknownLoader = 0xff;
constexpr uint64_t kEntry64 = 0x200;
constexpr uint64_t kSectorBytes = 512, kFourGib = uint64_t{1} << 32;

// Low memory, below everything that a kernel claims for itself. The first page is the BIOS data area's.
constexpr uint64_t kGdt = 0x1000, kBootParams = 0x2000, kPageTables = 0x3000, kCommandLine = 0x2'0000;
// Where roms/linuxboot.asm puts the real-mode code; its stack ends below the command line.
constexpr uint64_t kSetup = 0x1'0000;

// What the setup header says, with the defaults for fields that its version lacks.
struct SetupHeader {
  uint16_t version;
  size_t end;           // offset behind the header
  uint64_t setup_size;  // bytes before the protected-mode kernel
  bool code64, relocatable;
  uint32_t code32_start;
  uint64_t initrd_max;  // last address that the RAM disk may occupy
  uint64_t alignment;
  uint64_t command_line_max;  // bytes without the final zero
  uint64_t preferred;         // run-time address; 0: not said
  uint64_t init_size;         // bytes used from there on until the kernel knows the memory map
};

std::string version_text(uint16_t version) {
  return fmt::format("{}.{:02}", version >> 8, version & 0xff);
}

SetupHeader read_header(const std::string& path, std::span<const std::byte> image) {
  const auto byte = [&](size_t offset) { return load_field<uint8_t>(image, offset); };
  const auto word = [&](size_t offset) { return load_field<uint16_t>(image, offset); };
  const auto dword = [&](size_t offset) { return load_field<uint32_t>(image, offset); };

  SetupHeader header{};
  header.end = std::min<size_t>(kHeaderBase + byte(kJumpLength), kHeaderLimit);
  header.version = word(kVersion);
  if (header.version < 0x202)
    refuse_image(path, fmt::format("needs boot protocol {}; 2.02 is the oldest known here",
                                   version_text(header.version)));
  // Fields that the version promises. Images end their header where the jump at 0x200 leads.
  const uint16_t version = header.version;
  const size_t needed = version >= 0x20a   ? kInitSize + 4
                        : version >= 0x206 ? kCmdlineSize + 4
                        : version >= 0x205 ? kRelocatable + 1
                        : version >= 0x203 ? kInitrdAddrMax + 4
                                           : kCmdLinePtr + 4;
  if (header.end < needed)
    refuse_image(path,
                 fmt::format("has a setup header too short for boot protocol {}", version_text(version)));
  if (image.size() < header.end) refuse_image(path, "is truncated: it ends within its setup header");
  if (!(byte(kLoadFlags) & kLoadedHigh))
    refuse_image(path, "is a zImage; only bzImage kernels are known here");

  const unsigned sectors = byte(kSetupSects);
  header.setup_size = ((sectors ? sectors : 4) + 1) * kSectorBytes;
  // The last paragraph may be incomplete. Before 2.04 the field has 16 bits, too few for a bzImage.
  const uint64_t code = version >= 0x204 ? uint64_t{dword(kSysSize)} * 16 : 16;
  const uint64_t wanted = header.setup_size + code;
  if (image.size() + 15 < wanted)
    refuse_image(
        path, fmt::format("is truncated: it has {} bytes, and the kernel is at least {} as its header says",
                          image.size(), wanted - 15));
  if (image.size() <= header.setup_size) refuse_image(path, "has no protected-mode code");

  header.code32_start = dword(kCode32Start);
  header.initrd_max = version >= 0x203 ? dword(kInitrdAddrMax) : 0x37ff'ffff;
  header.alignment = version >= 0x205 ? dword(kKernelAlignment) : 1;
  header.relocatable = version >= 0x205 && byte(kRelocatable) != 0;
  header.command_line_max = version >= 0x206 ? dword(kCmdlineSize) : 255;
  if (version >= 0x20a) {
    header.preferred = load_field<uint64_t>(image, kPrefAddress);
    header.init_size = dword(kInitSize);
  }
  header.code64 = version >= 0x20c && (word(kXloadFlags) & kXlfKernel64);
  if (header.relocatable && !std::has_single_bit(header.alignment))
    refuse_image(path, fmt::format("has a damaged setup header: alignment {:#x}", header.alignment));
  return header;
}

// Where the protected-mode kernel is copied, and the RAM that is its own until it has read the memory map.
struct Placement {
  uint64_t load, end;
};

Placement place_kernel(const std::string& path, const SetupHeader& header, uint64_t code_size,
                       uint64_t low_ram) {
  Placement placement{};
  const uint64_t wished = std::max(header.preferred, kHighMemory);
  if (wished >= kFourGib)
    refuse_image(path, fmt::format("wants to run at {:#x}, above 4 GiB", header.preferred));
  placement.load =
      header.relocatable ? (wished + header.alignment - 1) & ~(header.alignment - 1) : kHighMemory;
  // A kernel that was not put at its run-time address moves there before it unpacks itself.
  const uint64_t running = header.relocatable ? placement.load : wished;
  placement.end = std::max(placement.load + code_size, running + header.init_size);
  if (placement.end > low_ram)
    refuse_image(path, fmt::format("needs {} of RAM, and there are {} below 4 GiB", size_text(placement.end),
                                   size_text(low_ram)));
  return placement;
}

// 4 GiB at their own addresses in pages of 2 MiB: one page of level 4, one of level 3, four of level 2.
std::vector<std::byte> identity_page_tables(uint64_t address) {
  constexpr uint64_t kPresentWritable = 3, kLarge = 0x80, kLargePage = uint64_t{2} << 20;
  std::vector<std::byte> tables(6 * kPageSize);
  const std::span<std::byte> bytes(tables);
  store_field<uint64_t>(bytes, 0, (address + kPageSize) | kPresentWritable);
  for (size_t i = 0; i < 4; ++i)
    store_field<uint64_t>(bytes, kPageSize + i * 8, (address + (2 + i) * kPageSize) | kPresentWritable);
  for (size_t i = 0; i < 4 * 512; ++i)
    store_field<uint64_t>(bytes, 2 * kPageSize + i * 8, i * kLargePage | kPresentWritable | kLarge);
  return tables;
}

// As high as it may go, so that the kernel has room below.
uint64_t place_initrd(const std::string& path, uint64_t size, const SetupHeader& header, uint64_t kernel_end,
                      uint64_t low_ram) {
  const uint64_t top = std::min(low_ram, header.initrd_max + 1);
  const uint64_t room = top > kernel_end ? top - kernel_end : 0;
  const uint64_t address = size <= room ? (top - size) & ~kPageOffsetMask : 0;
  if (address < kernel_end)
    refuse_image(path, fmt::format("has {}, and the kernel leaves room for {} in {} of RAM", size_text(size),
                                   size_text(room), size_text(low_ram)));
  return address;
}

void check_command_line(const KernelFiles& files, const SetupHeader& header) {
  const uint64_t room = std::min(header.command_line_max, kLowMemoryEnd - kCommandLine - 1);
  if (files.append.size() > room)
    refuse_image(files.path, fmt::format("takes a command line of up to {} bytes, and -append has {}", room,
                                         files.append.size()));
}

// One RAM disk, or none.
std::vector<std::byte> read_initrd(const KernelFiles& files, uint64_t low_ram) {
  if (files.initrds.size() > 1) refuse_image(files.initrds[1], "is a second initrd; Linux takes one");
  return files.initrds.empty() ? std::vector<std::byte>() : read_host_file(files.initrds[0], low_ram, "RAM");
}

// The pieces as fw_cfg has them, under the keys of QEMU's loader.
class LinuxFirmwareBoot final : public FirmwareBoot {
 public:
  std::vector<std::byte> setup, code, command_line, initrd;
  uint64_t initrd_address = 0;

  void describe(FwCfg& fw_cfg) const override {
    const auto add = [&fw_cfg](uint16_t address_key, uint64_t address, uint16_t size_key, uint16_t data_key,
                               std::span<const std::byte> data) {
      const auto* first = reinterpret_cast<const uint8_t*>(data.data());
      fw_cfg.add_u32(address_key, static_cast<uint32_t>(address));
      fw_cfg.add_u32(size_key, static_cast<uint32_t>(data.size()));
      fw_cfg.add_bytes(data_key, FwCfg::Bytes(first, first + data.size()));
    };
    add(FwCfg::kSetupAddress, kSetup, FwCfg::kSetupSize, FwCfg::kSetupData, setup);
    add(FwCfg::kKernelAddress, kHighMemory, FwCfg::kKernelSize, FwCfg::kKernelData, code);
    add(FwCfg::kCommandLineAddress, kCommandLine, FwCfg::kCommandLineSize, FwCfg::kCommandLineData,
        command_line);
    add(FwCfg::kInitrdAddress, initrd_address, FwCfg::kInitrdSize, FwCfg::kInitrdData, initrd);
    const std::span<const uint8_t> rom = linuxboot_rom();
    fw_cfg.add_file("genroms/linuxboot.bin", FwCfg::Bytes(rom.begin(), rom.end()));
  }
};

}  // namespace

bool is_linux_image(std::span<const std::byte> image) {
  return image.size() >= kVersion + 2 && load_field<uint16_t>(image, kBootFlag) == 0xaa55 &&
         load_field<uint32_t>(image, kMagic) == kHdrS && load_field<uint16_t>(image, kVersion) >= 0x200;
}

std::unique_ptr<Boot> make_linux_boot(KernelFiles files, const PhysicalMap& map) {
  const uint64_t low_ram = map.ram_below_4g();
  BootMemory memory(map);
  const std::span<const std::byte> image = memory.keep(std::move(files.image));
  const SetupHeader header = read_header(files.path, image);

  const std::span<const std::byte> code = image.subspan(header.setup_size);
  const Placement kernel = place_kernel(files.path, header, code.size(), low_ram);
  uint64_t entry = kernel.load;
  if (header.code64) {
    entry += kEntry64;
  } else if (!header.relocatable) {
    entry = header.code32_start;
  }
  if (entry < kernel.load || entry - kernel.load >= code.size())
    refuse_image(files.path, fmt::format("has its entry point {:#x} outside its code", entry));

  check_command_line(files, header);

  std::vector<std::byte> params(kBootParamsBytes);
  std::ranges::copy(image.subspan(kHeaderStart, header.end - kHeaderStart), params.begin() + kHeaderStart);
  const std::span<std::byte> fields(params);
  store_field<uint8_t>(fields, kTypeOfLoader, kUnknownLoader);
  store_field<uint32_t>(fields, kCode32Start, static_cast<uint32_t>(kernel.load));
  store_field<uint32_t>(fields, kCmdLinePtr, kCommandLine);

  store_field(fields, kAcpiRootPointerField, kAcpiRootPointer);

  size_t rows = 0;
  for (const MemoryRange& range : memory_map(map)) {
    const size_t row = kE820Table + rows++ * kE820RowBytes;
    store_field(fields, row, range.start);
    store_field(fields, row + 8, range.size);
    store_field(fields, row + 16, range.type);
  }
  store_field(fields, kE820Count, static_cast<uint8_t>(rows));

  memory.place(kernel.load, code, code.size());
  memory.place(kGdt, boot_gdt(header.code64));
  memory.place(kCommandLine, text_bytes(files.append));
  if (header.code64) memory.place(kPageTables, identity_page_tables(kPageTables));

  if (std::vector<std::byte> initrd = read_initrd(files, low_ram); !initrd.empty()) {
    const uint64_t address = place_initrd(files.initrds[0], initrd.size(), header, kernel.end, low_ram);
    store_field(fields, kRamdiskImage, static_cast<uint32_t>(address));
    store_field(fields, kRamdiskSize, static_cast<uint32_t>(initrd.size()));
    memory.place(address, std::move(initrd));
  }
  memory.place(kBootParams, std::move(params));

  EntryState state;
  state.rip = entry;
  state.gpr[kRsi] = kBootParams;
  state.gdt = kGdt;
  state.cr3 = header.code64 ? kPageTables : 0;
  return std::make_unique<LoadedBoot>(std::move(memory), state);
}

std::unique_ptr<Boot> make_linux_firmware_boot(KernelFiles files, const PhysicalMap& map) {
  // Firmware has its tables and itself at the end of RAM.
  constexpr uint64_t kFirmwareRam = 256 * 1024;
  const uint64_t low_ram = map.ram_below_4g() - std::min(map.ram_below_4g(), kFirmwareRam);
  const SetupHeader header = read_header(files.path, files.image);
  check_command_line(files, header);
  const std::span<const std::byte> image(files.image);
  auto boot = std::make_unique<LinuxFirmwareBoot>();
  boot->code.assign(image.begin() + static_cast<ptrdiff_t>(header.setup_size), image.end());
  boot->setup.assign(image.begin(), image.begin() + static_cast<ptrdiff_t>(header.setup_size));
  boot->command_line = text_bytes(files.append);
  boot->initrd = read_initrd(files, low_ram);
  const Placement kernel = place_kernel(files.path, header, boot->code.size(), low_ram);
  const std::span<std::byte> fields(boot->setup);
  if (!boot->initrd.empty()) {
    boot->initrd_address = place_initrd(files.initrds[0], boot->initrd.size(), header, kernel.end, low_ram);
    store_field(fields, kRamdiskImage, static_cast<uint32_t>(boot->initrd_address));
    store_field(fields, kRamdiskSize, static_cast<uint32_t>(boot->initrd.size()));
  }
  constexpr uint16_t kHeapMargin = 0x200;
  store_field<uint8_t>(fields, kTypeOfLoader, kUnknownLoader);
  store_field<uint8_t>(fields, kLoadFlags, load_field<uint8_t>(fields, kLoadFlags) | kCanUseHeap);
  store_field<uint16_t>(fields, kHeapEndPtr, static_cast<uint16_t>(kCommandLine - kSetup - kHeapMargin));
  store_field<uint32_t>(fields, kCmdLinePtr, static_cast<uint32_t>(kCommandLine));
  return boot;
}

}  // namespace penumbra
