// Innocuous instructions: the guest's own bytes, with memory operands and in-memory registers rewritten.
#include <algorithm>
#include <cassert>
#include <span>

#include "jit/block_translator.h"

namespace penumbra::jit {

namespace {

bool uses_high_byte(const GuestInstruction& insn) {
  for (unsigned i = 0; i < insn.zydis.operand_count_visible; ++i) {
    if (is_gpr(insn.operands[i]) && is_high_byte(insn.operands[i].reg.value)) return true;
  }
  return false;
}

bool uses_vector_register(const GuestInstruction& insn) {
  for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
    if (insn.operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const ZydisRegisterClass register_class = ZydisRegisterGetClass(insn.operands[i].reg.value);
    if (register_class == ZYDIS_REGCLASS_XMM || register_class == ZYDIS_REGCLASS_MMX) return true;
  }
  return false;
}

// In 16-bit code an operand-size prefix means 32 bits, in host code it means 16: it must be added or dropped,
// but not where it selects the instruction (SSE, ADCX, and a few of the 0F AE, 0F C3 groups) or makes it none
// (EMMS).
bool operand_size_applies(const GuestInstruction& insn) {
  if (uses_vector_register(insn) || insn.zydis.mnemonic == ZYDIS_MNEMONIC_EMMS) return false;
  for (unsigned i = 0; i < insn.zydis.raw.prefix_count; ++i) {
    const auto& prefix = insn.zydis.raw.prefixes[i];
    if (prefix.value == 0x66 && prefix.type == ZYDIS_PREFIX_TYPE_MANDATORY) return false;
  }
  if (insn.zydis.opcode_map == ZYDIS_OPCODE_MAP_0F)
    return insn.zydis.opcode != 0xae && insn.zydis.opcode != 0xc3;
  return true;
}

class ByteBuffer {
 public:
  void put(uint8_t byte) { bytes_[size_++] = byte; }
  void put(std::span<const uint8_t> bytes) {
    for (const uint8_t byte : bytes) put(byte);
  }
  const uint8_t* data() const { return bytes_; }
  size_t size() const { return size_; }

