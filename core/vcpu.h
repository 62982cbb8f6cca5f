// One virtual CPU: everything about the guest's processor that is not running its innocuous instructions.
//
// Runs on one thread. All functions here are "light" (core/README.md): they leave the host's x87 and vector
// registers, which hold the guest's, alone; calls that leave the core (devices) go through HostVectorScope.
#pragma once

#include <array>
#include <cstdint>

#include "core/cpu_model.h"
#include "core/debug_unit.h"
#include "core/exception.h"
#include "core/interrupt_source.h"
#include "core/model_registers.h"
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
  bool software;  // INT n, INT3, INTO; interrupt is set, too
  bool external;  // INTR, from the interrupt controller; interrupt is set, too
  bool has_error_code;
  bool lost;  // never delivered: a double fault or shutdown took its place
  uint8_t cpl;
  int16_t during;  // the exception whose delivery raised this one, or kNoException
  uint32_t error_code;
  uint64_t cs, rip, rsp, cr2;

  static constexpr int16_t kNoException = -1;
};

// Told at the end of every Vcpu::update_mode(): state().mode and tlb_view may have changed. Light code.
class ModeListener {
 public:
  virtual ~ModeListener() = default;
  virtual void mode_changed() = 0;
};

// Told of every exception and interrupt before it is delivered; the vCPU's state is still the interrupted
// one. Any code: called in a HostVectorScope.
class EventListener {
 public:
  virtual ~EventListener() = default;
  virtual void event_delivered(const EventRecord& event) = 0;
};

