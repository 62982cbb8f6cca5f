// A shared folder as the board's: a thread of its own serves its messages, one after the other.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "core/event_queue.h"
#include "devices/file_server.h"
#include "storage/completions.h"
#include "storage/file_server_9p.h"

namespace penumbra {

class FolderShare final : public FileServer {
 public:
  // Throws std::runtime_error with one line.
  FolderShare(const SharedFolderOptions& options, unsigned most_open, EventQueue& events);
  ~FolderShare() override;

  void submit(std::vector<std::byte> request, size_t room, Answer done) override;
  void reset() override;

 private:
  struct Message {
    std::vector<std::byte> bytes;  // the request, then its answer
    size_t room = 0;
    Answer done;  // empty: all is to be forgotten
  };
  void enqueue(Message message);
  void work();

  FileServer9p server_;  // the thread's
  Completions<Message> ended_;
  std::mutex mutex_;
  std::condition_variable condition_;
  std::deque<Message> waiting_;  // guarded by mutex_
  bool stops_ = false;           // guarded by mutex_
  std::thread thread_;
};

}  // namespace penumbra
