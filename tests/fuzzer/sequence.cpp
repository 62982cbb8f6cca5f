#include "tests/fuzzer/sequence.h"

#include <algorithm>

#include "tests/fuzzer/descriptors.h"
#include "tests/fuzzer/encoding.h"
#include "tests/fuzzer/rows.h"
#include "tests/fuzzer/sandbox.h"
#include "tests/fuzzer/values.h"

namespace penumbra::fuzz {

namespace {

// Registers with a purpose; nothing but string instructions and the stack changes them.
struct Roles {
  std::vector<unsigned> pointers;  // into the data pages
  unsigned index, counter;         // small numbers
  bool reserved(unsigned gpr) const {
    return gpr == kRsp || gpr == index || gpr == counter ||
           std::ranges::find(pointers, gpr) != pointers.end();
  }
};

struct Item {
  std::vector<uint8_t> bytes;
  int target = -1;           // item whose address goes to `field`, the last one being the HLT
  unsigned target_byte = 0;  // within the target
  unsigned field = 0, field_bytes = 0;
  bool relative = true;  // to the end of this item
  bool stored_into = false;
  int absolute_slot = -1;  // offset in the area that gets the target's address instead
};

constexpr uint8_t kSimpleOpcodes[] = {0x90, 0xf5, 0xf8, 0xf9, 0x98, 0x99, 0x9e, 0x9f};

class Builder {
 public:
  Builder(Kind kind, const FormTable& forms, const jit::Decoder& decoder,
          const std::vector<ZydisMnemonic>& mnemonics, uint64_t seed, Case& out)
      : kind_(kind),
        bits_(bits_of(kind)),
        forms_(forms),
        decoder_(decoder),
        mnemonics_(mnemonics),
        random_(seed),
        out_(out) {}

  bool build();
  bool take(std::span<const uint8_t> bytes);

 private:
  void begin();
  void choose_state();
  bool add_plain();
  void add_branch();
  void add_indirect();
  void add_store_into_code();
  void add_repeated_string();
  void add_loop(unsigned from);
  bool acceptable(const jit::GuestInstruction& insn) const;
  bool layout();

  void add(Item item) { items_.push_back(std::move(item)); }
  // Emits little-endian bytes.
  static void put(std::vector<uint8_t>& bytes, uint64_t value, unsigned count) {
    for (unsigned i = 0; i < count; ++i) bytes.push_back(static_cast<uint8_t>(value >> 8 * i));
  }
  void put_rex(std::vector<uint8_t>& bytes, bool w, bool r, bool b) const {
    if (bits_ == 64 && (w || r || b)) bytes.push_back(static_cast<uint8_t>(0x40 | w << 3 | r << 2 | b));
  }
  unsigned free_register() {
    for (;;) {
      const auto gpr = static_cast<unsigned>(random_.below(bits_ == 64 ? 16 : 8));
      if (!roles_.reserved(gpr)) return gpr;
    }
  }
  // Bytes of an address, and of an operand without prefixes.
  unsigned address_bytes() const { return bits_ == 16 ? 2 : 4; }
  int later_item() { return static_cast<int>(items_.size() + 1 + random_.below(6)); }  // cut to what there is

