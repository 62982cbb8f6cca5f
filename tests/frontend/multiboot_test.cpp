// Offsets and values are those of the Multiboot Specification, version 0.6.96, chapter 3.
#include "tests/frontend/boot_fixture.h"
#include "tests/frontend/elf_builder.h"

namespace penumbra {
namespace {

constexpr uint32_t kMagic = 0x1bad'b002;

class Multiboot : public BootTest {
 protected:
  static ImageBuilder with_header(size_t size, size_t at, uint32_t flags) {
    return ImageBuilder(size).set(at, kMagic).set(at + 4, flags).set(at + 8, 0 - kMagic - flags);
  }
  // 8000 bytes of which the header asks for 0x200000 to 0x201000, with 0x3000 zeros behind them.
  static constexpr size_t kHeader = 0x104;
  static ImageBuilder with_addresses() {
    ImageBuilder image = with_header(8000, kHeader, 1u << 16 | 3);
    image.set<uint32_t>(kHeader + 12, 0x20'0004).set<uint32_t>(kHeader + 16, 0x20'0000);
    image.set<uint32_t>(kHeader + 20, 0x20'1000).set<uint32_t>(kHeader + 24, 0x20'4000);
    return image.set<uint32_t>(kHeader + 28, 0x20'0040)
        .set(0x100, "head")
        .set(0x140, "code")
        .set(0x1100, "rest");
  }
  static Elf32Builder elf() {
    Elf32Builder image;
    image.load(0x10'0000, with_header(4096, 0, 3).set(0x40, "code").bytes()).load(0x20'0000, "data", 0x3000);
    return image.entry(0x10'0040);
  }

  template <typename Image>
  void refused(Image image, std::string_view why, uint64_t ram = 64 * kMib) {
    const std::string path = file("kernel", image.bytes());
    expect_refused(kernel_request(path), path, why, ram);
  }
  uint64_t info(uint64_t offset) { return memory(state().gpr[kRbx] + offset, 4); }
};

TEST_F(Multiboot, EntryState) {
  start(kernel_request(file("kernel", elf().bytes())));
  expect_flat32_entry(0x10'0040);
  EXPECT_EQ(state().gpr[kRax], 0x2bad'b002u);
  EXPECT_EQ(memory_text(0x10'0040, 4), "code");
}

TEST_F(Multiboot, LoadsByTheHeadersAddresses) {
  start(kernel_request(file("kernel", with_addresses())));
  expect_flat32_entry(0x20'0040);
  EXPECT_EQ(memory_text(0x20'0000, 4), "head");
  EXPECT_EQ(memory_text(0x20'0040, 4), "code");
  EXPECT_EQ(memory(0x20'1000, 4), 0u);  // "rest" is beyond load_end_addr
}

TEST_F(Multiboot, WithoutLoadEndTheWholeFileIsLoaded) {
  ImageBuilder image = with_addresses();
  image.set<uint32_t>(kHeader + 20, 0).set<uint32_t>(kHeader + 24, 0);
  start(kernel_request(file("kernel", image)));
  EXPECT_EQ(memory_text(0x20'1000, 4), "rest");
}

TEST_F(Multiboot, AddressesWinOverElf) {
  Elf32Builder image;
  image.load(0x10'0000, "elf");
  std::string bytes = image.bytes();
  bytes.resize(8192);
  ImageBuilder header = with_addresses();
  bytes.replace(kHeader - 4, 0x400, header.bytes().substr(kHeader - 4, 0x400));
  start(kernel_request(file("kernel", bytes)));
  EXPECT_EQ(state().rip, 0x20'0040u);
}

TEST_F(Multiboot, ZeroesBssAtEveryReset) {
  start(kernel_request(file("kernel", elf().bytes())));
  for (uint64_t address : {0x20'0000, 0x20'0004, 0x20'2ff8, 0x20'3000})
    machine_->map().write(PhysAddr{address}, 8, 0x1111'1111'1111'1111);
  start_again();
  EXPECT_EQ(memory(0x20'0000, 8), 0x6174'6164u);  // "data"
  EXPECT_EQ(memory(0x20'2ff8, 8), 0u);
  EXPECT_NE(memory(0x20'3000, 8), 0u);
}

TEST_F(Multiboot, VirtualEntryPointIsMadePhysical) {
  Elf32Builder image;
  image.load(0x10'0000, with_header(4096, 0, 0).bytes(), 0, 0xc010'0000).entry(0xc010'0020);
  start(kernel_request(file("kernel", image.bytes())));
  EXPECT_EQ(state().rip, 0x10'0020u);
}

TEST_F(Multiboot, Elf64) {
  Elf64Builder image;
  image.load(0x10'0000, with_header(4096, 0, 0).bytes()).entry(0x10'0020);
  start(kernel_request(file("kernel", image.bytes())));
  expect_flat32_entry(0x10'0020);
}

TEST_F(Multiboot, MemoryInformation) {
  start(kernel_request(file("kernel", elf().bytes())), 5000 * kMib);
  EXPECT_EQ(info(0) & 1, 1u);
  EXPECT_EQ(info(4), 639u);
  EXPECT_EQ(info(8), (0xc000'0000 - kMib) / 1024);  // up to the first hole
  ASSERT_EQ(info(0) & 1u << 6, 1u << 6);
  // Walks as the specification's example does: `size` bytes behind each size field.
  uint64_t ram = 0, rows = 0;
  uint64_t at = info(48);
  for (const uint64_t end = at + info(44); at < end; at += memory(at, 4) + 4, ++rows) {
    ASSERT_GE(memory(at, 4), 20u);
    if (memory(at + 20, 4) == 1) ram += memory(at + 12, 8);
  }
  EXPECT_EQ(rows, 5u);
  EXPECT_EQ(ram, 5000 * kMib - kMib + 0x9'fc00);
}

TEST_F(Multiboot, CommandLineStartsWithTheImagesName) {
  const std::string path = file("kernel", elf().bytes());
  start(kernel_request(path, "a=1 b"));
  EXPECT_EQ(info(0) & 1u << 2, 1u << 2);
  EXPECT_EQ(text(info(16)), path + " a=1 b");
  EXPECT_EQ(info(0) & 1u << 9, 1u << 9);
  EXPECT_EQ(text(info(64)), "penumbra");
  EXPECT_EQ(info(0) & ~uint64_t{0x24d}, 0u);  // nothing else is claimed
}

TEST_F(Multiboot, Modules) {
  const std::string one = file("one", std::string(5000, '1')), two = file("two", "2");
  start(kernel_request(file("kernel", elf().bytes()), "", {one + " with words", two}));
  EXPECT_EQ(info(0) & 1u << 3, 1u << 3);
  ASSERT_EQ(info(20), 2u);
  const uint64_t rows = info(24);
  const uint64_t first = memory(rows, 4), second = memory(rows + 16, 4);
  EXPECT_EQ(first, 0x20'3000u);  // the first page behind the kernel's .bss
  EXPECT_EQ(memory(rows + 4, 4), first + 5000);
  EXPECT_EQ(memory_text(first, 5000), std::string(5000, '1'));
  EXPECT_EQ(text(memory(rows + 8, 4)), one + " with words");
  EXPECT_EQ(second, first + 0x2000);
  EXPECT_EQ(memory(rows + 20, 4), second + 1);
  EXPECT_EQ(text(memory(rows + 24, 4)), two);
}

TEST_F(Multiboot, ModuleListIsSplitAtSingleCommas) {
  const std::string one = file("one", "1"), two = file("t,w,o", "2"), three = file("three", "3");
  const std::string named_two = folder() + "/t,,w,,o";
  start(kernel_request(file("kernel", elf().bytes()), "", {one + " a," + named_two + " b,,c", three}));
  ASSERT_EQ(info(20), 3u);
  EXPECT_EQ(text(memory(info(24) + 8, 4)), one + " a");
  EXPECT_EQ(text(memory(info(24) + 24, 4)), two + " b,c");
  EXPECT_EQ(memory_text(memory(info(24) + 16, 4), 1), "2");
  EXPECT_EQ(text(memory(info(24) + 40, 4)), three);
  const std::string kernel = file("kernel", elf().bytes());
  expect_refused(kernel_request(kernel, "", {one + ","}), "-initrd", "a module without a file name");
}

TEST_F(Multiboot, InformationMakesWayForTheKernel) {
  ImageBuilder image = with_header(0x9'0000, 0, 1u << 16);
  image.set<uint32_t>(12, 0x8000).set<uint32_t>(16, 0x8000).set<uint32_t>(28, 0x8000);
  start(kernel_request(file("kernel", image)));
  for (uint64_t address : {state().gpr[kRbx], state().gdtr.base, info(16), info(48), info(64)})
    EXPECT_GE(address, 0x9'8000u);
}

TEST_F(Multiboot, HeaderMustBeAlignedAndInTheFirst8KiB) {
  refused(with_header(10000, 8180, 0), "neither ELF nor with addresses");
  refused(with_header(10000, 8184, 0), "is not a bzImage, multiboot or PVH image");
  refused(with_header(10000, 2, 0), "is not a bzImage, multiboot or PVH image");
  refused(with_header(10000, 0, 0).set<uint32_t>(8, 1), "is not a bzImage, multiboot or PVH image");
}

TEST_F(Multiboot, UnknownRequirementsAreRefused) {
  refused(with_header(4096, 0, 0x8008), "requires multiboot features 0x8008");
  ImageBuilder video = with_addresses();
  const uint32_t flags = 1u << 16 | 4;
  start(kernel_request(file("kernel", video.set(kHeader + 4, flags).set(kHeader + 8, 0 - kMagic - flags))));
}

TEST_F(Multiboot, DamagedAddressesAreRefused) {
  refused(with_addresses().resize(kHeader + 20), "ends within its multiboot header");
  refused(with_addresses().set<uint32_t>(kHeader + 12, 0x1f'ffff), "header_addr does not fit load_addr");
  refused(with_addresses().set<uint32_t>(kHeader + 12, 0x20'0200), "header_addr does not fit load_addr");
  refused(with_addresses().set<uint32_t>(kHeader + 20, 0x1f'0000), "load_end_addr is below load_addr");
  refused(with_addresses().set<uint32_t>(kHeader + 20, 0x20'3000), "is truncated: it has 8000 bytes");
  refused(with_addresses().set<uint32_t>(kHeader + 20, 0xffff'ffff), "is truncated");
  refused(with_addresses().set<uint32_t>(kHeader + 24, 0x20'0800), "bss_end_addr is below load_end_addr");
  refused(with_addresses().set<uint32_t>(kHeader + 24, 0xffff'ffff), "where there is no RAM");
  refused(with_addresses().set<uint32_t>(kHeader + 28, 0x1f'ffff), "entry point 0x1fffff");
  refused(with_addresses().set<uint32_t>(kHeader + 28, 0x20'4000), "entry point 0x204000");
  refused(with_addresses(), "where there is no RAM", 2 * kMib);
}

TEST_F(Multiboot, DamagedElfIsRefused) {
  const auto damaged = [&](auto damage, std::string_view why) {
    Elf32Builder image = elf();
    damage(image);
    refused(image, why);
  };
  damaged([](auto& image) { image.header.e_machine = EM_ARM; }, "another processor");
  damaged([](auto& image) { image.header.e_ident[EI_CLASS] = 7; }, "another kind");
  damaged([](auto& image) { image.header.e_ident[EI_DATA] = ELFDATA2MSB; }, "another kind");
  damaged([](auto& image) { image.header.e_type = ET_REL; }, "not an executable");
  damaged([](auto& image) { image.header.e_phentsize = 7; }, "program headers of 7 bytes");
  damaged([](auto& image) { image.header.e_phoff = 0xffff'fff0; }, "before its ELF program headers");
  damaged([](auto& image) { image.segments[1].p_offset = 0xffff'f000; }, "is truncated");
  damaged([](auto& image) { image.segments[1].p_filesz = 0xffff'f000; }, "is truncated");
  damaged([](auto& image) { image.segments[1].p_memsz = 1; }, "smaller in memory");
  damaged([](auto& image) { image.segments[1].p_memsz = 0xffff'ffff; }, "at 0x200000, where there is no RAM");
  damaged([](auto& image) { image.segments[1].p_paddr = 0xffff'ffff; }, "where there is no RAM");
  damaged([](auto& image) { image.segments[1].p_paddr = 0xb'8000; }, "at 0xb8000, where there is no RAM");
  damaged([](auto& image) { image.segments[1].p_paddr = 0x10'0800; }, "over another of its segments");
  damaged([](auto& image) { image.entry(0x30'0000); }, "entry point 0x300000");
  damaged([](auto& image) { image.segments[0].p_type = image.segments[1].p_type = PT_NULL; },
          "no ELF segment to load");
}

TEST_F(Multiboot, TruncatedElfIsRefused) {
  const std::string whole = elf().bytes();
  const std::string path = file("kernel", whole.substr(0, whole.size() - 1));
  expect_refused(kernel_request(path), path,
                 "is truncated: it has 8195 bytes, and ELF segment 1 ends at 0x2000+0x4");
}

TEST_F(Multiboot, ModulesThatDoNotFitAreRefused) {
  const std::string kernel = file("kernel", elf().bytes()), large = file("large", ""),
                    absent = folder() + "/absent";
  std::filesystem::resize_file(large, 63 * kMib);
  expect_refused(kernel_request(kernel, "", {large}), large,
                 "has 63 MiB, and the kernel leaves no room for it");
  expect_refused(kernel_request(kernel, "", {absent + " words"}), absent, "No such file");
}

TEST_F(Multiboot, ModulesGoBelowTheKernelIfThereIsNoRoomBehindIt) {
  Elf32Builder image;
  image.load(62 * kMib, with_header(4096, 0, 3).bytes()).entry(62 * kMib);
  const std::string large = file("large", "x");
  std::filesystem::resize_file(large, 4 * kMib);
  start(kernel_request(file("kernel", image.bytes()), "", {large}));
  EXPECT_EQ(memory(info(24), 4), kMib);
}

}  // namespace
}  // namespace penumbra
