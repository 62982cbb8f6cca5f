// ELF executables made segment by segment (System V ABI, chapters 4 and 5).
#pragma once

#include <elf.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace penumbra {

// Elf32_Ehdr with Elf32_Phdr, or Elf64_Ehdr with Elf64_Phdr.
template <typename Header, typename ProgramHeader>
class ElfBuilder {
 public:
  Header header{};
  std::vector<ProgramHeader> segments;

  ElfBuilder() {
    constexpr bool k64 = std::is_same_v<Header, Elf64_Ehdr>;
    const char ident[] = {0x7f, 'E', 'L', 'F', k64 ? ELFCLASS64 : ELFCLASS32, ELFDATA2LSB, EV_CURRENT};
    for (size_t i = 0; i < sizeof(ident); ++i) header.e_ident[i] = static_cast<unsigned char>(ident[i]);
    header.e_type = ET_EXEC;
    header.e_machine = k64 ? EM_X86_64 : EM_386;
    header.e_version = EV_CURRENT;
    header.e_phoff = sizeof(Header);
    header.e_phentsize = sizeof(ProgramHeader);
    header.e_ehsize = sizeof(Header);
  }

  // Contents follow the headers, each at a multiple of 4096.
  ElfBuilder& add(uint32_t type, uint32_t flags, uint64_t physical, const std::string& bytes,
                  uint64_t memory_bytes = 0, uint64_t virtual_address = 0) {
    ProgramHeader segment{};
    segment.p_type = type;
    segment.p_flags = flags;
    segment.p_offset = static_cast<decltype(segment.p_offset)>(4096 * (segments.size() + 1));
    segment.p_vaddr = static_cast<decltype(segment.p_vaddr)>(virtual_address ? virtual_address : physical);
    segment.p_paddr = static_cast<decltype(segment.p_paddr)>(physical);
    segment.p_filesz = static_cast<decltype(segment.p_filesz)>(bytes.size());
    segment.p_memsz = static_cast<decltype(segment.p_memsz)>(memory_bytes ? memory_bytes : bytes.size());
    segment.p_align = 4;
    segments.push_back(segment);
    contents_.push_back(bytes);
    return *this;
  }
  ElfBuilder& load(uint64_t physical, const std::string& bytes, uint64_t memory_bytes = 0,
                   uint64_t virtual_address = 0) {
    return add(PT_LOAD, PF_R | PF_W | PF_X, physical, bytes, memory_bytes, virtual_address);
  }
  ElfBuilder& entry(uint64_t address) {
    header.e_entry = static_cast<decltype(header.e_entry)>(address);
    return *this;
  }

  std::string bytes() {
    header.e_phnum = static_cast<uint16_t>(segments.size());
    std::string image(reinterpret_cast<const char*>(&header), sizeof(header));
    image.append(reinterpret_cast<const char*>(segments.data()), segments.size() * sizeof(ProgramHeader));
    for (size_t i = 0; i < contents_.size(); ++i) {
      image.resize(4096 * (i + 1));
      image += contents_[i];
    }
    return image;
  }

 private:
  std::vector<std::string> contents_;
};

using Elf32Builder = ElfBuilder<Elf32_Ehdr, Elf32_Phdr>;
using Elf64Builder = ElfBuilder<Elf64_Ehdr, Elf64_Phdr>;

}  // namespace penumbra
