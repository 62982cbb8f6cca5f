#include "storage/image_device.h"

#include <cerrno>
#include <csignal>
#include <utility>

namespace penumbra {

ImageDevice::ImageDevice(std::unique_ptr<DiskImage> image, EventQueue& events, ErrorPolicy policy)
    : policy_(policy),
      image_(std::move(image)),
      ended_(events, [this](Request request) { finish(std::move(request)); }) {
  // Signals are for the threads that handle them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (unsigned i = 0; i < image_->threads(); i++) threads_.emplace_back([this] { work(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ImageDevice::~ImageDevice() {
  stop();
}

void ImageDevice::stop() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  ended_.stop();
  work_condition_.notify_all();
  idle_condition_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

int ImageDevice::refusal(const BlockRequest& request) const {
  using enum BlockRequest::Kind;
  if (request.kind == Flush) return 0;
  if (request.kind != Read && image_->read_only()) return EROFS;
  const bool has_data = request.kind == Read || request.kind == Write;
  const uint64_t length = has_data ? request.data.size() : request.bytes;
  return request.offset > bytes() || length > bytes() - request.offset ? EINVAL : 0;
}

void ImageDevice::submit(Request request) {
  request->error = refusal(*request);
  if (request->error) {
    request->done(*request);
    return;
  }
  enqueue(std::move(request));
}

void ImageDevice::enqueue(Request request) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(request));
  }
  work_condition_.notify_one();
}

// A Flush runs alone: what was submitted before it has ended, what comes after it waits.
void ImageDevice::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_condition_.wait(lock, [this] { return stops_ || (!waiting_.empty() && !flushing_); });
    if (stops_) return;
    Request request = std::move(waiting_.front());
    waiting_.pop_front();
    const bool flush = request->kind == BlockRequest::Kind::Flush;
    if (flush) {
      flushing_ = true;
      idle_condition_.wait(lock, [this] { return stops_ || running_ == 0; });
      if (stops_) return;
    }
    running_++;
    lock.unlock();
    request->error = run(*request);
    ended_.push(std::move(request));
    lock.lock();
    running_--;
    if (flush) {
      flushing_ = false;
      work_condition_.notify_all();
    } else if (running_ == 0) {
      idle_condition_.notify_all();
    }
  }
}

int ImageDevice::run(BlockRequest& request) {
  using enum BlockRequest::Kind;
  switch (request.kind) {
    case Read:
      return image_->read(request.offset, request.data);
    case Write:
      return image_->write(request.offset, request.data);
    case WriteZeroes:
      return image_->write_zeroes(request.offset, request.bytes);
    case Discard:
      return image_->discard(request.offset, request.bytes);
    case Flush:
      return image_->flush();
  }
  return EINVAL;
}

void ImageDevice::finish(Request request) {
  if (request->error && keeps(*request)) {
    kept_.push_back(std::move(request));
    if (stop_listener_) stop_listener_(*kept_.back());
    return;
  }
  const ErrorPolicy::Action action = request->kind == BlockRequest::Kind::Read ? policy_.read : policy_.write;
  if (action == ErrorPolicy::Action::Ignore) request->error = 0;
  request->done(*request);
}

bool ImageDevice::keeps(const BlockRequest& request) const {
  using enum ErrorPolicy::Action;
  const ErrorPolicy::Action action = request.kind == BlockRequest::Kind::Read ? policy_.read : policy_.write;
  const bool no_room = request.error == ENOSPC || request.error == EDQUOT || request.error == EFBIG;
  return action == Stop || (action == NoSpace && no_room);
}

void ImageDevice::retry() {
  std::vector<Request> kept;
  kept.swap(kept_);
  for (Request& request : kept) enqueue(std::move(request));
}

}  // namespace penumbra
