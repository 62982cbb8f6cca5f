#include "frontend/trace_format.h"

#include <fmt/format.h>

namespace penumbra::trace_format {

namespace {

// QEMU's summary of what translation depends on (its target/i386/cpu.h, HF_...); bits of EFLAGS are in their
// places.
namespace hidden_flag {
constexpr uint32_t kInhibitIrq = 1u << 3, kCs32 = 1u << 4, kSs32 = 1u << 5, kAddSegment = 1u << 6,
                   kPe = 1u << 7, kMp = 1u << 9, kEm = 1u << 10, kTs = 1u << 11, kLma = 1u << 14,
                   kCs64 = 1u << 15, kOsfxsr = 1u << 22, kSmap = 1u << 23, kUmip = 1u << 27, kAvx = 1u << 28;
}

uint32_t hidden_flags(const VcpuState& state) {
  using namespace hidden_flag;
  uint32_t flags = state.cpl;
  const auto add = [&flags](uint32_t bit, bool set) { flags |= set ? bit : 0; };
  const bool code64 = state.mode.has(ModeBits::kCode64);
  const Segment& cs = state.segments[kCs];
  const bool protected_mode = state.cr0 & cr0::kPe && !(state.rflags & flag::kVm);
  const uint64_t bases = state.segments[kDs].base | state.segments[kEs].base | state.segments[kSs].base;
  add(kInhibitIrq, state.interrupt_shadow);
  add(kCs32, cs.big() || code64);
  add(kSs32, state.segments[kSs].big());
  add(kAddSegment, !code64 && (!protected_mode || !cs.big() || bases != 0));
  add(kPe, state.cr0 & cr0::kPe);
  add(kMp, state.cr0 & cr0::kMp);
  add(kEm, state.cr0 & cr0::kEm);
  add(kTs, state.cr0 & cr0::kTs);
  add(kLma, state.efer & efer::kLma);
  add(kCs64, code64);
  add(kOsfxsr, state.cr4 & cr4::kOsfxsr);
  add(kSmap, state.cr4 & cr4::kSmap);
  add(kUmip, state.cr4 & cr4::kUmip);
  constexpr uint64_t kSseAndAvx = 6;
  add(kAvx, state.cr4 & cr4::kOsxsave && (state.xcr0 & kSseAndAvx) == kSseAndAvx);
  return flags |
         static_cast<uint32_t>(state.rflags & (flag::kIopl | flag::kTf | flag::kRf | flag::kVm | flag::kAc));
}

std::string system_type(const Segment& segment, bool long_mode) {
  static constexpr const char* kLegacy[] = {
      "Reserved", "TSS16-avl", "LDT",      "TSS16-busy", "CallGate16", "TaskGate", "IntGate16", "TrapGate16",
      "Reserved", "TSS32-avl", "Reserved", "TSS32-busy", "CallGate32", "Reserved", "IntGate32", "TrapGate32"};
  static constexpr const char* kLong[] = {
      "<hiword>", "Reserved",  "LDT",      "Reserved",   "Reserved",   "Reserved", "Reserved",  "Reserved",
      "Reserved", "TSS64-avl", "Reserved", "TSS64-busy", "CallGate64", "Reserved", "IntGate64", "TrapGate64"};
  return (long_mode ? kLong : kLegacy)[segment.type()];
}

std::string segment(const char* name, const Segment& segment, const VcpuState& state) {
  const uint32_t attributes = segment.attributes << 8;
  const unsigned width = state.mode.has(ModeBits::kCode64) ? 16 : 8;
  const uint64_t base = width == 16 ? segment.base : segment.base & 0xffff'ffff;
  std::string text = fmt::format("{:<3}={:04x} {:0{}x} {:08x} {:08x}", name, segment.selector, base, width,
                                 segment.limit, attributes);
  if (!(state.cr0 & cr0::kPe) || !segment.present()) return text + "\n";
  text += fmt::format(" DPL={} ", segment.dpl());
  const bool long_mode = state.efer & efer::kLma;
  if (!(segment.attributes & Segment::kS)) return text + system_type(segment, long_mode) + "\n";
  const auto letter = [&segment](unsigned bit, char name_of_set) {
    return segment.type() & bit ? name_of_set : '-';
  };
  if (segment.is_code()) {
    text += segment.is_long() ? "CS64" : segment.big() ? "CS32" : "CS16";
    text += fmt::format(" [{}{}", letter(4, 'C'), letter(2, 'R'));
  } else {
    text += segment.big() || long_mode ? "DS  " : "DS16";
    text += fmt::format(" [{}{}", letter(4, 'E'), letter(2, 'W'));
  }
  return text + letter(1, 'A') + "]\n";
}

std::string flag_letters(uint64_t rflags) {
  static constexpr std::pair<uint64_t, char> kLetters[] = {
      {flag::kDf, 'D'}, {flag::kOf, 'O'}, {flag::kSf, 'S'}, {flag::kZf, 'Z'},
      {flag::kAf, 'A'}, {flag::kPf, 'P'}, {flag::kCf, 'C'}};
  std::string text;
  for (const auto& [bit, letter] : kLetters) text += rflags & bit ? letter : '-';
  return text;
}

}  // namespace

std::string registers(const VcpuState& state, bool a20) {
  const bool code64 = state.mode.has(ModeBits::kCode64);
  const unsigned width = code64 ? 16 : 8;
  const uint64_t mask = code64 ? ~uint64_t{0} : 0xffff'ffff;
  std::string text;
  static constexpr Gpr kOrder[] = {kRax, kRbx, kRcx, kRdx, kRsi, kRdi, kRbp, kRsp,
                                   kR8,  kR9,  kR10, kR11, kR12, kR13, kR14, kR15};
  static constexpr const char* kNames[] = {"AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP"};
  for (unsigned i = 0; i < (code64 ? 16 : 8); ++i) {
    const std::string name =
        i < 8 ? fmt::format("{}{}", code64 ? 'R' : 'E', kNames[i]) : fmt::format("R{:<2}", i);
    text += fmt::format("{}={:0{}x}{}", name, state.gpr[kOrder[i]] & mask, width, i % 4 == 3 ? '\n' : ' ');
  }
  text += fmt::format("{0}IP={1:0{2}x} {3}={4:08x} [{5}] CPL={6} II={7} A20={8} SMM=0 HLT={9}\n",
                      code64 ? 'R' : 'E', state.rip & mask, width, code64 ? "RFL" : "EFL",
                      static_cast<uint32_t>(state.rflags), flag_letters(state.rflags), state.cpl,
                      state.interrupt_shadow ? 1 : 0, a20 ? 1 : 0, state.halted ? 1 : 0);
  static constexpr const char* kSegmentNames[] = {"ES", "CS", "SS", "DS", "FS", "GS"};
  for (unsigned i = 0; i < state.segments.size(); ++i)
    text += segment(kSegmentNames[i], state.segments[i], state);
  text += segment("LDT", state.ldtr, state);
  text += segment("TR", state.tr, state);
  const unsigned long_width = state.efer & efer::kLma ? 16 : 8;
  const uint64_t long_mask = long_width == 16 ? ~uint64_t{0} : 0xffff'ffff;
  text += fmt::format("GDT=     {:0{}x} {:08x}\n", state.gdtr.base & long_mask, long_width, state.gdtr.limit);
  text += fmt::format("IDT=     {:0{}x} {:08x}\n", state.idtr.base & long_mask, long_width, state.idtr.limit);
  text += fmt::format("CR0={:08x} CR2={:0{}x} CR3={:0{}x} CR4={:08x}\n", static_cast<uint32_t>(state.cr0),
                      state.cr2 & long_mask, long_width, state.cr3 & long_mask, long_width,
                      static_cast<uint32_t>(state.cr4));
  for (unsigned i = 0; i < 4; ++i) text += fmt::format("DR{}={:016x} ", i, state.dr[i]);
  text += fmt::format("\nDR6={:016x} DR7={:016x}\n", state.dr[6], state.dr[7]);
  text +=
      fmt::format("CCS={:0{}x} CCD={:0{}x} CCO=EFLAGS\n", state.rflags & flag::kArithmetic, width, 0, width);
  text += fmt::format("EFER={:016x}\n", state.efer);
  return text;
}

std::string block_entry(const jit::Block& block, const VcpuState& state, bool long_blocks) {
  const uint32_t translation = long_blocks ? 0xff00'0200 : 0xff00'0201;
  return fmt::format("Trace 0: {:#x} [{:016x}/{:016x}/{:08x}/{:08x}] \n", block.host,
                     state.segments[kCs].base, block.key.linear().value, hidden_flags(state), translation);
}

std::string event(const EventRecord& event, const VcpuState& state, bool a20, bool real_mode,
                  uint64_t& number) {
  std::string text;
  if (event.external) text = fmt::format("Servicing hardware INT=0x{:02x}\n", event.vector);
  if (!(state.cr0 & cr0::kPe) && !real_mode) return text;
  // A double fault is not raised, it takes the place of what was.
  if (!event.interrupt && event.vector != vector::kDf) {
    const bool remembered = event.during == 0 || (event.during >= vector::kDf && event.during <= vector::kPf);
    text += fmt::format("check_exception old: 0x{:x} new 0x{:x}\n",
                        static_cast<uint32_t>(remembered ? event.during : EventRecord::kNoException),
                        event.vector);
  }
  if (event.lost) return text;
  const uint64_t cs_base = static_cast<uint64_t>(static_cast<int32_t>(state.segments[kCs].base));
  text += fmt::format("{:6}: v={:02x} e={:04x} i={} cpl={} IP={:04x}:{:016x} pc={:016x} SP={:04x}:{:016x}",
                      number++, event.vector, event.has_error_code ? event.error_code : 0,
                      event.software ? 1 : 0, event.cpl, event.cs, state.rip, cs_base + state.rip,
                      state.segments[kSs].selector, event.rsp);
  if (event.vector == vector::kPf) {
    text += fmt::format(" CR2={:016x}\n", event.cr2);
  } else {
    text += fmt::format(" env->regs[R_EAX]={:016x}\n", state.gpr[kRax]);
  }
  return text + registers(state, a20);
}

}  // namespace penumbra::trace_format
