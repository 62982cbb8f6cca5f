// Runs a program on the bare CPU, in ring 3 of this process, until an instruction faults (HLT does).
//
// Entry: XRSTOR, segment bases, general registers, IRETQ to the 64- or 32-bit user code segment.
// Exit: the fault's signal; its frame holds all state. The handler continues in the C++ caller.
#pragma once

#include <atomic>

#include "tests/fuzzer/machine_state.h"

namespace penumbra::fuzz {

class NativeMachine {
 public:
  NativeMachine();  // one a process
  ~NativeMachine();
  NativeMachine(const NativeMachine&) = delete;
  NativeMachine& operator=(const NativeMachine&) = delete;

  // Must follow the translator's first run: it installs its fault handlers once, and these hand on to them.
  void install_handlers();

  // The host lets programs have segments of their own: without them there is no 16-bit code.
  bool has_ldt() const { return has_ldt_; }

  Outcome run(const Program& program);
  std::span<const std::byte> memory() const { return {view_, area::kBytes}; }

  // Called every 10 ms while anything runs; the number of ticks since the start of the process.
  void set_tick(void (*tick)()) { tick_ = tick; }
  // Called when a host fault is nobody's.
  void set_crash(void (*crash)()) { crash_ = crash; }

 private:
  friend int on_signal(int signal, void* info, void* context);
  void load_ldt();
  std::byte* view_ = nullptr;
  std::byte* launch_stack_ = nullptr;
  bool has_ldt_ = false;
  void (*tick_)() = nullptr;
  void (*crash_)() = nullptr;
};

}  // namespace penumbra::fuzz
