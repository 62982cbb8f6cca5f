#include "core/machine.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#include <cassert>
#include <new>
#include <stdexcept>
#include <utility>

namespace penumbra {

namespace {

// The default slack of 50 microseconds would delay every timer of the guest by that much.
void use_precise_timers() {
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
}

uint64_t host_wall_clock() {
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::nanoseconds(since_1970).count());
}

}  // namespace

Machine::Machine(const MachineOptions& options)
    : reboot_(options.reboot),
      on_triple_fault_(options.triple_fault.value_or(options.reboot ? MachineOptions::TripleFault::Reset
                                                                    : MachineOptions::TripleFault::Exit)),
      wall_clock_(options.wall_clock ? options.wall_clock : host_wall_clock),
      cpu_model_(options.cpu),
      map_(options.ram_bytes),
      tlb_(map_),
      clock_(options.clock_source),
      vcpu_(*state_, map_, tlb_, io_, cpu_model_) {
  events_.set_listener([this] { kick(); });
  clock_.set_deadline_listener([this] { set_alarm(); });
  map_.set_watch_listener(
      [this](PageFrame first, uint64_t frames) { tlb_.stop_writes_to_range(first, frames); });
  map_.set_change_listener([this](bool code) {
    tlb_.flush_all();
    if (code) {
      stale_translations_ = true;  // they are dropped outside translated code
      vcpu_.attend(attention::kKick);
    }
  });
}

Machine::~Machine() {
  stop_waker();
  vcpu_.set_interrupt_source(nullptr);
  engine_.reset();
  board_.reset();
}

void Machine::set_engine(std::unique_ptr<Engine> engine) {
  engine_ = std::move(engine);
}

void Machine::set_board(std::unique_ptr<Board> board) {
  board_ = std::move(board);
  vcpu_.set_interrupt_source(&board_->interrupts());
}

LineOutput Machine::interrupt_line() {
  return [this](bool level) {
    if (level) vcpu_.attend(attention::kInterrupt);
  };
}

void Machine::reset() {
  assert(engine_ && board_);
  reset_requested_ = shutdown_told_ = false;
  board_->reset();
  set_a20(true);
  vcpu_.reset();
  vcpu_.set_wall_clock_start(wall_clock_());  // the guest's TSC is 0 now
  engine_->discard_translations();
  if (boot_) boot_();
}

ExitReason Machine::run() {
  assert(engine_ && board_);
  VcpuState& state = vcpu_.state();
  use_precise_timers();
  start_waker();
  const auto began = Steady::now();
  std::optional<ExitReason> reason;
  for (;;) {
    // Cleared before the events and timers are looked at: what is added later sets it again.
    uint32_t why = state.attention.exchange(0);
    // First of all: a reset that the guest asked for before its HLT ends the halt.
    if (why & attention::kHalt) state.halted = true;
    if (why & attention::kDebug) {
      if (const DebugStop met = vcpu_.debug().take_stop(); met.kind != DebugStop::Kind::None) report(met);
    }
    events_.drain();
    if (std::exchange(stale_translations_, false)) engine_->discard_translations();
    if (paused_ || (step_ && !state.halted)) {
      held_attention_ |= why & attention::kInterrupt;
      reason = stop();
      if (reason) break;
      if (paused_) {
        wait(false);
      } else {
        run_step();
      }
      continue;
    }
    clock_.run_expired();
    // A deadline that did not move since the alarm rang (the clocks differ by a rounding) told nobody.
    if (alarm_rang_.exchange(false)) set_alarm();
    reason = stop();
    if (reason) break;
    if (paused_) continue;

    // Events and timers may have raised INTR. Kicks stay, their events were perhaps not drained yet.
    why |= state.attention.fetch_and(~attention::kInterrupt) | held_attention_;
    held_attention_ = 0;
    vcpu_.take_debug_trap();  // before interrupts (SDM vol. 3, 6.9)
    if (why & attention::kInterrupt) {
      vcpu_.take_interrupt();
      // Nothing is delivered in an interrupt shadow; the engine runs one instruction and comes back for it.
      if (state.interrupt_shadow) vcpu_.attend(attention::kInterrupt);
      if (step_ && !state.halted) {
        report({});
        continue;
      }
    }
    if (state.halted) {
      sleep();
    } else if (held_) {
      wait(true);
    } else {
      engine_->run();
    }
  }
  times_.running += Steady::now() - began;
  stop_waker();
  return *reason;
}

// What ends or restarts the machine, if anything asked for it.
std::optional<ExitReason> Machine::stop() {
  if (exit_requested_.load()) return ExitReason::Requested;
  if (vcpu_.triple_fault()) {
    if (!std::exchange(shutdown_told_, true) && triple_fault_listener_) triple_fault_listener_();
    if (on_triple_fault_ == MachineOptions::TripleFault::Exit) return ExitReason::TripleFault;
    if (on_triple_fault_ == MachineOptions::TripleFault::Stop && !reset_requested_) {
      if (!paused_) report({});
      return std::nullopt;
    }
  } else if (!reset_requested_) {
    return std::nullopt;
  }
  if (!reboot_) return ExitReason::Reset;
  ++times_.resets;
  reset();
  return std::nullopt;
}

