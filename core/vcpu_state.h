// Architectural state of one vCPU, in memory that translated code reaches by absolute addresses.
//
// Whenever C++ runs, all integer state is here. While translated code runs, the general registers other than
// r9, r10 and r11 and the arithmetic flags are in the host's registers of the same name, and so are x87, MMX,
// SSE and AVX state; see jit/README.md. Code compiled as "light" (core/README.md) leaves the vector state
// alone.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "mmu/address.h"
#include "mmu/shadow_windows.h"
#include "mmu/soft_tlb.h"

namespace penumbra {

enum Gpr : uint8_t {
  kRax,
  kRcx,
  kRdx,
  kRbx,
  kRsp,
  kRbp,
  kRsi,
  kRdi,
  kR8,
  kR9,
  kR10,
  kR11,
  kR12,
  kR13,
  kR14,
  kR15
};
enum SegmentIndex : uint8_t { kEs, kCs, kSs, kDs, kFs, kGs };  // order of ModRM.reg in MOV Sreg

// RFLAGS bits (SDM vol. 1, 3.4.3).
namespace flag {
inline constexpr uint64_t kCf = 1u << 0, kFixed1 = 1u << 1, kPf = 1u << 2, kAf = 1u << 4, kZf = 1u << 6,
                          kSf = 1u << 7, kTf = 1u << 8, kIf = 1u << 9, kDf = 1u << 10, kOf = 1u << 11,
                          kIopl = 3u << 12, kNt = 1u << 14, kRf = 1u << 16, kVm = 1u << 17, kAc = 1u << 18,
                          kVif = 1u << 19, kVip = 1u << 20, kId = 1u << 21;
inline constexpr uint64_t kArithmetic = kCf | kPf | kAf | kZf | kSf | kOf;
}  // namespace flag

namespace cr0 {
inline constexpr uint64_t kPe = 1u << 0, kMp = 1u << 1, kEm = 1u << 2, kTs = 1u << 3, kEt = 1u << 4,
                          kNe = 1u << 5, kWp = 1u << 16, kAm = 1u << 18, kNw = 1u << 29, kCd = 1u << 30,
                          kPg = 1u << 31;
}
namespace cr4 {
inline constexpr uint64_t kVme = 1u << 0, kPvi = 1u << 1, kTsd = 1u << 2, kDe = 1u << 3, kPse = 1u << 4,
                          kPae = 1u << 5, kMce = 1u << 6, kPge = 1u << 7, kPce = 1u << 8, kOsfxsr = 1u << 9,
                          kOsxmmexcpt = 1u << 10, kUmip = 1u << 11, kLa57 = 1u << 12, kFsgsbase = 1u << 16,
                          kPcide = 1u << 17, kOsxsave = 1u << 18, kSmep = 1u << 20, kSmap = 1u << 21;
}
namespace efer {
inline constexpr uint64_t kSce = 1u << 0, kLme = 1u << 8, kLma = 1u << 10, kNxe = 1u << 11;
}

// A segment register with its hidden part. `attributes` is bits 8 to 23 of the descriptor's high word:
// type (0-3), S (4), DPL (5-6), P (7), limit bits (8-11, ignored), AVL (12), L (13), D/B (14), G (15).
// `limit` is in bytes (granularity applied). A null selector in a data segment register has P clear.
struct Segment {
  uint64_t base = 0;
  uint32_t limit = 0;
  uint16_t selector = 0;
  uint16_t attributes = 0;

