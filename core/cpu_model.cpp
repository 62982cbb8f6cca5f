// The named CPU models. A feature is told to the guest when the host has it and the translator passes it, or
// when the core implements it without the host's help.
#include "core/cpu_model.h"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "core/vcpu_state.h"

namespace penumbra {

namespace {

constexpr uint32_t bits(std::initializer_list<unsigned> numbers) {
  uint32_t value = 0;
  for (const unsigned number : numbers) value |= 1u << number;
  return value;
}

CpuidLeaf host_leaf(uint32_t function, uint32_t index = 0) {
  CpuidLeaf leaf{.function = function, .index = index};
  if (function > __get_cpuid_max(function & 0x8000'0000, nullptr)) return leaf;
  __cpuid_count(function, index, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx);
  return leaf;
}

// Host bits that are passed as they are, and bits that the core implements itself (paging, descriptors,
// MSRs).
struct FeatureBits {
  uint32_t passed = 0;
  uint32_t own = 0;
  constexpr uint32_t of(uint32_t host) const { return (host & passed) | own; }
};

// CPUID.1:EDX. Left out: MCE, MCA, PSE36, PSN, DS, ACPI, SS, HTT, TM. APIC is the
// vCPU's, which has one or not.
constexpr FeatureBits kLeaf1Edx = {.passed = bits({0 /*FPU*/, 8 /*CX8*/, 15 /*CMOV*/, 19 /*CLFSH*/,
                                                   23 /*MMX*/, 24 /*FXSR*/, 25 /*SSE*/, 26 /*SSE2*/}),
                                   .own = bits({1 /*VME*/, 2 /*DE*/, 3 /*PSE*/, 4 /*TSC*/, 5 /*MSR*/,
                                                6 /*PAE*/, 11 /*SEP*/, 12 /*MTRR*/, 13 /*PGE*/, 16 /*PAT*/})};
constexpr uint32_t kHypervisorBit = 1u << 31;
constexpr uint32_t kAvxBit = 1u << 28;
// CPUID.1:ECX bits whose instructions are VEX-encoded.
constexpr uint32_t kLeaf1EcxVex = bits({12 /*FMA*/, 28 /*AVX*/, 29 /*F16C*/});
constexpr FeatureBits kLeaf1Ecx = {
    .passed = bits({0 /*SSE3*/, 1 /*PCLMULQDQ*/, 9 /*SSSE3*/, 13 /*CX16*/, 19 /*SSE4.1*/, 20 /*SSE4.2*/,
                    22 /*MOVBE*/, 23 /*POPCNT*/, 25 /*AES*/, 26 /*XSAVE*/, 30 /*RDRAND*/}) |
              kLeaf1EcxVex,
    .own = bits({3 /*MONITOR*/, 17 /*PCID*/}) | kHypervisorBit};
constexpr uint32_t kLeaf7EbxVex = bits({5 /*AVX2*/});
constexpr FeatureBits kLeaf7Ebx = {
    .passed = bits({3 /*BMI1*/, 6 /*FDP_EXCPTN_ONLY*/, 8 /*BMI2*/, 9 /*ERMS*/, 13 /*FCS, FDS deprecated*/,
                    18 /*RDSEED*/, 19 /*ADX*/, 23 /*CLFLUSHOPT*/, 24 /*CLWB*/, 29 /*SHA*/}) |
              kLeaf7EbxVex,
    .own = bits({0 /*FSGSBASE*/, 1 /*TSC_ADJUST*/, 7 /*SMEP*/, 10 /*INVPCID*/, 20 /*SMAP*/})};
constexpr uint32_t kLeaf7EcxVex = bits({9 /*VAES*/, 10 /*VPCLMULQDQ*/});
constexpr FeatureBits kLeaf7Ecx = {.passed = bits({8 /*GFNI*/}) | kLeaf7EcxVex,
                                   .own = bits({2 /*UMIP*/, 22 /*RDPID*/})};
constexpr FeatureBits kLeaf7Edx = {.passed = bits({4 /*FSRM*/})};
constexpr uint32_t kLeaf7Sub1EaxVex = bits({4 /*AVX-VNNI*/});
constexpr FeatureBits kLeaf7Sub1Eax = {
    .passed = bits({10 /*fast zero-length MOVSB*/, 11 /*FSRS*/, 12 /*FSRC*/}) | kLeaf7Sub1EaxVex};
constexpr FeatureBits kExtended1Edx = {
    .own = bits({11 /*SYSCALL*/, 20 /*NX*/, 26 /*1 GiB pages*/, 27 /*RDTSCP*/, 29 /*LM*/})};
// Bits of 8000_0001:EDX that repeat CPUID.1:EDX on AMD.
constexpr uint32_t kExtended1EdxMirror = 0x0183'f3ff;
constexpr FeatureBits kExtended1Ecx = {.passed = bits({0 /*LAHF*/, 5 /*LZCNT*/, 8 /*PREFETCHW*/})};

// IA32_ARCH_CAPABILITIES: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO,
// SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
constexpr uint64_t kArchCapabilities = bits({0, 1, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27}) | uint64_t{1}
                                                                                                     << 62;

// "KVMKVMKVM": the paravirtual clock (MSRs 4b564d00 and 4b564d01), and ports need no delay between accesses.
constexpr uint32_t kKvmNopIoDelay = 1u << 1, kKvmClocksource2 = 1u << 3, kKvmClocksourceStable = 1u << 24;

constexpr uint32_t kEferAutomaticIbrs = 1u << 21;

struct ClockPair {
  uint64_t tsc;
  uint64_t nanoseconds;
};

// The tightest of a few readings, so that one interrupt does not spoil the measurement.
ClockPair read_clocks() {
  ClockPair best{};
  uint64_t best_width = ~uint64_t{0};
  for (unsigned i = 0; i < 16; ++i) {
    timespec now{};
    const uint64_t before = __rdtsc();
    clock_gettime(CLOCK_MONOTONIC, &now);
    const uint64_t width = __rdtsc() - before;
    if (width >= best_width) continue;
    best_width = width;
    best = {before + width / 2,
            static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec)};
  }
  return best;
}

uint64_t measure_tsc_hz() {
  const CpuidLeaf tsc = host_leaf(0x15);
  if (tsc.eax != 0 && tsc.ebx != 0 && tsc.ecx != 0) {
    return static_cast<uint64_t>(tsc.ecx) * tsc.ebx / tsc.eax;
  }
  const ClockPair start = read_clocks();
  const timespec pause{.tv_sec = 0, .tv_nsec = 20'000'000};
  nanosleep(&pause, nullptr);
  const ClockPair end = read_clocks();
  const auto ticks = static_cast<unsigned __int128>(end.tsc - start.tsc);
  return static_cast<uint64_t>(ticks * 1'000'000'000 / (end.nanoseconds - start.nanoseconds));
}

uint64_t host_tsc_hz() {
  static const uint64_t hz = measure_tsc_hz();
  return hz;
}

uint64_t host_xcr0() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

uint64_t cr4_bits(const CpuidLeaf& leaf1, const CpuidLeaf& leaf7) {
  uint64_t mask = cr4::kVme | cr4::kPvi | cr4::kTsd | cr4::kDe | cr4::kPse | cr4::kPae | cr4::kPge |
                  cr4::kPce | cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kMce;
  if (leaf1.ecx & 1u << 17) mask |= cr4::kPcide;
  if (leaf1.ecx & 1u << 26) mask |= cr4::kOsxsave;
  if (leaf7.ebx & 1u << 0) mask |= cr4::kFsgsbase;
  if (leaf7.ebx & 1u << 7) mask |= cr4::kSmep;
  if (leaf7.ebx & 1u << 20) mask |= cr4::kSmap;
  if (leaf7.ecx & 1u << 2) mask |= cr4::kUmip;
  return mask;
}

}  // namespace

CpuModel::CpuModel(std::string_view name) : tsc_hz_(host_tsc_hz()) {
  if (name == "max") {
    make_max();
  } else if (name == "base") {
    make_base();
  } else {
    throw std::invalid_argument("unknown CPU model '" + std::string(name) + "': max or base");
  }
  const CpuidLeaf leaf1 = leaf(1, 0);
  cr4_mask_ = cr4_bits(leaf1, leaf(7, 0));
  xsave_ = leaf1.ecx & 1u << 26;
  monitor_ = leaf1.ecx & 1u << 3;
  avx_ = leaf1.ecx & kAvxBit;
  xsavec_ = leaf(0xd, 1).eax & 1u << 1;
  xgetbv1_ = leaf(0xd, 1).eax & 1u << 2;
  efer_mask_ = efer::kSce | efer::kLme | efer::kLma | efer::kNxe;
  if (amd_ && leaf(0x8000'0021, 0).eax & 1u << 8) efer_mask_ |= kEferAutomaticIbrs;
}

void CpuModel::add_brand(std::string_view brand) {
  std::array<char, 48> text{};
  std::copy_n(brand.begin(), std::min<size_t>(brand.size(), text.size() - 1), text.begin());
  for (uint32_t i = 0; i < 3; ++i) {
    CpuidLeaf leaf{.function = 0x8000'0002 + i};
    std::memcpy(&leaf.eax, &text[i * 16], 4);
    std::memcpy(&leaf.ebx, &text[i * 16 + 4], 4);
    std::memcpy(&leaf.ecx, &text[i * 16 + 8], 4);
    std::memcpy(&leaf.edx, &text[i * 16 + 12], 4);
    add(leaf);
  }
}

void CpuModel::add_hypervisor() {
  add({.function = 0x4000'0000, .eax = 0x4000'0001, .ebx = 0x4b4d'564b, .ecx = 0x564b'4d56, .edx = 0x4d});
  add({.function = 0x4000'0001, .eax = kKvmNopIoDelay | kKvmClocksource2 | kKvmClocksourceStable});
}

void CpuModel::make_max() {
  const CpuidLeaf vendor = host_leaf(0), host1 = host_leaf(1), host7 = host_leaf(7),
                  hostd1 = host_leaf(0xd, 1);
  amd_ = vendor.ebx == 0x6874'7541 || vendor.ebx == 0x6f67'7948;  // "AuthenticAMD", "HygonGenuine"
  const bool xsave = host1.ecx & 1u << 27;                        // OSXSAVE: the host's kernel lets us use it
  const bool avx = xsave && host1.ecx & kAvxBit && (host_xcr0() & 6) == 6;
  const auto without_vex = [avx](uint32_t value, uint32_t vex) { return avx ? value : value & ~vex; };

  add({.function = 0, .eax = 0x16, .ebx = vendor.ebx, .ecx = vendor.ecx, .edx = vendor.edx});

  // CLFLUSH line size, one logical processor, APIC ID 0.
  uint32_t ecx1 = without_vex(kLeaf1Ecx.of(host1.ecx), kLeaf1EcxVex);
  if (!xsave) ecx1 &= ~(1u << 26);
  const uint32_t edx1 = kLeaf1Edx.of(host1.edx);
  add({.function = 1, .eax = host1.eax, .ebx = (host1.ebx & 0xff00) | 1u << 16, .ecx = ecx1, .edx = edx1});

  if (!amd_) {
    CpuidLeaf descriptors = host_leaf(2);
    add(descriptors);
    for (uint32_t i = 0; i < 8; ++i) {
      CpuidLeaf cache = host_leaf(4, i);
      if ((cache.eax & 0x1f) == 0) break;
      cache.eax &= 0x3fff;  // one core, one thread shares it
      add(cache);
    }
  }
  add({.function = 5, .eax = 64, .ebx = 64});  // MONITOR line size; MWAIT takes no extensions

  add({.function = 6, .eax = 1u << 2});  // ARAT: the APIC's timer runs in every idle state

  uint32_t edx7 = kLeaf7Edx.of(host7.edx);
  if (!amd_) {
    edx7 |= 1u << 26 | 1u << 29;  // SPEC_CTRL, ARCH_CAPABILITIES
    spec_ctrl_ = true;
    arch_capabilities_ = kArchCapabilities;
  }
  const uint32_t eax71 =
      host7.eax >= 1 ? without_vex(kLeaf7Sub1Eax.of(host_leaf(7, 1).eax), kLeaf7Sub1EaxVex) : 0;
  add({.function = 7,
       .eax = eax71 ? 1u : 0u,
       .ebx = without_vex(kLeaf7Ebx.of(host7.ebx), kLeaf7EbxVex),
       .ecx = without_vex(kLeaf7Ecx.of(host7.ecx), kLeaf7EcxVex),
       .edx = edx7});
  if (eax71) add({.function = 7, .index = 1, .eax = eax71});

  add({.function = 0xb, .index = 0, .ebx = 1, .ecx = 0x100});
  add({.function = 0xb, .index = 1, .ebx = 1, .ecx = 0x201});

  if (xsave) {
    add({.function = 0xd, .index = 0, .eax = avx ? 7u : 3u, .ebx = 576, .ecx = avx ? 832u : 576u});
    // XSAVEOPT, XSAVEC, XGETBV with ECX = 1. Without XSAVES there is nothing in EDX:ECX.
    add({.function = 0xd, .index = 1, .eax = hostd1.eax & 7, .ebx = 576});
    if (avx) add({.function = 0xd, .index = 2, .eax = 256, .ebx = 576});
  }

  // TSC = crystal * EBX / EAX; software counts the crystal in kHz, so a fast one loses least.
  add({.function = 0x15, .eax = 1, .ebx = 2, .ecx = static_cast<uint32_t>(crystal_hz())});
  const auto mhz = static_cast<uint32_t>((tsc_hz_ + 500'000) / 1'000'000);
  add({.function = 0x16, .eax = mhz, .ebx = mhz, .ecx = 100});

  add_hypervisor();

  const CpuidLeaf extended1 = host_leaf(0x8000'0001);
  add({.function = 0x8000'0000,
       .eax = amd_ ? 0x8000'0021u : 0x8000'0008u,
       .ebx = amd_ ? vendor.ebx : 0,
       .ecx = amd_ ? vendor.ecx : 0,
       .edx = amd_ ? vendor.edx : 0});
  uint32_t edx81 = kExtended1Edx.own;
  if (amd_)
    edx81 |= (edx1 & kExtended1EdxMirror) | (extended1.edx & 1u << 22);  // and AMD's SSE integer subset
  add({.function = 0x8000'0001,
       .eax = amd_ ? extended1.eax : 0,
       .ebx = amd_ ? extended1.ebx : 0,
       .ecx = kExtended1Ecx.of(extended1.ecx),
       .edx = edx81});
  for (uint32_t function = 0x8000'0002; function <= 0x8000'0006; ++function) add(host_leaf(function));
  add({.function = 0x8000'0007, .edx = 1u << 8});  // invariant TSC
  CpuidLeaf sizes{.function = 0x8000'0008, .eax = 48u << 8 | physical_bits()};
  if (amd_) {
    // XSAVEERPTR as the host; SSB_NO, BTC_NO.
    sizes.ebx = (host_leaf(0x8000'0008).ebx & 1u << 2) | 1u << 26 | 1u << 29;
    add(sizes);
    // LFENCE serializes (as the host), null selectors clear the base, automatic IBRS, SRSO_NO; TSA_SQ_NO,
    // TSA_L1_NO.
    //
    // Automatic IBRS (and IBRS_ALL on Intel) tells the guest not to use retpolines. Under translation a
    // retpoline is no barrier, since the host never executes the guest's RET, but it defeats every prediction
    // of ours.
    add({.function = 0x8000'0021,
         .eax = (host_leaf(0x8000'0021).eax & 1u << 2) | 1u << 6 | 1u << 8 | 1u << 29,
         .ecx = 1u << 1 | 1u << 2});
  } else {
    add(sizes);
  }
}

// A family that no speculation bug is known for, so that guests take no measures; x86-64 with SSE2.
void CpuModel::make_base() {
  constexpr uint32_t kVendorEbx = 0x6874'7541, kVendorEdx = 0x6974'6e65,
                     kVendorEcx = 0x444d'4163;  // AuthenticAMD
  constexpr uint32_t kSignature = 0x0030'0f10;  // family 18
  constexpr uint32_t kEdx1 = kLeaf1Edx.passed | kLeaf1Edx.own;
  amd_ = true;
  add({.function = 0, .eax = 1, .ebx = kVendorEbx, .ecx = kVendorEcx, .edx = kVendorEdx});
  add({.function = 1, .eax = kSignature, .ebx = 8u << 8 | 1u << 16, .ecx = kHypervisorBit, .edx = kEdx1});
  add_hypervisor();
  add({.function = 0x8000'0000, .eax = 0x8000'0008, .ebx = kVendorEbx, .ecx = kVendorEcx, .edx = kVendorEdx});
  add({.function = 0x8000'0001,
       .eax = kSignature,
       .ecx = 1u << 0,  // LAHF
       .edx = (kEdx1 & kExtended1EdxMirror) | kExtended1Edx.own});
  add_brand("Penumbra base CPU");
  // 64 KiB, 2-way, 64-byte lines for each first-level cache; 1 MiB, 16-way second level.
  add({.function = 0x8000'0005,
       .eax = 0xff30'ff10,
       .ebx = 0xff30'ff20,
       .ecx = 0x4002'0140,
       .edx = 0x4002'0140});
  add({.function = 0x8000'0006, .ecx = 0x0400'8140});
  add({.function = 0x8000'0007, .edx = 1u << 8});
  add({.function = 0x8000'0008, .eax = 48u << 8 | physical_bits()});
}

const CpuidLeaf* CpuModel::find(uint32_t function, uint32_t index) const {
  const CpuidLeaf* match = nullptr;
  for (const CpuidLeaf& leaf : leaves_) {
    if (leaf.function != function) continue;
    if (leaf.index == index) return &leaf;
    match = &leaf;
  }
  if (!match) return nullptr;
  // Leaves without sub-leaves ignore the index.
  const bool indexed = function == 4 || function == 7 || function == 0xb || function == 0xd;
  return indexed ? nullptr : match;
}

CpuidLeaf CpuModel::leaf(uint32_t function, uint32_t index) const {
  const uint32_t max_basic = leaves_.front().eax;
  const uint32_t wanted = function;
  const auto in_range = [&](uint32_t number) {
    const CpuidLeaf* first = find(number & 0xf000'0000, 0);
    return first && number <= first->eax;
  };
  CpuidLeaf out{.function = function, .index = index};
  if (!in_range(function)) {
    if (amd_) return out;
    function = max_basic;  // SDM vol. 2, CPUID: the data of the highest basic leaf
  }
  if (const CpuidLeaf* found = find(function, index)) out = *found;
  if (function == 0xb) out.ecx |= index & 0xff;
  out.function = wanted;
  out.index = index;
  return out;
}

}  // namespace penumbra
