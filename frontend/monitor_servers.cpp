#include "frontend/monitor_servers.h"

#include <nlohmann/json.hpp>

namespace penumbra {

MonitorServers::MonitorServers(Machine& machine, MonitorActions& actions, const RunOptions& options)
    : actions_(actions), monitor_(machine, actions), qmp_monitor_(machine, actions) {
  if (options.monitor && !options.monitor->stdio) {
    server_ = std::make_unique<StreamServer>(machine.events(), options.monitor->socket, "-monitor",
                                             "a client of -monitor");
    session_ =
        std::make_unique<MonitorSession>(monitor_, [this](std::string_view text) { server_->send(text); });
  }
  if (options.qmp) {
    qmp_server_ =
        std::make_unique<StreamServer>(machine.events(), options.qmp->socket, "-qmp", "a client of -qmp");
    qmp_session_ = std::make_unique<QmpSession>(machine, actions, qmp_monitor_,
                                                [this](std::string_view text) { qmp_server_->send(text); });
    actions_.event = [this](std::string_view name, const nlohmann::json& data) {
      qmp_session_->event(name, data);
    };
  }
}

MonitorServers::~MonitorServers() {
  actions_.event = {};
}

void MonitorServers::start() {
  if (server_) server_->start(*session_);
  if (qmp_server_) qmp_server_->start(*qmp_session_);
}

void MonitorServers::finish() {
  if (qmp_session_) qmp_session_->event("SHUTDOWN", nullptr);
  for (StreamServer* server : {server_.get(), qmp_server_.get()}) {
    if (server) server->finish();
  }
}

}  // namespace penumbra
