// MOVS, STOS, LODS, SCAS and CMPS with their repeat prefixes (SDM vol. 2, REP; vol. 1, 7.3.9).
//
// Elements that lie in plain memory are done by the host's own string instruction, as far as the pages of
// both sides, the segment limits and the address size reach:
//     n = elements up to the end of the page (the source's, the destination's, those left in RCX)
//     host rep movs (host source, host destination, n)
//     RSI, RDI += n * size, RCX -= n
// Chips and elements that cross a page go one at a time through read_linear() and write_linear().
#include <algorithm>

#include "core/host_vector_scope.h"
#include "core/register_access.h"
#include "core/vcpu.h"

namespace penumbra {

struct Vcpu::StringRun {
  const SystemInstruction& insn;
  unsigned size;  // of an element
  bool source;    // reads through RSI
  bool destination;
  bool compares;  // ends early on ZF
  bool repeat;
  bool backward;
  TlbView view;

  // Where the next batch starts in host memory.
  std::byte* host_source = nullptr;
  std::byte* host_destination = nullptr;

  uint64_t flags = 0;       // arithmetic flags of the last comparison
  bool decided = false;     // the comparison ended the repetition
  bool wrote_code = false;  // translated code may be gone, the running block among it

  uint64_t step() const { return backward ? ~uint64_t{size} + 1 : size; }
  AccessKind destination_access() const { return compares ? AccessKind::Read : AccessKind::Write; }
};

namespace {

// Registers of a host string instruction.
struct HostString {
  const std::byte* source;
  std::byte* destination;
  uint64_t count;
  uint64_t accumulator;  // afterwards, of a comparison: AH as LAHF sets it, AL is OF
};

// SAFETY: both sides are mapped for count elements in the direction that `backward` gives; the compiler
// expects DF clear.
#define PENUMBRA_HOST_STRING(instruction)                                                        \
  asm volatile("testb %b[backward], %b[backward]\n\tjz 1f\n\tstd\n1:\t" instruction "\n\tcld"    \
               : "+S"(run.source), "+D"(run.destination), "+c"(run.count), "+a"(run.accumulator) \
               : [backward] "q"(backward)                                                        \
               : "memory", "cc")
#define PENUMBRA_HOST_STRING_SIZES(before, after) \
  switch (size) {                                 \
    case 1:                                       \
      PENUMBRA_HOST_STRING(before "b" after);     \
      break;                                      \
    case 2:                                       \
      PENUMBRA_HOST_STRING(before "w" after);     \
      break;                                      \
    case 4:                                       \
      PENUMBRA_HOST_STRING(before "l" after);     \
      break;                                      \
    default:                                      \
      PENUMBRA_HOST_STRING(before "q" after);     \
  }
#define PENUMBRA_FLAGS "\n\tlahf\n\tseto %%al"

void host_move(HostString& run, unsigned size, bool backward) {
  PENUMBRA_HOST_STRING_SIZES("rep movs", "")
}
void host_store(HostString& run, unsigned size, bool backward) {
  PENUMBRA_HOST_STRING_SIZES("rep stos", "")
}
void host_compare(HostString& run, unsigned size, bool backward, bool until_equal) {
  if (until_equal) {
    PENUMBRA_HOST_STRING_SIZES("repne cmps", PENUMBRA_FLAGS)
  } else {
    PENUMBRA_HOST_STRING_SIZES("repe cmps", PENUMBRA_FLAGS)
  }
}
void host_scan(HostString& run, unsigned size, bool backward, bool until_equal) {
  if (until_equal) {
    PENUMBRA_HOST_STRING_SIZES("repne scas", PENUMBRA_FLAGS)
  } else {
    PENUMBRA_HOST_STRING_SIZES("repe scas", PENUMBRA_FLAGS)
  }
}
#undef PENUMBRA_HOST_STRING
#undef PENUMBRA_HOST_STRING_SIZES
#undef PENUMBRA_FLAGS

uint64_t flags_of(const HostString& run) {
  const uint64_t low = run.accumulator >> 8 & 0xff;
  return (low & flag::kArithmetic) | (run.accumulator & 1 ? flag::kOf : 0);
}

uint64_t load_element(const std::byte* from, unsigned size) {
  uint64_t value = 0;
  switch (size) {
    case 1:
      __builtin_memcpy(&value, from, 1);
      break;
    case 2:
      __builtin_memcpy(&value, from, 2);
      break;
    case 4:
      __builtin_memcpy(&value, from, 4);
      break;
    default:
      __builtin_memcpy(&value, from, 8);
  }
  return value;
}

}  // namespace

Result<LinearAddr> Vcpu::string_address(const StringRun& run, bool source, AccessKind access) const {
  const uint64_t offset = read_gpr(state_, source ? kRsi : kRdi, run.insn.address_bytes);
  auto address = linearize(source ? run.insn.segment : kEs, offset, run.size, access);
  if (address && misaligned(*address, run.size)) return raise(vector::kAc, 0);
  return address;
}

// How many elements, up to `wanted`, from RSI or RDI on are plain host memory; sets the side's host pointer.
// Zero when the first one is not.
Result<unsigned> Vcpu::string_host(StringRun& run, bool source, unsigned wanted, AccessKind access) {
  const auto address = string_address(run, source, access);
  if (!address) return std::unexpected(address.error());
  if (crosses_page(*address, run.size)) return 0u;

  const SegmentIndex segment = source ? run.insn.segment : kEs;
  const uint64_t mask = size_mask(run.insn.address_bytes);
  const uint64_t offset = state_.gpr[source ? kRsi : kRdi] & mask;
  // After the first element: up to the page's end, and as long as the offset does not wrap.
  const uint64_t in_page =
      (run.backward ? address->page_offset() : kPageSize - run.size - address->page_offset()) / run.size;
  const uint64_t in_address = (run.backward ? offset : mask - offset) / run.size;
  uint64_t more = std::min({uint64_t{wanted} - 1, in_page, in_address});
  if (!code64()) {
    while (more != 0 && !linearize(segment, (offset + more * run.step()) & mask, run.size, access)) more /= 2;
  }

  const uint64_t page = address->page().value;
  const TlbEntry& entry = tlb_.entry(run.view, *address);
  const auto hit = [&] { return (access == AccessKind::Write ? entry.write_tag : entry.read_tag) == page; };
  std::byte* host = nullptr;
  if (hit()) [[likely]] {
    // SAFETY: the tag matched, so address + addend lies in the mapped page.
    host = reinterpret_cast<std::byte*>(address->value + entry.addend);
  } else {
    const auto physical = translate(*address, access, run.view);
    if (!physical) return std::unexpected(physical.error());
    if (hit()) {
      host = reinterpret_cast<std::byte*>(address->value + entry.addend);  // SAFETY: as above
    } else if (access == AccessKind::Write && !debug_.watching()) {
      // Plain RAM has no write tag while it holds translated code: the whole run is announced at once, since
      // operating systems clear and copy such pages.
      HostVectorScope scope(state_);
      const PhysicalMap::Page target = map_.page(*physical);
      if (target.kind != PhysicalMap::PageKind::Ram) return 0u;
      const uint64_t first = physical->page_offset();
      const uint64_t bytes = more * run.size;
      run.wrote_code = run.wrote_code || map_.tracker().holds_code(target.frame);
      map_.tracker().before_write(target.frame, run.backward ? first - bytes : first, bytes + run.size);
      host = target.host + first;
    } else {
      return 0u;
    }
  }
  (source ? run.host_source : run.host_destination) = host;
  return static_cast<unsigned>(more + 1);
}

// One element through read_linear() and write_linear(). A destination that faults does so before a chip at
// the source is read.
Result<void> Vcpu::string_element(StringRun& run) {
  LinearAddr from{}, to{};
  if (run.source) {
    const auto address = string_address(run, true, AccessKind::Read);
    if (!address) return std::unexpected(address.error());
    from = *address;
    if (const auto readable = translate(from, AccessKind::Read, run.view); !readable) {
      return std::unexpected(readable.error());
    }
    if (crosses_page(from, run.size)) {
      const auto rest = translate((from + (run.size - 1)).page(), AccessKind::Read, run.view);
      if (!rest) return std::unexpected(rest.error());
    }
  }
  if (run.destination) {
    const auto address = string_address(run, false, run.destination_access());
    if (!address) return std::unexpected(address.error());
    to = *address;
    if (!run.compares) {
      if (auto writable = probe_write(to, run.size, run.view); !writable) return writable;
    }
  }
  uint64_t value = read_gpr(state_, kRax, run.size);
  if (run.source) {
    const auto element = read_linear(from, run.size, run.view);
    if (!element) return std::unexpected(element.error());
    value = *element;
  }
  if (run.compares) {
    const auto other = read_linear(to, run.size, run.view);
    if (!other) return std::unexpected(other.error());
    uint64_t right = *other;
    // SAFETY: one element in local variables.
    HostString compare{.source = reinterpret_cast<const std::byte*>(&value),
                       .destination = reinterpret_cast<std::byte*>(&right),
                       .count = 1,
                       .accumulator = 0};
    host_compare(compare, run.size, false, false);
    run.flags = flags_of(compare);
  } else if (run.destination) {
    if (auto done = write_linear(to, value, run.size, run.view); !done) return done;
    run.wrote_code = true;
  } else {
    write_gpr(kRax, value, run.size);
  }
  return {};
}

// At least one element; commits RSI, RDI and RCX.
Result<void> Vcpu::string_step(StringRun& run) {
  const SystemInstruction& insn = run.insn;
  unsigned count = 1;
  if (run.repeat && !state_.mode.has(ModeBits::kSingleStep)) {
    const uint64_t left = read_gpr(state_, kRcx, insn.address_bytes);
    count = static_cast<unsigned>(std::min(left, kPageSize));
  }
  if (run.source) {
    const auto reach = string_host(run, true, count, AccessKind::Read);
    if (!reach) return std::unexpected(reach.error());
    count = *reach;
  }
  if (run.destination && count != 0) {
    const auto reach = string_host(run, false, count, run.destination_access());
    if (!reach) return std::unexpected(reach.error());
    count = *reach;
  }

  unsigned done = count;
  if (count == 0) {
    if (auto element = string_element(run); !element) return element;
    done = 1;
  } else {
    HostString host{.source = run.host_source,
                    .destination = run.host_destination,
                    .count = count,
                    .accumulator = state_.gpr[kRax]};
    const bool until_equal = insn.repeat == SystemInstruction::Repeat::Repne;
    switch (insn.op) {
      case SystemOp::Movs:
        host_move(host, run.size, run.backward);
        break;
      case SystemOp::Stos:
        host_store(host, run.size, run.backward);
        break;
      case SystemOp::Lods:
        write_gpr(kRax, load_element(run.host_source + (count - 1) * run.step(), run.size), run.size);
        break;
      case SystemOp::Cmps:
      case SystemOp::Scas:
        if (insn.op == SystemOp::Cmps) {
          host_compare(host, run.size, run.backward, until_equal);
        } else {
          host_scan(host, run.size, run.backward, until_equal);
        }
        run.flags = flags_of(host);
        done = count - static_cast<unsigned>(host.count);
        break;
      default:
        break;
    }
  }
  if (run.compares && run.repeat) {
    run.decided = ((run.flags & flag::kZf) != 0) == (insn.repeat == SystemInstruction::Repeat::Repne);
  }

  const uint64_t distance = done * run.step();
  if (run.source) write_gpr(kRsi, state_.gpr[kRsi] + distance, insn.address_bytes);
  if (run.destination) write_gpr(kRdi, state_.gpr[kRdi] + distance, insn.address_bytes);
  if (run.repeat) write_gpr(kRcx, state_.gpr[kRcx] - done, insn.address_bytes);
  return {};
}

Result<Outcome> Vcpu::execute_string(const SystemInstruction& insn) {
  const SystemOp op = insn.op;
  StringRun run{.insn = insn,
                .size = insn.operand_bytes,
                .source = op == SystemOp::Movs || op == SystemOp::Lods || op == SystemOp::Cmps,
                .destination = op != SystemOp::Lods,
                .compares = op == SystemOp::Scas || op == SystemOp::Cmps,
                .repeat = insn.repeat != SystemInstruction::Repeat::None,
                .backward = (state_.rflags & flag::kDf) != 0,
                .view = current_view()};
  if (run.repeat && read_gpr(state_, kRcx, insn.address_bytes) == 0) return advance(insn);

  const auto commit_flags = [&] {
    if (run.compares) state_.rflags = (state_.rflags & ~flag::kArithmetic) | run.flags;
  };
  bool stepped = false;
  for (;;) {
    // On a fault the registers are as after the elements before the faulting one, and the flags too on AMD;
    // on Intel they are as before the instruction (SDM vol. 2, REP).
    if (auto done = string_step(run); !done) {
      if (amd_ && stepped) commit_flags();
      return std::unexpected(done.error());
    }
    stepped = true;
    if (!run.repeat || run.decided || read_gpr(state_, kRcx, insn.address_bytes) == 0) break;
    const bool attended = state_.attention.load(std::memory_order_relaxed) != 0;
    // What comes between two iterations finds RF set, so that a breakpoint at the instruction is not met
    // again (SDM vol. 3, 17.3.1.1).
    if (attended || state_.mode.has(ModeBits::kSingleStep)) state_.rflags |= flag::kRf;
    if (state_.mode.has(ModeBits::kSingleStep)) {
      commit_flags();
      // TF traps after every iteration, with RIP at the instruction (SDM vol. 3, 17.3.1.4).
      return std::unexpected(Exception{.vector = vector::kDb, .dr6 = 1u << 14, .trap = true});
    }
    if (attended) {
      commit_flags();
      return Outcome::Redirect;
    }
  }
  commit_flags();
  advance(insn);
  // The elements may have overwritten the instructions that follow, or a chip asked for attention.
  return run.wrote_code || state_.attention.load(std::memory_order_relaxed) ? Outcome::Redirect
                                                                            : Outcome::Next;
}

}  // namespace penumbra
