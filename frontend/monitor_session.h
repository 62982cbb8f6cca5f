// A person at a monitor: lines in, a prompt and what the commands say out.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "frontend/monitor.h"
#include "frontend/stream_server.h"

namespace penumbra {

class MonitorSession final : public StreamSession {
 public:
  MonitorSession(Monitor& monitor, std::function<void(std::string_view)> send)
      : monitor_(monitor), send_(std::move(send)) {}

  static constexpr std::string_view kBanner = "Penumbra monitor: 'help' lists the commands\n";
  // QEMU's: scripts wait for it.
  static constexpr std::string_view kPrompt = "(qemu) ";

  void connected() override;
  void received(std::string_view bytes) override;

 private:
  static constexpr size_t kLongestLine = 4096;
  Monitor& monitor_;
  std::function<void(std::string_view)> send_;
  std::string line_;
};

}  // namespace penumbra
