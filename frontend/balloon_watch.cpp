#include "frontend/balloon_watch.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

namespace penumbra {

namespace {

constexpr Nanoseconds kSecond = 1'000'000'000;

// By tag.
constexpr std::array<const char*, VirtioBalloon::kStatistics> kNames = {
    "stat-swap-in",      "stat-swap-out",     "stat-major-faults",     "stat-minor-faults",
    "stat-free-memory",  "stat-total-memory", "stat-available-memory", "stat-disk-caches",
    "stat-htlb-pgalloc", "stat-htlb-pgfail"};

}  // namespace

BalloonWatch::BalloonWatch(VirtualClock& clock, VirtioBalloon& balloon, std::function<void()> changed)
    : clock_(clock),
      balloon_(balloon),
      changed_(std::move(changed)),
      tell_timer_(clock, [this] { tell(); }),
      ask_timer_(clock, [this] { ask(); }) {
  balloon_.set_size_listener([this] {
    if (tell_timer_.armed()) return;
    tell_timer_.arm(told_ ? std::max(clock_.now(), *told_ + kSecond) : clock_.now());
  });
  balloon_.set_statistics_listener([this] { answered(); });
}

BalloonWatch::~BalloonWatch() {
  balloon_.set_size_listener({});
  balloon_.set_statistics_listener({});
}

void BalloonWatch::tell() {
  if (std::exchange(told_size_, balloon_.held()) == balloon_.held()) return;
  told_ = clock_.now();
  changed_();
}

void BalloonWatch::set_interval(uint32_t seconds) {
  const uint32_t before = std::exchange(interval_, seconds);
  if (seconds == before) return;
  if (seconds == 0) return ask_timer_.cancel();
  ask_timer_.arm(clock_.now() + (before == 0 ? 0 : seconds * kSecond));
}

void BalloonWatch::ask() {
  if (!balloon_.request_statistics()) ask_timer_.arm(clock_.now() + interval_ * kSecond);
}

void BalloonWatch::answered() {
  last_update_ = std::time(nullptr);
  if (interval_ != 0) ask_timer_.arm(clock_.now() + interval_ * kSecond);
}

nlohmann::json BalloonWatch::statistics() const {
  nlohmann::json named;
  for (size_t tag = 0; tag < kNames.size(); ++tag) named[kNames[tag]] = balloon_.statistics()[tag];
  return {{"stats", std::move(named)}, {"last-update", last_update_}};
}

}  // namespace penumbra
