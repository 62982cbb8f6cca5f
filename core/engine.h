// What runs guest code: the translator implements this, the machine's run loop calls it.
#pragma once

namespace penumbra {

class Engine {
 public:
  virtual ~Engine() = default;

  // Runs guest code from the vCPU's state until state().attention is not zero, and leaves all guest state
  // (vector state too) in the VcpuState. Returns at once when attention is set already. vCPU thread only.
  virtual void run() = 0;

  // Runs the one instruction at RIP, with the delivery of what it raises: afterwards RIP is at the next
  // instruction or at the handler's first. A repeated string instruction is one instruction, run to its end
  // (with EFLAGS.TF its first element is all: the #DB is delivered). Takes no interrupt, passes over a
  // debugger's breakpoint, and leaves attention to the caller, whom HLT and stop requests still reach through
  // it. vCPU thread, outside run().
  virtual void step() = 0;

  // Makes run() return soon after attention was set. Any thread; also safe while run() is not running.
  virtual void interrupt() = 0;

  // Drops every translation (reset, snapshot load). vCPU thread, outside run().
  virtual void discard_translations() = 0;
};

}  // namespace penumbra
