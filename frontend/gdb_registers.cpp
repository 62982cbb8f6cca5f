#include "frontend/gdb_registers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "frontend/state_dump.h"

namespace penumbra {

namespace {

// Offsets in the XSAVE image (SDM vol. 1, 13.4).
constexpr unsigned kFcw = 0, kFsw = 2, kTags = 4, kFop = 6, kFip = 8, kFdp = 16, kMxcsr = 24, kSt = 32,
                   kXmm = 160, kHeader = 512, kYmmHigh = 576;
constexpr uint8_t kX87Component = 1, kSseComponent = 2, kAvxComponent = 4;
constexpr uint16_t kFcwInitial = 0x37f;
constexpr uint32_t kMxcsrInitial = 0x1f80, kMxcsrKnown = 0xffff;
constexpr uint32_t kEfer = 0xc000'0080;
constexpr uint64_t kFlagsWritable = 0x3d'7fd5;  // all but VM, and the fixed and reserved ones

constexpr std::string_view kSegmentOrder[] = {"cs", "ss", "ds", "es", "fs", "gs"};
constexpr SegmentIndex kSegmentIndices[] = {kCs, kSs, kDs, kEs, kFs, kGs};
constexpr std::string_view kX87Controls[] = {"fctrl", "fstat", "ftag",  "fiseg",
                                             "fioff", "foseg", "fooff", "fop"};

template <class T>
T load(const VcpuState& state, unsigned offset) {
  T value;
  std::memcpy(&value, &state.guest_vector_state[offset], sizeof(T));
  return value;
}
template <class T>
void store(VcpuState& state, unsigned offset, T value) {
  std::memcpy(&state.guest_vector_state[offset], &value, sizeof(T));
}

bool in_use(const VcpuState& state, uint8_t component) {
  return load<uint8_t>(state, kHeader) & component;
}

// Makes the component's part of the image count, which it does not while it is in its initial state.
void use(VcpuState& state, uint8_t component) {
  if (in_use(state, component)) return;
  const auto clear = [&state](unsigned offset, unsigned bytes) {
    std::memset(&state.guest_vector_state[offset], 0, bytes);
  };
  switch (component) {
    case kX87Component:
      clear(0, kMxcsr);
      clear(kSt, kXmm - kSt);
      store(state, kFcw, kFcwInitial);
      break;
    case kSseComponent:
      clear(kXmm, 256);
      break;
    default:
      clear(kYmmHigh, 256);
      break;
  }
  store<uint8_t>(state, kHeader, load<uint8_t>(state, kHeader) | component);
}

// The tag word that FSAVE stores, from FXSAVE's one bit a register (SDM vol. 2, FXSAVE).
uint16_t full_tags(const VcpuState& state) {
  const auto tags = load<uint8_t>(state, kTags);
  const unsigned top = load<uint16_t>(state, kFsw) >> 11 & 7;
  uint16_t full = 0;
  for (unsigned physical = 0; physical < 8; ++physical) {
    unsigned tag = 3;  // empty
    if (tags >> physical & 1) {
      const unsigned at = kSt + ((physical - top) & 7) * 16;
      const auto mantissa = load<uint64_t>(state, at);
      const unsigned exponent = load<uint16_t>(state, at + 8) & 0x7fff;
      if (exponent == 0 && mantissa == 0) {
        tag = 1;
      } else {
        tag = exponent == 0x7fff || exponent == 0 || !(mantissa >> 63) ? 2 : 0;
      }
    }
    full = static_cast<uint16_t>(full | tag << physical * 2);
  }
  return full;
}

uint64_t x87_control(const VcpuState& state, unsigned index) {
  if (!in_use(state, kX87Component)) return index == 0 ? kFcwInitial : index == 2 ? 0xffff : 0;
  switch (index) {
    case 0:
      return load<uint16_t>(state, kFcw);
    case 1:
      return load<uint16_t>(state, kFsw);
    case 2:
      return full_tags(state);
    case 3:
      return load<uint16_t>(state, kFip + 4);
    case 4:
      return load<uint32_t>(state, kFip);
    case 5:
      return load<uint16_t>(state, kFdp + 4);
    case 6:
      return load<uint32_t>(state, kFdp);
    default:
      return load<uint16_t>(state, kFop) & 0x7ff;
  }
}

void write_x87_control(VcpuState& state, unsigned index, uint64_t value) {
  use(state, kX87Component);
  switch (index) {
    case 0:
      store(state, kFcw, static_cast<uint16_t>(value));
      break;
    case 1:
      store(state, kFsw, static_cast<uint16_t>(value));
      break;
    case 2: {
      uint8_t tags = 0;
      for (unsigned i = 0; i < 8; ++i) tags = static_cast<uint8_t>(tags | ((value >> i * 2 & 3) != 3) << i);
      store(state, kTags, tags);
      break;
    }
    case 3:
      store(state, kFip + 4, static_cast<uint16_t>(value));
      break;
    case 4:
      store(state, kFip, static_cast<uint32_t>(value));
      break;
    case 5:
      store(state, kFdp + 4, static_cast<uint16_t>(value));
      break;
    case 6:
      store(state, kFdp, static_cast<uint32_t>(value));
      break;
    default:
      store(state, kFop, static_cast<uint16_t>(value & 0x7ff));
      break;
  }
}

// What a register that lies in the XSAVE image as bytes is: its component and place.
struct ImagePart {
  uint8_t component;
  unsigned offset, bytes;
};

std::string to_bytes(uint64_t value, unsigned bytes) {
  std::string text;
  for (unsigned i = 0; i < bytes; ++i) text += static_cast<char>(i < 8 ? value >> i * 8 : 0);
  return text;
}

uint64_t to_integer(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size() && i < 8; ++i)
    value |= uint64_t{static_cast<uint8_t>(bytes[i])} << i * 8;
  return value;
}

}  // namespace

