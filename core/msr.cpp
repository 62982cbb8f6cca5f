// Model-specific registers (SDM vol. 4; AMD APM vol. 2, appendix A; KVM's paravirtual clock), and the
// instructions on FS and GS base.
#include <algorithm>

#include "core/descriptor.h"
#include "core/host_vector_scope.h"
#include "core/register_access.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

namespace msr {
enum : uint32_t {
  kTsc = 0x10,
  kPlatformId = 0x17,
  kApicBase = 0x1b,
  kEblCrPowerOn = 0x2a,
  kFeatureControl = 0x3a,
  kTscAdjust = 0x3b,
  kSpecCtrl = 0x48,
  kPredCmd = 0x49,
  kUpdateTrigger = 0x79,
  kUpdateSignature = 0x8b,  // AMD: patch level
  kPlatformInfo = 0xce,
  kMtrrCap = 0xfe,
  kArchCapabilities = 0x10a,
  kMiscFeatureEnables = 0x140,
  kSysenterCs = 0x174,
  kSysenterEsp = 0x175,
  kSysenterEip = 0x176,
  kMcgCap = 0x179,
  kMcgStatus = 0x17a,
  kMiscEnable = 0x1a0,
  kDebugCtl = 0x1d9,
  kLastBranchFrom = 0x1db,
  kLastExceptionTo = 0x1de,
  kMtrrVariableFirst = 0x200,
  kMtrrVariableLast = kMtrrVariableFirst + 2 * ModelRegisters::kVariableMtrrs - 1,
  kMtrrFix64k = 0x250,
  kMtrrFix16kFirst = 0x258,
  kMtrrFix16kLast = 0x259,
  kMtrrFix4kFirst = 0x268,
  kMtrrFix4kLast = 0x26f,
  kPat = 0x277,
  kMtrrDefType = 0x2ff,
  kTscDeadline = 0x6e0,
  kKvmWallClock = 0x4b56'4d00,
  kKvmSystemTime = 0x4b56'4d01,
  kEfer = 0xc000'0080,
  kStar = 0xc000'0081,
  kLstar = 0xc000'0082,
  kCstar = 0xc000'0083,
  kSfmask = 0xc000'0084,
  kFsBase = 0xc000'0100,
  kGsBase = 0xc000'0101,
  kKernelGsBase = 0xc000'0102,
  kTscAux = 0xc000'0103,
  kAmdSyscfg = 0xc001'0010,
  kAmdHwcr = 0xc001'0015,
  kAmdTopMem = 0xc001'001a,
  kAmdTopMem2 = 0xc001'001d,
  kAmdNbCfg = 0xc001'001f,
  kAmdPatchLoader = 0xc001'0020,
  kAmdInterruptPending = 0xc001'0055,
  kAmdMmioConfigBase = 0xc001'0058,
  kAmdVmCr = 0xc001'0114,
  kAmdCoreConfigFirst =
      0xc001'1020,  // LS_CFG, IC_CFG, DC_CFG, ... DE_CFG (1029), BU_CFG2 (102a), BP_CFG (102e)
  kAmdCoreConfigLast = 0xc001'102f,
};
}  // namespace msr

// Eight variable ranges, fixed ranges, write combining.
constexpr uint64_t kMtrrCapabilities = ModelRegisters::kVariableMtrrs | 1u << 8 | 1u << 10;
constexpr uint64_t kVmCrDisabled = 1u << 3 | 1u << 4;  // LOCK, SVMDIS
constexpr uint64_t kFeatureControlLocked = 1;
constexpr uint64_t kPatchLevel = uint64_t{1} << 32;  // Intel: in the upper half
constexpr uint64_t kKvmEnabled = 1;
constexpr uint8_t kPvclockTscStable = 1;

constexpr bool valid_memory_type(uint64_t type, bool pat) {
  return type == 0 || type == 1 || type == 4 || type == 5 || type == 6 || (pat && type == 7);
}

