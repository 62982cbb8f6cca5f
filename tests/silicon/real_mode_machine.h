// A vCPU in real mode on 16 MiB of flat RAM, which takes a case's state, runs it and tells how the outcome
// differs.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/io_bus.h"
#include "core/vcpu.h"
#include "jit/translator.h"
#include "tests/silicon/expectation.h"

namespace penumbra::test {

class RealModeMachine final : private EventListener {
 public:
  explicit RealModeMachine(const jit::TranslatorOptions& options);
  ~RealModeMachine() override;

  void load(const MooCase& made);
  // With attention set, which is not to end a repeated string instruction early.
  void step() {
    vcpu_->attend(attention::kKick);
    translator_->step();
  }
  // Runs to the HLT that ends each case. False when interrupt() was called again and again before it is
  // reached: the code ran away.
  bool run_to_halt();
  // From another thread.
  void interrupt();

  // Differences from what is expected, one a line; empty: none.
  std::string compare(const Expectation& expected);

  // Zeroes what the case names. Afterwards all memory that real mode reaches is zero but for stray stores.
  void clear(const Expectation& expected);
  // Address of a byte that is not zero, if there is one; zeroes all memory that real mode reaches.
  std::optional<uint32_t> take_stray_byte();

 private:
  static constexpr uint64_t kRamBytes = 16 << 20;
  static constexpr uint64_t kReachable = 0x11'0000;  // FFFF:FFFF and some

  void event_delivered(const EventRecord& event) override;
  std::string compare_registers(const Expectation& expected);
  std::string compare_memory(const Expectation& expected);
  void clear_all();

  PhysicalMap map_{kRamBytes};
  SoftTlb tlb_{map_};
  IoBus io_;
  CpuModel model_{"max"};
  std::unique_ptr<VcpuState> state_ = std::make_unique<VcpuState>();
  std::unique_ptr<Vcpu> vcpu_;
  std::unique_ptr<jit::Translator> translator_;
  std::byte* ram_;
  unsigned events_ = 0;
  uint8_t last_vector_ = 0;
};

}  // namespace penumbra::test