 private:
  uint8_t bytes_[24];
  size_t size_ = 0;
};

}  // namespace

// Rebuilds the instruction's bytes for the host: same prefixes, opcode and immediates; ModRM, SIB, REX or VEX
// and displacement for the operands given.
void BlockTranslator::embed_reencoded(const GuestInstruction& insn, MemoryForm form, const RegisterMap& map) {
  const ZydisDecodedInstruction& zydis = insn.zydis;
  const auto& raw = zydis.raw;
  const bool vex = zydis.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
  const bool has_rex = code64() && !vex && (zydis.attributes & ZYDIS_ATTRIB_HAS_REX);
  const bool code16 = !code64() && !key_.mode.has(ModeBits::kCode32);
  ByteBuffer out;

  if (form == MemoryForm::Operand && operand_.hasSegment()) out.put(0x65);
  // Mandatory, LOCK and REP prefixes stay; the guest's segment and address size are in the operand already.
  if (!vex) {
    bool operand_size = false;
    for (unsigned i = 0; i < raw.prefix_count; ++i) {
      const uint8_t prefix = raw.prefixes[i].value;
      if (prefix == 0x66) {
        operand_size = true;
      } else if (prefix == 0xf0 || prefix == 0xf2 || prefix == 0xf3) {
        out.put(prefix);
      }
    }
    if (code16 && operand_size_applies(insn)) operand_size = zydis.operand_width == 16;
    if (operand_size) out.put(0x66);
  }

  // Register numbers of the fields.
  const bool direct_address = !vex && zydis.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && zydis.opcode >= 0xa0 &&
                              zydis.opcode <= 0xa3;  // MOV between the accumulator and an address
  const bool has_modrm = (zydis.attributes & ZYDIS_ATTRIB_HAS_MODRM) || direct_address;
  bool w = false;
  unsigned reg = raw.modrm.reg, rm = raw.modrm.rm;
  unsigned x = 0, b = 0;
  if (direct_address) reg = 0;
  if (vex) {
    if (code64()) {
      const uint8_t* prefix = insn.bytes.data() + raw.vex.offset;
      if (!(prefix[1] & 0x80)) reg |= 8;
      if (prefix[0] == 0xc4 && !(prefix[1] & 0x20)) rm |= 8;
    }
  } else if (has_rex) {
    w = raw.rex.W;
    if (raw.rex.R && !direct_address) reg |= 8;
    if (raw.rex.B) rm |= 8;
  }
  uint8_t opcode = zydis.opcode;
  if (direct_address) opcode = opcode == 0xa0 ? 0x8a : opcode == 0xa1 ? 0x8b : opcode == 0xa2 ? 0x88 : 0x89;
  if (!code64() && zydis.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode == 0x82)
    opcode = 0x80;  // alias, gone
  if (map.reg >= 0) reg = map.reg;
  if (map.rm >= 0) rm = map.rm;
  if (!has_modrm && (map.opcode >= 0 || has_rex)) {
    const unsigned in_opcode = map.opcode >= 0 ? map.opcode : (opcode & 7) | (raw.rex.B ? 8 : 0);
    // Only opcodes with a register in their low bits come here with REX.B or a mapped register.
    if (map.opcode >= 0 || raw.rex.B) {
      opcode = (opcode & 0xf8) | (in_opcode & 7);
      b = in_opcode >> 3;
    }
  }

  uint8_t modrm = 0, sib = 0;
  bool has_sib = false;
  int32_t displacement = 0;
  unsigned displacement_bytes = 0;
  if (has_modrm) {
    switch (form) {
      case MemoryForm::None:
        modrm = 0xc0 | (reg & 7) << 3 | (rm & 7);
        b = rm >> 3;
        break;
      case MemoryForm::Operand: {
        // ModRM.mod 0 with base 5 means no base, so that a base always has a displacement of 32 bits unless
        // it is 0.
        const bool has_base = operand_.hasBase(), has_index = operand_.hasIndex();
        const unsigned base = has_base ? operand_.baseId() : 5;
        const unsigned index = has_index ? operand_.indexId() : 4;
        displacement = static_cast<int32_t>(operand_.offsetLo32());
        displacement_bytes = !has_base                                           ? 4
                             : displacement == 0 && (base & 7) != 5              ? 0
                             : displacement == static_cast<int8_t>(displacement) ? 1
                                                                                 : 4;
        const unsigned mod = !has_base || displacement_bytes == 0 ? 0 : displacement_bytes == 1 ? 1 : 2;
        modrm = mod << 6 | (reg & 7) << 3 | 4;
        sib = operand_.shift() << 6 | (index & 7) << 3 | (base & 7);
        has_sib = true;
        x = index >> 3;
        b = base >> 3;
        break;
      }
      case MemoryForm::Linear:
        modrm = (reg & 7) << 3 | (kLinear.id() & 7);
        b = 1;
        break;
      case MemoryForm::Rdi:
        modrm = (reg & 7) << 3 | 7;
        break;
    }
  }
  const unsigned r = has_modrm ? reg >> 3 : 0;

  if (vex) {
    const uint8_t* prefix = insn.bytes.data() + raw.vex.offset;
    const bool three_bytes = prefix[0] == 0xc4;
    const uint8_t map_select = three_bytes ? prefix[1] & 0x1f : 1;
    const uint8_t last = three_bytes ? prefix[2] : prefix[1];
    unsigned vvvv = ~(last >> 3) & 0xf;
    if (!code64() && vvvv != 0) vvvv &= 7;
    if (map.vvvv >= 0) vvvv = map.vvvv;
    out.put(0xc4);
    out.put((r ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | map_select);
    out.put(insn.vex_w << 7 | (~vvvv & 0xf) << 3 | (last & 7));
  } else {
    const uint8_t rex = 0x40 | w << 3 | r << 2 | x << 1 | b;
    if (rex != 0x40 || has_rex) out.put(rex);
    switch (zydis.opcode_map) {
      case ZYDIS_OPCODE_MAP_0F:
        out.put(0x0f);
        break;
      case ZYDIS_OPCODE_MAP_0F38:
        out.put(0x0f);
        out.put(0x38);
        break;
      case ZYDIS_OPCODE_MAP_0F3A:
        out.put(0x0f);
        out.put(0x3a);
        break;
      default:
        break;
    }
  }
  out.put(opcode);
  if (has_modrm) out.put(modrm);
  if (has_sib) out.put(sib);
  for (unsigned i = 0; i < displacement_bytes; ++i) out.put(static_cast<uint8_t>(displacement >> 8 * i));
  if (raw.imm[0].size) {
    const unsigned start = raw.imm[0].offset;
    const size_t at = out.size();
    out.put(std::span(insn.bytes).subspan(start, zydis.length - start));
    if (vex && !code64()) {
      // A register in the immediate's upper half (VBLENDV): outside 64-bit mode its top bit is ignored.
      for (unsigned i = 0; i < zydis.operand_count_visible; ++i) {
        if (insn.operands[i].encoding == ZYDIS_OPERAND_ENCODING_IS4) {
          const_cast<uint8_t*>(out.data())[at] &= 0x7f;
        }
      }
    }
  }
  a_.embed(out.data(), out.size());
}

void BlockTranslator::RegisterMap::set(ZydisOperandEncoding encoding, int host) {
  switch (encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
      reg = host;
      break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
      rm = host;
      break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
      vvvv = host;
      break;
    case ZYDIS_OPERAND_ENCODING_OPCODE:
      opcode = host;
      break;
    default:
      assert(false && "register operand in an unknown place");
  }
}

void BlockTranslator::emit_generic(const GuestInstruction& insn) {
  const ZydisDecodedInstruction& zydis = insn.zydis;
  const ZydisDecodedOperand* memory = insn.memory_operand();

  // INC and DEC in one byte are REX prefixes in 64-bit mode.
  const bool short_inc_dec = !code64() && zydis.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
                             zydis.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (zydis.opcode & 0xf0) == 0x40;

  struct Mapped {
    const ZydisDecodedOperand* operand;
    unsigned gpr;
    x86::Gp scratch;
  };
  Mapped mapped[4];
  unsigned mapped_count = 0;
  RegisterMap map;
  if (code64()) {
    for (unsigned i = 0; i < zydis.operand_count_visible; ++i) {
      const ZydisDecodedOperand& operand = insn.operands[i];
      if (!is_gpr(operand) || is_high_byte(operand.reg.value)) continue;
      const unsigned gpr = gpr_number(operand.reg.value);
      if (lives_in_memory(gpr)) {
        mapped[mapped_count++] = {&operand, gpr, {}};
      } else if (host_gpr(gpr).id() != gpr) {
        map.set(operand.encoding, static_cast<int>(host_gpr(gpr).id()));
      }
    }
  }

  MemoryForm form = MemoryForm::None;
  if (memory) {
    form = MemoryForm::Operand;
    unsigned distinct = mapped_count;
    if (mapped_count == 2 && mapped[0].gpr == mapped[1].gpr) distinct = 1;
    if (distinct > 1) {
      form = MemoryForm::Linear;
    } else if (uses_high_byte(insn)) {
      form = MemoryForm::Rdi;
    }
    MemoryAccess access = access_of(*memory);
    // A high-byte register goes with no register beyond the eighth.
    const bool flat = !code64() && block_->windows && flat_operand(memory->mem, insn, access);
    if (form == MemoryForm::Rdi && flat && is_inline(access)) form = MemoryForm::Operand;
    access.window = form == MemoryForm::Operand && access.lane == 0;
    open_access(memory->mem, insn, access);
    if (form == MemoryForm::Linear) a_.lea(kLinear, operand_);
  }
  if ((insn.flags_read | insn.flags_touched) && live_[current_].before) need_flags_in_host();

  // Registers that live in memory: into scratch registers that the operand does not use.
  const x86::Gp pool[] = {kTemp, kHostAddend, kLinear};
  unsigned next_scratch = 0;
  for (unsigned i = 0; i < mapped_count; ++i) {
    bool seen = false;
    for (unsigned j = 0; j < i; ++j) {
      if (mapped[j].gpr == mapped[i].gpr) {
        mapped[i].scratch = mapped[j].scratch;
        seen = true;
      }
    }
    if (!seen) {
      assert(next_scratch < (form == MemoryForm::None ? 3 : form == MemoryForm::Linear ? 2 : 1));
      mapped[i].scratch = pool[next_scratch++];
      if (mapped[i].scratch.id() == kHostAddend.id()) held_ = kNothingHeld;
      a_.mov(mapped[i].scratch, a_.gpr_field(mapped[i].gpr));
    }
    map.set(mapped[i].operand->encoding, static_cast<int>(mapped[i].scratch.id()));
  }

  if (form == MemoryForm::Rdi) {
    a_.mov(a_.scratch_field(Scratch::Rdi), x86::rdi);
    a_.lea(x86::rdi, operand_);
  }
  record_site(insn.rip);  // the flags may have moved since the operand was looked up
  if (short_inc_dec) {
    const x86::Gp gpr = sized(host_gpr(zydis.opcode & 7), zydis.operand_width / 8);
    if (zydis.opcode & 8) {
      a_.dec(gpr);
    } else {
      a_.inc(gpr);
    }
  } else if (code64() && !memory && map.empty()) {
    a_.embed(insn.bytes.data(), zydis.length);
  } else {
    embed_reencoded(insn, form, map);
  }
  if (form == MemoryForm::Rdi) a_.mov(x86::rdi, a_.scratch_field(Scratch::Rdi));
  if (insn.flags_touched) flags_ = FlagHome::Host;

  for (unsigned i = 0; i < mapped_count; ++i) {
    if (mapped[i].operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) {
      a_.mov(a_.gpr_field(mapped[i].gpr), mapped[i].scratch);
    }
  }
  if (memory) end_access();
}

// MOV r, imm with 32 or 64 bits whose immediate is patched all the time.
bool BlockTranslator::emit_patched_move(const GuestInstruction& insn) {
  const auto& immediate = insn.zydis.raw.imm[0];
  if (!patched_.memory || insn.operands[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
      insn.operands[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || immediate.size != insn.operands[0].size ||
      immediate.size < 32) {
    return false;
  }
  const auto begin = static_cast<uint16_t>(insn.rip - key_.rip + immediate.offset);
  const auto end = static_cast<uint16_t>(begin + immediate.size / 8);
  if (patched_.begin < begin || patched_.end > end) return false;
  block_->live_begin = begin;
  block_->live_end = end;
  // SAFETY: guest RAM stays where it is, and the block goes when its first byte is no longer this memory's.
  a_.mov(kTemp, asmjit::Imm(reinterpret_cast<uint64_t>(patched_.memory + begin)));
  a_.mov(sized(kTemp, immediate.size / 8), x86::ptr(kTemp));
  set_gpr(gpr_number(insn.operands[0].reg.value), kTemp, immediate.size / 8);
  return true;
}

void BlockTranslator::emit_lea(const GuestInstruction& insn) {
  const ZydisDecodedOperandMem& mem = insn.operands[1].mem;
  const unsigned gpr = gpr_number(insn.operands[0].reg.value), bits = insn.operands[0].size;
  const unsigned known = std::min<unsigned>(bits, insn.zydis.address_width);
  if (known >= 32 && !lives_in_memory(gpr) && gpr != kRsp) {
    emit_offset(mem, insn, sized(host_gpr(gpr), known / 8));
    return;
  }
  emit_offset(mem, insn);
  set_gpr(gpr, kLinear, bits / 8);
}

// A register bit offset reaches beyond the operand: the address is computed first, and the instruction gets
// the offset within the operand.
void BlockTranslator::emit_bit_test(const GuestInstruction& insn) {
  const ZydisDecodedOperand* memory = insn.memory_operand();
  const ZydisDecodedOperand& offset = insn.operands[1];
  if (!memory || offset.type != ZYDIS_OPERAND_TYPE_REGISTER) {
    emit_generic(insn);
    return;
  }
  give_up_flags(live_[current_].before != 0);
  emit_offset(memory->mem, insn);
  const unsigned bits = insn.zydis.operand_width;
  const unsigned gpr = gpr_number(offset.reg.value);
  if (lives_in_memory(gpr)) {
    a_.mov(kTemp, a_.gpr_field(gpr));
  } else {
    a_.mov(kTemp, host_gpr(gpr));
  }
  if (bits == 16) a_.movsx(kTemp, kTemp.r16());
  if (bits == 32) a_.movsxd(kTemp, kTemp.r32());
  a_.mov(a_.scratch_field(Scratch::Operand), kTemp);
  a_.sar(kTemp, bits == 64 ? 6 : bits == 32 ? 5 : 4);
  const unsigned shift = bits == 64 ? 3 : bits == 32 ? 2 : 1;
  a_.lea(insn.zydis.address_width == 64 ? kLinear : kLinear.r32(), x86::ptr(kLinear, kTemp, shift));
  if (insn.zydis.address_width == 16) a_.movzx(kLinear.r32(), kLinear.r16());
  begin_access(access_of(*memory));
  a_.mov(kTemp, a_.scratch_field(Scratch::Operand));
  if (live_[current_].before) {
    a_.and_(kTemp.r32(), bits - 1);
    need_flags_in_host();
  } else {
    a_.and_(kTemp.r32(), bits - 1);
  }
  record_site(insn.rip);
  embed_reencoded(insn, MemoryForm::Operand, {.reg = static_cast<int>(kTemp.id())});
  flags_ = FlagHome::Host;
  end_access();
}

void BlockTranslator::emit_xlat(const GuestInstruction& insn) {
  a_.movzx(kTemp.r32(), x86::al);
  a_.lea(insn.zydis.address_width == 64 ? kLinear : kLinear.r32(), x86::ptr(x86::rbx, kTemp));
  if (insn.zydis.address_width == 16) a_.movzx(kLinear.r32(), kLinear.r16());
  SegmentIndex segment = kDs;
  for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
    if (insn.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
      segment = segment_index(insn.operands[i].mem.segment);
  }
  begin_access({.segment = segment, .kind = AccessKind::Read, .size = 1, .rip = insn.rip});
  a_.mov(x86::al, host_operand(1));
}

// MASKMOVQ and MASKMOVDQU store through rDI.
void BlockTranslator::emit_mask_move(const GuestInstruction& insn) {
  const unsigned width = insn.zydis.address_width;
  if (width == 64) {
    a_.mov(kLinear, x86::rdi);
  } else if (width == 32) {
    a_.mov(kLinear.r32(), x86::edi);
  } else {
    a_.movzx(kLinear.r32(), x86::di);
  }
  MemoryAccess access{
      .segment = kDs, .kind = AccessKind::Write, .reads = true, .window = false, .size = 16, .rip = insn.rip};
  for (unsigned i = 0; i < insn.zydis.operand_count; ++i) {
    const ZydisDecodedOperand& operand = insn.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    access.segment = segment_index(operand.mem.segment);
    access.size = operand.size / 8;
  }
  access.halves = true;
  access.x87 = insn.waits_for_x87();
  begin_access(access);
  record_site(insn.rip);
  if (access.x87) a_.fwait();  // a pending exception must not find the host's RDI
  a_.mov(a_.scratch_field(Scratch::Rdi), x86::rdi);
  a_.lea(x86::rdi, operand_);
  embed_reencoded(insn, MemoryForm::None, {});
  a_.mov(x86::rdi, a_.scratch_field(Scratch::Rdi));
  end_access();
}

// Outside 64-bit mode only the eight registers that exist there change: the host's instruction would zero
// YMM8 to YMM15, which a 64-bit kernel may hold for another program. VEX.128 forms zero the upper halves.
void BlockTranslator::emit_zero_vectors(const GuestInstruction& insn) {
  if (code64()) {
    emit_generic(insn);
    return;
  }
  for (uint32_t i = 0; i < 8; ++i) {
    if (insn.zydis.mnemonic == ZYDIS_MNEMONIC_VZEROALL) {
      a_.vpxor(x86::xmm(i), x86::xmm(i), x86::xmm(i));
    } else {
      a_.vmovaps(x86::xmm(i), x86::xmm(i));
    }
  }
}

// Nothing to do, but cache-line instructions fault where a load would, and what has a register for an operand
// is the host's to judge (0F 0D is #UD on some).
void BlockTranslator::emit_hint(const GuestInstruction& insn) {
  const ZydisDecodedOperand* memory = insn.memory_operand();
  switch (insn.zydis.mnemonic) {
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
      emit_offset(memory->mem, insn);
      begin_access({.segment = segment_index(memory->mem.segment),
                    .kind = AccessKind::Read,
                    .window = false,
                    .probe = true,
                    .size = 1,
                    .rip = insn.rip});
      break;
    default:
      if (!memory && insn.zydis.attributes & ZYDIS_ATTRIB_HAS_MODRM) emit_generic(insn);
      break;
  }
}

// VMASKMOV and VPMASKMOV: the host's own instruction where all of the operand can be accessed; else, in
// callout form, lane by lane, since only the lanes that the mask selects may fault.
void BlockTranslator::emit_masked_move(const GuestInstruction& insn) {
  const ZydisDecodedOperand& memory = *insn.memory_operand();
  MemoryAccess access = access_of(memory);
  if (is_inline(access)) {
    emit_generic(insn);
    return;
  }
  const bool store = access.kind == AccessKind::Write;
  const auto ymm = [&](unsigned operand) {
    return x86::ymm(static_cast<uint32_t>(ZydisRegisterGetId(insn.operands[operand].reg.value)));
  };
  const auto slot = [this](unsigned offset) {
    return a_.state_field(offsetof(VcpuState, callout_buffer) + offset, 32);
  };
  give_up_flags(live_[current_].before != 0);
  emit_offset(memory.mem, insn);
  access.alone = one_instruction();
  a_.vmovdqu(slot(LaneBuffer::kMask), ymm(1));
  if (store) a_.vmovdqu(slot(LaneBuffer::kData), ymm(2));
  emit_callout(environment_.thunks->masked_move, arena_->make(access));
  if (!store) a_.vmovdqu(ymm(0), slot(LaneBuffer::kData));  // the helper has zeroed the rest
  stored_by_callout_ |= store;
}

// AVX2 gathers read each element on its own: a helper does, through the callout buffer.
void BlockTranslator::emit_gather(const GuestInstruction& insn) {
  give_up_flags(live_[current_].before != 0);
  const auto vector = [](const ZydisDecodedOperand& operand) {
    return static_cast<uint32_t>(ZydisRegisterGetId(operand.reg.value));
  };
  const uint32_t destination = vector(insn.operands[0]);
  const uint32_t mask = vector(insn.operands[2]);
  const auto index = static_cast<uint32_t>(ZydisRegisterGetId(insn.operands[1].mem.index));
  const bool wide = insn.zydis.avx.vector_length == 256;
  const auto slot = [this](unsigned offset) {
    return a_.state_field(offsetof(VcpuState, callout_buffer) + offset, 32);
  };
  a_.vmovdqu(slot(LaneBuffer::kData), x86::ymm(destination));
  a_.vmovdqu(slot(LaneBuffer::kIndex), x86::ymm(index));
  a_.vmovdqu(slot(LaneBuffer::kMask), x86::ymm(mask));

  GatherAccess& access = *arena_->make<GatherAccess>();
  access.alone = one_instruction();
  access.address = make_system_instruction(insn, SystemOp::Ud);
  access.address.index = SystemInstruction::kNoRegister;
  access.address.scale = insn.operands[1].mem.scale;
  access.destination = static_cast<uint8_t>(destination);
  access.mask = static_cast<uint8_t>(mask);
  switch (insn.zydis.mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VPGATHERDD:
      access.element_bytes = 4, access.index_bytes = 4;
      break;
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERQD:
      access.element_bytes = 4, access.index_bytes = 8;
      break;
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
      access.element_bytes = 8, access.index_bytes = 4;
      break;
    default:
      access.element_bytes = 8, access.index_bytes = 8;
      break;
  }
  const unsigned widest =
      access.element_bytes > access.index_bytes ? access.element_bytes : access.index_bytes;
  access.elements = static_cast<uint8_t>((wide ? 32 : 16) / widest);
  emit_callout(environment_.thunks->gather, &access);
  // The helper has zeroed the mask and what lies above the elements.
  a_.vmovdqu(x86::ymm(destination), slot(LaneBuffer::kData));
  a_.vmovdqu(x86::ymm(mask), slot(LaneBuffer::kMask));
}

}  // namespace penumbra::jit
