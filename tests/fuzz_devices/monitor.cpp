// The monitor's lines, or what comes to QMP's socket.
#include <nlohmann/json.hpp>

#include "frontend/monitor.h"
#include "frontend/qmp_session.h"
#include "tests/fuzz_devices/input.h"
#include "tests/fuzz_devices/stopped_machine.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  static StoppedMachine stopped;
  Monitor monitor(stopped.machine, stopped.actions);
  Input input(data, size);
  const uint8_t flags = input.byte();
  const std::string text = input.text();
  if (flags & 1) {
    QmpSession session(stopped.machine, stopped.actions, monitor, [](std::string_view) {});
    session.connected();
    session.received("{\"execute\":\"qmp_capabilities\"}");
    // In two pieces.
    const size_t half = flags * text.size() / 256;
    session.received(std::string_view(text).substr(0, half));
    session.received(std::string_view(text).substr(half));
    return 0;
  }
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    monitor.execute(line);
    monitor.completions(line);
    at = end + 1;
  }
  return 0;
}