// HLT: until an interrupt, an event or a timer. With interrupts off nothing but a reset or an NMI ends the
// halt, yet events go on.
void Machine::sleep() {
  if (idle_listener_) idle_listener_();
  const auto began = Steady::now();
  ++times_.halts;
  wait(true);
  times_.halted += Steady::now() - began;
}

// Until something asks for attention, or a timer expires.
void Machine::wait(bool timers) {
  // Before attention is looked at, while kick() looks at it after it set attention: one of both sees the
  // other.
  asleep_.store(true);
  {
    std::unique_lock lock(sleep_mutex_);
    while (vcpu_.state().attention.load() == 0) {
      const auto deadline = timers ? clock_.next_deadline() : std::nullopt;
      if (!deadline) {
        sleep_condition_.wait(lock);
        continue;
      }
      const Nanoseconds now = clock_.now();
      if (*deadline <= now) break;
      sleep_condition_.wait_for(lock, std::chrono::nanoseconds(*deadline - now));
    }
  }
  asleep_.store(false);
}

void Machine::hold(bool held) {
  held_ = held;
  vcpu_.attend(attention::kKick);
}

// --- a debugger's control

void Machine::pause() {
  step_.reset();
  if (paused_) return;
  paused_ = true;
  clock_.freeze();
  paused_tsc_ = vcpu_.read_tsc();
}

void Machine::resume() {
  if (!paused_) return;
  paused_ = false;
  clock_.thaw();
  vcpu_.state().tsc_offset += vcpu_.read_tsc() - paused_tsc_;
  set_alarm();
  vcpu_.attend(attention::kKick);
  if (resume_listener_) resume_listener_();
}

void Machine::step(LinearAddr begin, uint64_t bytes) {
  resume();
  step_ = {begin.value, bytes};
}

void Machine::report(const DebugStop& stop) {
  pause();
  if (debugger_) debugger_->stopped(stop);
}

void Machine::run_step() {
  engine_->step();
  const DebugStop met = vcpu_.debug().take_stop();
  const LinearAddr next = vcpu_.code_address();
  const bool within = next.value - step_->begin < step_->bytes && !vcpu_.debug().stops_at(next);
  if (met.kind != DebugStop::Kind::None || !within) {
    report(met);
  } else {
    vcpu_.attend(attention::kKick);
  }
}

void Machine::kick() {
  vcpu_.state().attention.fetch_or(attention::kKick);
  if (asleep_.load()) {
    // The lock: else the notification could fall between the sleeper's look at attention and its wait.
    { const std::lock_guard lock(sleep_mutex_); }
    sleep_condition_.notify_one();
  } else if (engine_) {
    engine_->interrupt();
  }
}

void Machine::request_reset() {
  reset_requested_ = true;
  vcpu_.attend(attention::kStop);
}

void Machine::request_exit(int exit_code) {
  int none = 0;
  if (!exit_requested_.load()) exit_code_.compare_exchange_strong(none, exit_code);
  exit_requested_.store(true);
  vcpu_.state().attention.fetch_or(attention::kStop);
  kick();
}

void Machine::request_quit(int exit_code) {
  quit_requested_.store(true);
  request_exit(exit_code);
}

void Machine::set_a20(bool open) {
  if (map_.a20() == open) return;
  map_.set_a20(open);
  tlb_.flush_all();
}

// --- the waker

// The alarm is what the waker waits for: the clock's next deadline in host time.
void Machine::set_alarm() {
  const auto deadline = clock_.next_deadline();
  std::optional<Steady::time_point> alarm;
  if (deadline) {
    // The virtual time is read first, so that the alarm does not ring before the deadline.
    const Nanoseconds now = clock_.now();
    const auto host_now = Steady::now();
    constexpr Nanoseconds kFar = Nanoseconds{1} << 60;  // keeps the sum within the host clock's range
    const Nanoseconds wait = *deadline <= now ? 0 : std::min(*deadline - now, kFar);
    alarm = host_now + std::chrono::nanoseconds(wait);
  }
  bool sooner;
  {
    const std::lock_guard lock(alarm_mutex_);
    sooner = alarm && (!alarm_ || *alarm < *alarm_);
    alarm_ = alarm;
  }
  // For a later deadline the waker is left asleep: it sees the new one when the old one has passed.
  if (sooner) alarm_condition_.notify_one();
}

void Machine::start_waker() {
  waker_stops_ = false;
  set_alarm();
  waker_ = std::thread([this] { waker(); });
}

void Machine::stop_waker() {
  if (!waker_.joinable()) return;
  {
    const std::lock_guard lock(alarm_mutex_);
    waker_stops_ = true;
  }
  alarm_condition_.notify_one();
  waker_.join();
}

void Machine::waker() {
  use_precise_timers();
  std::unique_lock lock(alarm_mutex_);
  while (!waker_stops_) {
    if (!alarm_) {
      alarm_condition_.wait(lock);
    } else if (Steady::now() < *alarm_) {
      alarm_condition_.wait_until(lock, Steady::time_point(*alarm_));
    } else {
      alarm_.reset();
      alarm_rang_.store(true);
      // A sleeping vCPU waits for the same deadline by itself, and runs its timers when it wakes.
      if (asleep_.load()) continue;
      lock.unlock();
      ++times_.wakes;
      kick();
      lock.lock();
    }
  }
}

}  // namespace penumbra
