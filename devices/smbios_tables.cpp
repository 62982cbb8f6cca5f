#include "devices/smbios_tables.h"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

namespace penumbra {

namespace {

constexpr std::string_view kMaker = "Penumbra", kProduct = "Standard PC (i440FX + PIIX)";
constexpr uint64_t kKib = 1024, kMib = 1024 * kKib, kFourGib = 4096 * kMib;

// One structure: its formatted area, then its strings, which fields name by number.
class Structure {
 public:
  Structure(uint8_t type, uint16_t handle) : bytes_{type, 0} { word(handle); }

  Structure& byte(uint8_t value) { return put(value, 1); }
  Structure& word(uint16_t value) { return put(value, 2); }
  Structure& dword(uint32_t value) { return put(value, 4); }
  Structure& qword(uint64_t value) { return put(value, 8); }
  // A reference to `text`, or to `other` if that is empty; 0 stands for no string.
  Structure& text(std::string_view text, std::string_view other = {}) {
    if (text.empty()) text = other;
    if (text.empty()) return byte(0);
    strings_.emplace_back(text);
    return byte(static_cast<uint8_t>(strings_.size()));
  }

  void append_to(std::vector<uint8_t>& tables) {
    bytes_[1] = static_cast<uint8_t>(bytes_.size());
    tables.insert(tables.end(), bytes_.begin(), bytes_.end());
    for (const std::string& string : strings_) {
      tables.insert(tables.end(), string.begin(), string.end());
      tables.push_back(0);
    }
    if (strings_.empty()) tables.push_back(0);
    tables.push_back(0);
  }

  void add_string(std::string_view string) { strings_.emplace_back(string); }

 private:
  Structure& put(uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; i++) bytes_.push_back(static_cast<uint8_t>(value >> 8 * i));
    return *this;
  }
  std::vector<uint8_t> bytes_;
  std::vector<std::string> strings_;
};

class Builder {
 public:
  Builder(const SmbiosOptions& options, uint64_t low, uint64_t high)
      : options_(options), low_(low), high_(high) {}

  SmbiosTables build() {
    if (options_.firmware) add(firmware(*options_.firmware));
    add(system());
    if (has(options_.board)) add(base_board());
    add(chassis());
    add(processor());
    if (!options_.oem_strings.empty()) add(oem_strings());
    add_memory();
    add(Structure(32, 0x2000).dword(0).word(0).byte(0));  // no error when it started
    add(Structure(127, 0x7f00));                          // the end
    result_.anchor = anchor();
    return std::move(result_);
  }

 private:
  // Handles, as QEMU numbers them: the type in the upper half.
  static constexpr uint16_t kChassis = 0x300, kArray = 0x1000, kDevices = 0x1100, kMappedArrays = 0x1300;
  static constexpr uint16_t kNone = 0xffff;  // in place of a handle: no such information
  static constexpr uint8_t kUnknown = 2;

  static bool has(const SmbiosOptions::Part& part) {
    return !(part.manufacturer + part.product + part.version + part.serial + part.asset + part.location)
                .empty();
  }

  void add(Structure structure) {
    const size_t before = result_.tables.size();
    structure.append_to(result_.tables);
    count_++;
    longest_ = std::max(longest_, result_.tables.size() - before);
  }

  // 7.1
  static Structure firmware(const SmbiosOptions::Firmware& about) {
    constexpr uint64_t kNoCharacteristics = 0x08;
    constexpr uint8_t kUefi = 0x08, kVirtualMachine = 0x10, kTargeted = 0x04;
    uint8_t major = 0, minor = 0;
    const std::string_view release = about.release;
    const size_t dot = std::min(release.find('.'), release.size());
    std::from_chars(release.data(), release.data() + dot, major);
    if (dot < release.size())
      std::from_chars(release.data() + dot + 1, release.data() + release.size(), minor);
    Structure structure(0, 0);
    structure.text(about.vendor, kMaker).text(about.version, "1");
    structure.word(0xe800).text(about.date, "01/01/2024").byte(0).qword(kNoCharacteristics);
    structure.byte(0).byte(static_cast<uint8_t>(kVirtualMachine | kTargeted | (about.uefi ? kUefi : 0)));
    return structure.byte(major).byte(minor).byte(0xff).byte(0xff);
  }

  // 7.2; the first three fields of the UUID are little-endian since version 2.6 (7.2.1)
  Structure system() const {
    constexpr uint8_t kPowerSwitch = 6;
    const SmbiosOptions::Part& part = options_.system;
    Structure structure(1, 0x100);
    structure.text(part.manufacturer, kMaker)
        .text(part.product, kProduct)
        .text(part.version)
        .text(part.serial);
    for (const unsigned i : {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15})
      structure.byte(options_.uuid[i]);
    return structure.byte(kPowerSwitch).text(part.sku).text(part.family);
  }

  // 7.3
  Structure base_board() const {
    constexpr uint8_t kHosting = 0x01, kMotherboard = 0x0a;
    const SmbiosOptions::Part& part = options_.board;
    Structure structure(2, 0x200);
    structure.text(part.manufacturer, kMaker)
        .text(part.product)
        .text(part.version)
        .text(part.serial)
        .text(part.asset);
    return structure.byte(kHosting).text(part.location).word(kChassis).byte(kMotherboard).byte(0);
  }