// Writes the document and numbers the registers in its order.
class GdbRegisters::Description {
 public:
  Description(GdbRegisters& to) : to_(to) {
    const std::string_view name = to.arch_ == GdbArch::X86_64 ? "i386:x86-64"
                                  : to.arch_ == GdbArch::I386 ? "i386"
                                                              : "i8086";
    text_ = "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target>\n";
    text_ += fmt::format("<architecture>{}</architecture>\n", name);
  }
  void begin(std::string_view feature) { text_ += fmt::format("<feature name=\"{}\">\n", feature); }
  void end() { text_ += "</feature>\n"; }
  void raw(std::string_view text) { text_ += text; }
  void flags(std::string_view id, unsigned bytes,
             std::span<const std::pair<unsigned, std::string_view>> bits) {
    text_ += fmt::format("<flags id=\"{}\" size=\"{}\">\n", id, bytes);
    for (const auto& [bit, name] : bits)
      text_ += fmt::format("<field name=\"{0}\" start=\"{1}\" end=\"{1}\"/>\n", name, bit);
    text_ += "</flags>\n";
  }
  void add(std::string_view name, Kind kind, unsigned index, unsigned bits, std::string_view type,
           std::string_view extra = "") {
    text_ += fmt::format("<reg name=\"{}\" bitsize=\"{}\" type=\"{}\"{}/>\n", name, bits, type, extra);
    to_.registers_.push_back({kind, index, bits});
  }
  std::string finish() { return text_ + "</target>\n"; }

 private:
  GdbRegisters& to_;
  std::string text_;
};

