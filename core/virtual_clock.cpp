#include "core/virtual_clock.h"

#include <time.h>

#include <algorithm>

namespace penumbra {

namespace {
Nanoseconds host_monotonic() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<Nanoseconds>(time.tv_sec) * 1'000'000'000 + static_cast<Nanoseconds>(time.tv_nsec);
}
}  // namespace

Timer::Timer(VirtualClock& clock, std::function<void()> on_expiry)
    : clock_(clock), on_expiry_(std::move(on_expiry)) {
  clock_.timers_.push_back(this);
}

Timer::~Timer() {
  std::erase(clock_.timers_, this);
  clock_.changed();
}

void Timer::arm(Nanoseconds deadline) {
  if (armed_ && deadline_ == deadline) return;
  deadline_ = deadline;
  armed_ = true;
  clock_.changed();
}

void Timer::cancel() {
  if (!armed_) return;
  armed_ = false;
  clock_.changed();
}

VirtualClock::VirtualClock(Source source) : source_(source ? std::move(source) : host_monotonic) {
  start_ = source_();
}

void VirtualClock::freeze() {
  if (!frozen_) frozen_ = now();
}

void VirtualClock::thaw() {
  if (!frozen_) return;
  start_ = source_() - *frozen_;
  frozen_.reset();
}

void VirtualClock::run_expired() {
  const Nanoseconds until = now();
  if (!earliest_ || *earliest_ > until) return;
  // A timer that arms itself for the past waits for the next call: a device that is late without end would
  // keep the guest from running otherwise.
  round_++;
  for (;;) {
    Timer* next = nullptr;
    for (Timer* timer : timers_) {
      if (!timer->armed_ || timer->deadline_ > until || timer->round_ == round_) continue;
      if (!next || timer->deadline_ < next->deadline_) next = timer;
    }
    if (!next) break;
    next->armed_ = false;
    next->round_ = round_;
    // The list is searched anew each time, since a callback may arm, cancel, make and destroy timers.
    next->on_expiry_();
  }
  changed();
}

void VirtualClock::changed() {
  std::optional<Nanoseconds> earliest;
  for (const Timer* timer : timers_) {
    if (timer->armed_ && (!earliest || timer->deadline_ < *earliest)) earliest = timer->deadline_;
  }
  if (earliest == earliest_) return;
  earliest_ = earliest;
  if (deadline_listener_) deadline_listener_();
}

}  // namespace penumbra
