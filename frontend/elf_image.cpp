#include "frontend/elf_image.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "core/little_endian.h"
#include "frontend/host_file.h"

namespace penumbra {

namespace {

// The caller has checked the bounds.
template <typename T>
T load_struct(std::span<const std::byte> image, uint64_t offset) {
  T value;
  std::memcpy(&value, image.data() + offset, sizeof(T));
  return value;
}

struct HeaderFields {
  uint16_t type, machine;
  uint64_t entry, program_headers;
  unsigned count, entry_bytes;
};

template <typename Ehdr>
HeaderFields header_fields(const Ehdr& header) {
  return {.type = header.e_type,
          .machine = header.e_machine,
          .entry = header.e_entry,
          .program_headers = header.e_phoff,
          .count = header.e_phnum,
          .entry_bytes = header.e_phentsize};
}

}  // namespace

bool ElfImage::is_elf(std::span<const std::byte> image) {
  return image.size() >= SELFMAG && std::memcmp(image.data(), ELFMAG, SELFMAG) == 0;
}

void ElfImage::refuse(const std::string& why) const {
  throw std::runtime_error(fmt::format("{}: {}", path_, why));
}

ElfImage::Segment ElfImage::read_segment(size_t at, bool bits64) const {
  const auto fields = [](const auto& header) {
    return Segment{.type = header.p_type,
                   .flags = header.p_flags,
                   .offset = header.p_offset,
                   .virtual_address = header.p_vaddr,
                   .physical_address = header.p_paddr,
                   .file_bytes = header.p_filesz,
                   .memory_bytes = header.p_memsz,
                   .alignment = header.p_align};
  };
  return bits64 ? fields(load_struct<Elf64_Phdr>(image_, at)) : fields(load_struct<Elf32_Phdr>(image_, at));
}

ElfImage::ElfImage(std::string path, std::span<const std::byte> image)
    : path_(std::move(path)), image_(image) {
  if (image.size() < EI_NIDENT) refuse("is truncated: it ends within its ELF header");
  const auto ident = [&](size_t index) { return std::to_integer<unsigned>(image[index]); };
  const bool bits64 = ident(EI_CLASS) == ELFCLASS64;
  if ((!bits64 && ident(EI_CLASS) != ELFCLASS32) || ident(EI_DATA) != ELFDATA2LSB)
    refuse("is an ELF image of another kind than little-endian 32 or 64 bit");
  if (image.size() < (bits64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
    refuse("is truncated: it ends within its ELF header");

  const HeaderFields header = bits64 ? header_fields(load_struct<Elf64_Ehdr>(image, 0))
                                     : header_fields(load_struct<Elf32_Ehdr>(image, 0));
  if (header.machine != (bits64 ? EM_X86_64 : EM_386))
    refuse("is an ELF image for another processor than x86");
  if (header.type != ET_EXEC && header.type != ET_DYN) refuse("is an ELF file, but not an executable");
  if (header.entry_bytes != (bits64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
    refuse(fmt::format("has a damaged ELF header: program headers of {} bytes", header.entry_bytes));
  if (!lies_within(header.program_headers, uint64_t{header.count} * header.entry_bytes, image.size()))
    refuse("is truncated: it ends before its ELF program headers");
  entry_ = header.entry;

  for (unsigned i = 0; i < header.count; ++i) {
    const Segment segment =
        read_segment(static_cast<size_t>(header.program_headers) + size_t{i} * header.entry_bytes, bits64);
    if (segment.type != PT_LOAD && segment.type != PT_NOTE) continue;
    if (!lies_within(segment.offset, segment.file_bytes, image.size()))
      refuse(fmt::format("is truncated: it has {} bytes, and ELF segment {} ends at {}", image.size(), i,
                         fmt::format("{:#x}+{:#x}", segment.offset, segment.file_bytes)));
    if (segment.type == PT_LOAD && segment.memory_bytes < segment.file_bytes)
      refuse(fmt::format("has a damaged ELF segment {}: smaller in memory than in the file", i));
    if (segment.type == PT_NOTE || segment.memory_bytes > 0) segments_.push_back(segment);
  }
  if (std::ranges::none_of(segments_, [](const Segment& segment) { return segment.type == PT_LOAD; }))
    refuse("has no ELF segment to load");
}

uint64_t ElfImage::physical_entry() const {
  for (const Segment& segment : segments_) {
    if (segment.type == PT_LOAD && segment.flags & PF_X && entry_ >= segment.virtual_address &&
        entry_ - segment.virtual_address < segment.memory_bytes)
      return entry_ - segment.virtual_address + segment.physical_address;
  }
  return entry_;
}

bool ElfImage::loads(uint64_t physical) const {
  return std::ranges::any_of(segments_, [&](const Segment& segment) {
    return segment.type == PT_LOAD && physical >= segment.physical_address &&
           physical - segment.physical_address < segment.memory_bytes;
  });
}

std::optional<uint64_t> ElfImage::note_value(std::string_view name, uint32_t type) const {
  for (const Segment& segment : segments_) {
    if (segment.type != PT_NOTE) continue;
    const std::span<const std::byte> notes = image_.subspan(segment.offset, segment.file_bytes);
    const uint64_t alignment = segment.alignment == 8 ? 8 : 4;
    const auto aligned = [&](uint64_t size) { return (size + alignment - 1) & ~(alignment - 1); };
    uint64_t at = 0;
    while (lies_within(at, sizeof(Elf32_Nhdr), notes.size())) {
      const auto note = load_struct<Elf32_Nhdr>(notes, at);
      const uint64_t name_at = at + sizeof(note), value_at = aligned(name_at + note.n_namesz);
      if (!lies_within(name_at, note.n_namesz, notes.size()) ||
          !lies_within(value_at, note.n_descsz, notes.size()))
        refuse("has a damaged ELF note: it reaches beyond its segment");
      // The name is counted with its final zero.
      const bool named = note.n_namesz == name.size() + 1 &&
                         std::memcmp(notes.data() + name_at, name.data(), name.size()) == 0 &&
                         notes[name_at + name.size()] == std::byte{0};
      if (named && note.n_type == type) {
        if (note.n_descsz == 4) return load_field<uint32_t>(notes, value_at);
        if (note.n_descsz == 8) return load_field<uint64_t>(notes, value_at);
        refuse(fmt::format("has a damaged {} note: a value of {} bytes", name, note.n_descsz));
      }
      at = aligned(value_at + note.n_descsz);
    }
  }
  return std::nullopt;
}

void ElfImage::place(BootMemory& memory) const {
  for (const Segment& segment : segments_) {
    if (segment.type != PT_LOAD) continue;
    const std::string where =
        fmt::format("{} at {:#x}", size_text(segment.memory_bytes), segment.physical_address);
    if (!memory.is_ram(segment.physical_address, segment.memory_bytes))
      refuse(fmt::format("loads {}, where there is no RAM", where));
    if (!memory.is_free(segment.physical_address, segment.memory_bytes))
      refuse(fmt::format("loads {}, over another of its segments", where));
    memory.place(segment.physical_address, image_.subspan(segment.offset, segment.file_bytes),
                 segment.memory_bytes);
  }
}

}  // namespace penumbra
