// The sockets that take commands: -monitor and -qmp.
#pragma once

#include <memory>

#include "core/machine.h"
#include "frontend/monitor.h"
#include "frontend/monitor_session.h"
#include "frontend/options.h"
#include "frontend/qmp_session.h"
#include "frontend/stream_server.h"

namespace penumbra {

class MonitorServers {
 public:
  // Throws UserError when an address cannot be had. `actions` outlives this object, and tells it of events
  // until then.
  MonitorServers(Machine& machine, MonitorActions& actions, const RunOptions& options);
  ~MonitorServers();
  MonitorServers(const MonitorServers&) = delete;
  MonitorServers& operator=(const MonitorServers&) = delete;

  void start();
  // After Machine::run(): says good-bye.
  void finish();

 private:
  MonitorActions& actions_;
  Monitor monitor_, qmp_monitor_;
  std::unique_ptr<MonitorSession> session_;
  std::unique_ptr<QmpSession> qmp_session_;
  std::unique_ptr<StreamServer> server_, qmp_server_;
};

}  // namespace penumbra
