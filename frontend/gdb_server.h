// The way to gdb: packets and acknowledgements over a stream, on the vCPU's thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "core/machine.h"
#include "frontend/gdb_endpoint.h"
#include "frontend/gdb_packet.h"
#include "frontend/gdb_session.h"
#include "frontend/monitor.h"
#include "frontend/stream_server.h"

namespace penumbra {

class GdbServer final : StreamSession {
 public:
  // Listens, but serves nobody before start(). `paused`: see GdbSession::Options. Throws UserError when the
  // address cannot be had.
  GdbServer(Machine& machine, const MonitorActions& actions, const GdbEndpoint& endpoint,
            std::function<void()> paused);

  void start() { server_.start(*this); }
  // Tells gdb how the machine ended. After Machine::run().
  void finish(int exit_status);

 private:
  void connected() override;
  void received(std::string_view bytes) override;
  void closed() override { session_.closed(); }
  void handle(GdbPacketReader::Event event, std::string_view body);
  void send(std::string_view body);

  Monitor monitor_;
  GdbSession session_;
  GdbPacketReader reader_;
  bool acknowledges_ = true;
  std::string last_frame_;
  StreamServer server_;  // last: its thread ends first
};

}  // namespace penumbra
