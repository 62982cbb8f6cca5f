// Runs a program on the translator, as a ring 3 guest without an interrupt table, until its first exception.
#pragma once

#include <memory>
#include <string>

#include "core/io_bus.h"
#include "core/vcpu.h"
#include "jit/translator.h"
#include "tests/fuzzer/machine_state.h"

namespace penumbra::fuzz {

class EngineMachine final : private EventListener {
 public:
  EngineMachine(std::string name, std::string_view switches);

  Outcome run(const Program& program, bool cold_tlb);
  // What is seen when the program runs one instruction at a time.
  struct Trace {
    bool repeat_overwrites_itself = false;  // a repeated string instruction changes its own bytes
    bool enters_itself = false;  // runs what is within the first instruction, which has `first_bytes`
  };
  Trace trace(const Program& program, unsigned first_bytes);
  std::span<const std::byte> memory() const { return {ram_, area::kBytes}; }
  const std::string& name() const { return name_; }
  // Fault frames' arithmetic flags are exact (jit/README.md, "What is not exact").
  bool exact_fault_flags() const { return exact_fault_flags_; }
  // From a signal handler: makes run() give up.
  void give_up();

 private:
  static constexpr uint64_t kPhysical = area::kReal;
  void event_delivered(const EventRecord& event) override;
  void build_tables();
  void load(const Program& program);
  void load_protected(const Program& program);
  void load_real(const Program& program);
  void start(const Program& program, bool cold_tlb);
  uint64_t offset_of_rip() const { return (state_->segments[kCs].base + state_->rip) & (area::kBytes - 1); }
  std::span<const std::byte> repeated_store_at_rip() const;
  void capture(uint64_t rip);

  std::string name_;
  bool exact_fault_flags_;
  PhysicalMap map_;
  SoftTlb tlb_;
  IoBus io_;
  CpuModel model_{"max"};
  std::unique_ptr<VcpuState> state_;
  std::unique_ptr<Vcpu> vcpu_;
  std::unique_ptr<jit::Translator> translator_;
  std::byte* ram_;
  Outcome outcome_;
  bool paging_ = true;
  bool ended_ = false;
  volatile bool gave_up_ = false;
};

}  // namespace penumbra::fuzz
