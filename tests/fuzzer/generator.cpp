#include "tests/fuzzer/generator.h"

#include <algorithm>

#include "tests/fuzzer/descriptors.h"
#include "tests/fuzzer/encoding.h"
#include "tests/fuzzer/rows.h"
#include "tests/fuzzer/sandbox.h"
#include "tests/fuzzer/values.h"

namespace penumbra::fuzz {

namespace {

// Addresses of the area that the case may use as data.
enum class Place : uint8_t {
  Aligned,
  Anywhere,
  CrossesPage,
  CrossesIntoReadOnly,
  ReadOnly,
  CrossesIntoNothing,
  Nothing,
  Code,
  Wild
};

Place pick_place(Random& random) {
  static constexpr std::pair<Place, unsigned> kWeights[] = {
      {Place::Aligned, 45},     {Place::Anywhere, 20},
      {Place::CrossesPage, 12}, {Place::CrossesIntoReadOnly, 5},
      {Place::ReadOnly, 4},     {Place::CrossesIntoNothing, 6},
      {Place::Nothing, 3},      {Place::Code, 3},
      {Place::Wild, 2}};
  uint64_t at = random.below(100);
  for (const auto& [place, weight] : kWeights) {
    if (at < weight) return place;
    at -= weight;
  }
  return Place::Aligned;
}

uint64_t pick_offset(Random& random, Place place, uint64_t size) {
  const uint64_t within = size > 1 ? random.between(1, size - 1) : 0;  // bytes on the first of two pages
  switch (place) {
    case Place::Aligned:
      return area::kData + random.below((area::kDataEnd - area::kData - size) / 64) * 64 +
             (size <= 16 && random.percent(50)
                  ? (random.below(64) & ~(std::max<uint64_t>(std::bit_ceil(size), 1) - 1))
                  : 0);
    case Place::Anywhere:
      return area::kData + random.below(area::kDataEnd - area::kData - size);
    case Place::CrossesPage:
      return area::kData + random.between(1, 3) * area::kPage - within;
    case Place::CrossesIntoReadOnly:
      return area::kReadOnly - within;
    case Place::ReadOnly:
      return area::kReadOnly + random.below(area::kPage - size);
    case Place::CrossesIntoNothing:
      switch (random.below(3)) {
        case 0:
          return area::kReadOnlyEnd - within;
        case 1:
          return area::kIslandEnd - within;
        default:
          return area::kIsland - (size - within);  // the first bytes are missing
      }
    case Place::Nothing:
      return area::kReadOnlyEnd + random.below(area::kPage - size);
    case Place::Code:
    case Place::Wild:
      return area::kCode + random.below(area::kCodeEnd - area::kCode - size);
  }
  return area::kData;
}

bool takes_selector(const jit::GuestInstruction& insn) {
  if (insn.row.action != jit::Action::System) return false;
  switch (insn.row.system_op) {
    case SystemOp::MovToSreg:
    case SystemOp::PopSreg:
    case SystemOp::Lar:
    case SystemOp::Lsl:
    case SystemOp::Verr:
    case SystemOp::Verw:
    case SystemOp::Arpl:
      return true;
    default:
      return false;
  }
}

// Where in its memory operand a selector is that it loads or looks at.
std::optional<unsigned> selector_offset(const jit::GuestInstruction& insn) {
  if (insn.row.action == jit::Action::System && insn.row.system_op == SystemOp::LoadFarPointer)
    return insn.zydis.operand_width / 8;
  return takes_selector(insn) ? std::optional(0u) : std::nullopt;
}

// Its limit says which of the host's processors this runs on.
bool names_cpu_number(const Memory& memory, uint64_t offset) {
  if (offset + 2 > memory.size()) return false;
  const unsigned chosen = static_cast<unsigned>(memory[offset]) | static_cast<unsigned>(memory[offset + 1])
                                                                      << 8;
  return chosen >> 3 == kCpuNumberEntry && (chosen & 4) == 0;
}

bool is_stack_register(ZydisRegister reg) {
  return reg == ZYDIS_REGISTER_RSP || reg == ZYDIS_REGISTER_ESP || reg == ZYDIS_REGISTER_SP;
}

// AMD: LOCK MOV CR0 is MOV CR8 where CPUID says so, and the guest's does not; LOCK VERW runs, though both
// manuals say #UD.
bool is_host_quirk(const EncodedBytes& bytes) {
  bool lock = false;
  for (unsigned i = 0; i + 2 < bytes.size(); ++i) {
    if (bytes[i] == 0xf0) lock = true;
    if (!lock || bytes[i] != 0x0f) continue;
    const bool cr = (bytes[i + 1] & ~2) == 0x20;
    const bool verw = bytes[i + 1] == 0 && (bytes[i + 2] >> 3 & 7) == 5;
    if (cr || verw) return true;
  }
  return false;
}

struct Attempt {
  Kind kind;
  Random& random;
  const jit::Decoder& decoder;
  Case& out;
  unsigned bits = bits_of(kind);
  bool real = kind == Kind::Real;
  uint64_t low = real ? area::kReal : area::kLow;
  uint64_t code_base = low, data_base = low;  // linear
  EncodedBytes bytes{};
  unsigned length = 0;
  jit::GuestInstruction insn{};
  bool decoded = false;
  std::array<bool, 16> locked{};  // registers that steer() has decided