GdbRegisters::GdbRegisters(GdbArch arch, const CpuModel& model) : arch_(arch) {
  using Bit = std::pair<unsigned, std::string_view>;
  const bool wide = arch == GdbArch::X86_64;
  const unsigned word = wide ? 64 : 32;
  const unsigned vectors = wide ? 16 : 8;
  const std::string_view integer_type = wide ? "int64" : "int32";
  Description xml(*this);

  xml.begin("org.gnu.gdb.i386.core");
  static constexpr Bit kEflags[] = {{0, "CF"},  {1, ""},    {2, "PF"},   {4, "AF"},   {6, "ZF"},  {7, "SF"},
                                    {8, "TF"},  {9, "IF"},  {10, "DF"},  {11, "OF"},  {14, "NT"}, {16, "RF"},
                                    {17, "VM"}, {18, "AC"}, {19, "VIF"}, {20, "VIP"}, {21, "ID"}};
  xml.flags("i386_eflags", 4, kEflags);
  struct Name {
    std::string_view name;
    unsigned gpr;
  };
  static constexpr Name kWide[] = {{"rax", kRax}, {"rbx", kRbx}, {"rcx", kRcx}, {"rdx", kRdx},
                                   {"rsi", kRsi}, {"rdi", kRdi}, {"rbp", kRbp}, {"rsp", kRsp},
                                   {"r8", kR8},   {"r9", kR9},   {"r10", kR10}, {"r11", kR11},
                                   {"r12", kR12}, {"r13", kR13}, {"r14", kR14}, {"r15", kR15}};
  static constexpr Name kNarrow[] = {{"eax", kRax}, {"ecx", kRcx}, {"edx", kRdx}, {"ebx", kRbx},
                                     {"esp", kRsp}, {"ebp", kRbp}, {"esi", kRsi}, {"edi", kRdi}};
  for (const auto& [name, gpr] : wide ? std::span<const Name>(kWide) : std::span<const Name>(kNarrow)) {
    const bool pointer = gpr == kRsp || gpr == kRbp;
    xml.add(name, Kind::Gpr, gpr, word, pointer ? "data_ptr" : integer_type);
  }
  xml.add(wide ? "rip" : "eip", Kind::ProgramCounter, 0, word, "code_ptr");
  xml.add("eflags", Kind::Flags, 0, 32, "i386_eflags");
  for (unsigned i = 0; i < 6; ++i) xml.add(kSegmentOrder[i], Kind::Selector, kSegmentIndices[i], 32, "int32");
  for (unsigned i = 0; i < 8; ++i) xml.add(fmt::format("st{}", i), Kind::X87, i, 80, "i387_ext");
  for (unsigned i = 0; i < 8; ++i)
    xml.add(kX87Controls[i], Kind::X87Control, i, 32, "int", " group=\"float\"");
  xml.end();

  xml.begin("org.gnu.gdb.i386.sse");
  xml.raw(R"(<vector id="v8bf16" type="bfloat16" count="8"/>
<vector id="v4f" type="ieee_single" count="4"/>
<vector id="v2d" type="ieee_double" count="2"/>
<vector id="v16i8" type="int8" count="16"/>
<vector id="v8i16" type="int16" count="8"/>
<vector id="v4i32" type="int32" count="4"/>
<vector id="v2i64" type="int64" count="2"/>
<union id="vec128">
<field name="v8_bfloat16" type="v8bf16"/>
<field name="v4_float" type="v4f"/>
<field name="v2_double" type="v2d"/>
<field name="v16_int8" type="v16i8"/>
<field name="v8_int16" type="v8i16"/>
<field name="v4_int32" type="v4i32"/>
<field name="v2_int64" type="v2i64"/>
<field name="uint128" type="uint128"/>
</union>
)");
  static constexpr Bit kMxcsrBits[] = {{0, "IE"},  {1, "DE"},  {2, "ZE"},  {3, "OE"}, {4, "UE"},
                                       {5, "PE"},  {6, "DAZ"}, {7, "IM"},  {8, "DM"}, {9, "ZM"},
                                       {10, "OM"}, {11, "UM"}, {12, "PM"}, {15, "FZ"}};
  xml.flags("i386_mxcsr", 4, kMxcsrBits);
  for (unsigned i = 0; i < vectors; ++i) xml.add(fmt::format("xmm{}", i), Kind::Xmm, i, 128, "vec128");
  xml.add("mxcsr", Kind::Mxcsr, 0, 32, "i386_mxcsr", " group=\"vector\"");
  xml.end();

  xml.begin("org.gnu.gdb.i386.linux");
  xml.add(wide ? "orig_rax" : "orig_eax", Kind::OriginalAx, 0, word, "int", " group=\"system\"");
  xml.end();
  if (wide) {
    xml.begin("org.gnu.gdb.i386.segments");
    xml.add("fs_base", Kind::SegmentBase, kFs, 64, "int");
    xml.add("gs_base", Kind::SegmentBase, kGs, 64, "int");
    xml.end();
  }
  if (model.xcr0_mask() & kAvxComponent) {
    xml.begin("org.gnu.gdb.i386.avx");
    for (unsigned i = 0; i < vectors; ++i)
      xml.add(fmt::format("ymm{}h", i), Kind::YmmHigh, i, 128, "uint128");
    xml.end();
  }

  xml.begin("org.penumbra.x86.system");
  static constexpr Bit kCr0Bits[] = {{0, "PE"},  {1, "MP"},  {2, "EM"},  {3, "TS"},  {4, "ET"}, {5, "NE"},
                                     {16, "WP"}, {18, "AM"}, {29, "NW"}, {30, "CD"}, {31, "PG"}};
  static constexpr Bit kCr4Bits[] = {
      {0, "VME"},       {1, "PVI"},    {2, "TSD"},      {3, "DE"},     {4, "PSE"},         {5, "PAE"},
      {6, "MCE"},       {7, "PGE"},    {8, "PCE"},      {9, "OSFXSR"}, {10, "OSXMMEXCPT"}, {11, "UMIP"},
      {16, "FSGSBASE"}, {17, "PCIDE"}, {18, "OSXSAVE"}, {20, "SMEP"},  {21, "SMAP"}};
  static constexpr Bit kEferBits[] = {{0, "SCE"}, {8, "LME"}, {10, "LMA"}, {11, "NXE"}};
  xml.flags("cr0_bits", word / 8, kCr0Bits);
  xml.flags("cr4_bits", word / 8, kCr4Bits);
  xml.flags("efer_bits", 8, kEferBits);
  constexpr std::string_view kSystem = " save-restore=\"no\" group=\"system\"";
  static constexpr std::string_view kBaseNames[] = {"es_base", "cs_base", "ss_base",
                                                    "ds_base", "fs_base", "gs_base"};
  for (const unsigned segment : {kCs, kSs, kDs, kEs, kFs, kGs}) {
    if (wide && (segment == kFs || segment == kGs)) continue;
    xml.add(kBaseNames[segment], Kind::SegmentBase, segment, word, "int", kSystem);
  }
  if (wide) xml.add("k_gs_base", Kind::KernelGsBase, 0, 64, "int", kSystem);
  for (const unsigned number : {0u, 2u, 3u, 4u, 8u}) {
    if (number == 8 && !wide) continue;
    xml.add(fmt::format("cr{}", number), Kind::Control, number, word,
            number == 0   ? "cr0_bits"
            : number == 4 ? "cr4_bits"
                          : integer_type,
            kSystem);
  }
  xml.add("efer", Kind::Efer, 0, 64, "efer_bits", kSystem);
  xml.add("xcr0", Kind::Xcr0, 0, 64, "int64", kSystem);
  for (const unsigned number : {0u, 1u, 2u, 3u, 6u, 7u})
    xml.add(fmt::format("dr{}", number), Kind::Debug, number, word, integer_type, kSystem);
  xml.add("gdt_base", Kind::GdtBase, 0, word, integer_type, kSystem);
  xml.add("gdt_limit", Kind::GdtLimit, 0, 32, "int32", kSystem);
  xml.add("idt_base", Kind::IdtBase, 0, word, integer_type, kSystem);
  xml.add("idt_limit", Kind::IdtLimit, 0, 32, "int32", kSystem);
  xml.add("ldtr", Kind::LdtSelector, 0, 32, "int32", kSystem);
  xml.add("tr", Kind::TaskSelector, 0, 32, "int32", kSystem);
  xml.end();
  description_ = xml.finish();
}

