// What monitors tell of a memory balloon: that its size changed, and what the guest's driver says of its
// memory, which is asked for again and again. vCPU thread.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "core/virtual_clock.h"
#include "devices/virtio_balloon.h"

namespace penumbra {

class BalloonWatch {
 public:
  // `changed` is told of a new size at most once a second, as QEMU does it: a guest makes thousands of steps.
  BalloonWatch(VirtualClock& clock, VirtioBalloon& balloon, std::function<void()> changed);
  ~BalloonWatch();
  BalloonWatch(const BalloonWatch&) = delete;
  BalloonWatch& operator=(const BalloonWatch&) = delete;

  VirtioBalloon& balloon() { return balloon_; }

  // Seconds between two questions; 0: none is asked.
  void set_interval(uint32_t seconds);
  uint32_t interval() const { return interval_; }
  nlohmann::json statistics() const;  // QMP's guest-stats

 private:
  void tell();
  void ask();
  void answered();

  VirtualClock& clock_;
  VirtioBalloon& balloon_;
  const std::function<void()> changed_;
  Timer tell_timer_, ask_timer_;
  std::optional<Nanoseconds> told_;  // when last
  uint64_t told_size_ = 0;
  uint32_t interval_ = 0;
  int64_t last_update_ = 0;  // Unix seconds
};

}  // namespace penumbra
