// The vCPU's registers as gdb numbers and describes them: gdb's own x86 features (org.gnu.gdb.i386.*), and
// the system registers in one of our own.
#pragma once

#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <vector>

#include "core/vcpu.h"
#include "frontend/gdb_endpoint.h"

namespace penumbra {

class GdbRegisters {
 public:
  GdbRegisters(GdbArch arch, const CpuModel& model);

  GdbArch arch() const { return arch_; }
  // The document that gdb asks for as target.xml.
  const std::string& description() const { return description_; }
  unsigned count() const { return static_cast<unsigned>(registers_.size()); }
  unsigned bytes(unsigned number) const { return registers_[number].bits / 8; }
  // Little-endian, bytes(number) of it. The program counter is the linear address of RIP, so that gdb can use
  // it where CS has a base, too.
  std::string read(const Vcpu& vcpu, unsigned number) const;
  // An error says why the register cannot have that value. A selector is loaded as the guest itself would
  // load it: in real and virtual-8086 mode it sets the base, in protected mode it loads the descriptor with
  // all of the processor's checks at the current CPL.
  [[nodiscard]] std::expected<void, std::string> write(Vcpu& vcpu, unsigned number,
                                                       std::string_view value) const;

 private:
  enum class Kind : uint8_t {
    Gpr,
    ProgramCounter,
    Flags,
    Selector,
    X87,
    X87Control,
    Xmm,
    Mxcsr,
    YmmHigh,
    SegmentBase,
    OriginalAx,
    Control,
    Debug,
    Efer,
    Xcr0,
    KernelGsBase,
    GdtBase,
    GdtLimit,
    IdtBase,
    IdtLimit,
    LdtSelector,
    TaskSelector,
  };
  struct Register {
    Kind kind;
    unsigned index;
    unsigned bits;
  };
  class Description;
  uint64_t integer(const Vcpu& vcpu, const Register& reg) const;

  GdbArch arch_;
  std::vector<Register> registers_;
  std::string description_;
};

}  // namespace penumbra
