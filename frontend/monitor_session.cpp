#include "frontend/monitor_session.h"

namespace penumbra {

void MonitorSession::connected() {
  line_.clear();
  send_(std::string(kBanner) + std::string(kPrompt));
}

void MonitorSession::received(std::string_view bytes) {
  for (const char c : bytes) {
    if (c == '\n') {
      send_(monitor_.execute(line_) + std::string(kPrompt));
      line_.clear();
    } else if (c != '\r' && line_.size() < kLongestLine) {
      line_ += c;
    }
  }
}

}  // namespace penumbra
