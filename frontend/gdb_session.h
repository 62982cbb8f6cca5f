// What gdb asks, answered on the vCPU's thread: the commands of its remote protocol on a Machine. The machine
// is paused while gdb has the word.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/debugger.h"
#include "core/machine.h"
#include "frontend/gdb_registers.h"
#include "frontend/guest_memory.h"
#include "frontend/monitor.h"

namespace penumbra {

class GdbSession final : public Debugger {
 public:
  // `send` takes the body of a packet, any thread's concern but ours. `arch`: nothing chooses by the mode in
  // which the vCPU is when gdb connects. `paused` is called when the machine stops, so that its output is
  // shown.
  struct Options {
    std::function<void(std::string body)> send;
    std::optional<GdbArch> arch;
    std::function<void()> paused;
  };
  GdbSession(Machine& machine, Monitor& monitor, Options options);
  ~GdbSession() override;
  GdbSession(const GdbSession&) = delete;
  GdbSession& operator=(const GdbSession&) = delete;

  // --- vCPU thread, in an event
  void connected();
  void closed();  // as detaching
  void packet(std::string_view body);
  void interrupt();

  // After Machine::run().
  void exited(int status);

 private:
  enum class BreakpointKind : uint8_t { Software, Hardware };

  // Debugger
  void stopped(const DebugStop& stop) override;

  void reply(std::string body) { options_.send(std::move(body)); }
  void reply(char kind, const std::string& rest);
  void ok() { reply("OK"); }
  void error(unsigned number);
  void error(const std::string& why) { reply("E." + why); }
  void pause();
  void resume();
  void step(uint64_t begin, uint64_t bytes);
  void detach();
  void arm();
  std::string stop_reply() const;

  void query(std::string_view text);
  void set(std::string_view text);
  void transfer(std::string_view text, std::string_view document);
  void read_registers();
  void write_registers(std::string_view hex);
  void read_register(std::string_view text);
  void write_register(std::string_view text);
  void read_memory(std::string_view text, bool binary);
  void write_memory(std::string_view text, bool binary);
  void change_breakpoint(std::string_view text, bool insert);
  void act(std::string_view text);  // vCont
  void resume_at(std::string_view text, bool one_step);
  void search(std::string_view text);
  void checksum(std::string_view text);
  void command(std::string_view hex);
  std::string thread_list() const;

  Machine& machine_;
  Vcpu& vcpu_;
  Monitor& monitor_;
  Options options_;
  GuestMemory memory_;
  GuestMemory::Space space_ = GuestMemory::Space::Linear;
  std::optional<GdbRegisters> registers_;  // while gdb is there
  std::set<uint64_t> software_, hardware_;
  std::vector<Watchpoint> watchpoints_;
  bool knows_breakpoint_kinds_ = false;  // swbreak and hwbreak in stop replies
  bool owes_stop_ = false;               // gdb waits for a stop reply
  int signal_ = 0;
  DebugStop stop_;
};

}  // namespace penumbra
