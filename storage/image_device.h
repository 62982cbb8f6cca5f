// A disk image as the board's disk: requests run on threads of their own, and end on the vCPU's thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/event_queue.h"
#include "devices/block_device.h"
#include "storage/disk_image.h"

namespace penumbra {

class ImageDevice final : public BlockDevice {
 public:
  ImageDevice(std::unique_ptr<DiskImage> image, EventQueue& events);
  ~ImageDevice() override;

  // Ends the threads; requests that have not ended by then never will. Before the queue is destroyed.
  void stop();

  uint64_t bytes() const override { return image_->bytes(); }
  bool read_only() const override { return image_->read_only(); }
  bool discards() const override { return image_->discards(); }
  void submit(std::unique_ptr<BlockRequest> request) override;

 private:
  using Request = std::unique_ptr<BlockRequest>;
  int refusal(const BlockRequest& request) const;
  void work();
  int run(BlockRequest& request);
  void tell(std::unique_lock<std::mutex>& lock);
  void finish();

  std::unique_ptr<DiskImage> image_;
  EventQueue& events_;
  std::mutex mutex_;
  std::condition_variable work_condition_, idle_condition_;
  std::deque<Request> waiting_;  // guarded by mutex_
  std::vector<Request> ended_;   // guarded by mutex_
  unsigned running_ = 0;         // guarded by mutex_
  bool flushing_ = false;        // guarded by mutex_: a Flush runs, or waits for what runs
  bool told_ = false;            // guarded by mutex_: an event for `ended_` is in the queue
  bool stops_ = false;           // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace penumbra