namespace {

std::optional<ImagePart> image_part(bool x87, bool xmm, bool ymm, unsigned index) {
  if (x87) return ImagePart{kX87Component, kSt + index * 16, 10};
  if (xmm) return ImagePart{kSseComponent, kXmm + index * 16, 16};
  if (ymm) return ImagePart{kAvxComponent, kYmmHigh + index * 16, 16};
  return std::nullopt;
}

uint64_t control_register(const Vcpu& vcpu, unsigned number) {
  const VcpuState& state = vcpu.state();
  switch (number) {
    case 0:
      return state.cr0;
    case 2:
      return state.cr2;
    case 3:
      return state.cr3;
    case 4:
      return state.cr4;
    default:
      return vcpu.cr8();
  }
}

}  // namespace

uint64_t GdbRegisters::integer(const Vcpu& vcpu, const Register& reg) const {
  const VcpuState& state = vcpu.state();
  switch (reg.kind) {
    case Kind::Gpr:
      return state.gpr[reg.index];
    case Kind::ProgramCounter:
      return vcpu.code_address().value;
    case Kind::Flags:
      return state.rflags;
    case Kind::Selector:
      return state.segments[reg.index].selector;
    case Kind::X87Control:
      return x87_control(state, reg.index);
    case Kind::Mxcsr:
      return load<uint32_t>(state, kMxcsr);
    case Kind::SegmentBase:
      return state.segments[reg.index].base;
    case Kind::OriginalAx:
      return ~uint64_t{0};  // in no system call that gdb should restart
    case Kind::Control:
      return control_register(vcpu, reg.index);
    case Kind::Debug:
      return state.dr[reg.index];
    case Kind::Efer:
      return state.efer;
    case Kind::Xcr0:
      return state.xcr0;
    case Kind::KernelGsBase:
      return state.kernel_gs_base;
    case Kind::GdtBase:
      return state.gdtr.base;
    case Kind::GdtLimit:
      return state.gdtr.limit;
    case Kind::IdtBase:
      return state.idtr.base;
    case Kind::IdtLimit:
      return state.idtr.limit;
    case Kind::LdtSelector:
      return state.ldtr.selector;
    case Kind::TaskSelector:
      return state.tr.selector;
    case Kind::X87:
    case Kind::Xmm:
    case Kind::YmmHigh:
      break;
  }
  return 0;
}

