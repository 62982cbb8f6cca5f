#include "frontend/console_monitor.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "frontend/monitor_session.h"

namespace penumbra {

void ConsoleMonitor::open() {
  line_.clear();
  escape_ = 0;
  say_((edits_ ? "\n" : "") + std::string(MonitorSession::kBanner) + std::string(MonitorSession::kPrompt));
}

void ConsoleMonitor::feed(uint8_t byte) {
  constexpr uint8_t kBackspace = 0x08, kKillLine = 0x15, kEscape = 0x1b, kDelete = 0x7f;
  if (escape_ > 0) {  // cursor keys: ESC [ letter
    const bool more = escape_ == 1 ? byte == '[' || byte == 'O' : byte < '@';
    escape_ = more ? escape_ + 1 : 0;
    return;
  }
  switch (byte) {
    case '\r':
    case '\n':
      return enter();
    case '\t':
      return complete();
    case kEscape:
      escape_ = 1;
      return;
    case kBackspace:
    case kDelete:
      if (line_.empty()) return;
      line_.pop_back();
      return show("\b \b");
    case kKillLine:
      for (; !line_.empty(); line_.pop_back()) show("\b \b");
      return;
    default:
      if (byte < ' ' || line_.size() >= kLongestLine) return;
      line_ += static_cast<char>(byte);
      return show(std::string(1, static_cast<char>(byte)));
  }
}

void ConsoleMonitor::enter() {
  show("\n");
  const bool posted = events_.post([this, line = std::exchange(line_, {})] {
    say_(monitor_.execute(line) + std::string(MonitorSession::kPrompt));
  });
  if (!posted) say_("the machine is too busy\n" + std::string(MonitorSession::kPrompt));
}

// As far as all candidates agree; where there is no more of that, they are listed.
void ConsoleMonitor::complete() {
  const std::vector<std::string> found = monitor_.completions(line_);
  if (found.empty()) return;
  std::string common = found[0];
  for (const std::string& other : found) {
    common.resize(static_cast<size_t>(std::ranges::mismatch(common, other).in1 - common.begin()));
  }
  if (found.size() == 1) common += ' ';
  if (common.size() > line_.size()) {
    show(std::string_view(common).substr(line_.size()));
    line_ = common;
    return;
  }
  std::string list = "\n";
  for (const std::string& candidate : found) list += candidate + "  ";
  show(list + "\n" + std::string(MonitorSession::kPrompt) + line_);
}

}  // namespace penumbra