constexpr bool valid_memory_types(uint64_t value, bool pat) {
  for (unsigned i = 0; i < 8; ++i) {
    if (!valid_memory_type((value >> (8 * i)) & 0xff, pat)) return false;
  }
  return true;
}

uint64_t host_tsc() {
  uint32_t low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return static_cast<uint64_t>(high) << 32 | low;
}

// a * b / c without the C library's 128-bit division; the quotient must fit.
uint64_t multiply_divide(uint64_t a, uint64_t b, uint64_t c) {
  uint64_t quotient, remainder;
  asm("mulq %3\n\tdivq %4" : "=a"(quotient), "=&d"(remainder) : "0"(a), "r"(b), "r"(c) : "cc");
  return quotient;
}

}  // namespace

void Vcpu::reset_msrs() {
  msrs_ = {};
  state_.tsc_offset = host_tsc();
  monitoring_ = false;
}

std::unexpected<Exception> Vcpu::unknown_msr(uint32_t index, bool write) {
  for (unsigned i = 0; i < VcpuStats::kMaxUnknownMsrs; ++i) {
    VcpuStats::UnknownMsr& entry = stats_.unknown_msrs[i];
    if (i == stats_.unknown_msr_count) {
      entry = {.index = index, .reads = 0, .writes = 0};
      ++stats_.unknown_msr_count;
    }
    if (entry.index == index) {
      ++(write ? entry.writes : entry.reads);
      break;
    }
  }
  return raise(vector::kGp, 0);
}

// Registers that read back what was written; null for others.
uint64_t* Vcpu::stored_msr(uint32_t index) {
  if (index >= msr::kMtrrVariableFirst && index <= msr::kMtrrVariableLast) {
    return &msrs_.mtrr_variable[index - msr::kMtrrVariableFirst];
  }
  if (index == msr::kMtrrFix64k) return &msrs_.mtrr_fixed[0];
  if (index >= msr::kMtrrFix16kFirst && index <= msr::kMtrrFix16kLast) {
    return &msrs_.mtrr_fixed[1 + index - msr::kMtrrFix16kFirst];
  }
  if (index >= msr::kMtrrFix4kFirst && index <= msr::kMtrrFix4kLast) {
    return &msrs_.mtrr_fixed[3 + index - msr::kMtrrFix4kFirst];
  }
  switch (index) {
    case msr::kMtrrDefType:
      return &msrs_.mtrr_default_type;
    case msr::kPat:
      return &state_.pat;
    case msr::kMcgStatus:
      return &msrs_.machine_check_status;
    case msr::kDebugCtl:
      return &msrs_.debug_control;
    case msr::kStar:
      return &state_.star;
    case msr::kLstar:
      return &state_.lstar;
    case msr::kCstar:
      return &state_.cstar;
    case msr::kSfmask:
      return &state_.sfmask;
    case msr::kFsBase:
      return &state_.segments[kFs].base;
    case msr::kGsBase:
      return &state_.segments[kGs].base;
    case msr::kKernelGsBase:
      return &state_.kernel_gs_base;
    case msr::kTscAux:
      return &state_.tsc_aux;
    case msr::kSysenterCs:
      return &state_.sysenter_cs;
    case msr::kSysenterEsp:
      return &state_.sysenter_esp;
    case msr::kSysenterEip:
      return &state_.sysenter_eip;
    default:
      break;
  }
  if (index == msr::kSpecCtrl && model_.has_spec_ctrl()) return &msrs_.spec_control;
  if (!amd_) return index == msr::kMiscEnable ? &msrs_.misc_enable : nullptr;
  if (index >= msr::kAmdCoreConfigFirst && index <= msr::kAmdCoreConfigLast) {
    return &msrs_.core_config[index - msr::kAmdCoreConfigFirst];
  }
  switch (index) {
    case msr::kAmdNbCfg:
      return &msrs_.nb_config;
    case msr::kAmdSyscfg:
      return &msrs_.syscfg;
    case msr::kAmdHwcr:
      return &msrs_.hwcr;
    case msr::kAmdTopMem:
      return &msrs_.top_mem;
    case msr::kAmdTopMem2:
      return &msrs_.top_mem2;
    case msr::kAmdInterruptPending:
      return &msrs_.interrupt_pending;
    case msr::kAmdMmioConfigBase:
      return &msrs_.mmio_config_base;
    default:
      return nullptr;
  }
}

