// Disk images of any content, of any format, behind one another: opened, read, written, discarded, closed and
// opened again.
//
// The input is a choice of options, a script of what is done, and the image. An image may name one of the
// files below as its backing file: they are the same image, which then has none, and a raw one.
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "storage/disk_image.h"
#include "tests/fuzz_devices/input.h"
#include "tests/fuzz_devices/scratch_file.h"

namespace penumbra {
namespace {

constexpr size_t kScriptBytes = 64;

void use(DiskImage& image, Input script) {
  std::vector<std::byte> data;
  while (!script.done()) {
    const uint8_t what = script.byte();
    const uint64_t blocks = image.bytes() / 512;
    if (blocks == 0) return;
    const uint64_t block = (what & 0x80 ? blocks - 1 - script.word() % blocks
                                        : uint64_t{script.word()} << (what & 0x40 ? 12 : 0)) %
                           blocks;
    const uint64_t count = std::min<uint64_t>(1 + script.byte(), blocks - block);
    switch (what % 5) {
      case 0:
        data.assign(count * 512, std::byte{what});
        if (!image.read_only()) image.write(block * 512, data);
        break;
      case 1:
        if (!image.read_only()) image.write_zeroes(block * 512, count * 512);
        break;
      case 2:
        if (!image.read_only() && image.discards()) image.discard(block * 512, count * 512);
        break;
      case 3:
        image.flush();
        break;
      default:
        data.resize(count * 512);
        image.read(block * 512, data);
        break;
    }
  }
}

}  // namespace
}  // namespace penumbra

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  // Names of any length that images may have.
  static const ScratchFile file, raw;
  static const std::filesystem::path folder = [] {
    auto made = std::filesystem::temp_directory_path() / ("fuzz-image-" + std::to_string(getpid()));
    std::filesystem::create_directories(made);
    std::filesystem::create_symlink(file.path(), made / "image");
    std::filesystem::create_symlink(raw.path(), made / "raw");
    return made;
  }();
  Input input(data, size);
  const uint8_t flags = input.byte();
  const Input script(input.bytes(kScriptBytes).data(),
                     std::min(size - std::min<size_t>(size, 1), kScriptBytes));
  const auto contents = input.rest();
  file.set(contents);
  raw.set(contents.first(contents.size() / 2));
  ImageOptions options{.path = folder / "image"};
  options.format = static_cast<ImageOptions::Format>(flags % 3);
  options.read_only = flags & 4;
  options.snapshot = flags & 8;
  options.discard = flags & 16;
  // What was written leads to an image that can be opened again.
  for (unsigned round = 0; round < 2; round++) {
    try {
      const std::unique_ptr<DiskImage> image = open_image(options);
      use(*image, script);
    } catch (const std::runtime_error&) {
      break;
    }
  }
  return 0;
}
