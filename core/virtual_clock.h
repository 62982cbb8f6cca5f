// The machine's one clock, and the timers on it. Devices never read wall time.
//
// In normal mode it follows host time (CLOCK_MONOTONIC) from the machine's start. Not thread safe except
// where said: everything runs on the vCPU thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace penumbra {

using Nanoseconds = uint64_t;  // since the machine started

class VirtualClock;

// One pending event at most. Owned by a device; must not outlive its clock.
class Timer {
 public:
  Timer(VirtualClock& clock, std::function<void()> on_expiry);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void arm(Nanoseconds deadline);  // replaces an earlier deadline; one in the past expires at the next chance
  void cancel();
  bool armed() const { return armed_; }
  Nanoseconds deadline() const { return deadline_; }

 private:
  friend class VirtualClock;
  VirtualClock& clock_;
  std::function<void()> on_expiry_;
  Nanoseconds deadline_ = 0;
  uint64_t round_ = 0;  // call of run_expired() in which it last expired
  bool armed_ = false;
};

class VirtualClock {
 public:
  // Source of time; tests and the deterministic mode pass their own. Default: CLOCK_MONOTONIC.
  using Source = std::function<Nanoseconds()>;
  explicit VirtualClock(Source source = {});

  Nanoseconds now() const { return frozen_ ? *frozen_ : source_() - start_; }

  // Time stands still between the two.
  void freeze();
  void thaw();

  // Deadline of the earliest armed timer.
  std::optional<Nanoseconds> next_deadline() const { return earliest_; }

  // Calls, in order of their deadlines, every timer whose deadline has passed; each of them once.
  void run_expired();

  // Called whenever the earliest deadline changes (so that a waiter can be told).
  void set_deadline_listener(std::function<void()> listener) { deadline_listener_ = std::move(listener); }

 private:
  friend class Timer;
  void changed();
  Source source_;
  Nanoseconds start_ = 0;
  std::optional<Nanoseconds> frozen_;
  std::vector<Timer*> timers_;
  std::optional<Nanoseconds> earliest_;
  uint64_t round_ = 0;
  std::function<void()> deadline_listener_;
};

}  // namespace penumbra
