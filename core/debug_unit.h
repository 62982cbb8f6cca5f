// What stops or traps the guest at an instruction, an access or a port: the guest's own breakpoints in DR0 to
// DR3 (SDM vol. 3, 17.2), and those of a debugger outside the machine, which the guest does not see.
//
// Execution breakpoints are linear addresses. The translator ends a block before each of them, so that the
// vCPU comes to Vcpu::check_breakpoint() there. Pages with watched data have no TLB entry, so that every
// access to them comes to note_access(); whoever made it looks at attention::kDebug when the instruction is
// done. Without breakpoints and watchpoints none of this costs anything, and nothing of it is left when they
// are gone.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/vcpu_state.h"
#include "mmu/page_walker.h"
#include "mmu/soft_tlb.h"
#include "mmu/watched_pages.h"

namespace penumbra {

// Told of execution breakpoints that were not there before: blocks that run across them must go. And that
// some are gone: blocks that end before them would go on.
class BreakpointListener {
 public:
  virtual ~BreakpointListener() = default;
  virtual void breakpoint_added(LinearAddr address) = 0;
  virtual void breakpoints_removed() = 0;
};

struct Watchpoint {
  LinearAddr address;
  uint64_t bytes = 1;
  bool reads = false, writes = false;
  bool operator==(const Watchpoint&) const = default;
};

// Why the debugger was called.
struct DebugStop {
  enum class Kind : uint8_t { None, Breakpoint, Watchpoint };
  Kind kind = Kind::None;
  LinearAddr address;     // of the instruction, or the first watched byte that was touched
  Watchpoint watchpoint;  // Watchpoint: the one that matched
};

class DebugUnit {
 public:
  DebugUnit(VcpuState& state, SoftTlb& tlb);
  void set_listener(BreakpointListener* listener) { listener_ = listener; }

  // --- the debugger's. vCPU thread, outside the engine.
  static constexpr unsigned kMaxWatchpoints = 32;
  void set_breakpoints(std::vector<LinearAddr> addresses);  // replaces all
  // Replaces all; at most kMaxWatchpoints.
  void set_watchpoints(std::vector<Watchpoint> watchpoints);
  // What happened since the last call.
  DebugStop take_stop();

  // --- the guest's
  void registers_changed();  // DR0 to DR3, DR7 or CR4.DE
  // DR6 bits of an instruction breakpoint that is met at `address`; 0: none.
  uint64_t instruction_traps(LinearAddr address) const;
  void note_port(uint16_t port, unsigned size);
  // DR6 bits of breakpoints that the running instruction met; their trap comes after it.
  bool trap_pending() const { return pending_traps_ != 0; }
  uint64_t take_traps();
  // The instruction faulted and will run again.
  void forget_accesses();

  // --- the translator and the core
  bool has_breakpoints() const { return !breakpoints_.empty() || guest_instructions_; }
  bool ends_block_before(LinearAddr address) const;
  bool stops_at(LinearAddr address) const;
  void note_stop(LinearAddr address);
  bool watching() const { return watched_.any(); }
  void note_access(LinearAddr address, unsigned size, bool write);
  // Whether note_access() would find something.
  bool meets(LinearAddr address, unsigned size, bool reads, bool writes) const;

 private:
  enum class Condition : uint8_t { Instruction, Write, Port, Access };  // DR7.R/W
  Condition condition(unsigned number) const {
    return static_cast<Condition>(state_.dr[7] >> (16 + number * 4) & 3);
  }
  uint64_t length(unsigned number) const;  // in bytes; of an address or a port
  bool enabled(unsigned number) const { return state_.dr[7] >> number * 2 & 3; }
  void watch_pages();
  void attend() { state_.attention.fetch_or(attention::kDebug, std::memory_order_relaxed); }

  VcpuState& state_;
  SoftTlb& tlb_;
  BreakpointListener* listener_ = nullptr;
  std::vector<LinearAddr> breakpoints_;  // sorted
  std::vector<Watchpoint> watchpoints_;
  DebugStop stop_;
  bool guest_instructions_ = false, guest_data_ = false, guest_ports_ = false;  // enabled in DR7
  std::array<uint64_t, 8> seen_{};  // debug registers at the last registers_changed()
  uint64_t pending_traps_ = 0;
  WatchedPages watched_;
};

}  // namespace penumbra
