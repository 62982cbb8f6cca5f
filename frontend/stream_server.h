// A socket that serves one client at a time: a thread of its own moves the bytes, the session answers on the
// vCPU's thread.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "core/event_queue.h"
#include "frontend/stream_socket.h"

namespace penumbra {

// vCPU thread, in an event.
class StreamSession {
 public:
  virtual ~StreamSession() = default;
  virtual void connected() = 0;
  virtual void received(std::string_view bytes) = 0;
  virtual void closed() {}  // after all that the client sent, and before the next one connects
};

class StreamServer {
 public:
  // Listens, but serves nobody before start(). `option` and `who`: see listen_on(). Throws UserError when the
  // address cannot be had.
  StreamServer(EventQueue& events, const StreamEndpoint& endpoint, std::string_view option,
               std::string_view who);
  ~StreamServer();
  StreamServer(const StreamServer&) = delete;
  StreamServer& operator=(const StreamServer&) = delete;

  // `session` outlives this object.
  void start(StreamSession& session);
  // Any thread. Dropped without a client.
  void send(std::string_view bytes);
  // After Machine::run(): gives what was sent a moment to leave.
  void finish();

 private:
  void serve();
  void accept_client();
  void read_client();
  void write_client();
  void close_client();
  void post();
  void deliver();  // vCPU thread
  void wake();

  EventQueue& events_;
  const std::string unix_path_;
  StreamSession* session_ = nullptr;
  int listen_fd_ = -1, wake_fd_ = -1;
  std::atomic<bool> stop_{false};
  int client_fd_ = -1;  // the server's thread only

  std::mutex mutex_;
  bool connected_ = false;  // guarded by mutex_: there is a client
  bool greeted_ = false;    // guarded: the session knows of it
  bool closing_ = false;    // guarded: the session does not know that it went
  bool posted_ = false;     // guarded: an event that delivers is on its way
  std::string incoming_;    // guarded
  std::string outgoing_;    // guarded

  std::thread thread_;
};

}  // namespace penumbra