  uint64_t rip() const { return code_base + out.code - segment_base(ZYDIS_REGISTER_CS); }
  std::array<uint64_t, 16>& gpr() { return out.program.start.gpr; }

  void choose_segments();
  uint64_t segment_base(ZydisRegister segment) const;
  uint16_t random_selector();
  uint16_t random_code_selector();
  uint64_t far_target(uint16_t chosen);
  bool build(const Form& form);
  bool take(std::span<const uint8_t> fixed);
  bool decode();
  void reencode();
  void randomize_registers();
  void set(unsigned reg, uint64_t value, unsigned width);
  uint64_t get(unsigned reg, unsigned width) const;
  void patch(unsigned offset, unsigned size, uint64_t value);
  uint64_t code_target();
  void prepare();
  void steer_branch();
  bool steer_operand(const ZydisDecodedOperand& operand, uint64_t size, uint64_t offset, bool wild);
  void steer_memory();
  void fill_memory_operand(uint64_t offset, uint64_t size);
  void steer_gather(const ZydisDecodedOperand& operand, uint64_t offset);
  void steer_selector();
};

void Attempt::choose_segments() {
  MachineState& start = out.program.start;
  if (real) {
    start.selectors.fill(selector::kReal);
    start.fs_base = start.gs_base = area::kReal;
    return;
  }
  const bool wide = bits == 64;
  if (wide && random.percent(50)) code_base = area::kHigh;
  if (wide && random.percent(50)) data_base = area::kHigh;
  start.selectors.fill(selector::kData);
  start.selectors[kCs] = wide ? selector::kCode64 : selector::kCode32;
  start.fs_base = area::kLow + random.below(area::kBytes);
  start.gs_base =
      wide && random.percent(50) ? area::kHigh + random.below(area::kBytes) : random.below(area::kLow);
  if (wide || (bits == 32 && random.percent(80))) return;
  start.gs_base = area::kLow;
  if (bits == 16) {
    start.selectors[kCs] = random.percent(90) ? ldt::kCode16 : ldt::kExecuteOnly16;
  } else if (random.percent(60)) {
    start.selectors[kCs] = ldt::kCode32;
  }
  constexpr uint16_t kDataSelectors[] = {ldt::kShort,     ldt::kExpandDown16, ldt::kReadOnly16,
                                         ldt::kCode16,    ldt::kBased32,      ldt::kExpandDown32,
                                         selector::kData, ldt::kExecuteOnly16};
  for (const SegmentIndex index : {kDs, kEs}) {
    // The last one cannot be loaded.
    start.selectors[index] =
        random.percent(65) ? ldt::kData16 : kDataSelectors[random.below(std::size(kDataSelectors) - 1)];
  }
  constexpr uint16_t kStackSelectors[] = {ldt::kExpandDown16, ldt::kExpandDown32, selector::kData};
  start.selectors[kSs] = random.percent(70) ? ldt::kData16 : kStackSelectors[random.below(3)];
}

uint64_t Attempt::segment_base(ZydisRegister segment) const {
  const MachineState& start = out.program.start;
  if (segment == ZYDIS_REGISTER_FS) return start.fs_base;
  if (segment == ZYDIS_REGISTER_GS) return start.gs_base;
  if (bits == 64 || segment == ZYDIS_REGISTER_NONE) return 0;
  if (real) return area::kReal;
  return descriptor_of(start.selectors[jit::segment_index(segment)]).base();
}

uint16_t Attempt::random_selector() {
  if (real) return random.percent(50) ? selector::kReal : static_cast<uint16_t>(random.next());
  constexpr uint16_t kUser[] = {selector::kCode32, selector::kData, selector::kCode64};
  uint64_t chosen;
  switch (random.below(10)) {
    case 0:
      return static_cast<uint16_t>(random.below(8));
    case 1:
    case 2:
    case 3:
      chosen = kUser[random.below(3)];
      break;
    case 4:
      chosen = random.next() & 0xffff;
      break;
    default:
      chosen = ldt::selector_of(static_cast<unsigned>(random.below(std::size(ldt::kEntries) + 1)));
      break;
  }
  if (random.percent(15)) chosen ^= random.below(4);
  const bool local = chosen & 4;
  if (!local && chosen >> 3 == kCpuNumberEntry) return selector::kData;
  return static_cast<uint16_t>(chosen);
}

uint16_t Attempt::random_code_selector() {
  if (real) return static_cast<uint16_t>(selector::kReal + random.below(4) * 0x40);
  // Where a far call between 64-bit code and other code pushes to, when a stack segment that is not flat or
  // an RSP of more than 32 bits makes a difference, no manual says.
  const bool flat_stack = segment_base(ZYDIS_REGISTER_SS) == 0 && out.program.start.gpr[kRsp] >> 32 == 0;
  constexpr uint16_t kCode[] = {selector::kCode64, selector::kCode32, ldt::kCode16, ldt::kCode32,
                                ldt::kExecuteOnly16};
  const uint16_t chosen = random.percent(80) ? kCode[random.below(std::size(kCode))] : random_selector();
  const bool changes_width = descriptor_of(chosen).is_long() != (bits == 64);
  if (flat_stack || !changes_width) return chosen;
  return bits == 64 ? selector::kCode64 : ldt::kCode16;
}

// Offset of a HLT, most of the time.
uint64_t Attempt::far_target(uint16_t chosen) {
  const uint64_t target = low + area::kCode + random.below(area::kCodeEnd - area::kCode);
  if (real) return target - chosen * 16u;
  return random.percent(5) ? random.edge() : target - descriptor_of(chosen).base();
}

bool Attempt::build(const Form& form) {
  bytes = encode(form, bits, random, nullptr);
  if (!decode()) return false;
  if (random.percent(20)) reencode();
  return decoded;
}

bool Attempt::take(std::span<const uint8_t> fixed) {
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
  std::ranges::copy(fixed, bytes.begin());
  return decode();
}

// The same instruction as Zydis' encoder would have it.
void Attempt::reencode() {
  ZydisEncoderRequest request;
  EncodedBytes other = bytes;
  ZyanUSize size = 15;
  if (!ZYAN_SUCCESS(ZydisEncoderDecodedInstructionToEncoderRequest(
          &insn.zydis, insn.operands, insn.zydis.operand_count_visible, &request)) ||
      !ZYAN_SUCCESS(ZydisEncoderEncodeInstruction(&request, other.data(), &size))) {
    return;
  }
  bytes = other;
  decode();
}

bool Attempt::decode() {
  decoded =
      decoder.decode(std::span<const uint8_t>(bytes).first(15), rip(), insn) == jit::Decoder::Status::Ok;
  length = insn.zydis.length;
  return decoded;
}

void Attempt::randomize_registers() {
  for (unsigned i = 0; i < 16; ++i) {
    gpr()[i] = random.edge();
    if (i > 0 && random.percent(8)) gpr()[i] = gpr()[random.below(i)];
  }
  const bool large = bits == 64 && random.percent(50);
  gpr()[kRsp] = (large ? area::kHigh : low) + area::kStack + 0x200 + random.below(0x1c00) -
                segment_base(ZYDIS_REGISTER_SS);
  if (random.percent(80)) gpr()[kRsp] &= ~uint64_t{15};
  uint64_t& flags = out.program.start.rflags;
  flags = 0x202 | (random.next() & flag::kArithmetic);
  if (random.percent(25)) flags |= flag::kDf;
  if (!real && random.percent(4)) flags |= flag::kTf;
  if (random.percent(4)) flags |= flag::kAc;
  if (random.percent(4)) flags |= flag::kNt;
  if (random.percent(10)) flags |= flag::kId;
}

void Attempt::set(unsigned reg, uint64_t value, unsigned width) {
  const uint64_t mask = width >= 64 ? ~uint64_t{0} : (uint64_t{1} << width) - 1;
  // What lies above an address register must not matter.
  gpr()[reg] = (gpr()[reg] & ~mask) | (value & mask);
  locked[reg] = true;
}

uint64_t Attempt::get(unsigned reg, unsigned width) const {
  const uint64_t mask = width >= 64 ? ~uint64_t{0} : (uint64_t{1} << width) - 1;
  return out.program.start.gpr[reg] & mask;
}

void Attempt::patch(unsigned offset, unsigned size, uint64_t value) {
  std::memcpy(bytes.data() + offset, &value, size / 8);
}

// Somewhere in the code pages, which are full of HLT.
uint64_t Attempt::code_target() {
  return code_base + area::kCode + random.below(area::kCodeEnd - area::kCode) -
         segment_base(ZYDIS_REGISTER_CS);
}

// What makes an instruction do something interesting more often than chance would.
void Attempt::prepare() {
  for (unsigned i = 0; i < 2; ++i) {
    const auto& imm = insn.zydis.raw.imm[i];
    if (imm.size && !imm.is_relative && random.percent(50)) patch(imm.offset, imm.size, random.edge());
  }
  switch (insn.zydis.mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
      if (random.percent(60)) {
        gpr()[kRax] >>= random.below(64);
        gpr()[kRdx] = insn.zydis.mnemonic == ZYDIS_MNEMONIC_IDIV && random.percent(50)
                          ? static_cast<uint64_t>(static_cast<int64_t>(gpr()[kRax]) >> 63)
                          : 0;
      }
      break;
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
      if (random.percent(70)) {
        gpr()[kRax] = random.below(20) - 2;
        gpr()[kRdx] = random.below(20) - 2;
      }
      break;
    case ZYDIS_MNEMONIC_ENTER:
      if (random.percent(80)) {
        patch(insn.zydis.raw.imm[0].offset, 16, random.below(0x300));
        patch(insn.zydis.raw.imm[1].offset, 8, random.below(random.percent(20) ? 256 : 5));
      }
      break;
    case ZYDIS_MNEMONIC_RET:
      if (insn.zydis.raw.imm[0].size && random.percent(80))
        patch(insn.zydis.raw.imm[0].offset, 16, random.below(256));
      break;
    default:
      break;
  }
  if (insn.row.instruction_class == jit::InstructionClass::String) {
    const uint64_t count = real || random.percent(75) ? random.below(40) : random.below(5000);
    if (real || random.percent(95)) set(kRcx, count, insn.zydis.address_width);
  }
  const bool counts = insn.row.action == jit::Action::Loop;
  if (counts && random.percent(50)) gpr()[kRcx] = random.below(3);
}

void Attempt::steer_branch() {
  for (const auto& imm : insn.zydis.raw.imm) {
    if (!imm.size || !imm.is_relative) continue;
    if (imm.size > 8 && (real || random.percent(96)))
      patch(imm.offset, imm.size, code_target() - (rip() + length));
    // A jump to itself is what an endless loop is, and this would wait for it.
    if (imm.size == 8 && bytes[imm.offset] == static_cast<uint8_t>(-static_cast<int>(length)))
      bytes[imm.offset] ^= 1;
  }
  if (insn.row.instruction_class != jit::InstructionClass::ControlTransfer) return;
  const ZydisDecodedOperand& target = insn.operands[0];
  const ZydisRegisterClass group = ZydisRegisterGetClass(target.reg.value);
  const bool general =
      group == ZYDIS_REGCLASS_GPR64 || group == ZYDIS_REGCLASS_GPR32 || group == ZYDIS_REGCLASS_GPR16;
  if (target.type == ZYDIS_OPERAND_TYPE_REGISTER && general && (real || random.percent(95))) {
    set(jit::gpr_number(target.reg.value), code_target(), 64);
  }
}

// Registers and displacement such that the operand is at `offset` in the area; false when that cannot be.
bool Attempt::steer_operand(const ZydisDecodedOperand& operand, uint64_t size, uint64_t offset, bool wild) {
  const ZydisDecodedOperandMem& mem = operand.mem;
  const unsigned width = insn.zydis.address_width;
  const uint64_t segment = segment_base(mem.segment);
  uint64_t target = (width < 64 ? low : data_base) + offset;
  // The long x87 and FXSAVE operands, and those of masked stores, are accessed in an order of the CPU's own.
  const bool one_piece = (size <= 10 || size == 16 || size == 32) && insn.row.action != jit::Action::MaskMove;
  const bool at_the_edge = one_piece && random.percent(50);
  // Of the canonical addresses, of a 32-bit address or of a small segment.
  const uint64_t edge = bits == 64 ? uint64_t{1} << 47 : segment ? low + area::kBytes : uint64_t{1} << 32;
  if (wild) target = at_the_edge ? edge - random.below(2 * size + 2) : random.next();
  const uint64_t wanted = target - segment;
  const auto& disp = insn.zydis.raw.disp;
  const auto fits = [&](uint64_t value) {
    if (!disp.size) return value == 0;
    if (disp.size == 64 || disp.size >= width) return true;
    const auto narrow = static_cast<int64_t>(value << (64 - disp.size)) >> (64 - disp.size);
    return static_cast<uint64_t>(narrow) == value;
  };
  if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
    const uint64_t value = wanted - (rip() + length);
    if (!fits(value) && width == 64) return false;
    patch(disp.offset, disp.size, value);
    return true;
  }
  const bool has_base = mem.base != ZYDIS_REGISTER_NONE, has_index = mem.index != ZYDIS_REGISTER_NONE;
  uint64_t displacement = disp.size ? static_cast<uint64_t>(disp.value) : 0;
  const unsigned base = has_base ? jit::gpr_number(mem.base) : 0;
  uint64_t indexed = 0;
  if (has_index) {
    const unsigned index = jit::gpr_number(mem.index);
    if (mem.index == ZYDIS_REGISTER_AL) {
      indexed = gpr()[kRax] & 0xff;
    } else if (has_base && index == base) {
      if (locked[base]) return false;
      uint64_t value = (wanted - displacement) / (1 + mem.scale);
      set(base, value, width);
      return true;
    } else {
      if (!locked[index]) {
        const uint64_t value = random.percent(50) ? random.below(64) : random.edge();
        set(index, value, width);
        if (random.percent(50)) set(index, -random.below(64), width);
        if (!has_base) set(index, random.below(256), width);
      }
      indexed = get(index, width) * mem.scale;
    }
  }
  if (!has_base) {
    const uint64_t value = wanted - indexed;
    if (!fits(value)) return false;
    patch(disp.offset, disp.size, value);
    return true;
  }
  if (locked[base] || (is_stack_register(mem.base) && disp.size >= 32)) {
    const uint64_t value = wanted - indexed - get(base, width);
    if (!fits(value)) return false;
    patch(disp.offset, disp.size, value);
    return true;
  }
  set(base, wanted - indexed - displacement, width);
  return true;
}

void Attempt::steer_gather(const ZydisDecodedOperand& operand, uint64_t offset) {
  const ZydisDecodedOperandMem& mem = operand.mem;
  if (mem.base != ZYDIS_REGISTER_NONE) {
    set(jit::gpr_number(mem.base),
        area::kLow + offset - (insn.zydis.raw.disp.size ? insn.zydis.raw.disp.value : 0),
        insn.zydis.address_width);
  } else {
    patch(insn.zydis.raw.disp.offset, insn.zydis.raw.disp.size, area::kLow + offset);
  }
  auto& index = out.program.start.vector.ymm[ZydisRegisterGetId(mem.index)];
  const bool narrow =
      insn.zydis.mnemonic == ZYDIS_MNEMONIC_VGATHERDPS || insn.zydis.mnemonic == ZYDIS_MNEMONIC_VPGATHERDD ||
      insn.zydis.mnemonic == ZYDIS_MNEMONIC_VGATHERDPD || insn.zydis.mnemonic == ZYDIS_MNEMONIC_VPGATHERDQ;
  const uint64_t reach = random.percent(80) ? 100 : 1000;
  for (unsigned lane = 0; lane < (narrow ? 8 : 4); ++lane) {
    const uint64_t value = random.percent(97) ? random.below(2 * reach) - reach : random.edge();
    std::memcpy(reinterpret_cast<std::byte*>(index.data()) + lane * (narrow ? 4 : 8), &value, narrow ? 4 : 8);
  }
}

// Selectors in registers and far pointers in the instruction itself.
void Attempt::steer_selector() {
  if (takes_selector(insn)) {
    for (unsigned i = 0; i < insn.zydis.operand_count_visible; ++i) {
      const ZydisDecodedOperand& operand = insn.operands[i];
      if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
      if (ZydisRegisterGetClass(operand.reg.value) == ZYDIS_REGCLASS_SEGMENT) continue;
      set(jit::gpr_number(operand.reg.value), random_selector(), 16);
    }
  }
  if (insn.operands[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
    const uint16_t chosen = random_code_selector();
    patch(insn.zydis.raw.imm[0].offset, insn.zydis.raw.imm[0].size, far_target(chosen));
    patch(insn.zydis.raw.imm[1].offset, 16, chosen);
  }
}

void Attempt::fill_memory_operand(uint64_t offset, uint64_t size) {
  uint8_t data[1024];
  const uint64_t filled = std::min<uint64_t>(std::max<uint64_t>(size, 8), sizeof(data));
  fill_operand(random, std::span(data, filled));
  const auto vector_image = [&] {
    store_vector_state(random_vector_state(random), reinterpret_cast<std::byte*>(data));
  };
  switch (insn.zydis.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
      if (random.percent(80)) data[2] = data[3] = 0;
      break;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
      vector_image();
      if (random.percent(30)) data[512] = static_cast<uint8_t>(random.below(8));
      if (random.percent(5)) data[512 + random.below(24)] = static_cast<uint8_t>(random.next());
      break;
    case ZYDIS_MNEMONIC_CMPXCHG:
      if (random.percent(50)) std::memcpy(data, &gpr()[kRax], 8);
      break;
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B: {
      const unsigned half = insn.zydis.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B ? 4 : 8;
      if (random.percent(50)) {
        std::memcpy(data, &gpr()[kRax], half);
        std::memcpy(data + half, &gpr()[kRdx], half);
      }
      break;
    }
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
      if (insn.row.action == jit::Action::System) {
        // Offset and selector; IRET's flags, stack pointer and its selector.
        const unsigned item = insn.zydis.operand_width / 8;
        const uint16_t chosen = random_code_selector();
        const uint64_t target = far_target(chosen), flags = (random.next() & 0x24'4dff) | 0x202,
                       stack = gpr()[kRsp] + random.below(64), other = random_selector();
        std::memcpy(data, &target, 8);
        std::memcpy(data + item, &chosen, 2);
        if (insn.row.system_op != SystemOp::Iret) break;
        std::memcpy(data + item, &chosen, 2);
        std::memcpy(data + 2 * item, &flags, std::min(item, 4u));
        if (real || random.percent(90)) data[2 * item + 1] &= ~1;  // TF
        std::memcpy(data + 3 * item, &stack, item);
        std::memcpy(data + 4 * item, &other, 2);
        if (random.percent(70)) std::memcpy(data + 4 * item, &selector::kData, 2);
        break;
      }
      if (real || random.percent(95)) {
        const uint64_t target = code_target();
        std::memcpy(data, &target, 8);
      }
      break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
      if (real || random.percent(90)) data[1] &= ~1;  // TF
      break;
    default:
      if (const auto at = selector_offset(insn)) {
        const uint16_t chosen = random_selector();
        std::memcpy(data + *at, &chosen, 2);
      }
      break;
  }
  for (uint64_t i = 0; i < filled; ++i) {
    const uint64_t at = offset + i;
    const bool code = at >= area::kCode && at < area::kCodeEnd;
    if (at < area::kBytes && !code) out.program.memory[at] = static_cast<std::byte>(data[i]);
  }
}

void Attempt::steer_memory() {
  for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
    const ZydisDecodedOperand& operand = insn.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type == ZYDIS_MEMOP_TYPE_AGEN) continue;
    uint64_t size = std::max<uint64_t>(operand.size / 8, 1);
    if (size > 900) size = 900;
    const bool implicit = operand.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
    if (is_stack_register(operand.mem.base) && implicit) {
      // The stack: usually in its pages, at their ends now and then.
      if (random.percent(15)) {
        const uint64_t edge = random.percent(50) ? area::kStack : area::kStackEnd;
        gpr()[kRsp] = (gpr()[kRsp] & ~(area::kBytes - 1)) + edge + random.below(40) - 20;
      } else if (random.percent(10)) {
        gpr()[kRsp] =
            (gpr()[kRsp] & ~(area::kBytes - 1)) + area::kStack + area::kPage + random.below(20) - 10;
      }
      locked[kRsp] = true;
      fill_memory_operand(gpr()[kRsp] & (area::kBytes - 1), size);
      continue;
    }
    Place place = pick_place(random);
    if (real && (place == Place::Code || place == Place::Wild)) place = Place::Anywhere;
    const uint64_t offset = pick_offset(random, place, size);
    if (operand.mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
      steer_gather(operand, offset);
      continue;
    }
    if (steer_operand(operand, size, offset, place == Place::Wild)) fill_memory_operand(offset, size);
    if (insn.row.action == jit::Action::BitTest && insn.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        random.percent(95)) {
      const unsigned reg = jit::gpr_number(insn.operands[1].reg.value);
      if (!locked[reg])
        gpr()[reg] = random.percent(50) ? random.below(64) : random.below(1 << 16) - (1 << 15);
    }
  }
  if (insn.row.action == jit::Action::Leave ||
      (insn.row.action == jit::Action::System && insn.row.system_op == SystemOp::Enter)) {
    gpr()[kRbp] = gpr()[kRsp] + (random.below(0x400) & ~uint64_t{7}) - 0x200;
    if (random.percent(10)) gpr()[kRbp] = random.edge();
  }
}

// What Unicorn, which is TCG, does not tell.
void set_unicorn_exceptions(const jit::GuestInstruction& insn, Case& out) {
  if (const ZydisAccessedFlags* flags = insn.zydis.cpu_flags)
    out.undefined_flags |= flags->undefined & flag::kArithmetic;
  switch (insn.row.action) {
    case jit::Action::Generic:
    case jit::Action::Mov:
    case jit::Action::Hint:
    case jit::Action::Lea:
    case jit::Action::Xlat:
      break;
    default:
      // The stack, strings, bit strings and jumps.
      out.may_exceed_limit = true;
      break;
  }
}

// FIP, FDP and FOP, FCS and FDS: the host's own addresses (jit/README.md, "What is not exact").
void add_holes(const jit::GuestInstruction& insn, uint64_t operand_offset, std::vector<Hole>& holes) {
  uint64_t begin = 0, end = 0;
  switch (insn.zydis.mnemonic) {
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
      begin = insn.zydis.operand_width == 16 ? 6 : 12;
      end = insn.zydis.operand_width == 16 ? 14 : 28;
      break;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
      begin = 6, end = 24;
      break;
    default:
      return;
  }
  holes.push_back({operand_offset + begin, operand_offset + end});
}

}  // namespace