  static constexpr uint16_t kTypeMask = 0xf, kS = 1u << 4, kPresent = 1u << 7, kLong = 1u << 13,
                            kBig = 1u << 14, kGranular = 1u << 15;
  constexpr unsigned type() const { return attributes & kTypeMask; }
  constexpr unsigned dpl() const { return (attributes >> 5) & 3; }
  constexpr bool present() const { return attributes & kPresent; }
  constexpr bool big() const { return attributes & kBig; }
  constexpr bool is_long() const { return attributes & kLong; }
  constexpr bool is_code() const { return (attributes & (kS | 8)) == (kS | 8); }
};

struct TableRegister {
  uint64_t base = 0;
  uint16_t limit = 0;
};

// What translation depends on besides the bytes: part of the key of a block. Computed by Vcpu::update_mode().
struct ModeBits {
  uint32_t value = 0;
  enum : uint32_t {
    kCode32 = 1u << 0,   // CS.D
    kCode64 = 1u << 1,   // CS.L in long mode
    kStack32 = 1u << 2,  // SS.B (implied 64-bit stack when kCode64)
    kUser = 1u << 3,     // CPL 3
    kFlatCs = 1u << 4,   // base 0, limit 4 GiB - 1, readable (always set with kCode64)
    kFlatDs = 1u << 5,   // likewise, and present, readable and writable, expand-up
    kFlatEs = 1u << 6,
    kFlatSs = 1u << 7,
    kOpenFs = 1u << 8,  // limit 4 GiB - 1, present, readable and writable; any base
    kOpenGs = 1u << 9,
    kX87 = 1u << 10,             // x87 and MMX instructions do not trap (CR0.EM and TS clear)
    kSse = 1u << 11,             // SSE instructions do not trap (also CR4.OSFXSR)
    kAvx = 1u << 12,             // AVX instructions do not trap (also CR4.OSXSAVE and XCR0)
    kProtected = 1u << 13,       // CR0.PE set and EFLAGS.VM clear
    kSingleStep = 1u << 14,      // EFLAGS.TF: one instruction, then #DB
    kAlignment = 1u << 15,       // #AC armed: CPL 3, CR0.AM, EFLAGS.AC
    kOneInstruction = 1u << 16,  // block of one instruction (interrupt shadow, stepping)
    kCallout = 1u << 17,         // every memory operand through C++ (design 3.7)
    kAmd = 1u << 18,             // the CPU model calls itself AMD: see jit::Decoder for what that changes
    kWindows = 1u << 19,         // through the shadow windows (jit/hot_blocks.h)
    kShared = 1u << 20,          // the same at all linear addresses of its page (jit/block.h)
  };
  constexpr bool has(uint32_t bits) const { return (value & bits) == bits; }
  constexpr auto operator<=>(const ModeBits&) const = default;
};

// Why the run loop has something to do before more guest code runs. Bits of VcpuState::attention.
namespace attention {
inline constexpr uint32_t kKick = 1u << 0;       // another thread: events, timers
inline constexpr uint32_t kInterrupt = 1u << 1;  // INTR or NMI is pending and may have become deliverable
inline constexpr uint32_t kHalt = 1u << 2;       // HLT or MWAIT executed
inline constexpr uint32_t kStop = 1u << 3;       // reset, exit or shutdown (triple fault) requested
inline constexpr uint32_t kDebug = 1u << 4;      // DebugUnit has a stop or a trap to report
}  // namespace attention

inline constexpr unsigned kXsaveAreaBytes = 1024;  // x87, SSE and AVX need 832

struct alignas(64) VcpuState {
  // In pages of its own, which it shares with no other data, below 2 GiB: translated code names its fields by
  // 32-bit addresses. Throws std::runtime_error when the host has no memory there.
  static void* operator new(size_t bytes, std::align_val_t);
  static void operator delete(void* memory, size_t bytes, std::align_val_t) noexcept;

  // --- integer state
  std::array<uint64_t, 16> gpr{};
  uint64_t rip = 0;  // offset in CS
  uint64_t rflags = flag::kFixed1;
  std::array<Segment, 6> segments{};
  Segment ldtr{}, tr{};
  TableRegister gdtr{}, idtr{};
  uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0, efer = 0, xcr0 = 1;
  std::array<uint64_t, 4> pdpte{};  // PAE paging: loaded with CR3 (SDM vol. 3, 4.4.1)
  std::array<uint64_t, 8> dr{};
  uint8_t cpl = 0;
  ModeBits mode;

  // --- model-specific registers that have no other home
  uint64_t star = 0, lstar = 0, cstar = 0, sfmask = 0, kernel_gs_base = 0;
  uint64_t sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  uint64_t tsc_offset = 0, tsc_adjust = 0, tsc_aux = 0, pat = 0x0007'0406'0007'0406;

  // --- run control
  std::atomic<uint32_t> attention{0};
  bool debug_shadow = false;      // after MOV SS, POP SS: debug exceptions wait as well (SDM vol. 3, 6.8.3)
  bool interrupt_shadow = false;  // after STI, MOV SS, POP SS: no interrupt before the next instruction ends
  bool nmi_blocked = false;
  bool halted = false;
  bool vector_state_live =
      false;  // the guest's vector state is in the host's registers, not in the image below

  // --- private to translated code (jit/)
  TlbEntry* tlb_view = nullptr;  // view of the current privilege
  void* jump_cache = nullptr;    // jump cache of the current privilege and address space
  uint64_t host_rsp = 0;         // stack of the C++ side
  std::array<uint64_t, 8> scratch{};
  uint64_t spilled_overflow = 0;    // OF while the flags are spilled: 0 or 1 in the low byte
  uint64_t site = 0;                // the callout or exit in progress
  uint64_t code_page = 0;           // linear address of the page that a shared block runs on (jit/block.h)
  uint64_t found_addend = 0;        // result of jit::helper::tlb_miss
  uint64_t callout_linear = 0;      // where callout_buffer goes back to
  uint64_t guest_instructions = 0;  // where counted
  // Host addresses of the blocks entered last, a ring. The next one goes to this byte offset in it, which
  // wraps as a byte does.
  std::array<uint64_t, 32> recent_blocks{};
  uint8_t recent_block_offset = 0;
  alignas(64) WindowState windows;
  alignas(64) std::array<std::byte, kXsaveAreaBytes> callout_buffer{};
  alignas(64) std::array<std::byte,
                         kXsaveAreaBytes> guest_vector_state{};  // XSAVE image while C++ owns the registers
};

}  // namespace penumbra
