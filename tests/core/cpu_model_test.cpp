#include "core/cpu_model.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core/vcpu_state.h"

namespace penumbra {
namespace {

std::string text(std::initializer_list<uint32_t> words) {
  std::string out;
  for (const uint32_t word : words) out.append(reinterpret_cast<const char*>(&word), 4);
  return std::string(out.c_str());
}

TEST(CpuModel, UnknownNamesAreRefused) {
  EXPECT_THROW(CpuModel("pentium"), std::invalid_argument);
}

TEST(CpuModel, SaysThatItIsKvmForItsClock) {
  for (const char* name : {"base", "max"}) {
    const CpuModel model(name);
    EXPECT_TRUE(model.leaf(1, 0).ecx >> 31 & 1);
    const CpuidLeaf leaf = model.leaf(0x4000'0000, 0);
    EXPECT_EQ(text({leaf.ebx, leaf.ecx, leaf.edx}), "KVMKVMKVM");
    EXPECT_EQ(leaf.eax, 0x4000'0001u);
    EXPECT_EQ(model.leaf(0x4000'0001, 0).eax, 1u << 1 | 1u << 3 | 1u << 24);
  }
}

// What the translator does not pass and the machine does not have.
TEST(CpuModel, HidesWhatIsNotThere) {
  for (const char* name : {"base", "max"}) {
    const CpuModel model(name);
    const CpuidLeaf one = model.leaf(1, 0), seven = model.leaf(7, 0), extended = model.leaf(0x8000'0001, 0);
    for (const unsigned bit : {2 /*DTES64*/, 5 /*VMX*/, 6 /*SMX*/, 15 /*PDCM*/, 21 /*x2APIC*/,
                               24 /*TSC deadline*/, 27 /*OSXSAVE: follows CR4*/}) {
      EXPECT_FALSE(one.ecx >> bit & 1) << bit;
    }
    for (const unsigned bit :
         {7 /*MCE*/, 9 /*APIC: the vCPU adds it*/, 14 /*MCA*/, 21 /*DS*/, 22 /*ACPI*/, 28 /*HTT*/}) {
      EXPECT_FALSE(one.edx >> bit & 1) << bit;
    }
    if (model.leaf(0, 0).eax >= 7) {
      for (const unsigned bit : {2 /*SGX*/, 4 /*HLE*/, 11 /*RTM*/, 14 /*MPX*/, 16 /*AVX-512*/, 17, 21, 26, 27,
                                 28, 30, 31, 22 /*PCOMMIT*/, 25 /*PT*/}) {
        EXPECT_FALSE(seven.ebx >> bit & 1) << bit;
      }
      for (const unsigned bit : {1 /*VBMI*/, 3 /*PKU*/, 5 /*WAITPKG*/, 6, 7 /*CET*/, 11, 12, 14, 16 /*LA57*/,
                                 23 /*KL*/, 25 /*CLDEMOTE*/, 27 /*MOVDIRI*/, 28, 29 /*ENQCMD*/, 31 /*PKS*/}) {
        EXPECT_FALSE(seven.ecx >> bit & 1) << bit;
      }
      for (const unsigned bit : {2, 3, 5 /*UINTR*/, 8, 20 /*IBT*/, 22 /*AMX*/, 24, 25}) {
        EXPECT_FALSE(seven.edx >> bit & 1) << bit;
      }
    }
    EXPECT_FALSE(extended.ecx >> 2 & 1);  // SVM
    EXPECT_FALSE(extended.ecx >> 3 & 1);  // extended APIC space
    // XSAVE components: x87, SSE, AVX.
    EXPECT_EQ(model.has_xsave() ? model.leaf(0xd, 0).eax & ~7u : 0, 0u);
    EXPECT_EQ(model.leaf(0xd, 1).eax & 8, 0u);  // XSAVES
    EXPECT_EQ(model.cr4_mask() & (cr4::kLa57 | 1u << 13 /*VMXE*/ | 1u << 22 /*PKE*/ | 1u << 23 /*CET*/), 0u);
  }
}

TEST(CpuModel, MaxOffersWhatTheCoreImplements) {
  const CpuModel model("max");
  EXPECT_EQ(model.cr4_mask() & (cr4::kSmep | cr4::kSmap | cr4::kPcide | cr4::kFsgsbase | cr4::kUmip),
            cr4::kSmep | cr4::kSmap | cr4::kPcide | cr4::kFsgsbase | cr4::kUmip);
  EXPECT_TRUE(model.leaf(7, 0).ebx >> 10 & 1);  // INVPCID
  EXPECT_TRUE(model.leaf(7, 0).ecx >> 22 & 1);  // RDPID
  EXPECT_TRUE(model.leaf(1, 0).ecx >> 17 & 1);  // PCID
  const uint32_t required = 1u << 11 | 1u << 20 | 1u << 26 | 1u << 27 | 1u << 29;
  EXPECT_EQ(model.leaf(0x8000'0001, 0).edx & required, required);
  EXPECT_TRUE(model.leaf(0x8000'0007, 0).edx >> 8 & 1);  // invariant TSC
  EXPECT_EQ(model.leaf(0x8000'0008, 0).eax, 48u << 8 | model.physical_bits());
}

TEST(CpuModel, BaseIsTheSameEverywhere) {
  const CpuModel model("base");
  EXPECT_EQ(text({model.leaf(0, 0).ebx, model.leaf(0, 0).edx, model.leaf(0, 0).ecx}), "AuthenticAMD");
  EXPECT_EQ(model.leaf(0, 0).eax, 1u);
  EXPECT_EQ(model.leaf(1, 0).ecx, 1u << 31);
  EXPECT_FALSE(model.has_xsave());
  EXPECT_EQ(model.cr4_mask() & (cr4::kOsxsave | cr4::kSmap | cr4::kPcide), 0u);
}

TEST(CpuModel, TscRateIsPlausible) {
  const CpuModel model("max");
  EXPECT_GT(model.tsc_hz(), 100'000'000u);
  EXPECT_LT(model.tsc_hz(), 20'000'000'000u);
  const CpuidLeaf tsc = model.leaf(0x15, 0);
  EXPECT_NEAR(static_cast<double>(tsc.ecx) * tsc.ebx / tsc.eax, static_cast<double>(model.tsc_hz()), 10);
}

}  // namespace
}  // namespace penumbra