struct Descriptor;  // core/descriptor.h
enum class TaskSwitchSource : uint8_t { Jump, Call, Iret };

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
  DebugUnit& debug() { return debug_; }
  void set_interrupt_source(InterruptSource* source);
  uint64_t cr8() const;  // the upper half of the local APIC's task priority, where there is one
  void set_mode_listener(ModeListener* listener) { mode_listener_ = listener; }
  void set_event_listener(EventListener* listener) { event_listener_ = listener; }

  // The last exceptions and interrupts delivered; age 0 is the latest. At most kEventRecords.
  static constexpr unsigned kEventRecords = 16;
  unsigned event_count() const;
  const EventRecord& event(unsigned age) const;

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
  // EFLAGS.IF went from 0 to 1, the interrupt shadow ended or NMIs were unblocked: asks for take_interrupt()
  // when something is known to wait. Whoever raises INTR sets attention::kInterrupt, so that a request that
  // take_interrupt() could not deliver is known here without asking the device.
  void interrupts_opened() {
    if (interrupt_waiting_ || nmi_pending_) attend(attention::kInterrupt);
  }
  bool triple_fault() const { return triple_fault_; }

  // What DebugUnit has for the instruction at RIP, before it runs.
  enum class BreakpointVerdict : uint8_t {
    Run,      // nothing
    RunOne,   // nothing, but RF ends with this instruction (SDM vol. 3, 17.3.1.1)
    Trapped,  // #DB was delivered
    Stopped,  // a debugger's breakpoint: DebugUnit::take_stop()
  };
  // `may_stop` off: a debugger's breakpoints are passed over.
  BreakpointVerdict check_breakpoint(bool may_stop);
  // For a debugger: what MOV to the register does at CPL 0, at no instruction.
  Result<void> set_control_register(unsigned number, uint64_t value);
  Result<void> set_debug_register(unsigned number, uint64_t value) { return write_dr(number, value); }
  // Loads the descriptor with the checks of MOV, for CS those of a far JMP to where RIP is.
  Result<void> set_segment_register(SegmentIndex index, uint16_t selector);
  // Delivers the #DB of data and port breakpoints that the last instruction met; true if there was one.
  bool take_debug_trap();

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
  // The same walk, without the software TLB.
  std::expected<Translation, PageFault> walk(LinearAddr address, AccessKind access, TlbView view) {
    return walker_.walk(paging_state(), address, access, privilege_of(view));
  }
  // What walk() for reading would find; nothing where it would set an accessed bit, or fault.
  std::optional<Translation> foresee(LinearAddr address, TlbView view) {
    return walker_.foresee(paging_state(), address, privilege_of(view));
  }
  // Where the next instruction bytes come from: checks CS limit and canonical RIP, then a fetch translation.
  Result<PhysAddr> translate_fetch(LinearAddr address);

  // Whether a near branch there raises no #GP: within the CS limit, or canonical.
  bool may_jump_to(uint64_t rip) const;

  // --- segmentation. Checks rights, limit or canonical form and adds the base (#GP or #SS on failure).
  Result<LinearAddr> linearize(SegmentIndex segment, uint64_t offset, unsigned size, AccessKind access) const;
  // Memory operand of an instruction: effective address (truncated to the address size) and linearize().
  uint64_t effective_address(const SystemInstruction& insn) const;
  LinearAddr code_address() const;  // linear address of RIP
  uint64_t code_mask() const;       // RIP mask: 0xffff, 0xffffffff or all ones
  uint64_t stack_mask() const;      // RSP mask by SS.B or 64-bit mode
  bool long_mode() const { return state_.efer & efer::kLma; }
  bool code64() const { return state_.mode.has(ModeBits::kCode64); }
  bool protected_mode() const { return state_.mode.has(ModeBits::kProtected); }
  bool v8086() const { return state_.rflags & flag::kVm; }

  // --- ports, through the permission check of IOPL and the I/O bitmap
  // The guest's TSC: the host's minus VcpuState::tsc_offset.
  uint64_t read_tsc() const;

  // --- model-specific registers, as RDMSR and WRMSR at CPL 0 reach them; #GP for unknown ones (counted)
  Result<uint64_t> read_msr(uint32_t index);
  Result<void> write_msr(uint32_t index, uint64_t value);
  // Wall time when the guest's TSC was 0, for the paravirtual clock: nanoseconds since 1970.
  void set_wall_clock_start(uint64_t nanoseconds) { wall_clock_start_ = nanoseconds; }

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

  // --- memory_access.cpp
  Result<void> read_slow(LinearAddr address, std::byte* to, unsigned size, TlbView view);
  Result<void> write_slow(LinearAddr address, const std::byte* from, unsigned size, TlbView view);
  LinearAddr wrap(uint64_t linear) const { return {long_mode() ? linear : linear & 0xffff'ffff}; }
  // Stack of the current privilege. push() leaves RSP alone on failure; pop() is read_stack() and drop().
  // #AC is armed and `bytes`, a power of two, do not lie at a multiple of themselves.
  bool misaligned(LinearAddr address, unsigned bytes) const {
    return state_.mode.has(ModeBits::kAlignment) && address.value & (bytes - 1);
  }
  Result<void> push(uint64_t value, unsigned bytes);
  Result<uint64_t> read_stack(uint64_t offset, unsigned bytes);  // at SP + offset
  void drop(uint64_t bytes) { set_sp(state_.gpr[kRsp] + bytes); }
  void set_sp(uint64_t value);  // only the bits of stack_mask()
  // Items of `bytes` each from SP + offset up, as that many pops would read them.
  static constexpr unsigned kMaxFrameItems = 36;  // call gate: SS, SP, 31 parameters, CS, IP
  Result<void> read_stack_frame(uint64_t offset, uint64_t* values, unsigned count, unsigned bytes);
  // Pushes `values` in order on a stack that need not be the current one; returns the new SP (masked).
  struct StackTarget {
    Segment segment;
    uint64_t mask;
    TlbView view;
    uint32_t error_code;          // of the #SS when there is no room
    bool same_privilege = false;  // the pushes are the program's own: #AC if it is armed
  };
  std::unexpected<Exception> first_push_fault(LinearAddr top, unsigned count, unsigned bytes, TlbView view,
                                              const Exception& fault);
  Result<uint64_t> write_frame(const StackTarget& stack, uint64_t sp, const uint64_t* values, unsigned count,
                               unsigned bytes);

  // For translated code: entries of the current privilege and address space.
  void select_view() {
    const TlbView view = current_view();
    state_.tlb_view = tlb_.view(view);
    tlb_.select_windows(state_.windows, view,
                        code64() ? ShadowWindows::Width::Bits64 : ShadowWindows::Width::Bits32);
  }

  // --- segment.cpp
  Result<uint16_t> read_operand16(const SystemInstruction& insn);  // r/m16
  struct FarPointer {
    uint64_t offset = 0;
    uint16_t selector = 0;
  };
  Result<uint64_t> read_operand(const SystemInstruction& insn, unsigned at,
                                unsigned bytes);                       // at memory + at
  Result<FarPointer> read_far_pointer(const SystemInstruction& insn);  // m16:16 to m16:64
  Result<void> write_operand16(const SystemInstruction& insn,
                               uint16_t value);                  // m16; register: zero-extended
  void write_gpr(unsigned reg, uint64_t value, unsigned bytes);  // 4 bytes zero-extend, 1 and 2 merge
  bool find_descriptor(uint16_t selector, unsigned bytes,
                       LinearAddr& address) const;  // false: beyond the limit
  // Raises `vector` (#GP or #TS) with the selector when it is beyond its table.
  Result<Descriptor> read_descriptor(uint16_t selector, uint8_t vector, uint32_t external = 0);
  Result<uint64_t> read_descriptor_upper(uint16_t selector, uint8_t vector);  // of a 16-byte one, long mode
  Result<void> set_accessed(Descriptor& descriptor);
  Result<void> set_descriptor_type(const Descriptor& descriptor, unsigned type);
  Result<Segment> check_data_segment(SegmentIndex index, uint16_t selector);
  Result<Segment> check_stack_segment(uint16_t selector, unsigned cpl, uint8_t vector, uint32_t external);
  Result<void> load_segment(SegmentIndex index, uint16_t selector);
  static Segment real_segment(const Segment& old, uint16_t selector);
  static Segment v8086_segment(uint16_t selector);
  Result<Outcome> examine_selector(const SystemInstruction& insn);  // LAR, LSL, VERR, VERW
  Outcome advance(const SystemInstruction& insn);                   // RIP to the next instruction: Next
  void drop_privileged_segments();  // data segments that the new, outer CPL may not use become null

  // --- table_register.cpp
  Result<Outcome> store_table_register(const SystemInstruction& insn);
  Result<Outcome> load_table_register(const SystemInstruction& insn);
  Result<Outcome> load_system_segment(const SystemInstruction& insn);  // LLDT, LTR
  Result<Segment> check_ldt(uint16_t selector, uint8_t vector);

  // --- control_register.cpp: what MOV CR0 and MOV CR3 do, for LMSW and task switches too
  Result<void> write_cr0(uint64_t value);
  Result<void> write_cr3(uint64_t value);
  Result<void> write_cr4(uint64_t value);
  Result<void> write_dr(unsigned number, uint64_t value);
  Result<void> load_pdptes(uint64_t cr3);  // #GP for reserved bits, loading nothing

  // --- flags.cpp
  Result<Outcome> push_flags(const SystemInstruction& insn);
  Result<Outcome> pop_flags(const SystemInstruction& insn);
  Result<Outcome> clear_interrupt_flag(const SystemInstruction& insn);
  Result<Outcome> set_interrupt_flag(const SystemInstruction& insn);

  // --- io.cpp
  Result<void> check_port(uint16_t port, unsigned size);  // IOPL and the I/O permission bitmap
  uint32_t read_port(uint16_t port, unsigned size);
  void write_port(uint16_t port, unsigned size, uint32_t value);
  Result<Outcome> string_io(const SystemInstruction& insn);

  // --- processor.cpp
  void identify();  // CPUID
  Result<Outcome> invalidate_pcid(const SystemInstruction& insn);
  Result<Outcome> fpu_unavailable(const SystemInstruction& insn);

  // --- msr.cpp
  void reset_msrs();
  std::unexpected<Exception> unknown_msr(uint32_t index, bool write);
  Result<void> write_efer(uint64_t value);
  Result<void> write_kvm_system_time(uint64_t value);
  Result<void> write_kvm_wall_clock(uint64_t value);
  void write_physical(PhysAddr address, unsigned size, uint64_t value);
  uint64_t* stored_msr(uint32_t index);

  // --- state_image.cpp
  Result<Outcome> fxsave(const SystemInstruction& insn);
  Result<Outcome> fxrstor(const SystemInstruction& insn);
  Result<Outcome> xsave(const SystemInstruction& insn);
  Result<Outcome> xrstor(const SystemInstruction& insn);
  Result<Outcome> read_xcr();   // XGETBV
  Result<Outcome> write_xcr();  // XSETBV
  Result<LinearAddr> image_address(const SystemInstruction& insn, unsigned size, AccessKind access) const;
  Result<void> write_image(LinearAddr address, unsigned size);  // from VcpuState::callout_buffer

  // --- string.cpp
  struct StringRun;
  Result<void> string_step(StringRun& run);
  Result<void> string_element(StringRun& run);
  Result<LinearAddr> string_address(const StringRun& run, bool source, AccessKind access) const;
  Result<unsigned> string_host(StringRun& run, bool source, unsigned wanted, AccessKind access);

  // --- legacy.cpp
  Result<Outcome> enter(const SystemInstruction& insn);
  Result<Outcome> push_all(const SystemInstruction& insn);
  Result<Outcome> pop_all(const SystemInstruction& insn);
  Result<Outcome> bound(const SystemInstruction& insn);

  // --- far_transfer.cpp
  Result<void> check_offset(const Descriptor& code, uint64_t offset) const;
  Result<void> check_jump_code(const Descriptor& code, uint16_t selector, uint64_t offset) const;
  Result<Descriptor> check_return_code(uint16_t selector);
  Result<Segment> check_return_stack(uint16_t selector, const Descriptor& code, unsigned cpl);
  Result<Outcome> transfer_real(const SystemInstruction& insn, uint16_t selector, uint64_t offset);
  Result<Outcome> transfer_far(const SystemInstruction& insn);  // CALL and JMP
  Result<Outcome> transfer_gate(const SystemInstruction& insn, uint16_t selector, const Descriptor& gate);
  Result<Outcome> transfer_task(const SystemInstruction& insn, uint16_t selector);
  Result<Outcome> return_far(const SystemInstruction& insn);
  Result<Outcome> iret(const SystemInstruction& insn);
  Result<Outcome> iret_real(const SystemInstruction& insn);
  Result<Outcome> iret_to_v8086(const uint64_t (&frame)[9]);
  void return_to(const Descriptor& code, uint16_t selector, uint64_t offset);
  void load_flags(uint64_t value, uint64_t mask);  // IRET
  void unblock_nmi();

  // --- exception.cpp
  struct Event;  // core/event.h
  Result<void> inject(const Event& event);
  Result<void> inject_real(const Event& event);
  Result<void> inject_protected(const Event& event);
  Result<void> inject_long(const Event& event);
  Result<Outcome> software_interrupt(const SystemInstruction& insn, uint8_t vector);
  void deliver_event(Event event);
  void record(const Event& event, int16_t during = EventRecord::kNoException, bool lost = false);
  Event exception_event(const Exception& exception);
  Result<bool> redirect_v8086_interrupt(const Event& event);
  struct TssStack {
    Segment segment;
    uint64_t sp = 0;
  };
  Result<TssStack> read_tss_stack(unsigned cpl, uint32_t external);
  Result<uint64_t> read_tss64_stack(unsigned offset, uint32_t external);

  // --- task_switch.cpp
  struct TaskSwitch {
    uint16_t selector = 0;
    TaskSwitchSource source = TaskSwitchSource::Jump;
    uint32_t external = 0;  // EXT bit of error codes
    bool has_error_code = false;
    uint32_t error_code = 0;  // pushed on the new task's stack
    uint64_t return_rip = 0;  // saved in the old task
    uint64_t flags = 0;       // likewise
  };
  // A fault found after the point of no return is raised in the new task's context: state() is the new
  // task's.
  Result<void> switch_task(const TaskSwitch& request);
  Result<void> load_task_segments(const uint16_t (&selectors)[6], uint16_t ldt, uint32_t external);

  VcpuState& state_;
  PhysicalMap& map_;
  SoftTlb& tlb_;
  IoBus& io_;
  const CpuModel& model_;
  PageWalker walker_;
  DebugUnit debug_;
  InterruptSource* interrupt_source_ = nullptr;
  ProcessorApic* apic_ = nullptr;
  VcpuStats stats_;
  bool triple_fault_ = false;
  bool nmi_pending_ = false;
  bool interrupt_waiting_ = false;  // INTR was pending when take_interrupt() last looked
  bool amd_ = false;                // the CPU model calls itself AMD
  ModeListener* mode_listener_ = nullptr;
  EventListener* event_listener_ = nullptr;
  ModelRegisters msrs_;
  uint64_t wall_clock_start_ = 0;
  uint64_t monitored_events_ = 0;  // exceptions and interrupts delivered when MONITOR ran
  bool monitoring_ = false;        // MONITOR ran and MWAIT did not yet
  std::array<EventRecord, kEventRecords> events_{};
  uint64_t event_total_ = 0;
};

}  // namespace penumbra
