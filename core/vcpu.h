// One virtual CPU: everything about the guest's processor that is not running its innocuous instructions.
//
// Runs on one thread. All functions here are "light" (core/README.md): they leave the host's x87 and vector
// registers, which hold the guest's, alone; calls that leave the core (devices) go through HostVectorScope.
#pragma once

#include <cstdint>

#include "core/cpu_model.h"
#include "core/exception.h"
#include "core/interrupt_source.h"
#include "core/system_instruction.h"
#include "core/vcpu_state.h"
#include "mmu/page_walker.h"
#include "mmu/physical_map.h"
#include "mmu/soft_tlb.h"

namespace penumbra {

class IoBus;

// What execute() did, for the translated code that called it.
enum class Outcome : uint8_t {
  Next,      // RIP is the next instruction and nothing that translation depends on changed
  Redirect,  // RIP, mode, mappings or interrupt flag changed: look the block up afresh
};

struct VcpuStats {
  static constexpr unsigned kMaxUnknownMsrs = 64;
  struct UnknownMsr {
    uint32_t index;
    uint32_t reads, writes;
  };
  uint64_t exceptions[32] = {};
  uint64_t interrupts = 0;
  uint64_t io_reads = 0, io_writes = 0, mmio_reads = 0, mmio_writes = 0;
  unsigned unknown_msr_count = 0;
  UnknownMsr unknown_msrs[kMaxUnknownMsrs] = {};
};

// What made the last instructions interesting: a ring for state dumps.
struct EventRecord {
  uint8_t vector;
  bool interrupt;
  bool has_error_code;
  uint8_t cpl;
  uint32_t error_code;
  uint64_t cs, rip, rsp, cr2;
};

class Vcpu {
 public:
  // `host_tsc_hz`: rate of the guest's TSC, told to the guest through CPUID.
  Vcpu(VcpuState& state, PhysicalMap& map, SoftTlb& tlb, IoBus& io, const CpuModel& model);

  VcpuState& state() { return state_; }
  const VcpuState& state() const { return state_; }
  SoftTlb& tlb() { return tlb_; }
  PhysicalMap& map() { return map_; }
  const CpuModel& model() const { return model_; }
  VcpuStats& stats() { return stats_; }
  void set_interrupt_source(InterruptSource* source) { interrupt_source_ = source; }

  // Power-on or INIT state (SDM vol. 3, table 9-1): real mode, CS:IP = F000:FFF0 with base FFFF0000.
  void reset();

  // Executes one instruction; state().rip must be insn.rip. On success RIP has advanced. A fault leaves the
  // state as before the instruction, except what the manual says stays (REP counts, for example). kHalt and
  // kStop are reported in state().attention.
  Result<Outcome> execute(const SystemInstruction& insn);

  // Delivers an exception raised at state().rip (already the next instruction for traps): stack frame, new
  // CS:RIP, mode; double and triple fault. After a triple fault attention::kStop is set and triple_fault() is
  // true.
  void deliver(const Exception& exception);
  // Delivers a hardware interrupt or NMI. Same consequences.
  void deliver_interrupt(uint8_t vector, bool nmi);
  // INT n, INT3, INTO from translated code go through execute().

  // Takes a pending NMI or INTR if the flags allow one now; true if one was delivered.
  bool take_interrupt();
  void request_nmi();
  bool triple_fault() const { return triple_fault_; }

  // Recomputes state().mode, tlb_view and everything else derived from CR0, CR4, EFER, segments, flags and
  // CPL.
  void update_mode();
  PagingState paging_state() const;  // as the walker wants it
  TlbView current_view() const;      // view for explicit data accesses at the current privilege

  // --- guest memory, by linear address. Sizes up to kXsaveAreaBytes; may cross one page; all or nothing.
  // `view` says who asks; implicit descriptor-table accesses pass TlbView::Supervisor.
  Result<void> read_linear(LinearAddr address, void* to, unsigned size, TlbView view);
  Result<void> write_linear(LinearAddr address, const void* from, unsigned size, TlbView view);
  // Raises what a write there would raise, sets accessed and dirty bits, writes nothing.
  Result<void> probe_write(LinearAddr address, unsigned size, TlbView view);
  Result<uint64_t> read_linear(LinearAddr address, unsigned size, TlbView view);  // size 1, 2, 4 or 8
  Result<void> write_linear(LinearAddr address, uint64_t value, unsigned size, TlbView view);
  // Fills the TLB for `address` (fault, MMIO: see walker). The page's kind tells whether there is now an
  // entry.
  Result<PhysAddr> translate(LinearAddr address, AccessKind access, TlbView view);
  // Where the next instruction bytes come from: checks CS limit and canonical RIP, then a fetch translation.
  Result<PhysAddr> translate_fetch(LinearAddr address);

  // --- segmentation. Checks rights, limit or canonical form and adds the base (#GP or #SS on failure).
  Result<LinearAddr> linearize(SegmentIndex segment, uint64_t offset, unsigned size, AccessKind access) const;
  // Memory operand of an instruction: effective address (truncated to the address size) and linearize().
  uint64_t effective_address(const SystemInstruction& insn) const;
  uint64_t code_mask() const;   // RIP mask: 0xffff, 0xffffffff or all ones
  uint64_t stack_mask() const;  // RSP mask by SS.B or 64-bit mode
  bool long_mode() const { return state_.efer & efer::kLma; }
  bool code64() const { return state_.mode.has(ModeBits::kCode64); }
  bool protected_mode() const { return state_.mode.has(ModeBits::kProtected); }
  bool v8086() const { return state_.rflags & flag::kVm; }

  // --- ports, through the permission check of IOPL and the I/O bitmap
  uint64_t read_tsc() const;
  void attend(uint32_t bits) { state_.attention.fetch_or(bits, std::memory_order_relaxed); }

 private:
  // execute() dispatches to one function a family; each stands in the file of that name.
  Result<Outcome> execute_segment(const SystemInstruction& insn);         // segment.cpp
  Result<Outcome> execute_table_register(const SystemInstruction& insn);  // table_register.cpp
  Result<Outcome> execute_far_transfer(const SystemInstruction& insn);    // far_transfer.cpp
  Result<Outcome> execute_fast_call(const SystemInstruction& insn);  // fast_call.cpp: SYSCALL ... SYSEXIT
  Result<Outcome> execute_control_register(const SystemInstruction& insn);  // control_register.cpp, DRs too
  Result<Outcome> execute_flags(const SystemInstruction& insn);             // flags.cpp
  Result<Outcome> execute_io(const SystemInstruction& insn);                // io.cpp
  Result<Outcome> execute_processor(const SystemInstruction& insn);    // processor.cpp: CPUID, HLT, TSC ...
  Result<Outcome> execute_msr(const SystemInstruction& insn);          // msr.cpp: RDMSR, WRMSR, FS/GS base
  Result<Outcome> execute_state_image(const SystemInstruction& insn);  // state_image.cpp: FXSAVE, XSAVE ...
  Result<Outcome> execute_string(const SystemInstruction& insn);       // string.cpp
  Result<Outcome> execute_legacy(const SystemInstruction& insn);       // legacy.cpp: PUSHA, BOUND, BCD, ENTER

  VcpuState& state_;
  PhysicalMap& map_;
  SoftTlb& tlb_;
  IoBus& io_;
  const CpuModel& model_;
  PageWalker walker_;
  InterruptSource* interrupt_source_ = nullptr;
  VcpuStats stats_;
  bool triple_fault_ = false;
  bool nmi_pending_ = false;
};

}  // namespace penumbra