std::string GdbRegisters::read(const Vcpu& vcpu, unsigned number) const {
  const Register& reg = registers_[number];
  const auto part =
      image_part(reg.kind == Kind::X87, reg.kind == Kind::Xmm, reg.kind == Kind::YmmHigh, reg.index);
  if (!part) return to_bytes(integer(vcpu, reg), reg.bits / 8);
  std::string value(part->bytes, '\0');
  if (in_use(vcpu.state(), part->component)) {
    std::memcpy(value.data(), &vcpu.state().guest_vector_state[part->offset], part->bytes);
  }
  return value;
}

std::expected<void, std::string> GdbRegisters::write(Vcpu& vcpu, unsigned number,
                                                     std::string_view bytes) const {
  const Register& reg = registers_[number];
  const auto refused = [](std::string why) { return std::unexpected(std::move(why)); };
  const auto accepted = [&](const Result<void>& done) -> std::expected<void, std::string> {
    if (done) return {};
    const Exception& exception = done.error();
    // Without its "#", which the protocol would escape in what gdb shows as it comes. All of these have one.
    std::string text = "the processor raises " + exception_name(exception.vector).substr(1);
    if (exception.has_error_code) text += fmt::format("({:#x})", exception.error_code);
    return refused(text + fmt::format(" at CPL {}", vcpu.state().cpl));
  };
  if (bytes.size() != reg.bits / 8) return refused("a value of another size");
  VcpuState& state = vcpu.state();
  const auto part =
      image_part(reg.kind == Kind::X87, reg.kind == Kind::Xmm, reg.kind == Kind::YmmHigh, reg.index);
  if (part) {
    use(state, part->component);
    std::memcpy(&state.guest_vector_state[part->offset], bytes.data(), part->bytes);
    return {};
  }
  const uint64_t value = to_integer(bytes);
  const uint64_t mask = reg.bits < 64 ? (uint64_t{1} << reg.bits) - 1 : ~uint64_t{0};
  // gdb writes back what it read when it writes all registers.
  if ((integer(vcpu, reg) & mask) == value) return {};
  switch (reg.kind) {
    case Kind::Gpr:
      state.gpr[reg.index] = value;
      return {};
    case Kind::ProgramCounter:
      state.rip = (vcpu.code64() ? value : value - state.segments[kCs].base) & vcpu.code_mask();
      return {};
    case Kind::Flags:
      state.rflags = (value & kFlagsWritable) | (state.rflags & ~kFlagsWritable);
      vcpu.update_mode();
      return {};
    case Kind::Selector:
      if (value > 0xffff) return refused("selectors have 16 bits");
      return accepted(
          vcpu.set_segment_register(static_cast<SegmentIndex>(reg.index), static_cast<uint16_t>(value)));
    case Kind::X87Control:
      write_x87_control(state, reg.index, value);
      return {};
    case Kind::Mxcsr:
      if (value & ~uint64_t{kMxcsrKnown}) return refused("reserved bits are set");
      use(state, kSseComponent);
      store(state, kMxcsr, static_cast<uint32_t>(value));
      return {};
    case Kind::SegmentBase:
      state.segments[reg.index].base = value;
      vcpu.update_mode();
      return {};
    case Kind::OriginalAx:
      return {};
    case Kind::Control:
      return accepted(vcpu.set_control_register(reg.index, value));
    case Kind::Debug:
      return accepted(vcpu.set_debug_register(reg.index, value));
    case Kind::Efer:
      return accepted(vcpu.write_msr(kEfer, value));
    case Kind::KernelGsBase:
      state.kernel_gs_base = value;
      return {};
    default:
      return refused("it is only read");
  }
}

}  // namespace penumbra
