// Offsets and values are those of Xen's xen/include/public/arch-x86/hvm/start_info.h and
// docs/misc/pvh.pandoc.
#include "frontend/board_setup.h"
#include "tests/frontend/boot_fixture.h"
#include "tests/frontend/elf_builder.h"

namespace penumbra {
namespace {

class Pvh : public BootTest {
 protected:
  static std::string note(const std::string& name, uint32_t type, const std::string& value) {
    ImageBuilder bytes(12 + (name.size() + 4) / 4 * 4 + (value.size() + 3) / 4 * 4);
    bytes.set(0, static_cast<uint32_t>(name.size() + 1)).set(4, static_cast<uint32_t>(value.size()));
    return bytes.set(8, type).set(12, name).set(12 + (name.size() + 4) / 4 * 4, value).bytes();
  }
  static std::string number(uint64_t value, size_t bytes) {
    return std::string(reinterpret_cast<const char*>(&value), bytes);
  }
  static std::string entry_note(uint64_t entry, size_t bytes = 4) {
    return note("Xen", 18, number(entry, bytes));
  }

  static Elf64Builder elf(const std::string& notes = entry_note(0x10'0040)) {
    Elf64Builder image;
    image.load(0x10'0000, ImageBuilder(4096).set(0x40, "code").bytes(), 0, 0xffff'ffff'8010'0000);
    image.load(0x20'0000, "data", 0x3000, 0xffff'ffff'8020'0000).entry(0xffff'ffff'8010'0000);
    image.add(PT_NOTE, PF_R, 0, notes);
    return image;
  }

  template <typename Image>
  void refused(Image image, std::string_view why) {
    const std::string path = file("kernel", image.bytes());
    expect_refused(kernel_request(path), path, why);
  }
  uint64_t info(uint64_t offset, unsigned size) { return memory(state().gpr[kRbx] + offset, size); }
};

TEST_F(Pvh, EntryState) {
  start(kernel_request(file("kernel", elf().bytes())));
  expect_flat32_entry(0x10'0040);
  EXPECT_EQ(memory_text(0x10'0040, 4), "code");
  EXPECT_EQ(memory_text(0x20'0000, 4), "data");
  EXPECT_EQ(state().tr.base, 0u);
  EXPECT_EQ(state().tr.limit, 0x67u);
  EXPECT_EQ(state().tr.type(), 11u);
}

TEST_F(Pvh, Elf32AndNotesOfEitherSize) {
  Elf32Builder image;
  image.load(0x10'0000, "code").add(PT_NOTE, PF_R, 0, entry_note(0x10'0002, 8));
  start(kernel_request(file("kernel", image.bytes())));
  EXPECT_EQ(state().rip, 0x10'0002u);
}

TEST_F(Pvh, FindsItsNoteAmongOthers) {
  start(kernel_request(file("kernel", elf(note("Linux", 18, number(1, 4)) + note("Xen", 6, "linux") +
                                          note("GNU", 3, std::string(20, 'b')) + entry_note(0x10'0044))
                                          .bytes())));
  EXPECT_EQ(state().rip, 0x10'0044u);
}

TEST_F(Pvh, StartInfo) {
  start(kernel_request(file("kernel", elf().bytes()), "console=ttyS0"), 5000 * kMib);
  EXPECT_EQ(info(0, 4), 0x336e'c578u);
  EXPECT_EQ(info(4, 4), 1u);
  EXPECT_EQ(info(8, 4), 0u);                      // flags
  EXPECT_EQ(info(12, 4), 0u);                     // nr_modules
  EXPECT_EQ(text(info(24, 8)), "console=ttyS0");  // cmdline_paddr
  EXPECT_EQ(info(32, 8), kAcpiRootPointer);       // rsdp_paddr
  ASSERT_EQ(info(48, 4), 5u);                     // memmap_entries
  uint64_t ram = 0;
  for (unsigned i = 0; i < 5; ++i) {
    const uint64_t row = info(40, 8) + i * 24;
    if (memory(row + 16, 4) == 1) ram += memory(row + 8, 8);
    EXPECT_EQ(memory(row + 20, 4), 0u);
  }
  EXPECT_EQ(ram, 5000 * kMib - kMib + 0x9'fc00);
  EXPECT_EQ(memory(info(40, 8) + 4 * 24, 8), uint64_t{1} << 32);
}

TEST_F(Pvh, Modules) {
  const std::string one = file("one", std::string(5000, '1')), two = file("two words", "2");
  start(kernel_request(file("kernel", elf().bytes()), "", {one, two}));
  ASSERT_EQ(info(12, 4), 2u);
  const uint64_t rows = info(16, 8), first = memory(rows, 8), second = memory(rows + 32, 8);
  EXPECT_EQ(first, 0x20'3000u);
  EXPECT_EQ(memory(rows + 8, 8), 5000u);
  EXPECT_EQ(memory_text(first, 5000), std::string(5000, '1'));
  EXPECT_EQ(memory(rows + 16, 8), 0u);  // no command line
  EXPECT_EQ(second, 0x20'5000u);
  EXPECT_EQ(memory_text(second, 1), "2");
}

TEST_F(Pvh, DamagedImagesAreRefused) {
  refused(elf(""), "neither a multiboot header nor a PVH entry point");
  refused(elf(note("XEN", 18, number(0x10'0040, 4))), "neither a multiboot header nor a PVH entry point");
  refused(elf(note("Xen", 18, "ab")), "damaged Xen note: a value of 2 bytes");
  refused(elf(ImageBuilder(16).set<uint32_t>(0, 0xffff'ffff).bytes()), "damaged ELF note");
  refused(elf(ImageBuilder(16).set<uint32_t>(4, 0xffff'ffff).bytes()), "damaged ELF note");
  refused(elf(entry_note(0x30'0000)), "entry point 0x300000");
  refused(elf(entry_note(0xffff'ffff'8010'0000, 8)), "entry point 0xffffffff80100000");
  Elf64Builder high = elf();
  high.segments[1].p_paddr = ~uint64_t{0} - 3;
  refused(high, "where there is no RAM");
  Elf64Builder wide = elf();
  wide.segments[1].p_memsz = ~uint64_t{0};
  refused(wide, "where there is no RAM");
  Elf64Builder beyond = elf();
  beyond.segments[2].p_offset = ~uint64_t{0};
  refused(beyond, "is truncated");
}

TEST_F(Pvh, TruncatedHeaderIsRefused) {
  for (size_t size : {4, 20, 63, 64, 100}) {
    const std::string path = file("kernel", elf().bytes().substr(0, size));
    expect_refused(kernel_request(path), path, "is truncated");
  }
}

}  // namespace
}  // namespace penumbra
