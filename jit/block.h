// A translated basic block and what names it.
#pragma once

#include <cstdint>

#include "core/system_instruction.h"
#include "core/vcpu_state.h"
#include "mmu/address.h"
#include "mmu/page_walker.h"

namespace penumbra::jit {

// A shared block (ModeBits::kShared) serves all linear addresses at which its page is mapped: processes whose
// programs and libraries lie at random addresses run the same translation. Every RIP in it is relative to the
// page, and VcpuState::code_page, which its entry sets, is where that is.
//
// What a block was translated for. Equal keys and equal bytes give the same host code: the translator sees
// nothing else.
struct BlockKey {
  PhysAddr physical;        // of the first byte
  uint64_t rip = 0;         // offset in CS of the first byte; if it is shared, in the page
  uint32_t cs_base = 0;     // zero with ModeBits::kFlatCs
  uint32_t cs_limit = ~0u;  // all ones with ModeBits::kFlatCs
  ModeBits mode;

  constexpr bool operator==(const BlockKey&) const = default;
  bool shared() const { return mode.has(ModeBits::kShared); }
  BlockKey as_shared() const {
    BlockKey key = *this;
    key.rip &= kPageOffsetMask;
    key.mode.value |= ModeBits::kShared;
    return key;
  }
  LinearAddr linear() const { return {mode.has(ModeBits::kCode64) ? rip : (rip + cs_base) & 0xffff'ffff}; }
  uint64_t hash() const {
    const uint64_t mixed =
        physical.value * 0x9e37'79b9'7f4a'7c15 ^ (rip + mode.value) * 0xc2b2'ae3d'27d4'eb4f;
    return mixed ^ mixed >> 29;
  }
};

// In Block::poll_targets: the RIP is in kLinear, and these bits with the address of an IndirectBranch say
// what brought it there. No RIP has them, since polls are for targets that may be jumped to.
inline constexpr uint64_t kPollIndirect = uint64_t{1} << 62;

// Where the arithmetic flags are.
enum class FlagHome : uint8_t {
  Host,     // in the host's RFLAGS
  Spilled,  // in VcpuState::rflags (low byte) and spilled_overflow
  Dead,     // clobbered: no later instruction reads them
};

// From `host_offset` on, a host fault belongs to the guest instruction `guest` bytes into the block; at an
// interrupt poll, `guest` is the index of the RIP to resume at in Block::poll_targets.
enum class SiteKind : uint8_t {
  Plain,
  Write,   // the access through a window that follows is a write
  String,  // a repeated string instruction: RSI and RDI are ahead by kLinear and kTemp
  Poll,
};
struct SiteRecord {
  uint16_t host_offset = 0;
  uint16_t guest : 12 = 0;
  uint16_t kind : 2 = 0;   // a SiteKind
  uint16_t flags : 2 = 0;  // a FlagHome
  int16_t stack_step = 0;
  SiteKind site_kind() const { return static_cast<SiteKind>(kind); }
};
static_assert(sizeof(SiteRecord) == 6);

// The same, resolved.
struct Site {
  uint64_t rip = 0;
  FlagHome flags = FlagHome::Host;
  SiteKind kind = SiteKind::Plain;  // Poll: RIP is where the guest goes next
  int16_t stack_step = 0;           // what the guest's RSP is more than the host's
};

struct Block;

// A set of base registers, by number, whose deltas are in WindowState::kept, each within
// ShadowWindows::kGuardBytes of the region that its delta is for. kConstantBase stands for the base that
// constant addresses have in common.
using KeptDeltas = uint32_t;
inline constexpr unsigned kConstantBase = 16;
inline constexpr KeptDeltas kStackDelta = 1u << kRsp, kAllDeltas = ~KeptDeltas{0};

// An entry to a block behind some of the checks that it begins with.
struct WarmEntry {
  KeptDeltas known = 0;
  uint32_t host_offset = 0;
};

// A memory operand, for the callout path.
struct MemoryAccess {
  SegmentIndex segment = kDs;
  AccessKind kind = AccessKind::Read;
  bool reads = false;    // a write that reads first
  bool window = true;    // the instruction can have any host operand, and nothing changes before it: a fault
                         // can be repaired
  bool aligned = false;  // #GP when it is not at a multiple of its size
  bool halves = false;   // #AC looks at each eight bytes of it
  bool x87 = false;      // a pending x87 exception is raised before any fault of the operand
  uint8_t lane = 0;      // size of the parts that a mask selects; 0: the operand is one piece
  bool probe = false;    // checks that it can be read, and reads nothing
  bool alone = false;    // in a block of one instruction, after which the dispatcher looks at attention
  uint16_t size = 0;
  uint64_t rip = 0;
};

// Where a block guesses the region of an address (jit/emit_window.cpp). Offsets are from the block's host
// code, of 32-bit fields that can be patched.
struct WindowSite {
  Block* block = nullptr;
  uint32_t tag_offset = 0, delta_offset = 0;  // absolute addresses, of fields of WindowState
  uint32_t jump_offset = 0;    // displacement of the jump that is taken when the guess is wrong
  uint32_t search_offset = 0;  // where it leads once there were too many
  uint32_t corrections = 0;
};

// A slot of WindowState, as offsets in VcpuState.
struct WindowSlotFields {
  size_t tag, delta;
  static WindowSlotFields of(uint64_t region, ModeBits mode);
};

// Part of a block that has been overwritten again and again: offsets from its first byte. An immediate
// operand in which all of it lies is read from memory whenever the instruction runs (Dehnert et al., "The
// Transmeta Code Morphing Software", CGO 2003, 3.6.3), and writing it does not drop the block.
struct PatchedBytes {
  uint16_t begin = 0, end = 0;
  const std::byte* memory = nullptr;  // of the block's first byte; null: nothing is patched
};

// How a block may use the shadow windows.
struct WindowUse {
  bool wraps = false;  // 32-bit addresses of this block have been seen to wrap
  const uint64_t* hints =
      nullptr;             // registers as they were at some entry to the block; only speed depends on them
  uint64_t code_page = 0;  // of a shared block, likewise
  KeptDeltas likely = kAllDeltas;  // what jumps to the block know, probably; only speed depends on it
};

// Where the vectors of gathers and masked moves are in the callout buffer.
struct LaneBuffer {
  static constexpr unsigned kData = 0, kIndex = 32, kMask = 64;
};

// AVX2 gather: how to read the elements.
struct GatherAccess {
  SystemInstruction address;  // base, scale, displacement and segment; the index is an element
  uint8_t element_bytes = 4;  // 4 or 8
  uint8_t index_bytes = 4;    // 4 or 8
  uint8_t elements = 4;
  uint8_t destination = 0, mask = 0;  // ymm registers
  bool alone = false;                 // as MemoryAccess::alone
};

// An indirect branch, for the fault that its target may raise.
struct IndirectBranch {
  uint64_t rip = 0;
  int32_t stack_change = 0;  // what it has added to RSP
  bool shared = false;
};

// A direct jump that can be patched to its target.
struct BlockLink {
  Block* from = nullptr;
  uint32_t patch_offset = 0;  // of the 32-bit displacement, from the block's host code
  uint32_t stub_offset = 0;   // where it points while unlinked
  uint64_t target_rip = 0;
  uint64_t by_jump_cache = 0;  // not 0: its target is a block that it may not be patched to
  KeptDeltas known = 0;        // where the jump is
  uint64_t constant = 0;       // kConstantBase, if known
  BlockLink* next_of_block = nullptr;
  BlockLink* next_incoming = nullptr;  // of the target's, while linked
};

// While a loop runs, a guest register that it writes and that lives in VcpuState::gpr has a host register,
// whose own guest register, which the loop does not use, waits in that field.
struct RegisterSwap {
  uint8_t in_memory = 0, in_host = 0;  // guest registers, before and after the loop
};

// Lives in the translator's arena with all that it points to, as long as its host code.
struct Block {
  BlockKey key;
  uint64_t host = 0;  // executable address of the entry
  uint32_t host_bytes = 0;
  uint16_t guest_bytes = 0;
  uint16_t guest_instructions = 0;
  uint16_t site_count = 0;
  bool dead = false;
  bool windows = false;                   // memory operands through the shadow windows
  uint16_t live_begin = 0, live_end = 0;  // bytes that are read when the block runs: they may change
  bool cut = false;           // ends before a breakpoint: without it, more instructions might follow
  bool crosses_page = false;  // the only instruction continues on the page at `second_page`
  PageFrame second_frame;
  Block* next_in_bucket = nullptr;
  const SiteRecord* sites = nullptr;  // sorted by host_offset
  const uint64_t* poll_targets = nullptr;
  const RegisterSwap* swaps = nullptr;
  uint8_t swap_count = 0;
  uint8_t warm_count = 0;
  uint8_t linked_offset = 0;        // where patched jumps enter it: they come from the same page
  uint32_t stack_entry_offset = 0;  // where jumps through the jump cache that know the region of RSP do; of
                                    // shared ones with such an entry, else 0
  const WarmEntry* warm = nullptr;  // each knows what the ones before know, and more
  uint64_t constant = 0;            // kConstantBase in them
  BlockLink* loop =
      nullptr;  // of `links`: to its own first instruction, behind the swaps; leads to its stub when dead
  BlockLink* links = nullptr;     // its own jumps
  BlockLink* incoming = nullptr;  // jumps of others that are patched to come here

  // Where a patched jump enters it with these deltas.
  uint64_t entry_with(KeptDeltas known, uint64_t other_constant) const;
  // Where a jump through the jump cache does that knows the delta of RSP.
  uint64_t entry_with_stack() const;
};

}  // namespace penumbra::jit
