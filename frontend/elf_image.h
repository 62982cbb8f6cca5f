// ELF executables as boot loaders need them: what to load where, and the notes (System V ABI, chapters 4, 5).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/boot_memory.h"

namespace penumbra {

class ElfImage {
 public:
  static bool is_elf(std::span<const std::byte> image);

  // Checks every header against the file's size. `image` must outlive this object. Throws std::runtime_error
  // naming `path`, which is for messages only.
  ElfImage(std::string path, std::span<const std::byte> image);

  // The entry point's physical address: kernels name a virtual one in a segment that they link elsewhere.
  uint64_t physical_entry() const;
  // Whether a loaded segment holds the byte at a physical address.
  bool loads(uint64_t physical) const;

  // The 4 or 8 byte number in a note of a PT_NOTE segment.
  std::optional<uint64_t> note_value(std::string_view name, uint32_t type) const;

  // Places the PT_LOAD segments at their physical addresses; their .bss is zeroed.
  void place(BootMemory& memory) const;

 private:
  struct Segment {
    uint32_t type, flags;
    uint64_t offset, virtual_address, physical_address, file_bytes, memory_bytes, alignment;
  };
  Segment read_segment(size_t at, bool bits64) const;
  [[noreturn]] void refuse(const std::string& why) const;

  std::string path_;
  std::span<const std::byte> image_;
  uint64_t entry_ = 0;
  std::vector<Segment> segments_;  // PT_LOAD with memory, and PT_NOTE
};

}  // namespace penumbra
