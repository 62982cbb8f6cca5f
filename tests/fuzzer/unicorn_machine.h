// Runs real-mode programs on Unicorn (QEMU's TCG as a library) until HLT or an exception: no CPU runs them
// natively in a process. Where TCG does not do what the manual says is a table in compare.cpp.
#pragma once

#include <span>
#include <vector>

#include "tests/fuzzer/machine_state.h"

struct uc_struct;
struct uc_context;

namespace penumbra::fuzz {

class UnicornMachine {
 public:
  UnicornMachine();
  ~UnicornMachine();
  UnicornMachine(const UnicornMachine&) = delete;
  UnicornMachine& operator=(const UnicornMachine&) = delete;

  Outcome run(const Program& program);
  void give_up();  // from a signal handler: what runs never ends
  std::span<const std::byte> memory() const { return std::span(ram_).subspan(area::kReal, area::kBytes); }

 private:
  static constexpr uint64_t kRamBytes = 0x12'0000;  // more than segments reach
  static void on_interrupt(uc_struct* engine, uint32_t vector, void* self);

  std::vector<std::byte> ram_;
  uc_struct* engine_ = nullptr;
  uc_context* fresh_ = nullptr;
  int vector_ = -1;
  volatile bool gave_up_ = false;
};

}  // namespace penumbra::fuzz