  // 7.4
  Structure chassis() const {
    constexpr uint8_t kOther = 1, kSafe = 3;
    const SmbiosOptions::Part& part = options_.chassis;
    Structure structure(3, kChassis);
    structure.text(part.manufacturer, kMaker)
        .byte(kOther)
        .text(part.version)
        .text(part.serial)
        .text(part.asset);
    structure.byte(kSafe).byte(kSafe).byte(kSafe).byte(kUnknown).dword(0).byte(0).byte(0).byte(0).byte(0);
    return structure.text(part.sku);
  }

  // 7.5
  Structure processor() const {
    constexpr uint8_t kCentral = 3, kOther = 1, kPopulatedEnabled = 0x41;
    const SmbiosOptions::Part& part = options_.processor;
    Structure structure(4, 0x400);
    structure.text(part.location, "CPU 0").byte(kCentral).byte(kOther).text(part.manufacturer, kMaker);
    structure.qword(0).text(part.version, kProduct).byte(0).word(0).word(0).word(0);
    structure.byte(kPopulatedEnabled).byte(kOther).word(kNone).word(kNone).word(kNone);
    structure.text(part.serial).text(part.asset).text(part.product);
    return structure.byte(1).byte(1).byte(1).word(kUnknown).word(kOther);
  }

  // 7.12
  Structure oem_strings() const {
    Structure structure(11, 0xe00);
    structure.byte(static_cast<uint8_t>(options_.oem_strings.size()));
    for (const std::string& string : options_.oem_strings) structure.add_string(string);
    return structure;
  }

  // 7.17, 7.18, 7.20: modules of 16 GiB at most, as QEMU has them
  void add_memory() {
    constexpr uint8_t kOther = 1, kSystemMemory = 3, kNoCorrection = 3, kDimm = 9, kRam = 7;
    constexpr uint64_t kModule = 16 * 1024 * kMib, kMostKib = 0x8000'0000;
    const uint64_t bytes = low_ + high_, modules = (bytes + kModule - 1) / kModule;
    Structure array(16, kArray);
    array.byte(kOther).byte(kSystemMemory).byte(kNoCorrection);
    const bool fits = bytes / kKib < kMostKib;
    array.dword(static_cast<uint32_t>(fits ? bytes / kKib : kMostKib))
        .word(0xfffe)
        .word(static_cast<uint16_t>(modules));
    add(array.qword(fits ? 0 : bytes));
    const SmbiosOptions::Part& part = options_.memory;
    for (uint64_t i = 0; i < modules; i++) {
      Structure module(17, static_cast<uint16_t>(kDevices + i));
      module.word(kArray).word(0xfffe).word(kNone).word(kNone);
      module.word(static_cast<uint16_t>(std::min(kModule, bytes - i * kModule) / kMib)).byte(kDimm).byte(0);
      module.text(part.location.empty() ? "DIMM " + std::to_string(i) : part.location)
          .text(part.version)
          .byte(kRam)
          .word(2);
      module.word(0).text(part.manufacturer, kMaker).text(part.serial).text(part.asset).text(part.product);
      add(module.byte(0).dword(0).word(0).word(0).word(0).word(0));
    }
    add_range(0, 0, low_);
    if (high_ > 0) add_range(1, kFourGib, high_);
  }

  void add_range(uint16_t number, uint64_t start, uint64_t bytes) {
    const uint64_t last = start + bytes - 1;
    const bool fits = last / kKib < UINT32_MAX;
    Structure range(19, static_cast<uint16_t>(kMappedArrays + number));
    range.dword(fits ? static_cast<uint32_t>(start / kKib) : UINT32_MAX);
    range.dword(fits ? static_cast<uint32_t>(last / kKib) : UINT32_MAX).word(kArray).byte(1);
    add(range.qword(fits ? 0 : start).qword(fits ? 0 : last));
  }

  // 5.2.1
  std::vector<uint8_t> anchor() const {
    std::vector<uint8_t> bytes = {'_', 'S', 'M', '_', 0, 0x1f, 2, 8};
    const auto put = [&bytes](uint64_t value, unsigned size) {
      for (unsigned i = 0; i < size; i++) bytes.push_back(static_cast<uint8_t>(value >> 8 * i));
    };
    put(longest_, 2);
    put(0, 6);  // revision of the entry point, its formatted area
    for (const char c : std::string_view("_DMI_")) bytes.push_back(static_cast<uint8_t>(c));
    put(0, 1);
    put(result_.tables.size(), 2);
    put(0, 4);
    put(count_, 2);
    put(0x28, 1);
    return bytes;
  }

  const SmbiosOptions& options_;
  const uint64_t low_, high_;
  SmbiosTables result_;
  size_t count_ = 0, longest_ = 0;
};

}  // namespace

SmbiosTables make_smbios_tables(const SmbiosOptions& options, uint64_t ram_below_4g, uint64_t ram_above_4g) {
  return Builder(options, ram_below_4g, ram_above_4g).build();
}

}  // namespace penumbra
