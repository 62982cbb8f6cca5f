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
#include "storage/completions.h"
#include "storage/disk_image.h"

namespace penumbra {

// QEMU's rerror= and werror=: what becomes of a request that the host could not do.
struct ErrorPolicy {
  enum class Action : uint8_t {
    Report,   // the guest sees it
    Ignore,   // the guest is told that all went well
    Stop,     // the request is kept, and done again by retry(); the listener pauses the machine
    NoSpace,  // Stop when the host has no room for it, else Report
  };
  Action read = Action::Report, write = Action::NoSpace;
};

class ImageDevice final : public BlockDevice {
 public:
  ImageDevice(std::unique_ptr<DiskImage> image, EventQueue& events, ErrorPolicy policy = {});
  ~ImageDevice() override;

  // Told of every request that is kept, on the vCPU's thread.
  using StopListener = std::function<void(const BlockRequest& request)>;
  void set_stop_listener(StopListener listener) { stop_listener_ = std::move(listener); }
  // Does again what was kept. vCPU thread.
  void retry();

  // Ends the threads; requests that have not ended by then never will. Before the queue is destroyed.
  void stop();

  std::string_view format() const { return image_->format(); }
  uint64_t bytes() const override { return image_->bytes(); }
  bool read_only() const override { return image_->read_only(); }
  bool discards() const override { return image_->discards(); }
  void submit(std::unique_ptr<BlockRequest> request) override;

 private:
  using Request = std::unique_ptr<BlockRequest>;
  int refusal(const BlockRequest& request) const;
  void work();
  int run(BlockRequest& request);
  void finish(Request request);
  bool keeps(const BlockRequest& request) const;
  void enqueue(Request request);

  const ErrorPolicy policy_;
  StopListener stop_listener_;
  std::vector<Request> kept_;  // vCPU thread
  std::unique_ptr<DiskImage> image_;
  Completions<Request> ended_;
  std::mutex mutex_;
  std::condition_variable work_condition_, idle_condition_;
  std::deque<Request> waiting_;  // guarded by mutex_
  unsigned running_ = 0;         // guarded by mutex_
  bool flushing_ = false;        // guarded by mutex_: a Flush runs, or waits for what runs
  bool stops_ = false;           // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace penumbra
