// QEMU's machine protocol: JSON objects in and out.
//
// QEMU, docs/interop/qmp-spec and the schemas of the commands. Commands of another name are refused as QEMU
// refuses them.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "frontend/monitor.h"
#include "frontend/stream_server.h"

namespace penumbra {

class QmpSession final : public StreamSession {
 public:
  QmpSession(Machine& machine, const MonitorActions& actions, Monitor& monitor,
             std::function<void(std::string_view)> send)
      : machine_(machine), actions_(actions), monitor_(monitor), send_(std::move(send)) {}

  void connected() override;
  void received(std::string_view bytes) override;
  // Something happened that clients are told of: "STOP", "SHUTDOWN". Before run() or on the vCPU's thread.
  void event(std::string_view name, const nlohmann::json& data);

 private:
  void object(std::string_view text);
  void reply(const nlohmann::json& value);
  nlohmann::json execute(const std::string& command, const nlohmann::json& arguments);
  nlohmann::json property(bool set, const nlohmann::json& arguments);

  static constexpr size_t kLongestObject = size_t{1} << 20;
  Machine& machine_;
  const MonitorActions& actions_;
  Monitor& monitor_;
  std::function<void(std::string_view)> send_;
  bool negotiated_ = false;
  // The object that is coming in.
  std::string text_;
  unsigned depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

}  // namespace penumbra
