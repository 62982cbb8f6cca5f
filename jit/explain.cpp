#include "jit/explain.h"

#include <Zydis/Formatter.h>
#include <capstone/capstone.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <iterator>
#include <memory>
#include <set>
#include <stdexcept>

#include "jit/translator.h"

namespace penumbra::jit {

namespace {

// Names of what host code jumps to, for reading it.
std::string_view thunk_name(const Thunks& thunks, uint64_t address) {
  const std::pair<uint64_t, std::string_view> kNames[] = {
      {thunks.leave, "leave"},
      {thunks.tlb_miss, "tlb_miss"},
      {thunks.system, "system"},
      {thunks.system_end, "system"},
      {thunks.callout_begin, "callout_begin"},
      {thunks.callout_end, "callout_end"},
      {thunks.window_select, "window_select"},
      {thunks.gather, "gather"},
      {thunks.masked_move, "masked_move"},
      {thunks.single_step, "single_step"},
      {thunks.single_step_indirect, "single_step"},
      {thunks.lookup, "lookup"},
      {thunks.lookup_indirect, "lookup"},
      {thunks.link, "link"},
      {thunks.redispatch, "redispatch"},
  };
  for (const auto& [thunk, name] : kNames) {
    if (thunk == address) return name;
  }
  return {};
}

class Disassembler {
 public:
  struct Line {
    uint64_t address;
    std::span<const uint8_t> bytes;
    std::string mnemonic, operands;
  };

  explicit Disassembler(cs_mode mode) {
    if (cs_open(CS_ARCH_X86, mode, &handle_) != CS_ERR_OK)
      throw std::runtime_error("Capstone: cs_open failed");
  }
  ~Disassembler() { cs_close(&handle_); }
  Disassembler(const Disassembler&) = delete;
  Disassembler& operator=(const Disassembler&) = delete;

  // As QEMU shows guest code: what cannot be decoded is shown as bytes.
  void set_qemu_style() {
    cs_option(handle_, CS_OPT_SYNTAX, CS_OPT_SYNTAX_ATT);
    cs_option(handle_, CS_OPT_SKIPDATA, CS_OPT_ON);
  }

  std::vector<Line> lines(std::span<const uint8_t> code, uint64_t address) const {
    std::vector<Line> result;
    cs_insn* insns = nullptr;
    const size_t count = cs_disasm(handle_, code.data(), code.size(), address, 0, &insns);
    for (size_t i = 0; i < count; ++i) {
      const cs_insn& insn = insns[i];
      result.push_back(
          {insn.address, code.subspan(insn.address - address, insn.size), insn.mnemonic, insn.op_str});
    }
    if (count) cs_free(insns, count);
    return result;
  }

