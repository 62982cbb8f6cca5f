// Fields of the 256 words that IDENTIFY DEVICE and IDENTIFY PACKET DEVICE return (T13/1532D volume 1, 8.15
// and 8.16).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace penumbra {

class AtaIdentify {
 public:
  void set(unsigned word, uint16_t value) { words_[word] = value; }
  void set32(unsigned word, uint32_t value);
  void set64(unsigned word, uint64_t value);
  // Two characters a word, the first one in the upper half; padded with blanks.
  void set_text(unsigned word, unsigned words, std::string_view text);
  // With the integrity word.
  std::vector<std::byte> bytes() const;

 private:
  std::array<uint16_t, 256> words_{};
};

// The transfer modes of words 63 and 88, and which of them SET FEATURES chose.
struct AtaTransferMode {
  static constexpr uint8_t kDefault = 0x20 | 2;  // multiword DMA 2
  uint8_t mode = kDefault;  // as SET FEATURES has it: PIO 08h, multiword DMA 20h, Ultra DMA 40h

  bool set(uint8_t value);  // false: there is no such mode
  uint16_t multiword_word() const;
  uint16_t ultra_word() const;
};

}  // namespace penumbra
