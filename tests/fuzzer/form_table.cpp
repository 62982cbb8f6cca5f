#include "tests/fuzzer/form_table.h"

#include <algorithm>

namespace penumbra::fuzz {

namespace {

// Bytes of `form` up to and without ModRM.
unsigned encode_opcode(const Form& form, unsigned bits, uint8_t* out) {
  unsigned size = 0;
  if (form.vex) {
    constexpr uint8_t kUnusedRegister = 0x78;
    const unsigned pp = form.prefix == 0x66 ? 1 : form.prefix == 0xf3 ? 2 : form.prefix == 0xf2 ? 3 : 0;
    out[size++] = 0xc4;
    out[size++] = static_cast<uint8_t>(0xe0 | form.map);
    out[size++] = static_cast<uint8_t>(form.w << 7 | kUnusedRegister | form.l << 2 | pp);
  } else {
    if (form.prefix) out[size++] = form.prefix;
    if (form.w && bits == 64) out[size++] = 0x48;
    if (form.map) out[size++] = 0x0f;
    if (form.map == 2) out[size++] = 0x38;
    if (form.map == 3) out[size++] = 0x3a;
  }
  out[size++] = form.opcode;
  return size;
}

}  // namespace

jit::Decoder make_decoder(unsigned bits) {
  ModeBits mode;
  if (bits == 64) mode.value = ModeBits::kCode64;
  if (bits == 32) mode.value = ModeBits::kCode32 | ModeBits::kStack32;
  if (__builtin_cpu_is("amd")) mode.value |= ModeBits::kAmd;
  return jit::Decoder(mode);
}

FormTable::FormTable(unsigned bits) : bits_(bits), forms_(ZYDIS_MNEMONIC_MAX_VALUE + 1) {
  const jit::Decoder decoder = make_decoder(bits);
  for (const bool vex : {false, true}) {
    for (uint8_t map = vex ? 1 : 0; map < 4; ++map) {
      for (unsigned opcode = 0; opcode < 256; ++opcode) {
        for (const uint8_t prefix : {0, 0x66, 0xf2, 0xf3}) {
          for (const bool w : {false, true}) {
            if (w && !vex && bits != 64) continue;
            for (const bool l : {false, true}) {
              if (l && !vex) continue;
              Form form;
              form.vex = vex;
              form.map = map;
              form.opcode = static_cast<uint8_t>(opcode);
              form.prefix = prefix;
              form.w = w;
              form.l = l;
              add_opcode(decoder, form);
            }
          }
        }
      }
    }
  }
}

void FormTable::add_opcode(const jit::Decoder& decoder, Form form) {
  uint8_t bytes[32] = {};
  const unsigned modrm_at = encode_opcode(form, bits_, bytes);
  std::vector<Form> found;  // by mnemonic and kind of operand
  for (unsigned modrm = 0; modrm < 256; ++modrm) {
    const unsigned mod = modrm >> 6, rm = modrm & 7;
    if (mod == 1 || mod == 2 || (mod == 0 && rm != 0 && rm != 4)) continue;
    bytes[modrm_at] = static_cast<uint8_t>(modrm);
    bytes[modrm_at + 1] = mod == 0 && rm == 4 ? 0x08 : 0;  // SIB: gathers want an index of its own
    jit::GuestInstruction insn;
    auto status = decoder.decode(std::span<const uint8_t>(bytes), 0, insn);
    if (status != jit::Decoder::Status::Ok && form.vex) {
      // VEX.vvvv: all ones for those that do not use it; gathers want a register that is not the others.
      bytes[modrm_at - 2] ^= 2 << 3;
      status = decoder.decode(std::span<const uint8_t>(bytes), 0, insn);
      bytes[modrm_at - 2] ^= 2 << 3;
    }
    if (status != jit::Decoder::Status::Ok) continue;
    const bool has_modrm = insn.zydis.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    // An opcode byte that is a prefix, or 90 and the like under another name, is not this form.
    if (insn.zydis.opcode != form.opcode || insn.zydis.raw.modrm.offset > modrm_at) continue;
    form.mnemonic = insn.zydis.mnemonic;
    form.modrm = has_modrm;
    form.isa = insn.zydis.meta.isa_ext;
    form.memory = has_modrm && mod != 3;
    auto at = std::ranges::find_if(found, [&](const Form& other) {
      return other.mnemonic == form.mnemonic && other.memory == form.memory;
    });
    if (at == found.end()) at = found.insert(found.end(), form);
    at->rm_of_reg[modrm >> 3 & 7] |= form.memory && rm == 0 ? 0xff : 1 << rm;
    if (!has_modrm) break;
  }
  for (const Form& one : found) forms_[one.mnemonic].push_back(one);
}

}  // namespace penumbra::fuzz
