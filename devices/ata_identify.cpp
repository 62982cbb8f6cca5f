#include "devices/ata_identify.h"

namespace penumbra {

namespace {
constexpr unsigned kIntegrity = 255;
constexpr uint8_t kIntegritySignature = 0xa5;
constexpr uint8_t kPioDefault = 0x00, kPio = 0x08, kMultiword = 0x20, kUltra = 0x40, kModeBits = 0x07;
constexpr uint16_t kMultiwordModes = 0x07, kUltraModes = 0x3f;
}  // namespace

void AtaIdentify::set32(unsigned word, uint32_t value) {
  words_[word] = static_cast<uint16_t>(value);
  words_[word + 1] = static_cast<uint16_t>(value >> 16);
}

void AtaIdentify::set64(unsigned word, uint64_t value) {
  set32(word, static_cast<uint32_t>(value));
  set32(word + 2, static_cast<uint32_t>(value >> 32));
}

void AtaIdentify::set_text(unsigned word, unsigned words, std::string_view text) {
  const auto at = [text](unsigned i) { return static_cast<uint8_t>(i < text.size() ? text[i] : ' '); };
  for (unsigned i = 0; i < words; i++)
    words_[word + i] = static_cast<uint16_t>(at(2 * i) << 8 | at(2 * i + 1));
}

std::vector<std::byte> AtaIdentify::bytes() const {
  std::vector<std::byte> bytes;
  uint8_t sum = kIntegritySignature;
  for (unsigned i = 0; i < kIntegrity; i++) {
    const auto low = static_cast<uint8_t>(words_[i]), high = static_cast<uint8_t>(words_[i] >> 8);
    bytes.push_back(static_cast<std::byte>(low));
    bytes.push_back(static_cast<std::byte>(high));
    sum = static_cast<uint8_t>(sum + low + high);
  }
  bytes.push_back(static_cast<std::byte>(kIntegritySignature));
  bytes.push_back(static_cast<std::byte>(-sum));
  return bytes;
}

bool AtaTransferMode::set(uint8_t value) {
  const unsigned number = value & kModeBits;
  switch (value & ~kModeBits) {
    case kPioDefault:
    case kPio:
      if (number > 4) return false;
      break;
    case kMultiword:
      if (!(kMultiwordModes >> number & 1)) return false;
      break;
    case kUltra:
      if (!(kUltraModes >> number & 1)) return false;
      break;
    default:
      return false;
  }
  mode = value;
  return true;
}

uint16_t AtaTransferMode::multiword_word() const {
  const bool chosen = (mode & ~kModeBits) == kMultiword;
  return static_cast<uint16_t>(kMultiwordModes | (chosen ? 0x100u << (mode & kModeBits) : 0u));
}

uint16_t AtaTransferMode::ultra_word() const {
  const bool chosen = (mode & ~kModeBits) == kUltra;
  return static_cast<uint16_t>(kUltraModes | (chosen ? 0x100u << (mode & kModeBits) : 0u));
}

}  // namespace penumbra
