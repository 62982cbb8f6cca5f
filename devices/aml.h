// A small assembler for ACPI Machine Language: as much as the tables of a board need.
//
// ACPI 6.4, chapter 20. A term is its bytes; terms are put one behind the other with +.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace penumbra::aml {

class Term {
 public:
  Term() = default;
  explicit Term(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)) {}
  const std::vector<uint8_t>& bytes() const { return bytes_; }
  Term& operator+=(const Term& other);
  friend Term operator+(Term left, const Term& right) { return left += right; }

 private:
  std::vector<uint8_t> bytes_;
};

// Data. A path is "\\_SB.PCI0"; segments are padded with underscores.
Term path(std::string_view path);
Term integer(uint64_t value);
Term string(std::string_view text);
Term eisa_id(std::string_view id);  // "PNP0A03"
Term buffer(const std::vector<uint8_t>& bytes);
Term package(std::initializer_list<Term> elements);
Term package(const std::vector<Term>& elements);

// Objects
Term scope(std::string_view name, const Term& body);
Term device(std::string_view name, const Term& body);
Term processor(std::string_view name, uint8_t number);
Term name(std::string_view name, const Term& value);
Term method(std::string_view name, unsigned arguments, const Term& body);
enum class Space : uint8_t { Memory = 0, Io = 1, PciConfig = 2 };
Term operation_region(std::string_view name, Space space, uint64_t offset, uint64_t bytes);
// Consecutive fields of the region, read and written as bytes.
struct Field {
  std::string_view name;
  unsigned bits;
};
Term byte_field(std::string_view region, std::initializer_list<Field> fields);
Term create_dword_field(const Term& buffer, uint64_t offset, std::string_view name);

// Statements and expressions
Term argument(unsigned number);
Term give(const Term& value);  // Return
Term store(const Term& value, const Term& target);
Term bit_and(const Term& left, const Term& right);
Term bit_or_into(const Term& left, const Term& right, const Term& target);
Term less(const Term& left, const Term& right);
Term if_true(const Term& condition, const Term& body);

// Resource descriptors (ACPI 6.4, 6.4); resources() closes their list and makes it a buffer.
Term resources(const Term& descriptors);
Term io_ports(uint16_t first, uint16_t count);
Term irq(unsigned number);   // ISA: edge-triggered, active high
Term dma(unsigned channel);  // ISA: bytes at the 8237A's own speed
Term memory32_fixed(bool writable, uint32_t start, uint32_t bytes);
Term interrupts(std::initializer_list<uint32_t> numbers);  // level-triggered, active high, shared
// What a bridge passes on.
Term bus_numbers(uint16_t first, uint16_t last);
Term io_window(uint16_t first, uint16_t last);
Term memory_window(uint32_t first, uint32_t last, bool cacheable);

}  // namespace penumbra::aml