Result<uint64_t> Vcpu::read_msr(uint32_t index) {
  if (const uint64_t* stored = stored_msr(index)) return *stored;
  switch (index) {
    case 0:  // P5 machine-check registers
    case 1:
      return 0;
    case msr::kTsc:
      return read_tsc();
    case msr::kTscAdjust:
      return state_.tsc_adjust;
    case msr::kApicBase: {
      if (!apic_) break;
      HostVectorScope scope(state_);
      return apic_->base();
    }
    case msr::kTscDeadline: {
      if (!apic_) break;
      HostVectorScope scope(state_);
      return apic_->tsc_deadline();
    }
    case msr::kEfer:
      return state_.efer;
    case msr::kUpdateSignature:
      return amd_ ? kPatchLevel >> 32 : kPatchLevel;
    case msr::kMtrrCap:
      return kMtrrCapabilities;
    case msr::kMcgCap:
      return 0;
    case msr::kKvmWallClock:
      return msrs_.kvm_wall_clock;
    case msr::kKvmSystemTime:
      return msrs_.kvm_system_time;
    default:
      break;
  }
  if (index >= msr::kLastBranchFrom && index <= msr::kLastExceptionTo) return 0;
  if (amd_) {
    if (index == msr::kAmdVmCr) return kVmCrDisabled;
    return unknown_msr(index, false);
  }
  switch (index) {
    case msr::kArchCapabilities:
      if (model_.arch_capabilities() == 0) break;
      return model_.arch_capabilities();
    case msr::kFeatureControl:
      return kFeatureControlLocked;
    case msr::kPlatformInfo:  // bits 8 to 15: base ratio over 100 MHz
      return (model_.tsc_hz() / 100'000'000 & 0xff) << 8;
    case msr::kPlatformId:
    case msr::kEblCrPowerOn:
    case msr::kMiscFeatureEnables:
      return 0;
    default:
      break;
  }
  return unknown_msr(index, false);
}

