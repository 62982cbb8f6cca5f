#include "frontend/gdb_server.h"

#include <span>
#include <utility>

namespace penumbra {

GdbServer::GdbServer(Machine& machine, const MonitorActions& actions, const GdbEndpoint& endpoint,
                     std::function<void()> paused)
    : monitor_(machine, actions),
      session_(machine, monitor_,
               {.send = [this](std::string body) { send(body); },
                .arch = endpoint.arch,
                .paused = std::move(paused)}),
      server_(machine.events(), endpoint.socket, "-gdb", "gdb") {}

void GdbServer::finish(int exit_status) {
  session_.exited(exit_status);
  server_.finish();
}

void GdbServer::connected() {
  reader_ = {};
  acknowledges_ = true;
  last_frame_.clear();
  session_.connected();
}

void GdbServer::received(std::string_view bytes) {
  reader_.feed(std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()),
               [this](GdbPacketReader::Event event, std::string_view body) { handle(event, body); });
}

void GdbServer::handle(GdbPacketReader::Event event, std::string_view body) {
  switch (event) {
    case GdbPacketReader::Event::Packet:
      if (acknowledges_) server_.send("+");
      if (body == "QStartNoAckMode") {
        acknowledges_ = false;
        send("OK");
      } else {
        session_.packet(body);
      }
      break;
    case GdbPacketReader::Event::Corrupt:
      if (acknowledges_) server_.send("-");
      break;
    case GdbPacketReader::Event::Interrupt:
      session_.interrupt();
      break;
    case GdbPacketReader::Event::Ack:
      break;
    case GdbPacketReader::Event::Resend:
      if (acknowledges_) server_.send(last_frame_);
      break;
  }
}

void GdbServer::send(std::string_view body) {
  last_frame_ = gdb_frame(body);
  server_.send(last_frame_);
}

}  // namespace penumbra
