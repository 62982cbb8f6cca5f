// Field offsets and values are those of Documentation/x86/boot.rst and zero-page.rst in the Linux sources.
#include "tests/frontend/boot_fixture.h"

namespace penumbra {
namespace {

constexpr uint64_t kLoadHigh = 0x10'0000;
constexpr uint16_t kBootCs = 0x10, kBootDs = 0x18;

class LinuxBoot : public BootTest {
 protected:
  // A relocatable 64-bit kernel of protocol 2.15: 5 sectors of set-up, 4 KiB of code.
  static constexpr size_t kCode = 5 * 512;
  static ImageBuilder kernel64() {
    ImageBuilder image(kCode + 4096);
    image.set<uint8_t>(0x1f1, 4).set<uint32_t>(0x1f4, 4096 / 16).set<uint16_t>(0x1fe, 0xaa55);
    image.set<uint16_t>(0x200, 0x6aeb).set(0x202, "HdrS").set<uint16_t>(0x206, 0x20f).set<uint8_t>(0x211, 1);
    image.set<uint32_t>(0x214, 0x10'0000).set<uint32_t>(0x22c, 0x7fff'ffff).set<uint32_t>(0x230, 0x20'0000);
    image.set<uint8_t>(0x234, 1).set<uint16_t>(0x236, 0x3).set<uint32_t>(0x238, 2047);
    image.set<uint64_t>(0x258, 0x100'0000).set<uint32_t>(0x260, 0x80'0000);
    return image.set(kCode, "code32").set(kCode + 0x200, "code64").set(kCode + 4090, "end");
  }
  static ImageBuilder kernel32() { return kernel64().set<uint16_t>(0x236, 0); }
  // As Linux 2.4: no fields from 2.04 on, always at 1 MiB.
  static ImageBuilder kernel_2_03() {
    ImageBuilder image(kCode + 4096);
    image.set<uint8_t>(0x1f1, 4).set<uint16_t>(0x1f4, 256).set<uint16_t>(0x1fe, 0xaa55);
    image.set<uint16_t>(0x200, 0x2eeb).set(0x202, "HdrS").set<uint16_t>(0x206, 0x203).set<uint8_t>(0x211, 1);
    return image.set<uint32_t>(0x214, 0x10'0000).set<uint32_t>(0x22c, 0x37ff'ffff).set(kCode, "code32");
  }

  void start(const ImageBuilder& kernel, const std::string& append = "", const std::string& initrd = "",
             uint64_t ram = 64 * kMib) {
    BootRequest request = kernel_request(file("kernel", kernel), append);
    if (!initrd.empty()) request.initrds.push_back(file("initrd", initrd));
    BootTest::start(request, ram);
  }
  void refused(const ImageBuilder& kernel, std::string_view why, uint64_t ram = 64 * kMib) {
    const std::string path = file("kernel", kernel);
    expect_refused(kernel_request(path), path, why, ram);
  }

  uint64_t params(uint64_t offset, unsigned size) { return memory(state().gpr[kRsi] + offset, size); }
};

TEST_F(LinuxBoot, SixtyFourBitEntry) {
  start(kernel64());
  EXPECT_EQ(state().rip, 0x100'0200u);  // pref_address + 0x200
  EXPECT_EQ(memory_text(0x100'0200, 6), "code64");
  EXPECT_EQ(memory_text(0x100'0000 + 4090, 3), "end");
  EXPECT_EQ(state().segments[kCs].selector, kBootCs);
  for (SegmentIndex index : {kDs, kEs, kSs}) EXPECT_EQ(state().segments[index].selector, kBootDs);
  expect_gdt_agrees();
  EXPECT_TRUE(state().mode.has(ModeBits::kCode64));
  EXPECT_TRUE(machine_->vcpu().long_mode());
  EXPECT_EQ(state().cpl, 0);
  EXPECT_EQ(state().rflags & flag::kIf, 0u);
}

TEST_F(LinuxBoot, SixtyFourBitEntryMapsFourGibOneToOne) {
  start(kernel64());
  for (uint64_t address : {uint64_t{0}, state().rip, state().gpr[kRsi], uint64_t{0x3fff'f123}}) {
    const auto physical =
        machine_->vcpu().translate({address}, AccessKind::Read, machine_->vcpu().current_view());
    ASSERT_TRUE(physical.has_value()) << address;
    EXPECT_EQ(physical->value, address);
  }
  const uint64_t last = 0xffff'f000;
  EXPECT_EQ(machine_->vcpu().translate({last}, AccessKind::Write, TlbView::Supervisor)->value, last);
  EXPECT_FALSE(
      machine_->vcpu().translate({last + 0x1000}, AccessKind::Read, TlbView::Supervisor).has_value());
}

TEST_F(LinuxBoot, ThirtyTwoBitEntry) {
  start(kernel32());
  expect_flat32_entry(0x100'0000);
  EXPECT_EQ(memory_text(0x100'0000, 6), "code32");
  EXPECT_EQ(state().segments[kCs].selector, kBootCs);
  for (SegmentIndex index : {kDs, kEs, kSs}) EXPECT_EQ(state().segments[index].selector, kBootDs);
  for (Gpr zero : {kRbx, kRbp, kRdi}) EXPECT_EQ(state().gpr[zero], 0u);
}

TEST_F(LinuxBoot, KernelThatCannotMoveIsLoadedAtOneMib) {
  start(kernel32().set<uint8_t>(0x234, 0));
  expect_flat32_entry(kLoadHigh);
  EXPECT_EQ(memory_text(kLoadHigh, 6), "code32");
}

TEST_F(LinuxBoot, OldKernelStartsWhereCode32StartSays) {
  start(kernel_2_03().set<uint32_t>(0x214, 0x10'0010));
  expect_flat32_entry(kLoadHigh + 0x10);
}

TEST_F(LinuxBoot, PreferredAddressIsAligned) {
  start(kernel32().set<uint64_t>(0x258, 0x110'0001));
  EXPECT_EQ(state().rip, 0x120'0000u);
}

TEST_F(LinuxBoot, BootParamsAreZeroButForTheHeader) {
  start(kernel64().set<uint8_t>(0x100, 0x55).set<uint8_t>(0x27c, 0x66), "console=ttyS0 quiet");
  EXPECT_EQ(params(0x202, 4), 0x5372'6448u);
  EXPECT_EQ(params(0x206, 2), 0x20fu);
  EXPECT_EQ(params(0x1f1, 1), 4u);
  EXPECT_EQ(params(0x210, 1), 0xffu);  // type_of_loader: no number assigned
  EXPECT_EQ(params(0x211, 1) & 1, 1u);
  EXPECT_EQ(params(0x214, 4), 0x100'0000u);
  EXPECT_EQ(params(0x100, 1), 0u);
  EXPECT_EQ(params(0x27c, 1), 0u);  // the header ends at 0x26c
  EXPECT_EQ(params(0x0f, 1), 0u);   // orig_video_isVGA
  EXPECT_EQ(params(0x218, 4), 0u);
  EXPECT_EQ(params(0x21c, 4), 0u);
  EXPECT_EQ(text(params(0x228, 4)), "console=ttyS0 quiet");
}

TEST_F(LinuxBoot, MemoryMap) {
  start(kernel64(), "", "", 5000 * kMib);
  struct Row {
    uint64_t start, size;
    uint32_t type;
  };
  const Row rows[] = {{0, 0x9'fc00, 1},
                      {0x9'fc00, 0x400, 2},
                      {0xf'0000, 0x1'0000, 2},
                      {0x10'0000, 0xbff0'0000, 1},
                      {0x1'0000'0000, 5000 * kMib - 0xc000'0000, 1}};
  ASSERT_EQ(params(0x1e8, 1), std::size(rows));
  for (size_t i = 0; i < std::size(rows); ++i) {
    EXPECT_EQ(params(0x2d0 + i * 20, 8), rows[i].start);
    EXPECT_EQ(params(0x2d8 + i * 20, 8), rows[i].size);
    EXPECT_EQ(params(0x2e0 + i * 20, 4), rows[i].type);
  }
}

TEST_F(LinuxBoot, InitrdIsAtTheTopOfRam) {
  start(kernel64(), "", std::string(5000, 'i'));
  EXPECT_EQ(params(0x218, 4), 64 * kMib - 0x2000);
  EXPECT_EQ(params(0x21c, 4), 5000u);
  EXPECT_EQ(memory_text(params(0x218, 4), 5000), std::string(5000, 'i'));
}

TEST_F(LinuxBoot, InitrdStaysBelowTheKernelsLimit) {
  start(kernel64().set<uint32_t>(0x22c, 0x2ff'ffff), "", std::string(4096, 'i'));
  EXPECT_EQ(params(0x218, 4), 0x2ff'f000u);
}

TEST_F(LinuxBoot, InitrdIsNotSplitAtSpaces) {
  const std::string initrd = file("a file with spaces", "bytes");
  BootTest::start(kernel_request(file("kernel", kernel64()), "", {initrd}));
  EXPECT_EQ(params(0x21c, 4), 5u);
}

TEST_F(LinuxBoot, ResetStartsAgainFromTheImages) {
  start(kernel64(), "root=/dev/ram", "initrd");
  const uint64_t boot_params = state().gpr[kRsi], command_line = params(0x228, 4), initrd = params(0x218, 4);
  for (uint64_t address : {boot_params + 0x202, command_line, initrd, uint64_t{0x100'0200}, state().cr3,
                           state().gdtr.base + kBootCs})
    machine_->map().write(PhysAddr{address}, 8, 0xdead'dead'dead'dead);
  start_again();
  EXPECT_EQ(params(0x202, 4), 0x5372'6448u);
  EXPECT_EQ(text(command_line), "root=/dev/ram");
  EXPECT_EQ(memory_text(initrd, 6), "initrd");
  EXPECT_EQ(memory_text(state().rip, 6), "code64");
  EXPECT_TRUE(machine_->vcpu().translate_fetch({state().rip}).has_value());
  expect_gdt_agrees();
}

TEST_F(LinuxBoot, TruncatedKernelsAreRefused) {
  refused(kernel64().resize(300), "is not a bzImage, multiboot or PVH image");
  refused(kernel64().resize(0x210), "ends within its setup header");
  refused(kernel64().resize(kCode - 1), "is truncated");
  refused(kernel64().resize(kCode + 4000), "is truncated");
  refused(kernel_2_03().resize(kCode), "is truncated");
}

TEST_F(LinuxBoot, PartialLastParagraphIsComplete) {
  start(kernel64().resize(kCode + 4096 - 15));
  EXPECT_EQ(memory_text(0x100'0200, 6), "code64");
}

TEST_F(LinuxBoot, DamagedHeadersAreRefused) {
  refused(kernel64().set<uint16_t>(0x200, 0x10eb), "setup header too short for boot protocol 2.15");
  refused(kernel64().set<uint16_t>(0x206, 0x201), "needs boot protocol 2.01");
  refused(kernel64().set<uint8_t>(0x211, 0), "zImage");
  refused(kernel64().set<uint32_t>(0x1f4, 0xffff'ffff), "is truncated");
  refused(kernel64().set<uint32_t>(0x230, 0), "alignment 0x0");
  refused(kernel64().set<uint32_t>(0x230, 0x30'0000), "alignment 0x300000");
  refused(kernel64().set<uint64_t>(0x258, uint64_t{1} << 32), "wants to run at 0x100000000");
  refused(kernel64().set<uint64_t>(0x258, ~uint64_t{0}), "wants to run at 0xffffffffffffffff");
  refused(kernel_2_03().set<uint32_t>(0x214, 0x9000), "entry point 0x9000");
  refused(kernel64().set<uint32_t>(0x1f4, 0).resize(kCode + 16), "entry point");
}

TEST_F(LinuxBoot, TooLittleRamIsRefused) {
  refused(kernel64(), "needs 24 MiB of RAM, and there are 16 MiB", 16 * kMib);
  refused(kernel64().set<uint32_t>(0x260, 0xffff'ffff), "bytes of RAM, and there are 64 MiB");
  refused(kernel32().set<uint8_t>(0x234, 0), "needs 24 MiB of RAM", 16 * kMib);
}

TEST_F(LinuxBoot, InitrdThatDoesNotFitIsRefused) {
  const std::string kernel = file("kernel", kernel64());
  const std::string huge = file("huge", ""), large = file("large", "");
  std::filesystem::resize_file(huge, 300 * kMib);
  std::filesystem::resize_file(large, 50 * kMib);
  expect_refused(kernel_request(kernel, "", {huge}), huge, "has 300 MiB, more than the 64 MiB of RAM");
  expect_refused(kernel_request(kernel, "", {large}), large,
                 "has 50 MiB, and the kernel leaves room for 40 MiB in 64 MiB of RAM");
  const std::string limited = file("limited", kernel64().set<uint32_t>(0x22c, 0xffff));
  const std::string small = file("small", "bytes");
  expect_refused(kernel_request(limited, "", {small}), small, "leaves room for 0 bytes");
}

TEST_F(LinuxBoot, OnlyOneInitrd) {
  const std::string one = file("one", "1"), two = file("two", "2");
  expect_refused(kernel_request(file("kernel", kernel64()), "", {one, two}), two, "second initrd");
}

TEST_F(LinuxBoot, CommandLineLimit) {
  const std::string longest(2047, 'a');
  start(kernel64(), longest);
  EXPECT_EQ(text(params(0x228, 4)), longest);
  const std::string kernel = file("kernel", kernel64());
  expect_refused(kernel_request(kernel, longest + 'a'), kernel, "up to 2047 bytes, and -append has 2048");
  // Before 2.06: 255.
  const std::string old = file("old", kernel_2_03());
  expect_refused(kernel_request(old, std::string(256, 'a')), old, "up to 255 bytes");
}

}  // namespace
}  // namespace penumbra