  Kind kind_;
  unsigned bits_;
  const FormTable& forms_;
  const jit::Decoder& decoder_;
  const std::vector<ZydisMnemonic>& mnemonics_;
  Random random_;
  Case& out_;
  Roles roles_;
  uint64_t code_base_ = area::kLow, data_base_ = area::kLow;
  std::vector<Item> items_;
  std::vector<int> patchable_;  // items that are a MOV with a 32-bit immediate, or one simple opcode
};

void Builder::begin() {
  out_ = {};
  out_.program.kind = kind_;
  out_.program.memory = pristine_memory();
  choose_state();
}

void Builder::choose_state() {
  MachineState& start = out_.program.start;
  const bool wide = bits_ == 64;
  if (wide) {
    roles_ = {
        .pointers = {kRsi, kRdi, kR10, kR14}, .index = kR11, .counter = random_.percent(50) ? kR9 : kR15};
    if (random_.percent(50)) roles_ = {.pointers = {kRsi, kRdi, kR12, kR13}, .index = kRbp, .counter = kRbx};
    code_base_ = random_.percent(50) ? area::kHigh : area::kLow;
    data_base_ = random_.percent(50) ? area::kHigh : area::kLow;
  } else if (bits_ == 32) {
    roles_ = {.pointers = {kRsi, kRdi}, .index = kRbp, .counter = kRbx};
  } else {
    roles_ = {.pointers = {kRsi, kRdi}, .index = kRbx, .counter = kRbp};
    code_base_ = data_base_ = 0;  // offsets in segments that are the area
  }
  for (auto& gpr : start.gpr) gpr = random_.edge();
  for (const unsigned pointer : roles_.pointers) {
    start.gpr[pointer] =
        data_base_ + area::kData + 0x400 + random_.below(area::kDataEnd - area::kData - 0x800);
    if (random_.percent(50)) start.gpr[pointer] &= ~uint64_t{63};
  }
  start.gpr[roles_.index] = random_.below(32);
  start.gpr[roles_.counter] = 1 + random_.below(4);
  start.gpr[kRsp] = data_base_ + area::kStack + 0x800 + random_.below(0x1000);
  if (random_.percent(90)) start.gpr[kRsp] &= ~uint64_t{15};
  for (unsigned i = 0; !wide && i < 8; ++i) start.gpr[i] &= 0xffff'ffff;
  start.rflags = 0x202 | (random_.next() & flag::kArithmetic);
  if (random_.percent(10)) start.rflags |= flag::kDf;
  if (random_.percent(1)) start.rflags |= flag::kTf;
  if (random_.percent(2)) start.rflags |= flag::kAc;
  start.vector = random_vector_state(random_);
  if (random_.percent(90)) {
    start.vector.mxcsr |= 0x1f80;
    start.vector.fcw |= 0x3f;
    start.vector.fsw &= 0x7f7f;
  }
  start.fs_base = start.gs_base = 0;
  start.selectors.fill(bits_ == 16 ? ldt::kData16 : selector::kData);
  start.selectors[kCs] = wide ? selector::kCode64 : bits_ == 32 ? selector::kCode32 : ldt::kCode16;
  if (bits_ == 16) start.selectors[kFs] = start.selectors[kGs] = selector::kData;
}

bool Builder::acceptable(const jit::GuestInstruction& insn) const {
  // Whether #AC is raised depends on the mask, in a way that no manual tells.
  if (insn.row.action == jit::Action::MaskMove && out_.program.start.rflags & flag::kAc) return false;
  switch (insn.row.action) {
    case jit::Action::Generic:
    case jit::Action::Mov:
    case jit::Action::Lea:
    case jit::Action::Push:
    case jit::Action::Pop:
    case jit::Action::Hint:
    case jit::Action::MaskMove:
    case jit::Action::MaskedMove:
      break;
    case jit::Action::BitTest:
      if (insn.memory_operand() && insn.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) return false;
      break;
    case jit::Action::System:
      switch (insn.row.system_op) {
        case SystemOp::Cld:
        case SystemOp::Std:
        case SystemOp::Pushf:
        case SystemOp::Movs:
        case SystemOp::Stos:
        case SystemOp::Lods:
        case SystemOp::Scas:
        case SystemOp::Cmps:
        case SystemOp::Aaa:
        case SystemOp::Aas:
        case SystemOp::Daa:
        case SystemOp::Das:
        case SystemOp::Aam:
        case SystemOp::Aad:
        case SystemOp::Salc:
          break;
        default:
          return false;
      }
      break;
    default:
      return false;
  }
  switch (insn.zydis.mnemonic) {
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_MASKMOVQ:
      return false;
    default:
      break;
  }
  const bool string = insn.row.instruction_class == jit::InstructionClass::String;
  if (string &&
      insn.zydis.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
    return false;
  }
  for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
    const ZydisDecodedOperand& operand = insn.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER || !(operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
      continue;
    const ZydisRegisterClass kind = ZydisRegisterGetClass(operand.reg.value);
    const bool gpr = kind == ZYDIS_REGCLASS_GPR8 || kind == ZYDIS_REGCLASS_GPR16 ||
                     kind == ZYDIS_REGCLASS_GPR32 || kind == ZYDIS_REGCLASS_GPR64;
    if (!gpr) continue;
    unsigned number = jit::gpr_number(operand.reg.value);
    if (jit::is_high_byte(operand.reg.value)) number -= 4;
    const bool hidden = operand.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
    if (roles_.reserved(number) && !(hidden && (string || number == kRsp))) return false;
  }
  return true;
}

bool Builder::add_plain() {
  const std::vector<Form>& forms = forms_.forms_of(mnemonics_[random_.below(mnemonics_.size())]);
  const Form& form = forms[random_.below(forms.size())];
  Addressing addressing{.base = roles_.pointers[random_.below(roles_.pointers.size())],
                        .wide = random_.percent(30)};
  if (random_.percent(30)) {
    addressing.index = static_cast<int>(roles_.index);
    addressing.shift = static_cast<unsigned>(random_.below(4));
    if (bits_ == 16) addressing.shift = 0;
  }
  EncodedBytes bytes = encode(form, bits_, random_, &addressing);
  jit::GuestInstruction insn;
  const auto decode = [&] {
    return decoder_.decode(std::span<const uint8_t>(bytes).first(15), code_base_, insn) ==
           jit::Decoder::Status::Ok;
  };
  if (!decode() || !acceptable(insn)) return false;
  if (form.memory) {
    const auto& disp = insn.zydis.raw.disp;
    if (disp.size > 8) {
      const auto value = static_cast<uint32_t>(random_.below(0x400) - 0x200);
      std::memcpy(bytes.data() + disp.offset, &value, disp.size / 8);
    }
    // SSE operands are aligned more often than not.
    if (random_.percent(70)) bytes[disp.offset] &= 0xf0;
    if (!decode() || !acceptable(insn)) return false;
  }
  if (insn.zydis.attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK && random_.percent(30)) {
    std::shift_right(bytes.begin(), bytes.end(), 1);
    bytes[0] = 0xf0;
    if (!decode() || !acceptable(insn)) return false;
  }
  Item item;
  item.bytes.insert(item.bytes.end(), bytes.begin(), bytes.begin() + insn.zydis.length);
  add(std::move(item));
  return true;
}

void Builder::add_branch() {
  Item item;
  item.target = later_item();
  const uint64_t kind = random_.below(10);
  const bool near = random_.percent(50);
  if (kind < 6) {
    const auto condition = static_cast<uint8_t>(random_.below(16));
    if (near) {
      item.bytes = {0x0f, static_cast<uint8_t>(0x80 | condition)};
    } else {
      item.bytes = {static_cast<uint8_t>(0x70 | condition)};
    }
  } else if (kind < 8) {
    item.bytes = {static_cast<uint8_t>(near ? 0xe9 : 0xeb)};
  } else {
    item.bytes = {0xe8};
  }
  item.field = static_cast<unsigned>(item.bytes.size());
  item.field_bytes = near || kind >= 8 ? address_bytes() : 1;
  item.bytes.resize(item.field + item.field_bytes);
  add(std::move(item));
}

// A jump or call through a register or memory, or a return to an address just pushed.
void Builder::add_indirect() {
  const int target = later_item();
  const bool wide = bits_ == 64;
  const unsigned gpr = free_register();
  Item load;
  load.target = target;
  load.field_bytes = address_bytes();
  if (wide) {  // lea gpr, [rip + target]
    put_rex(load.bytes, true, gpr >= 8, false);
    load.bytes.push_back(0x8d);
    load.bytes.push_back(static_cast<uint8_t>(5 | (gpr & 7) << 3));
  } else {  // mov gpr, target
    load.bytes.push_back(static_cast<uint8_t>(0xb8 | gpr));
    load.relative = false;
  }
  load.field = static_cast<unsigned>(load.bytes.size());
  put(load.bytes, 0, load.field_bytes);
  switch (random_.below(4)) {
    case 0:  // jmp or call gpr
    case 1: {
      Item jump;
      put_rex(jump.bytes, false, false, gpr >= 8);
      jump.bytes.push_back(0xff);
      jump.bytes.push_back(static_cast<uint8_t>((random_.percent(50) ? 0xe0 : 0xd0) | (gpr & 7)));
      ++load.target;
      add(std::move(load));
      add(std::move(jump));
      break;
    }
    case 2: {  // push gpr; ret
      Item push, ret;
      put_rex(push.bytes, false, false, gpr >= 8);
      push.bytes.push_back(static_cast<uint8_t>(0x50 | (gpr & 7)));
      ret.bytes = {0xc3};
      if (random_.percent(30)) ret.bytes = {0xc2, 8, 0};
      load.target += 2;
      add(std::move(load));
      add(std::move(push));
      add(std::move(ret));
      break;
    }
    default: {  // jmp or call [address]
      Item jump;
      const uint64_t slot = area::kIsland + random_.below(64) * 8;
      if (bits_ == 16) {  // [disp16]
        jump.bytes = {0xff, static_cast<uint8_t>(random_.percent(50) ? 0x26 : 0x16)};
        put(jump.bytes, slot, 2);
      } else {  // [disp32]
        jump.bytes = {0xff, static_cast<uint8_t>(random_.percent(50) ? 0x24 : 0x14), 0x25};
        put(jump.bytes, area::kLow + slot, 4);
      }
      jump.target = target;
      jump.absolute_slot = static_cast<int>(slot);
      add(std::move(jump));
      break;
    }
  }
}

// A store to an instruction that comes later or, in a loop, came before.
void Builder::add_store_into_code() {
  // What is stored into: either kind may run before or after the store.
  const auto add_patchable = [&] {
    Item item;
    if (random_.percent(50)) {
      const unsigned gpr = free_register();
      put_rex(item.bytes, false, false, gpr >= 8);
      item.bytes.push_back(static_cast<uint8_t>(0xb8 | (gpr & 7)));
      put(item.bytes, random_.next(), address_bytes());
    } else {
      item.bytes = {kSimpleOpcodes[random_.below(std::size(kSimpleOpcodes))]};
    }
    item.stored_into = true;
    patchable_.push_back(static_cast<int>(items_.size()));
    add(std::move(item));
  };
  const bool before = random_.percent(40);
  if (before) add_patchable();
  const size_t store_at = items_.size();
  add({});
  if (!before) {
    for (uint64_t between = random_.below(3); between != 0; --between) add_plain();
    add_patchable();
  }
  const int victim = patchable_.back();
  const Item& target = items_[static_cast<size_t>(victim)];
  Item store;
  store.target = victim;
  store.field_bytes = address_bytes();
  store.relative = bits_ == 64;
  store.field = 2;
  const auto begin = [&](uint8_t opcode) {  // [rip + disp32], [disp32] or [disp16]
    store.bytes = {opcode, static_cast<uint8_t>(bits_ == 16 ? 0x06 : 0x05)};
    put(store.bytes, 0, address_bytes());
  };
  if (target.bytes.size() == 1) {
    begin(0xc6);  // mov byte
    store.bytes.push_back(kSimpleOpcodes[random_.below(std::size(kSimpleOpcodes))]);
  } else {
    const unsigned immediate = address_bytes();
    store.target_byte = static_cast<unsigned>(target.bytes.size()) - immediate;
    if (random_.percent(50)) {
      begin(0xc7);
      put(store.bytes, random_.next(), immediate);
    } else {
      begin(0xc6);
      store.bytes.push_back(static_cast<uint8_t>(random_.next()));
      store.target_byte += static_cast<unsigned>(random_.below(immediate));
    }
  }
  items_[store_at] = std::move(store);
}

void Builder::add_repeated_string() {
  Item count;
  count.bytes = {0xb9};
  put(count.bytes, random_.below(20), address_bytes());
  add(std::move(count));
  static constexpr uint8_t kOpcodes[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
  Item string;
  string.bytes = {static_cast<uint8_t>(0xf2 + random_.below(2))};
  if (random_.percent(25)) string.bytes.push_back(0x66);
  if (bits_ == 64 && random_.percent(40)) string.bytes.push_back(0x48);
  string.bytes.push_back(kOpcodes[random_.below(std::size(kOpcodes))]);
  add(std::move(string));
}

void Builder::add_loop(unsigned from) {
  const unsigned counter = roles_.counter;
  Item step;
  put_rex(step.bytes, false, false, counter >= 8);
  step.bytes.push_back(0xff);
  step.bytes.push_back(static_cast<uint8_t>(0xc8 | (counter & 7)));  // dec
  Item back;
  back.target = static_cast<int>(from);
  back.bytes = {0x0f, 0x85};  // jnz
  back.field = 2;
  back.field_bytes = address_bytes();
  put(back.bytes, 0, back.field_bytes);
  add(std::move(step));
  add(std::move(back));
}

bool Builder::layout() {
  uint64_t at = area::kCode + random_.below(area::kCodeEnd - area::kCode - 0x200);
  if (random_.percent(25)) at = area::kCode + area::kPage - random_.below(120);
  out_.code = at;
  std::vector<uint64_t> offsets;
  for (const Item& item : items_) {
    offsets.push_back(at);
    at += item.bytes.size();
  }
  if (at >= area::kCodeEnd) return false;
  for (size_t i = 0; i < items_.size(); ++i) {
    Item& item = items_[i];
    if (item.target < 0) continue;
    const size_t target = std::min(static_cast<size_t>(item.target), items_.size() - 1);
    const uint64_t address = code_base_ + offsets[target] + item.target_byte;
    if (item.absolute_slot >= 0) {
      std::memcpy(out_.program.memory.data() + item.absolute_slot, &address, 8);
      continue;
    }
    const uint64_t end = code_base_ + offsets[i] + item.bytes.size();
    const uint64_t value = item.relative ? address - end : address;
    const auto cut =
        static_cast<int64_t>(value << (64 - item.field_bytes * 8)) >> (64 - item.field_bytes * 8);
    if (item.relative && static_cast<uint64_t>(cut) != value) return false;
    std::memcpy(item.bytes.data() + item.field, &value, item.field_bytes);
  }
  std::vector<uint8_t> code;
  for (const Item& item : items_) {
    out_.pieces.push_back({static_cast<uint8_t>(item.bytes.size()), item.stored_into});
    code.insert(code.end(), item.bytes.begin(), item.bytes.end());
  }
  if (leaves_the_sandbox(code)) return false;
  out_.code_bytes = static_cast<unsigned>(code.size());
  std::memcpy(out_.program.memory.data() + out_.code, code.data(), code.size());
  out_.program.start.rip = code_base_ + out_.code;
  return true;
}

bool Builder::take(std::span<const uint8_t> bytes) {
  begin();
  add({.bytes = {bytes.begin(), bytes.end()}});
  add({.bytes = {0xf4}});
  return layout();
}

bool Builder::build() {
  begin();
  const uint64_t length = random_.between(5, 26);
  unsigned loop_start = 0;
  const bool loops = random_.percent(60);
  if (loops) loop_start = static_cast<unsigned>(random_.below(length / 2));
  for (unsigned attempts = 0; items_.size() < length && attempts < 400; ++attempts) {
    const uint64_t kind = random_.below(100);
    if (kind < 78) {
      add_plain();
    } else if (kind < 88) {
      add_branch();
    } else if (kind < 92) {
      add_indirect();
    } else if (kind < 97) {
      add_store_into_code();
    } else {
      add_repeated_string();
    }
  }
  if (loops && loop_start < items_.size()) add_loop(loop_start);
  add({.bytes = {0xf4}});
  out_.cold_tlb = random_.percent(10);
  return layout();
}

}  // namespace

SequenceGenerator::SequenceGenerator(Kind kind, const FormTable& forms)
    : kind_(kind), forms_(forms), decoder_(make_decoder(bits_of(kind))) {
  for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; ++i) {
    const auto mnemonic = static_cast<ZydisMnemonic>(i);
    if (forms_.forms_of(mnemonic).empty() || reason_not_native(mnemonic)) continue;
    // Integer instructions are a small part of the table and most of what runs.
    const bool common = i == ZYDIS_MNEMONIC_MOV || i == ZYDIS_MNEMONIC_ADD || i == ZYDIS_MNEMONIC_CMP ||
                        i == ZYDIS_MNEMONIC_ADC || i == ZYDIS_MNEMONIC_SUB || i == ZYDIS_MNEMONIC_TEST;
    const jit::InstructionRow& row = jit::instruction_row(mnemonic);
    if (row.instruction_class == jit::InstructionClass::Privileged) continue;
    unsigned weight = common ? 40 : 1;
    if (!forms_.forms_of(mnemonic).front().vex && forms_.forms_of(mnemonic).front().map < 2) weight += 2;
    for (unsigned n = 0; n < weight; ++n) mnemonics_.push_back(mnemonic);
  }
}

bool SequenceGenerator::make(uint64_t seed, Case& out) const {
  return Builder(kind_, forms_, decoder_, mnemonics_, seed, out).build();
}

bool SequenceGenerator::make_fixed(std::span<const uint8_t> bytes, uint64_t seed, Case& out) const {
  return Builder(kind_, forms_, decoder_, mnemonics_, seed, out).take(bytes);
}

}  // namespace penumbra::fuzz
