// gdb's socket: bytes of any kind, or with `$` and the checksum put around each line.
#include <string>

#include "frontend/gdb_packet.h"
#include "frontend/gdb_session.h"
#include "tests/fuzz_devices/input.h"
#include "tests/fuzz_devices/stopped_machine.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  static StoppedMachine stopped;
  Monitor monitor(stopped.machine, stopped.actions);
  GdbSession session(stopped.machine, monitor, {.send = [](std::string) {}, .arch = {}, .paused = [] {}});
  session.connected();
  GdbPacketReader reader;
  const auto feed = [&](std::string_view bytes) {
    reader.feed(std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()),
                [&](GdbPacketReader::Event event, std::string_view body) {
                  if (event == GdbPacketReader::Event::Packet) session.packet(body);
                  if (event == GdbPacketReader::Event::Interrupt) session.interrupt();
                });
  };
  Input input(data, size);
  const bool framed = input.byte() & 1;
  std::string text = input.text();
  if (!framed) {
    feed(text);
  } else {
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      feed(gdb_frame(std::string_view(text).substr(at, end - at)));
      at = end + 1;
    }
  }
  session.closed();
  return 0;
}
