// A guest with nothing but a CPU and memory: flat code and data at one linear address, run to its first HLT.
// Used by the assembly tests, which run the same bytes on the bare host at the same address.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "core/io_bus.h"
#include "core/vcpu.h"
#include "jit/translator.h"

namespace penumbra::test {

// Registers that a test can set and compare. Vector registers are ymm (zero upper halves without AVX).
struct Registers {
  std::array<uint64_t, 16> gpr{};
  uint64_t rip = 0;
  uint64_t rflags = flag::kFixed1;
  std::array<std::array<uint64_t, 4>, 16> ymm{};
  uint32_t mxcsr = 0x1f80;
};

class BareGuest {
 public:
  static constexpr uint64_t kCode = 0x1000'0000;    // linear; the image starts here
  static constexpr uint64_t kBytes = 0x20'0000;     // mapped from kCode on: image, data, stack at the end
  static constexpr uint64_t kPhysical = 0x40'0000;  // where kCode is
  static constexpr uint64_t kStackTop = kCode + kBytes - 0x1000;

  // `bits`: 16, 32 or 64. In 16 and 32 bit the segments are flat (16-bit code, 4 GiB limits) and paging is
  // on.
  BareGuest(unsigned bits, const jit::TranslatorOptions& options);

  void load(std::span<const uint8_t> image);

  enum class End : uint8_t { Halted, Exception, Timeout };
  struct Outcome {
    End end = End::Timeout;
    uint8_t vector = 0;  // Exception
    uint64_t cr2 = 0;
    Registers registers;
  };
  // With RFLAGS.AC in `start` CR4.SMAP is on: then 64-bit code of the supervisor has shadow windows in the
  // lower half. Runs from `start` until HLT or an exception (there is no IDT: an exception ends the test).
  Outcome run(const Registers& start, uint8_t cpl = 0);

  std::span<std::byte> memory();  // kBytes from kCode on
  Vcpu& vcpu() { return *vcpu_; }
  PhysicalMap& map() { return map_; }
  IoBus& io() { return io_; }
  jit::Translator& translator() { return *translator_; }

 private:
  void build_page_tables();
  unsigned bits_;
  PhysicalMap map_;
  SoftTlb tlb_;
  IoBus io_;
  CpuModel model_{"max"};
  std::unique_ptr<VcpuState> state_;
  std::unique_ptr<Vcpu> vcpu_;
  std::unique_ptr<jit::Translator> translator_;
};

}  // namespace penumbra::test