 private:
  csh handle_ = 0;
};

std::vector<std::string> host_lines(const Disassembler& disassembler, std::span<const std::byte> code,
                                    uint64_t address, const Thunks& thunks) {
  std::vector<std::string> result;
  const std::span bytes(reinterpret_cast<const uint8_t*>(code.data()), code.size());
  for (const Disassembler::Line& insn : disassembler.lines(bytes, address)) {
    std::string_view name;
    if (insn.mnemonic == "jmp") name = thunk_name(thunks, std::strtoull(insn.operands.c_str(), nullptr, 16));
    result.push_back(fmt::format("{} {}", insn.mnemonic, name.empty() ? insn.operands : name));
  }
  return result;
}

std::string guest_text(const GuestInstruction& insn) {
  if (insn.zydis.mnemonic == ZYDIS_MNEMONIC_INVALID) return "(bad)";
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  char text[128];
  ZydisFormatterFormatInstruction(&formatter, &insn.zydis, insn.operands, insn.zydis.operand_count_visible,
                                  text, sizeof(text), insn.rip, nullptr);
  return text;
}

std::string class_text(const GuestInstruction& insn) {
  if (insn.row.action == Action::None) return "no row: #UD";
  if (insn.row.action == Action::System)
    return fmt::format("{}, callout {}", name_of(insn.row.instruction_class), name_of(insn.row.system_op));
  return fmt::format("{}, {}", name_of(insn.row.instruction_class), name_of(insn.row.action));
}

}  // namespace

std::string describe_block(const Block& block, std::span<const GuestInstruction> instructions,
                           std::span<const uint32_t> offsets, std::span<const std::byte> host_code,
                           const Thunks& thunks) {
  std::string out = fmt::format(
      "----------------\nblock L:{:#x} P:{:#x} mode {:#x}: {} instructions, {} guest bytes, "
      "{} host bytes\n",
      block.key.linear().value, block.key.physical.value, block.key.mode.value, block.guest_instructions,
      block.guest_bytes, block.host_bytes);
  const Disassembler disassembler(CS_MODE_64);
  for (size_t i = 0; i < block.guest_instructions && i < instructions.size(); ++i) {
    const GuestInstruction& insn = instructions[i];
    const std::vector<std::string> right =
        host_lines(disassembler, host_code.subspan(offsets[i], offsets[i + 1] - offsets[i]),
                   block.host + offsets[i], thunks);
    const std::string left =
        fmt::format("{:#010x}  {:<40} {:<32}", insn.rip, guest_text(insn), class_text(insn));
    for (size_t line = 0; line < std::max<size_t>(right.size(), 1); ++line) {
      std::string row = line == 0 ? left : std::string(left.size(), ' ');
      if (line < right.size()) row += " | " + right[line];
      while (!row.empty() && row.back() == ' ') row.pop_back();
      out += row + "\n";
    }
  }
  if (offsets.size() > block.guest_instructions) {
    const std::string margin = std::string(85, ' ') + " | ";
    out += margin + "; out of line\n";
    const size_t start = offsets[block.guest_instructions];
    for (const std::string& line :
         host_lines(disassembler, host_code.subspan(start), block.host + start, thunks)) {
      out += margin + line + "\n";
    }
  }
  return out;
}

std::string guest_listing(ModeBits mode, LinearAddr linear, std::span<const uint8_t> code) {
  Disassembler disassembler(mode.has(ModeBits::kCode64)   ? CS_MODE_64
                            : mode.has(ModeBits::kCode32) ? CS_MODE_32
                                                          : CS_MODE_16);
  disassembler.set_qemu_style();
  std::string out = "----------------\nIN: \n";
  constexpr size_t kBytesOnLine = 8;
  for (const Disassembler::Line& insn : disassembler.lines(code, linear.value)) {
    for (size_t at = 0; at < insn.bytes.size(); at += kBytesOnLine) {
      out += fmt::format("0x{:08x}: ", insn.address + at);
      for (size_t i = at; i < at + kBytesOnLine; ++i) {
        if (i < insn.bytes.size()) {
          out += fmt::format(" {:02x}", insn.bytes[i]);
        } else if (at == 0) {
          out += "   ";
        }
      }
      out += at == 0 ? fmt::format("  {:<8} {}\n", insn.mnemonic, insn.operands) : "\n";
    }
  }
  return out + "\n";
}

std::string explain_code(std::span<const uint8_t> code, unsigned bits, uint64_t base) {
  ModeBits mode{ModeBits::kFlatCs | ModeBits::kFlatDs | ModeBits::kFlatEs | ModeBits::kFlatSs |
                ModeBits::kOpenFs | ModeBits::kOpenGs | ModeBits::kX87 | ModeBits::kSse | ModeBits::kAvx |
                ModeBits::kProtected};
  switch (bits) {
    case 64:
      mode.value |= ModeBits::kCode64;
      break;
    case 32:
      mode.value |= ModeBits::kCode32 | ModeBits::kStack32;
      break;
    case 16:
      mode.value &= ~ModeBits::kFlatCs;
      break;
    default:
      throw std::invalid_argument("explain: the mode is 16, 32 or 64");
  }
  // No vCPU: the thunks only have to be recognizable.
  Thunks thunks;
  uint64_t next = 0x1000;
  for (uint64_t* thunk : {&thunks.leave, &thunks.tlb_miss, &thunks.system, &thunks.system_end,
                          &thunks.callout_begin, &thunks.callout_end, &thunks.gather, &thunks.masked_move,
                          &thunks.single_step, &thunks.single_step_indirect, &thunks.lookup,
                          &thunks.lookup_indirect, &thunks.link, &thunks.redispatch}) {
    *thunk = next += 0x100;
  }
  const TranslatorOptions options;
  const auto state = std::make_unique<VcpuState>();
  BlockTranslator translator(options, {.thunks = &thunks, .state = state.get(), .poll_page = 0x8000});

  // Blocks from the first byte on, then every direct target within the file, in address order.
  std::string out;
  std::set<uint64_t> done;
  std::deque<uint64_t> pending{base};
  std::vector<std::byte> memory(kMaxBlockDataBytes);
  Arena arena(memory);
  constexpr uint64_t kHostAddress = 0x100000;
  while (!pending.empty()) {
    const uint64_t rip = pending.front();
    pending.pop_front();
    if (rip < base || rip - base >= code.size() || !done.insert(rip).second) continue;
    BlockKey key{.physical = {rip}, .rip = rip, .cs_base = 0, .cs_limit = ~0u, .mode = mode};
    const std::span<const uint8_t> rest = code.subspan(rip - base);
    const size_t to_page_end = kPageSize - (rip & kPageOffsetMask);
    const std::span<const uint8_t> page = rest.first(std::min(rest.size(), to_page_end));
    const bool crosses = BlockTranslator::first_length(key, page) == 0;
    if (crosses && BlockTranslator::first_length(key, rest) == 0) {
      out += fmt::format("L:{:#x}: the file ends within an instruction\n", rip);
      continue;
    }
    arena.clear();
    const Block* block =
        translator.translate(key, crosses ? rest : page, crosses, kHostAddress, arena, {}, {});
    out += describe_block(*block, translator.instructions(), translator.instruction_offsets(),
                          translator.host_code(), thunks);
    for (const BlockLink* link = block->links; link; link = link->next_of_block) {
      pending.push_back(link->target_rip);
    }
    pending.push_back(rip + block->guest_bytes);
    const GuestInstruction& last = translator.instructions().back();
    if (last.row.action == Action::Call && last.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
      pending.push_back(last.next_rip() + static_cast<uint64_t>(last.operands[0].imm.value.s));
    }
  }
  return out;
}

}  // namespace penumbra::jit
