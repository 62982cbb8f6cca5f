#include "devices/aml.h"

#include <cassert>

namespace penumbra::aml {

namespace {
enum : uint8_t {
  kZero = 0x00,
  kOne = 0x01,
  kName = 0x08,
  kByte = 0x0a,
  kWord = 0x0b,
  kDword = 0x0c,
  kString = 0x0d,
  kQword = 0x0e,
  kScope = 0x10,
  kBuffer = 0x11,
  kPackage = 0x12,
  kMethod = 0x14,
  kDualPath = 0x2e,
  kMultiPath = 0x2f,
  kExtended = 0x5b,
  kArgument = 0x68,
  kStore = 0x70,
  kAnd = 0x7b,
  kOr = 0x7d,
  kCreateDwordField = 0x8a,
  kLess = 0x95,
  kIf = 0xa0,
  kReturn = 0xa4,
};
enum : uint8_t {
  kExtendedRegion = 0x80,
  kExtendedField = 0x81,
  kExtendedDevice = 0x82,
  kExtendedProcessor = 0x83
};
constexpr uint8_t kRootPrefix = '\\';
constexpr uint8_t kByteAccess = 1;

Term bytes(std::initializer_list<uint8_t> list) {
  return Term(std::vector<uint8_t>(list));
}

Term little_endian(uint64_t value, unsigned size) {
  std::vector<uint8_t> result;
  for (unsigned i = 0; i < size; i++) result.push_back(static_cast<uint8_t>(value >> 8 * i));
  return Term(std::move(result));
}

// ACPI 6.4, 20.2.4. `whole`: the length's own bytes count, too.
Term length(size_t size, bool whole) {
  for (unsigned count = 1;; count++) {
    const size_t total = size + (whole ? count : 0);
    const unsigned bits = count == 1 ? 6 : 4 + 8 * (count - 1);
    if (total >> bits) continue;
    if (count == 1) return bytes({static_cast<uint8_t>(total)});
    return bytes({static_cast<uint8_t>((count - 1) << 6 | (total & 0x0f))}) +
           little_endian(total >> 4, count - 1);
  }
}

Term sized(std::initializer_list<uint8_t> opcode, const Term& body) {
  return bytes(opcode) + length(body.bytes().size(), true) + body;
}

Term segment(std::string_view text) {
  assert(!text.empty() && text.size() <= 4);
  std::vector<uint8_t> result(text.begin(), text.end());
  result.resize(4, '_');
  return Term(std::move(result));
}
}  // namespace

Term& Term::operator+=(const Term& other) {
  bytes_.insert(bytes_.end(), other.bytes_.begin(), other.bytes_.end());
  return *this;
}

// --- Data

Term path(std::string_view text) {
  Term prefix;
  if (text.starts_with('\\')) {
    prefix = bytes({kRootPrefix});
    text.remove_prefix(1);
  }
  Term segments;
  unsigned count = 0;
  while (!text.empty()) {
    const size_t dot = text.find('.');
    segments += segment(text.substr(0, dot));
    count++;
    text = dot == std::string_view::npos ? std::string_view() : text.substr(dot + 1);
  }
  if (count == 0) return prefix + bytes({kZero});
  if (count == 1) return prefix + segments;
  if (count == 2) return prefix + bytes({kDualPath}) + segments;
  return prefix + bytes({kMultiPath, static_cast<uint8_t>(count)}) + segments;
}

Term integer(uint64_t value) {
  if (value == 0) return bytes({kZero});
  if (value == 1) return bytes({kOne});
  if (value <= 0xff) return bytes({kByte}) + little_endian(value, 1);
  if (value <= 0xffff) return bytes({kWord}) + little_endian(value, 2);
  if (value <= 0xffff'ffff) return bytes({kDword}) + little_endian(value, 4);
  return bytes({kQword}) + little_endian(value, 8);
}

Term string(std::string_view text) {
  return bytes({kString}) + Term(std::vector<uint8_t>(text.begin(), text.end())) + bytes({0});
}

// ACPI 6.4, 19.3.4: three letters of five bits and four hexadecimal digits, in big-endian order.
Term eisa_id(std::string_view id) {
  assert(id.size() == 7);
  uint32_t value = 0;
  for (unsigned i = 0; i < 3; i++) value = value << 5 | (static_cast<uint32_t>(id[i] - '@') & 0x1f);
  for (unsigned i = 3; i < 7; i++) {
    const char digit = id[i];
    value = value << 4 | static_cast<uint32_t>(digit <= '9' ? digit - '0' : digit - 'A' + 10);
  }
  return bytes({kDword}) + little_endian(__builtin_bswap32(value), 4);
}

Term buffer(const std::vector<uint8_t>& contents) {
  return sized({kBuffer}, integer(contents.size()) + Term(contents));
}

Term package(const std::vector<Term>& elements) {
  Term body = bytes({static_cast<uint8_t>(elements.size())});
  for (const Term& element : elements) body += element;
  return sized({kPackage}, body);
}

Term package(std::initializer_list<Term> elements) {
  return package(std::vector<Term>(elements));
}

// --- Objects

Term scope(std::string_view name, const Term& body) {
  return sized({kScope}, path(name) + body);
}

Term device(std::string_view name, const Term& body) {
  return sized({kExtended, kExtendedDevice}, path(name) + body);
}

Term processor(std::string_view name, uint8_t number) {
  return sized({kExtended, kExtendedProcessor},
               path(name) + bytes({number}) + little_endian(0, 4) + bytes({0}));
}

Term name(std::string_view object, const Term& value) {
  return bytes({kName}) + path(object) + value;
}

Term method(std::string_view name, unsigned arguments, const Term& body) {
  return sized({kMethod}, path(name) + bytes({static_cast<uint8_t>(arguments)}) + body);
}

Term operation_region(std::string_view name, Space space, uint64_t offset, uint64_t size) {
  return bytes({kExtended, kExtendedRegion}) + path(name) + bytes({static_cast<uint8_t>(space)}) +
         integer(offset) + integer(size);
}

Term byte_field(std::string_view region, std::initializer_list<Field> fields) {
  Term body = path(region) + bytes({kByteAccess});
  for (const Field& field : fields) body += segment(field.name) + length(field.bits, false);
  return sized({kExtended, kExtendedField}, body);
}

Term create_dword_field(const Term& buffer, uint64_t offset, std::string_view name) {
  return bytes({kCreateDwordField}) + buffer + integer(offset) + path(name);
}

// --- Statements and expressions

Term argument(unsigned number) {
  return bytes({static_cast<uint8_t>(kArgument + number)});
}
Term give(const Term& value) {
  return bytes({kReturn}) + value;
}
Term store(const Term& value, const Term& target) {
  return bytes({kStore}) + value + target;
}
Term bit_and(const Term& left, const Term& right) {
  return bytes({kAnd}) + left + right + bytes({kZero});
}
Term bit_or_into(const Term& left, const Term& right, const Term& target) {
  return bytes({kOr}) + left + right + target;
}
Term less(const Term& left, const Term& right) {
  return bytes({kLess}) + left + right;
}
Term if_true(const Term& condition, const Term& body) {
  return sized({kIf}, condition + body);
}

// --- Resource descriptors (ACPI 6.4, 6.4.2 and 6.4.3)

Term resources(const Term& descriptors) {
  return buffer((descriptors + bytes({0x79, 0})).bytes());  // end tag, with no checksum
}

Term io_ports(uint16_t first, uint16_t count) {
  return bytes({0x47, 0x01}) + little_endian(first, 2) + little_endian(first, 2) +
         bytes({1, static_cast<uint8_t>(count)});
}

Term irq(unsigned number) {
  return bytes({0x22}) + little_endian(1u << number, 2);
}

Term dma(unsigned channel) {
  return bytes({0x2a, static_cast<uint8_t>(1u << channel), 0});
}

Term memory32_fixed(bool writable, uint32_t start, uint32_t size) {
  return bytes({0x86, 9, 0, static_cast<uint8_t>(writable)}) + little_endian(start, 4) +
         little_endian(size, 4);
}

Term interrupts(std::initializer_list<uint32_t> numbers) {
  constexpr uint8_t kConsumer = 0x01, kShared = 0x08;  // level-triggered and active high are zeros
  const auto count = static_cast<uint8_t>(numbers.size());
  Term result = bytes({0x89, static_cast<uint8_t>(2 + 4 * count), 0, kConsumer | kShared, count});
  for (const uint32_t number : numbers) result += little_endian(number, 4);
  return result;
}

namespace {
enum : uint8_t { kMemoryRange = 0, kIoRange = 1, kBusRange = 2 };
constexpr uint8_t kFixed = 0x0c;  // minimum and maximum are; a producer, positive decoding

// Word, doubleword and quadword address space descriptors.
Term address_space(unsigned size, uint8_t type, uint8_t flags, uint64_t first, uint64_t last) {
  const uint8_t tag = size == 2 ? 0x88 : size == 4 ? 0x87 : 0x8a;
  return bytes({tag}) + little_endian(3 + 5 * size, 2) + bytes({type, kFixed, flags}) +
         little_endian(0, size) + little_endian(first, size) + little_endian(last, size) +
         little_endian(0, size) + little_endian(last - first + 1, size);
}
}  // namespace

Term bus_numbers(uint16_t first, uint16_t last) {
  return address_space(2, kBusRange, 0, first, last);
}
Term io_window(uint16_t first, uint16_t last) {
  return address_space(2, kIoRange, 0x03, first, last);
}
Term memory_window(uint32_t first, uint32_t last, bool cacheable) {
  return address_space(4, kMemoryRange, cacheable ? 0x03 : 0x01, first, last);
}

}  // namespace penumbra::aml
