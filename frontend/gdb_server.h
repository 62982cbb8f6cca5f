// The way to gdb: a socket served by a thread of its own, which posts what comes into the machine's event
// queue and sends what the session answers on the vCPU's thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "core/machine.h"
#include "frontend/gdb_endpoint.h"
#include "frontend/gdb_packet.h"
#include "frontend/gdb_session.h"
#include "frontend/monitor.h"

namespace penumbra {

class GdbServer {
 public:
  // Listens, but serves nobody before start(). `paused`: see GdbSession::Options. Throws UserError when the
  // address cannot be had.
  GdbServer(Machine& machine, const MonitorActions& actions, const GdbEndpoint& endpoint, std::function<void()> paused);
  ~GdbServer();
  GdbServer(const GdbServer&) = delete;
  GdbServer& operator=(const GdbServer&) = delete;

  void start();
  // Tells gdb how the machine ended. After Machine::run().
  void finish(int exit_status);

 private:
  struct Message {
    enum class Kind : uint8_t { Connected, Closed, Packet, Interrupt };
    Kind kind;
    std::string body;
  };

  void serve();
  void accept_client();
  void read_client();
  void write_client();
  void close_client();
  void handle(GdbPacketReader::Event event, std::string_view body);
  void post(Message message);
  void deliver();                    // vCPU thread
  void send(std::string_view body);  // any thread
  void send_raw(std::string_view bytes);
  void wake();

  Machine& machine_;
  Monitor monitor_;
  GdbSession session_;
  const std::string unix_path_;
  int listen_fd_ = -1, wake_fd_ = -1;
  std::atomic<bool> stop_{false};

  // The server's thread only.
  int client_fd_ = -1;
  GdbPacketReader reader_;
  bool acknowledges_ = true;
  std::string last_frame_;

  std::mutex mutex_;
  std::deque<Message> incoming_;  // guarded by mutex_
  bool posted_ = false;           // guarded: an event that delivers them is on its way
  std::string outgoing_;          // guarded

  std::thread thread_;
};

}  // namespace penumbra
