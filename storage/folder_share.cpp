#include "storage/folder_share.h"

#include <csignal>
#include <utility>

namespace penumbra {

FolderShare::FolderShare(const SharedFolderOptions& options, unsigned most_open, EventQueue& events)
    : server_(options, most_open), ended_(events, [](Message message) { message.done(message.bytes); }) {
  // Signals are for the threads that handle them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { work(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

FolderShare::~FolderShare() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  ended_.stop();
  condition_.notify_all();
  thread_.join();
}

void FolderShare::submit(std::vector<std::byte> request, size_t room, Answer done) {
  enqueue({.bytes = std::move(request), .room = room, .done = std::move(done)});
}

void FolderShare::reset() {
  enqueue({});
}

void FolderShare::enqueue(Message message) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(message));
  }
  condition_.notify_one();
}

void FolderShare::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    condition_.wait(lock, [this] { return stops_ || !waiting_.empty(); });
    if (stops_) return;
    Message message = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    if (message.done) {
      message.bytes = server_.answer(message.bytes, message.room);
    } else {
      server_.reset();
    }
    if (message.done) ended_.push(std::move(message));
    lock.lock();
  }
}

}  // namespace penumbra
