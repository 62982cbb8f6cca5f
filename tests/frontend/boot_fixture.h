// A machine without chips, files in a folder of their own, and images made field by field.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/machine.h"
#include "frontend/boot.h"

namespace penumbra {

// An image of zeros in which tests set fields.
class ImageBuilder {
 public:
  explicit ImageBuilder(size_t size) : bytes_(size, '\0') {}

  template <std::unsigned_integral T>
  ImageBuilder& set(size_t offset, T value) {
    bytes_.replace(offset, sizeof(T), reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  ImageBuilder& set(size_t offset, std::string_view text) {
    bytes_.replace(offset, text.size(), text);
    return *this;
  }
  ImageBuilder& resize(size_t size) {
    bytes_.resize(size);
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

class BootTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kMib = 1 << 20;

  BootTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "boot-test-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    folder_ = pattern;
  }
  ~BootTest() override { std::filesystem::remove_all(folder_); }

  std::string file(const std::string& name, const std::string& bytes) {
    const std::filesystem::path path = folder_ / name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path.string();
  }
  std::string file(const std::string& name, const ImageBuilder& image) { return file(name, image.bytes()); }
  std::string folder() const { return folder_.string(); }

  static BootRequest kernel_request(std::string kernel, std::string append = "",
                                    std::vector<std::string> initrds = {}) {
    return {
        .kernel = std::move(kernel), .initrds = std::move(initrds), .append = std::move(append), .bios = ""};
  }
  static BootRequest bios_request(std::string bios) {
    return {.kernel = "", .initrds = {}, .append = "", .bios = std::move(bios)};
  }

  // A fresh machine, started.
  void start(const BootRequest& request, uint64_t ram = 64 * kMib) {
    MachineOptions options;
    options.ram_bytes = ram;
    options.cpu = "base";
    machine_ = std::make_unique<Machine>(options);
    boot_ = make_boot(request, machine_->map());
    boot_->start(*machine_);
  }
  // As the machine does at every reset.
  void start_again() {
    machine_->vcpu().reset();
    boot_->start(*machine_);
  }

  // One line that names `path` and says `why`.
  void expect_refused(const BootRequest& request, const std::string& path, std::string_view why,
                      uint64_t ram = 64 * kMib) {
    PhysicalMap map(ram);
    try {
      make_boot(request, map);
      ADD_FAILURE() << "accepted; expected: " << why;
    } catch (const std::runtime_error& error) {
      const std::string message = error.what();
      EXPECT_TRUE(message.starts_with(path + ": ")) << message;
      EXPECT_NE(message.find(why), std::string::npos) << message << "\nexpected: " << why;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
  }

  const VcpuState& state() { return machine_->vcpu().state(); }
  uint64_t memory(uint64_t address, unsigned size) { return machine_->map().read(PhysAddr{address}, size); }
  std::string text(uint64_t address) {
    std::string string;
    while (char c = static_cast<char>(memory(address + string.size(), 1))) string += c;
    return string;
  }
  std::string memory_text(uint64_t address, size_t size) {
    std::string string(size, '\0');
    machine_->map().read_bytes(PhysAddr{address}, std::as_writable_bytes(std::span(string)));
    return string;
  }

  // 32-bit protected mode, flat, paging and interrupts off, A20 open: Linux, multiboot (3.2) and PVH.
  void expect_flat32_entry(uint64_t entry) {
    EXPECT_EQ(state().rip, entry);
    EXPECT_EQ(state().cr0 & (cr0::kPe | cr0::kPg), cr0::kPe);
    EXPECT_EQ(state().cr4, 0u);
    EXPECT_EQ(state().efer, 0u);
    EXPECT_EQ(state().rflags & (flag::kIf | flag::kVm | flag::kTf), 0u);
    EXPECT_TRUE(machine_->map().a20());
    EXPECT_TRUE(state().mode.has(ModeBits::kProtected | ModeBits::kCode32 | ModeBits::kStack32 |
                                 ModeBits::kFlatCs | ModeBits::kFlatDs | ModeBits::kFlatEs |
                                 ModeBits::kFlatSs | ModeBits::kOpenFs | ModeBits::kOpenGs));
    EXPECT_FALSE(state().mode.has(ModeBits::kCode64));
    expect_gdt_agrees();
  }

  // Loading a selector again gives the segment that the entry state has.
  void expect_gdt_agrees() {
    for (const Segment& segment : state().segments) {
      ASSERT_LE(segment.selector + 7u, state().gdtr.limit);
      const uint64_t descriptor = memory(state().gdtr.base + segment.selector, 8);
      EXPECT_EQ(descriptor >> 40 & 0xf0ff, segment.attributes & 0xf0ffu);
      EXPECT_EQ(descriptor & 0xffff, 0xffffu);
      EXPECT_EQ(descriptor >> 48 & 0xf, 0xfu);
      EXPECT_EQ(descriptor >> 16 & 0xff'ffff, 0u);
      EXPECT_EQ(descriptor >> 56, 0u);
      EXPECT_EQ(segment.base, 0u);
      EXPECT_EQ(segment.limit, 0xffff'ffffu);
    }
  }

  std::unique_ptr<Machine> machine_;
  std::unique_ptr<Boot> boot_;

 private:
  std::filesystem::path folder_;
};

}  // namespace penumbra