Result<void> Vcpu::write_msr(uint32_t index, uint64_t value) {
  switch (index) {
    case msr::kTsc: {
      // IA32_TSC_ADJUST follows (SDM vol. 3, 18.17.3).
      const uint64_t now = read_tsc();
      state_.tsc_offset -= value - now;
      state_.tsc_adjust += value - now;
      return msrs_.kvm_system_time & kKvmEnabled ? write_kvm_system_time(msrs_.kvm_system_time)
                                                 : Result<void>{};
    }
    case msr::kTscAdjust:
      state_.tsc_offset -= value - state_.tsc_adjust;
      state_.tsc_adjust = value;
      return msrs_.kvm_system_time & kKvmEnabled ? write_kvm_system_time(msrs_.kvm_system_time)
                                                 : Result<void>{};
    case msr::kEfer:
      return write_efer(value);
    case msr::kApicBase: {
      if (!apic_) break;
      HostVectorScope scope(state_);
      if (!apic_->set_base(value)) return raise(vector::kGp, 0);
      return {};
    }
    case msr::kTscDeadline: {
      if (!apic_) break;
      constexpr int64_t kMost = int64_t{1} << 56;  // half a year or more, and its nanoseconds fit
      const auto ahead = std::clamp<int64_t>(static_cast<int64_t>(value - read_tsc()), 0, kMost);
      const uint64_t wait = multiply_divide(static_cast<uint64_t>(ahead), 1'000'000'000, model_.tsc_hz());
      HostVectorScope scope(state_);
      apic_->set_tsc_deadline(value, wait);
      return {};
    }
    case msr::kUpdateTrigger:
    case msr::kUpdateSignature:
      return {};
    case msr::kPredCmd:
      if (!model_.has_spec_ctrl()) break;
      if (value & ~uint64_t{1}) return raise(vector::kGp, 0);
      return {};
    case msr::kKvmWallClock:
      return write_kvm_wall_clock(value);
    case msr::kKvmSystemTime:
      return write_kvm_system_time(value);
    // Checked, then stored like the rest.
    case msr::kLstar:
    case msr::kCstar:
    case msr::kFsBase:
    case msr::kGsBase:
    case msr::kKernelGsBase:
    case msr::kSysenterEsp:
    case msr::kSysenterEip:
      if (!is_canonical(value)) return raise(vector::kGp, 0);
      break;
    case msr::kSysenterCs:
    case msr::kSfmask:
      value &= 0xffff'ffff;
      break;
    case msr::kTscAux:
      if (value >> 32) return raise(vector::kGp, 0);
      break;
    case msr::kPat:
      if (!valid_memory_types(value, true)) return raise(vector::kGp, 0);
      break;
    case msr::kMtrrDefType:
      if (value & ~uint64_t{0xcff} || !valid_memory_type(value & 0xff, false)) return raise(vector::kGp, 0);
      break;
    case msr::kSpecCtrl:
      if (value & ~uint64_t{7}) return raise(vector::kGp, 0);
      break;
    case msr::kMtrrCap:
    case msr::kMcgCap:
      return raise(vector::kGp, 0);
    default:
      if (index == msr::kMtrrFix64k || (index >= msr::kMtrrFix16kFirst && index <= msr::kMtrrFix4kLast)) {
        if (!valid_memory_types(value, false)) return raise(vector::kGp, 0);
      } else if (index >= msr::kMtrrVariableFirst && index <= msr::kMtrrVariableLast) {
        const bool mask = index & 1;
        const uint64_t reserved = ~uint64_t{0} << model_.physical_bits() | (mask ? 0x7ff : 0xf00);
        if (value & reserved || (!mask && !valid_memory_type(value & 0xff, false)))
          return raise(vector::kGp, 0);
      }
      break;
  }
  if (uint64_t* stored = stored_msr(index)) {
    *stored = value;
    return {};
  }
  if (amd_ && (index == msr::kAmdPatchLoader || index == msr::kAmdVmCr)) return {};
  if (!amd_ && index == msr::kMiscFeatureEnables && value == 0) return {};
  return unknown_msr(index, true);
}

Result<void> Vcpu::write_efer(uint64_t value) {
  if (value & ~model_.efer_mask()) return raise(vector::kGp, 0);
  const uint64_t old = state_.efer;
  if ((value ^ old) & efer::kLme && state_.cr0 & cr0::kPg) return raise(vector::kGp, 0);
  state_.efer = (value & ~efer::kLma) | (old & efer::kLma);
  // NXE: the TLB holds which pages may be executed, and which entries had reserved bits.
  if ((state_.efer ^ old) & efer::kNxe) tlb_.flush_all();
  update_mode();
  return {};
}

// Where the guest wants it: across a page's end too.
void Vcpu::write_physical(PhysAddr address, unsigned size, uint64_t value) {
  HostVectorScope scope(state_);
  map_.write_bytes(address, {reinterpret_cast<const std::byte*>(&value), size});
}

// struct pvclock_vcpu_time_info: time = system_time + ((tsc - tsc_timestamp) << shift) * mul / 2^32, in
// nanoseconds. It never needs an update, since the rate is constant.
Result<void> Vcpu::write_kvm_system_time(uint64_t value) {
  msrs_.kvm_system_time = value;
  if (!(value & kKvmEnabled)) return {};
  const PhysAddr at{value & ~uint64_t{3}};  // 4-byte aligned, but for the enable bit

  // Largest shift with mul = 10^9 * 2^32 / (hz << shift) below 2^32: hz << shift must exceed 10^9.
  uint64_t hz = model_.tsc_hz();
  int shift = 0;
  while (hz > 2'000'000'000) {
    hz >>= 1;
    --shift;
  }
  while (hz <= 1'000'000'000) {
    hz <<= 1;
    ++shift;
  }
  const uint64_t mul = multiply_divide(1'000'000'000, uint64_t{1} << 32, hz);
  const uint64_t tsc = read_tsc();
  // The guest may have moved its TSC; its time goes on.
  const uint64_t nanoseconds = multiply_divide(tsc - state_.tsc_adjust, 1'000'000'000, model_.tsc_hz());

  const uint64_t version = 2;
  write_physical(at, 4, version - 1);  // odd: being written
  write_physical(at + 8, 8, tsc);
  write_physical(at + 16, 8, nanoseconds);
  write_physical(at + 24, 4, mul);
  write_physical(at + 28, 4, static_cast<uint8_t>(shift) | kPvclockTscStable << 8);
  write_physical(at, 4, version);
  return {};
}

// struct pvclock_wall_clock: wall time at system_time 0.
Result<void> Vcpu::write_kvm_wall_clock(uint64_t value) {
  msrs_.kvm_wall_clock = value;
  const PhysAddr at{value};
  const uint64_t version = 2;
  write_physical(at, 4, version - 1);
  write_physical(at + 4, 4, wall_clock_start_ / 1'000'000'000);
  write_physical(at + 8, 4, wall_clock_start_ % 1'000'000'000);
  write_physical(at, 4, version);
  return {};
}

Result<Outcome> Vcpu::execute_msr(const SystemInstruction& insn) {
  switch (insn.op) {
    case SystemOp::Rdmsr: {
      if (state_.cpl != 0) return raise(vector::kGp, 0);
      auto value = read_msr(static_cast<uint32_t>(state_.gpr[kRcx]));
      if (!value) return std::unexpected(value.error());
      write_edx_eax(state_, *value);
      return advance(insn);
    }
    case SystemOp::Wrmsr: {
      if (state_.cpl != 0) return raise(vector::kGp, 0);
      const auto index = static_cast<uint32_t>(state_.gpr[kRcx]);
      if (auto done = write_msr(index, read_edx_eax(state_)); !done) return std::unexpected(done.error());
      advance(insn);
      return index == msr::kEfer ? Outcome::Redirect : Outcome::Next;
    }
    case SystemOp::Swapgs: {
      if (!code64()) return raise(vector::kUd);
      if (state_.cpl != 0) return raise(vector::kGp, 0);
      const uint64_t base = state_.segments[kGs].base;
      state_.segments[kGs].base = state_.kernel_gs_base;
      state_.kernel_gs_base = base;
      return advance(insn);
    }
    case SystemOp::Rdfsbase:
    case SystemOp::Rdgsbase:
    case SystemOp::Wrfsbase:
    case SystemOp::Wrgsbase: {
      if (!code64() || !(state_.cr4 & cr4::kFsgsbase)) return raise(vector::kUd);
      const bool fs = insn.op == SystemOp::Rdfsbase || insn.op == SystemOp::Wrfsbase;
      uint64_t& base = state_.segments[fs ? kFs : kGs].base;
      const unsigned bytes = insn.operand_bytes == 8 ? 8 : 4;
      if (insn.op == SystemOp::Rdfsbase || insn.op == SystemOp::Rdgsbase) {
        write_gpr(insn.rm, base, bytes);
      } else {
        const uint64_t value = read_gpr(state_, insn.rm, bytes);
        if (!is_canonical(value)) return raise(vector::kGp, 0);
        base = value;
      }
      return advance(insn);
    }
    default:
      return raise(vector::kUd);
  }
}

}  // namespace penumbra
