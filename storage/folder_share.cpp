#include "storage/folder_share.h"

#include <chrono>
#include <csignal>
#include <utility>

namespace penumbra {

FolderShare::FolderShare(const SharedFolderOptions& options, unsigned most_open, EventQueue& events)
    : server_(options, most_open), events_(events) {
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
  condition_.notify_all();
  thread_.join();
}

void FolderShare::submit(std::vector<std::byte> request, size_t room, Answer done) {
  enqueue({.bytes = std::move(request), .room = room, .done = std::move(done)});
}

void FolderShare::reset() { enqueue({}); }

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
    lock.lock();
    if (!message.done) continue;
    ended_.push_back(std::move(message));
    tell(lock);
  }
}

// One event is enough for all that ended until it runs.
void FolderShare::tell(std::unique_lock<std::mutex>& lock) {
  if (told_) return;
  told_ = true;
  while (!stops_ && !events_.post([this] { finish(); })) {
    // The queue is full of other events, which the vCPU is about to take.
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    lock.lock();
  }
}

void FolderShare::finish() {
  std::vector<Message> ended;
  {
    const std::lock_guard lock(mutex_);
    ended.swap(ended_);
    told_ = false;
  }
  for (Message& message : ended) message.done(message.bytes);
}

}  // namespace penumbra
