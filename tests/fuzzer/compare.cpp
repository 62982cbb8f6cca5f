#include "tests/fuzzer/compare.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/exception.h"
#include "core/vcpu_state.h"
#include "tests/fuzzer/descriptors.h"

namespace penumbra::fuzz {

namespace {

constexpr const char* kGprNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

bool has_error_code(uint8_t vector) {
  return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

// TASK_SIZE_MAX with 4-level paging.
constexpr uint64_t kKernelStart = 0x7fff'ffff'f000;

class Difference {
 public:
  void add(std::string text) {
    if (count_++ == kMost) text_ += " ...";
    if (count_ > kMost) return;
    if (!text_.empty()) text_ += "; ";
    text_ += text;
  }
  void value(std::string_view name, uint64_t native, uint64_t engine) {
    if (native != engine) add(fmt::format("{} is {:#x}, natively {:#x}", name, engine, native));
  }
  const std::string& text() const { return text_; }

 private:
  static constexpr unsigned kMost = 6;
  unsigned count_ = 0;
  std::string text_;
};

enum class Transfer : uint8_t { None, NearCall, FarCall, FarReturn };

// What is at `rip`.
Transfer transfer_at(std::span<const std::byte> memory, uint64_t rip) {
  uint64_t at = rip & (area::kBytes - 1);
  const auto byte = [&](uint64_t offset) {
    return offset < area::kBytes ? static_cast<unsigned>(memory[offset]) : 0;
  };
  constexpr unsigned kPrefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3};
  while (std::ranges::find(kPrefixes, byte(at)) != std::end(kPrefixes) || (byte(at) & 0xf0) == 0x40) ++at;
  constexpr unsigned kCall = 0xe8, kCallFar = 0x9a, kGroup5 = 0xff;
  const unsigned opcode = byte(at), group = byte(at + 1) >> 3 & 7;
  if (opcode == kCall || (opcode == kGroup5 && group == 2)) return Transfer::NearCall;
  if (opcode == kCallFar || (opcode == kGroup5 && group == 3)) return Transfer::FarCall;
  return opcode == 0xca || opcode == 0xcb || opcode == 0xcf ? Transfer::FarReturn : Transfer::None;
}

void compare_faults(Difference& out, const Case& made, Transfer transfer, const Outcome& native,
                    const Outcome& engine) {
  if (native.timeout || engine.timeout) {
    if (native.timeout != engine.timeout) out.add(engine.timeout ? "never ends" : "ends, natively never");
    return;
  }
  // How many bytes of what is no instruction are fetched before #UD is the CPU's own business.
  const auto fetch = [](const Outcome& outcome) {
    constexpr uint32_t kFetch = 0x10;
    return outcome.vector == vector::kPf && outcome.error_code & kFetch && outcome.cr2 != outcome.state.rip;
  };
  if (made.undefined &&
      ((fetch(native) && engine.vector == vector::kUd) || (native.vector == vector::kUd && fetch(engine)))) {
    return;
  }
  // AMD pushes before it checks the target's offset, and reads the stack of a return to another privilege
  // before it finds that there is no such return.
  const bool stack_first = native.vector == vector::kPf || native.vector == vector::kAc;
  const bool far = transfer == Transfer::FarCall || transfer == Transfer::FarReturn;
  if (far && stack_first && engine.vector == vector::kGp) return;
  out.value("halted", native.halted, engine.halted);
  out.value("exception", native.vector, engine.vector);
  if (native.vector != engine.vector || made.program.kind == Kind::Real) return;
  constexpr uint64_t kLargestImage = 512;
  const bool same_image =
      made.any_cr2_of_operand && native.cr2 - engine.cr2 + kLargestImage < 2 * kLargestImage;
  if (has_error_code(native.vector)) {
    uint32_t known = ~0u;
    // Linux reports faults at addresses of the kernel as protection violations.
    if (native.vector == vector::kPf && (native.cr2 >= kKernelStart || same_image)) known = ~1u;
    out.value("error code", native.error_code & known, engine.error_code & known);
  }
  if (native.vector == vector::kPf && !same_image) out.value("cr2", native.cr2, engine.cr2);
}

void compare_vectors(Difference& out, const VectorState& native, const VectorState& engine, bool x87) {
  out.value("mxcsr", native.mxcsr, engine.mxcsr);
  for (unsigned i = 0; i < 16; ++i) {
    if (native.ymm[i] == engine.ymm[i]) continue;
    const auto text = [](const std::array<uint64_t, 4>& ymm) {
      return fmt::format("{:016x}_{:016x}_{:016x}_{:016x}", ymm[3], ymm[2], ymm[1], ymm[0]);
    };
    out.add(fmt::format("ymm{} is {}, natively {}", i, text(engine.ymm[i]), text(native.ymm[i])));
  }
  if (!x87) return;
  out.value("fcw", native.fcw, engine.fcw);
  out.value("fsw", native.fsw, engine.fsw);
  out.value("tags", native.tags, engine.tags);
  for (unsigned i = 0; i < 8; ++i) {
    if (native.st[i] == engine.st[i]) continue;
    out.add(fmt::format("st{} is {}, natively {}", i, hex_bytes(std::as_bytes(std::span(engine.st[i]))),
                        hex_bytes(std::as_bytes(std::span(native.st[i])))));
  }
}

// TCG may have translated what lay there before.
bool stored_into_code(const Program& program, std::span<const std::byte> memory) {
  return std::memcmp(&memory[area::kCode], &program.memory[area::kCode], area::kCodeEnd - area::kCode) != 0;
}

}  // namespace

std::string hex_bytes(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

std::string difference(const Case& made, const Outcome& native, std::span<const std::byte> native_memory,
                       const Outcome& engine, std::span<const std::byte> engine_memory, Exactness exactness) {
  Difference out;
  if (made.program.kind == Kind::Real) {
    if (stored_into_code(made.program, native_memory)) return {};
    // TCG has no limits in real mode: SDM vol. 3, 21.1.1 and 6.15, #GP and #SS.
    const bool beyond_limit =
        !engine.halted && (engine.vector == vector::kGp || engine.vector == vector::kSs);
    if (made.may_exceed_limit && beyond_limit && (native.halted || native.vector != engine.vector)) return {};
  }
  const uint64_t code_offset = native.state.rip + descriptor_of(native.state.selectors[kCs]).base();
  const Transfer transfer = transfer_at(native_memory, code_offset);
  compare_faults(out, made, transfer, native, engine);
  if (native.timeout || engine.timeout) return out.text();
  const MachineState& there = native.state;
  const MachineState& here = engine.state;
  out.value("rip", there.rip, here.rip);
  // Nothing is known of the upper halves once 64-bit code was left (SDM vol. 1, 3.4.1.1): the translator
  // clears them.
  const bool from_64 = made.program.kind == Kind::Bits64;
  const bool wide = from_64 && descriptor_of(there.selectors[kCs]).is_long();
  for (unsigned i = 0; i < 16; ++i) {
    if (static_cast<int>(i) == made.random_gpr) continue;
    const bool narrow = !wide && (i == kRsp || (from_64 && i < 8));
    const uint64_t known = narrow ? 0xffff'ffff : ~uint64_t{0};
    out.value(kGprNames[i], there.gpr[i] & known, here.gpr[i] & known);
  }
  constexpr const char* kSegmentNames[] = {"es", "cs", "ss", "ds", "fs", "gs"};
  for (unsigned i = 0; i < 6; ++i) {
    // The way back from the host's kernel makes any null selector a zero (SDM vol. 2, IRET).
    const bool null = made.program.kind != Kind::Real && is_null(there.selectors[i]);
    if (null && is_null(here.selectors[i])) continue;
    out.value(kSegmentNames[i], there.selectors[i], here.selectors[i]);
  }
  // RF is set in a fault's frame and does not say anything; VM cannot change.
  uint64_t flags =
      flag::kArithmetic | flag::kTf | flag::kIf | flag::kDf | flag::kIopl | flag::kNt | flag::kAc | flag::kId;
  flags &= ~made.undefined_flags;
  if (!exactness.fault_flags) flags &= ~flag::kArithmetic;
  out.value("rflags", there.rflags & flags, here.rflags & flags);
  out.value("fs base", there.fs_base, here.fs_base);
  out.value("gs base", there.gs_base, here.gs_base);
  compare_vectors(out, there.vector, here.vector, made.x87_on_fault || there.rip != made.program.start.rip);

  // A call to where no code can be: near, it faults before the CPU pushes and after the translator does; far,
  // the other way round on AMD.
  Hole pushed{};
  if (native.vector == vector::kGp && (transfer == Transfer::NearCall || transfer == Transfer::FarCall)) {
    constexpr uint64_t kFarReturn = 16;
    const uint64_t top = there.gpr[kRsp] & (area::kBytes - 1);
    pushed = {top < kFarReturn ? 0 : top - kFarReturn, top};
  }
  for (uint64_t page = 0; page < area::kPages; ++page) {
    const uint64_t begin = page * area::kPage, end = begin + area::kPage;
    if (!accessible(made.program, page)) continue;
    if (std::memcmp(&native_memory[begin], &engine_memory[begin], area::kPage) == 0) continue;
    for (uint64_t at = begin; at < end; ++at) {
      if (native_memory[at] == engine_memory[at]) continue;
      const auto in = [at](const Hole& hole) { return at >= hole.begin && at < hole.end; };
      if (in(pushed) || std::ranges::any_of(made.holes, in)) continue;
      const size_t shown = std::min<size_t>(16, area::kBytes - at);
      out.add(fmt::format("memory +{:#x} is {}, natively {}", at, hex_bytes(engine_memory.subspan(at, shown)),
                          hex_bytes(native_memory.subspan(at, shown))));
      return out.text();
    }
  }
  return out.text();
}

}  // namespace penumbra::fuzz
