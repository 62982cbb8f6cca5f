#include "frontend/state_dump.h"

#include <fmt/format.h>

#include <array>
#include <span>
#include <vector>

#include "jit/explain.h"

namespace penumbra {

namespace {

constexpr size_t kCodeBytes = 32, kCodeBefore = 8;

// Writes no further than the limit, and allocates nothing.
class BoundedText {
 public:
  BoundedText(char* to, size_t limit) : begin_(to), at_(to), end_(to + limit) {}

  template <class... Arguments>
  void add(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    at_ =
        fmt::format_to_n(at_, static_cast<size_t>(end_ - at_), format, std::forward<Arguments>(arguments)...)
            .out;
  }
  size_t size() const { return static_cast<size_t>(at_ - begin_); }

 private:
  char *begin_, *at_, *end_;
};

void add_segment(BoundedText& text, const char* name, const Segment& segment) {
  text.add("{:<4}{:04x} base {:016x} limit {:08x} attributes {:04x} DPL {}{}\n", name, segment.selector,
           segment.base, segment.limit, segment.attributes, segment.dpl(),
           segment.present() ? "" : " absent");
}

const char* mode_name(const VcpuState& state) {
  if (state.mode.has(ModeBits::kCode64)) return "64-bit mode";
  if (state.efer & efer::kLma) return "compatibility mode";
  if (!(state.cr0 & cr0::kPe)) return "real mode";
  if (state.rflags & flag::kVm) return "virtual-8086 mode";
  return state.mode.has(ModeBits::kCode32) ? "32-bit protected mode" : "16-bit protected mode";
}

void add_flags(BoundedText& text, uint64_t rflags) {
  static constexpr std::pair<uint64_t, const char*> kNames[] = {
      {flag::kCf, "CF"}, {flag::kPf, "PF"},   {flag::kAf, "AF"},   {flag::kZf, "ZF"},
      {flag::kSf, "SF"}, {flag::kTf, "TF"},   {flag::kIf, "IF"},   {flag::kDf, "DF"},
      {flag::kOf, "OF"}, {flag::kNt, "NT"},   {flag::kRf, "RF"},   {flag::kVm, "VM"},
      {flag::kAc, "AC"}, {flag::kVif, "VIF"}, {flag::kVip, "VIP"}, {flag::kId, "ID"},
  };
  for (const auto& [bit, name] : kNames) {
    if (rflags & bit) text.add(" {}", name);
  }
}

// The bytes around RIP, the one at RIP in <>.
std::string code_bytes(const Vcpu& vcpu, PhysicalMap& map) {
  const VcpuState& state = vcpu.state();
  const PageWalker walker(map);
  const uint64_t linear = state.segments[kCs].base + state.rip;
  std::string text = "code";
  for (size_t i = 0; i < kCodeBytes; ++i) {
    LinearAddr address{linear - kCodeBefore + i};
    if (!vcpu.long_mode()) address.value &= 0xffff'ffff;
    const auto physical = walker.probe(vcpu.paging_state(), address);
    std::string byte = "--";
    if (physical) {
      // Reading a chip's registers may change them.
      const PhysicalMap::Page page = map.page(*physical);
      if (page.host) byte = fmt::format("{:02x}", map.read(*physical, 1));
    }
    text += i == kCodeBefore ? " <" + byte + ">" : " " + byte;
  }
  return text + "\n";
}

unsigned code_bits(ModeBits mode) {
  return mode.has(ModeBits::kCode64) ? 64 : mode.has(ModeBits::kCode32) ? 32 : 16;
}

// Names of the bits that are set (SDM vol. 3, 4.5), and what is wrong with the entry.
std::string entry_text(const PageWalker::Step& step, PagingMode mode) {
  static constexpr std::pair<unsigned, const char*> kBits[] = {
      {0, "P"}, {1, "RW"}, {2, "US"}, {3, "PWT"}, {4, "PCD"}, {5, "A"}, {6, "D"}, {7, "PS"}, {8, "G"}};
  const bool leaf = step.page_bits == 12;
  std::string text;
  for (const auto& [bit, name] : kBits) {
    if (step.value >> bit & 1) text += fmt::format(" {}", leaf && bit == 7 ? "PAT" : name);
  }
  if (mode != PagingMode::Bits32 && step.value >> 63) text += " XD";
  if (!(step.value & 1)) text += " not present";
  if (step.malformed) text += " reserved bits set";
  return text;
}

const char* level_name(unsigned page_bits) {
  switch (page_bits) {
    case 39:
      return "PML4E";
    case 30:
      return "PDPTE";
    case 12:
      return "PTE";
    default:
      return "PDE";
  }
}

// How the address is translated, entry by entry.
std::string page_walk(const char* name, const Vcpu& vcpu, PhysicalMap& map, LinearAddr address) {
  const PagingState paging = vcpu.paging_state();
  std::string text = fmt::format("page walk of {} L:{:#x}", name, address.value);
  if (paging.mode == PagingMode::None) return text + ": no paging\n";
  text += "\n";
  if (paging.mode == PagingMode::Pae) {
    const unsigned index = address.value >> 30 & 3;
    text += fmt::format("  PDPTE{} {:016x}{}\n", index, paging.pdpte[index],
                        paging.pdpte[index] & 1 ? "" : " not present");
  }
  const PageWalker::Path path = PageWalker(map).path(paging, address);
  for (const PageWalker::Step& step : std::span(path.steps).first(path.count)) {
    text +=
        fmt::format("  {:<6} P:{:#x} {:0{}x}{}\n", level_name(step.page_bits), step.address.value, step.value,
                    paging.mode == PagingMode::Bits32 ? 8 : 16, entry_text(step, paging.mode));
  }
  if (path.physical) {
    text += fmt::format("  P:{:#x}{}\n", path.physical->value,
                        map.page(*path.physical).host ? "" : " (no memory)");
  }
  return text;
}

}  // namespace

size_t format_registers(const VcpuState& state, char* to, size_t limit) {
  BoundedText text(to, limit);
  static constexpr const char* kGprNames[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                              "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
  text.add("{}, CPL {}{}\n", mode_name(state), state.cpl, state.halted ? ", halted" : "");
  text.add("RIP {:016x}  RFLAGS {:08x} IOPL {}", state.rip, state.rflags, state.rflags >> 12 & 3);
  add_flags(text, state.rflags);
  text.add("\n");
  for (unsigned i = 0; i < state.gpr.size(); ++i)
    text.add("{:<3} {:016x}{}", kGprNames[i], state.gpr[i], i % 4 == 3 ? "\n" : "  ");
  static constexpr const char* kSegmentNames[] = {"ES", "CS", "SS", "DS", "FS", "GS"};
  for (unsigned i = 0; i < state.segments.size(); ++i) add_segment(text, kSegmentNames[i], state.segments[i]);
  add_segment(text, "LDT", state.ldtr);
  add_segment(text, "TR", state.tr);
  text.add("GDT {:016x} limit {:04x}  IDT {:016x} limit {:04x}\n", state.gdtr.base, state.gdtr.limit,
           state.idtr.base, state.idtr.limit);
  text.add("CR0 {:016x}  CR2 {:016x}  CR3 {:016x}  CR4 {:016x}\n", state.cr0, state.cr2, state.cr3,
           state.cr4);
  text.add("CR8 {:x}  EFER {:x}  XCR0 {:x}  DR6 {:x}  DR7 {:x}\n", state.cr8, state.efer, state.xcr0,
           state.dr[6], state.dr[7]);
  return text.size();
}

std::string state_dump(const Vcpu& vcpu, PhysicalMap& map) {
  const VcpuState& state = vcpu.state();
  std::array<char, 4096> registers;
  std::string text(registers.data(), format_registers(vcpu.state(), registers.data(), registers.size()));
  text += code_bytes(vcpu, map);
  const uint64_t linear_mask = vcpu.long_mode() ? ~uint64_t{0} : 0xffff'ffff;
  text += page_walk("RIP", vcpu, map, {(state.segments[kCs].base + state.rip) & linear_mask});
  const uint64_t stack = state.gpr[kRsp] & vcpu.stack_mask();
  text +=
      page_walk("RSP", vcpu, map, {(vcpu.code64() ? stack : state.segments[kSs].base + stack) & linear_mask});
  text += page_walk("CR2", vcpu, map, {state.cr2 & linear_mask});
  const unsigned count = vcpu.event_count();
  if (count > 0) text += "exceptions and interrupts, the latest first:\n";
  for (unsigned age = 0; age < count; ++age) {
    const EventRecord& event = vcpu.event(age);
    text += "  ";
    if (event.interrupt) {
      text += fmt::format("{} {:#04x}", event.software ? "INT" : "interrupt", event.vector);
    } else {
      text += exception_name(event.vector);
      if (event.has_error_code) text += fmt::format(" error {:#x}", event.error_code);
      if (event.vector == vector::kPf) text += fmt::format(" CR2 {:#x}", event.cr2);
    }
    text += fmt::format(" at {:04x}:{:x} SP {:x} CPL {}{}\n", event.cs, event.rip, event.rsp, event.cpl,
                        event.lost ? ", not delivered" : "");
  }
  return text;
}

std::string recent_blocks_dump(const jit::Translator& translator, PhysicalMap& map, bool all) {
  const std::vector<jit::Translator::RecentBlock> blocks = translator.recent_blocks();
  if (blocks.empty()) return {};
  std::string text = "blocks, the latest first";
  // Said, so that nobody takes the list for the path that was run.
  text += all ? ":\n" : " (without jumps from block to block; --on-triple-fault shows all):\n";
  for (const auto& [block, linear] : blocks) {
    text += fmt::format("  L:{:#x} P:{:#x} {} bits{}, {} instructions, {} bytes\n", linear.value,
                        block->key.physical.value, code_bits(block->key.mode),
                        block->key.mode.has(ModeBits::kUser) ? ", user" : "", block->guest_instructions,
                        block->guest_bytes);
  }
  const jit::Block& latest = *blocks.front().block;
  std::array<uint8_t, kPageSize> code;
  const std::span<uint8_t> bytes = std::span(code).first(latest.guest_bytes);
  if (!latest.crosses_page && map.page(latest.key.physical).host) {
    map.read_bytes(latest.key.physical, std::as_writable_bytes(bytes));
    text += jit::guest_listing(latest.key.mode, blocks.front().linear, bytes);
  }
  return text;
}

std::string exception_name(unsigned vector) {
  static constexpr const char* kNames[] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD",
                                           "#NM", "#DF", "",    "#TS", "#NP", "#SS", "#GP",
                                           "#PF", "",    "#MF", "#AC", "#MC", "#XM"};
  if (vector < std::size(kNames) && *kNames[vector]) return kNames[vector];
  return fmt::format("vector {}", vector);
}

std::string unknown_msr_lines(const VcpuStats& stats) {
  std::string text;
  for (unsigned i = 0; i < stats.unknown_msr_count; ++i) {
    const VcpuStats::UnknownMsr& msr = stats.unknown_msrs[i];
    text += fmt::format("unknown MSR {:#x}: {} reads, {} writes, each answered with #GP\n", msr.index,
                        msr.reads, msr.writes);
  }
  return text;
}

}  // namespace penumbra