Generator::Generator(Kind kind) : kind_(kind), forms_(bits_of(kind)), decoder_(make_decoder(bits_of(kind))) {
  for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; ++i) {
    const auto mnemonic = static_cast<ZydisMnemonic>(i);
    if (forms_.forms_of(mnemonic).empty() || reason_not_native(mnemonic)) continue;
    if (kind == Kind::Real && !runs_on_unicorn(forms_.forms_of(mnemonic).front())) continue;
    mnemonics_.push_back(mnemonic);
  }
}

bool Generator::make_single(ZydisMnemonic mnemonic, uint64_t seed, Case& out) const {
  return make(mnemonic, {}, seed, out);
}

bool Generator::make_fixed(std::span<const uint8_t> bytes, uint64_t seed, Case& out) const {
  return make(ZYDIS_MNEMONIC_INVALID, bytes, seed, out);
}

bool Generator::make(ZydisMnemonic mnemonic, std::span<const uint8_t> fixed, uint64_t seed, Case& out) const {
  Random random(seed);
  out = {};
  out.program.kind = kind_;
  out.program.memory = pristine_memory();
  const bool wide = kind_ == Kind::Bits64, real = kind_ == Kind::Real;
  Attempt attempt{.kind = kind_, .random = random, .decoder = decoder_, .out = out};
  attempt.choose_segments();
  out.code = area::kCode + random.below(area::kCodeEnd - area::kCode - 16);
  if (real) {
    // Beyond the code pages, where a short jump reaches, there is data that would run.
    constexpr uint64_t kReach = 0x90;
    out.code = area::kCode + kReach + random.below(area::kCodeEnd - area::kCode - 2 * kReach);
  } else if (random.percent(8)) {
    out.code = area::kCode + random.between(1, 3) * area::kPage - random.between(1, 15);
  }

  const std::vector<Form>& forms = forms_.forms_of(mnemonic);
  const bool built = fixed.empty() ? attempt.build(forms[random.below(forms.size())]) : attempt.take(fixed);
  // What Zydis knows and the table does not has no CPUID bit in the guest.
  ZydisDecodedInstruction known;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  if (!built && fixed.empty() &&
      (!random.percent(20) ||
       ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_.zydis(), attempt.bytes.data(), 15, &known, operands))))
    return false;
  if (real && !built) return false;
  MachineState& start = out.program.start;
  attempt.randomize_registers();
  start.vector = random_vector_state(random);
  start.rip = attempt.rip();
  if (built) {
    if (reason_not_native(attempt.insn.zydis.mnemonic)) return false;
    attempt.prepare();
    attempt.steer_branch();
    attempt.steer_memory();
    attempt.steer_selector();
    const jit::GuestInstruction before = attempt.insn;
    if (!attempt.decode() || attempt.insn.zydis.mnemonic != before.zydis.mnemonic) return false;
    if (real && !is_told_by_unicorn(attempt.insn)) return false;
    out.mnemonic = attempt.insn.zydis.mnemonic;
    switch (out.mnemonic) {
      case ZYDIS_MNEMONIC_FLDENV:
      case ZYDIS_MNEMONIC_FNSAVE:
      case ZYDIS_MNEMONIC_FNSTENV:
      case ZYDIS_MNEMONIC_FRSTOR:
      case ZYDIS_MNEMONIC_FXRSTOR:
      case ZYDIS_MNEMONIC_FXRSTOR64:
      case ZYDIS_MNEMONIC_FXSAVE:
      case ZYDIS_MNEMONIC_FXSAVE64:
        out.any_cr2_of_operand = true;
        break;
      case ZYDIS_MNEMONIC_MASKMOVQ:
        out.x87_on_fault = false;
        break;
      default:
        break;
    }
    const bool image = out.any_cr2_of_operand && attempt.insn.row.action == jit::Action::System;
    if (attempt.insn.row.action == jit::Action::System) {
      const SystemOp op = attempt.insn.row.system_op;
      out.any_cr2_of_operand |= op == SystemOp::RetFar || op == SystemOp::Iret;
    }
    // Whether #AC is raised depends on the mask, in a way that no manual tells; for FXSAVE and FXRSTOR, #AC,
    // #GP of the address and #GP of the segment have no order (SDM vol. 2).
    if (attempt.insn.row.action == jit::Action::MaskMove || (image && !wide)) start.rflags &= ~flag::kAc;
    if (out.mnemonic == ZYDIS_MNEMONIC_RDRAND || out.mnemonic == ZYDIS_MNEMONIC_RDSEED) {
      out.random_gpr = static_cast<int>(jit::gpr_number(attempt.insn.operands[0].reg.value));
      out.undefined_flags |= flag::kCf;  // a busy host may have no number to give (SDM vol. 2, RDSEED)
      // Real mode ends a case by an interrupt, which #SS meets where SP happens to be 1.
      if (real && out.random_gpr == static_cast<int>(kRsp)) return false;
    }
    out.undefined =
        attempt.insn.row.action == jit::Action::System && attempt.insn.row.system_op == SystemOp::Ud;
  } else {
    out.undefined = true;
    if (is_host_quirk(attempt.bytes)) return false;
    attempt.length = 15;
  }
  // The upper halves are undefined outside 64-bit mode (SDM vol. 1, 3.4.1.1): the translator clears them.
  for (unsigned i = 0; !wide && i < 8; ++i) start.gpr[i] &= 0xffff'ffff;
  if (real) {
    start.gpr[kRsp] &= 0xffff;
    // TCG divides it by -1 on the host, whose #DE ends the process; any divisor raises #DE.
    const bool least_dividend = start.gpr[kRdx] == 0x8000'0000 && start.gpr[kRax] == 0;
    if (out.mnemonic == ZYDIS_MNEMONIC_IDIV && attempt.insn.zydis.operand_width == 32 && least_dividend)
      return false;
    set_unicorn_exceptions(attempt.insn, out);
  } else if (!wide) {  // what IRET to such a stack leaves of it
    start.gpr[kRsp] &= descriptor_of(start.selectors[kSs]).big() ? 0xffff'ffff : 0xffff;
  }
  out.code_bytes = attempt.length;
  if (leaves_the_sandbox(std::span(attempt.bytes).first(attempt.length))) return false;
  for (unsigned i = 0; i < attempt.length && out.code + i < area::kCodeEnd; ++i) {
    out.program.memory[out.code + i] = static_cast<std::byte>(attempt.bytes[i]);
  }
  if (built) {
    if (const ZydisDecodedOperand* operand = attempt.insn.memory_operand()) {
      // Where it is: as the CPU will compute it.
      const ZydisDecodedOperandMem& mem = operand->mem;
      ZyanU64 address = 0;
      ZydisRegisterContext context{};
      for (unsigned i = 0; i < 16; ++i) {
        context.values[ZYDIS_REGISTER_RAX + i] = start.gpr[i];
        context.values[ZYDIS_REGISTER_EAX + i] = static_cast<uint32_t>(start.gpr[i]);
        context.values[ZYDIS_REGISTER_AX + i] = static_cast<uint16_t>(start.gpr[i]);
      }
      if (mem.type != ZYDIS_MEMOP_TYPE_VSIB &&
          ZYAN_SUCCESS(
              ZydisCalcAbsoluteAddressEx(&attempt.insn.zydis, operand, start.rip, &context, &address))) {
        // jit/README.md, "What is not exact".
        const bool based = mem.segment == ZYDIS_REGISTER_FS || mem.segment == ZYDIS_REGISTER_GS;
        constexpr uint64_t kEnd = uint64_t{1} << 32;
        if (!wide && based && (address & (kEnd - 1)) + operand->size / 8 > kEnd) return false;
        constexpr uint64_t kEnd16 = uint64_t{1} << 16;
        const bool wraps =
            attempt.insn.zydis.address_width == 16 && (address & (kEnd16 - 1)) + operand->size / 8 > kEnd16;
        if (wraps && out.any_cr2_of_operand) return false;
        if (real) out.may_exceed_limit |= address + operand->size / 8 > area::kBytes;
        address += attempt.segment_base(mem.segment);
        const uint64_t offset = address & (area::kBytes - 1);
        const auto selector_at = selector_offset(attempt.insn);
        if (selector_at && names_cpu_number(out.program.memory, offset + *selector_at)) return false;
        add_holes(attempt.insn, offset, out.holes);
      }
    }
  }
  out.cold_tlb = random.percent(10);
  return true;
}

}  // namespace penumbra::fuzz
