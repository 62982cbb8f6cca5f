// A machine: one vCPU with its memory, clock and ports, the board it sits in, and the loop that runs them.
//
// Everything happens on the thread that calls run(), but for what is marked "any thread". A second thread,
// the waker, sleeps until the clock's next deadline and interrupts guest code then.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "core/board.h"
#include "core/cpu_model.h"
#include "core/debugger.h"
#include "core/engine.h"
#include "core/event_queue.h"
#include "core/io_bus.h"
#include "core/machine_control.h"
#include "core/vcpu.h"
#include "core/vcpu_state.h"
#include "core/virtual_clock.h"
#include "mmu/physical_map.h"
#include "mmu/soft_tlb.h"

namespace penumbra {

struct MachineOptions {
  uint64_t ram_bytes = uint64_t{512} << 20;  // multiple of 4 KiB, at least 1 MiB
  std::string cpu = "max";                   // see CpuModel
  bool reboot = true;                        // a reset starts the machine anew; else it ends run()
  // On shutdown: Stop pauses the machine, from which only a reset or an exit leads.
  enum class TripleFault : uint8_t { Reset, Exit, Stop };
  std::optional<TripleFault> triple_fault;    // nothing: as `reboot` says
  VirtualClock::Source clock_source;          // empty: the host's monotonic clock
  std::function<uint64_t()> wall_clock = {};  // nanoseconds since 1970; empty: the host's real-time clock
};

// Why run() returned.
enum class ExitReason : uint8_t {
  Requested,    // request_exit(): see exit_code()
  Reset,        // the guest asked for a reset and MachineOptions::reboot is off
  TripleFault,  // shutdown (SDM vol. 3, 6.15) and MachineOptions asks for Exit
};

class Machine final : public MachineControl {
 public:
  // Throws std::runtime_error when the host refuses the memory, std::invalid_argument for the CPU's name.
  explicit Machine(const MachineOptions& options);
  ~Machine() override;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  PhysicalMap& map() { return map_; }
  SoftTlb& tlb() { return tlb_; }
  Vcpu& vcpu() { return vcpu_; }
  VirtualClock& clock() { return clock_; }
  IoBus& io() { return io_; }
  EventQueue& events() { return events_; }
  const CpuModel& cpu_model() const { return cpu_model_; }

  // Both must be set before reset() and run().
  void set_engine(std::unique_ptr<Engine> engine);
  void set_board(std::unique_ptr<Board> board);

  // For the board: the INTR pin. Only the rising edge matters, the vCPU looks at InterruptSource::pending().
  LineOutput interrupt_line();

  // Called at the end of every reset: puts images into memory and sets the state in which they start.
  void set_boot(std::function<void()> boot) { boot_ = std::move(boot); }
  // Called before the machine sleeps because the vCPU halted.
  void set_idle_listener(std::function<void()> listener) { idle_listener_ = std::move(listener); }
  // Called when the vCPU shut down, before anything is reset.
  void set_triple_fault_listener(std::function<void()> listener) {
    triple_fault_listener_ = std::move(listener);
  }

  // Chips, vCPU, A20 gate and translations as after power-on, then the boot function. RAM stays.
  void reset();

  // Runs the guest from the vCPU's state.
  ExitReason run();
  int exit_code() const { return exit_code_.load(); }

  // --- for a debugger; vCPU thread, in an event or before run(). While the machine is paused no guest code
  // runs, its clocks stand still, and events go on. Reset and exit work.
  void set_debugger(Debugger* debugger) { debugger_ = debugger; }
  void pause();
  void resume();
  // Called when the machine goes on after a pause.
  void set_resume_listener(std::function<void()> listener) { resume_listener_ = std::move(listener); }
  bool paused() const { return paused_; }  // any thread
  // Runs one instruction without taking interrupts, and more as long as their linear address is in
  // [begin, begin + bytes), then pauses and tells the debugger. A halted vCPU waits for its interrupt.
  void step(LinearAddr begin, uint64_t bytes);

  // vCPU thread. While the machine is held no guest code runs, but for a debugger's steps; time, timers and
  // events go on. For a guest that is faster than whoever takes its output.
  void hold(bool held);

  // Any thread: makes the run loop look at its events and timers soon. The queue's posts do this.
  void kick();

  // Any thread: request_exit(), asked for by a person, who does not wait for output that nobody takes.
  void request_quit(int exit_code);
  bool quit_requested() const { return quit_requested_.load(); }

  // MachineControl
  void request_reset() override;
  void request_exit(int exit_code) override;  // any thread; the first one counts
  void request_nmi() override { vcpu_.request_nmi(); }
  void set_a20(bool open) override;

  struct Times {
    std::chrono::nanoseconds running{0};  // in run(), halts included
    std::chrono::nanoseconds halted{0};
    uint64_t halts = 0;   // sleeps
    uint64_t wakes = 0;   // kicks by the waker
    uint64_t resets = 0;  // after the first
  };
  const Times& times() const { return times_; }

 private:
  using Steady = std::chrono::steady_clock;

  std::optional<ExitReason> stop();
  void sleep();
  void wait(bool timers);
  void run_step();
  void report(const DebugStop& stop);
  void start_waker();
  void stop_waker();
  void waker();
  void set_alarm();

  const bool reboot_;
  const MachineOptions::TripleFault on_triple_fault_;
  const std::function<uint64_t()> wall_clock_;
  CpuModel cpu_model_;
  PhysicalMap map_;
  SoftTlb tlb_;
  std::unique_ptr<VcpuState> state_ = std::make_unique<VcpuState>();
  IoBus io_;
  VirtualClock clock_;
  EventQueue events_;
  Vcpu vcpu_;
  std::unique_ptr<Board> board_;    // its timers need the clock
  std::unique_ptr<Engine> engine_;  // listens to vCPU, TLB and map

  std::function<void()> boot_, idle_listener_, triple_fault_listener_, resume_listener_;
  bool reset_requested_ = false;
  bool shutdown_told_ = false;
  bool stale_translations_ = false;
  std::atomic<bool> exit_requested_{false};
  std::atomic<bool> quit_requested_{false};
  std::atomic<int> exit_code_{0};
  Times times_;

  Debugger* debugger_ = nullptr;
  std::atomic<bool> paused_{false};
  uint64_t paused_tsc_ = 0;
  uint32_t held_attention_ = 0;  // for interrupts that wait until guest code runs freely
  struct Range {
    uint64_t begin = 0, bytes = 0;
  };
  std::optional<Range> step_;

  bool held_ = false;

  // The vCPU's thread sleeps here while halted, held or paused.
  std::atomic<bool> asleep_{false};
  std::mutex sleep_mutex_;
  std::condition_variable sleep_condition_;

  std::thread waker_;
  std::mutex alarm_mutex_;
  std::condition_variable alarm_condition_;
  std::optional<Steady::time_point> alarm_;  // guarded by alarm_mutex_
  bool waker_stops_ = false;                 // guarded by alarm_mutex_
  std::atomic<bool> alarm_rang_{false};
};

}  // namespace penumbra
