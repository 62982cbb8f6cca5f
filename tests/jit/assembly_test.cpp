// Runs every program in tests/asm under each engine mode and, where its header allows, on the bare host CPU.
//
// A program's header says what it is and what must hold when it reaches HLT (or which exception ends it):
//     ; bits: 64                      16, 32 or 64
//     ; native: yes                   also runs on the host, and all registers and memory must agree
//     ; smap: no                      has tables in user pages, so that its 64-bit code can't have shadow
//     windows ; expect: rax=0x5 zf=1          registers and flags at the end; `exception=13` instead of HLT
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "tests/jit/native_run.h"

namespace penumbra::test {
namespace {

struct Program {
  std::string name;
  std::vector<uint8_t> image;
  unsigned bits = 64;
  bool native = false;
  bool smap = true;
  std::map<std::string, uint64_t> expect;
};

Program load_program(const std::filesystem::path& source) {
  Program program;
  program.name = source.stem().string();
  std::ifstream text(source);
  for (std::string line; std::getline(text, line) && line.starts_with(";");) {
    std::istringstream words(line.substr(1));
    std::string key;
    words >> key;
    if (key == "bits:") words >> program.bits;
    if (key == "native:" || key == "smap:") {
      std::string answer;
      words >> answer;
      (key == "smap:" ? program.smap : program.native) = answer == "yes";
    }
    if (key == "expect:") {
      for (std::string item; words >> item;) {
        const size_t equals = item.find('=');
        program.expect[item.substr(0, equals)] = std::strtoull(item.c_str() + equals + 1, nullptr, 0);
      }
    }
  }
  const std::filesystem::path binary = std::filesystem::path(PENUMBRA_ASM_DIR) / (program.name + ".bin");
  std::ifstream bytes(binary, std::ios::binary);
  program.image.assign(std::istreambuf_iterator<char>(bytes), {});
  return program;
}

constexpr const char* kGprNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
const std::map<std::string, uint64_t> kFlagNames = {{"cf", flag::kCf}, {"pf", flag::kPf}, {"af", flag::kAf},
                                                    {"zf", flag::kZf}, {"sf", flag::kSf}, {"of", flag::kOf},
                                                    {"df", flag::kDf}};

uint64_t value_of(const std::string& name, const BareGuest::Outcome& outcome) {
  for (unsigned i = 0; i < 16; ++i) {
    if (name == kGprNames[i]) return outcome.registers.gpr[i];
  }
  if (name == "rip") return outcome.registers.rip;
  if (name == "exception") return outcome.vector;
  if (name == "cr2") return outcome.cr2;
  const auto found = kFlagNames.find(name);
  if (found != kFlagNames.end()) return (outcome.registers.rflags & found->second) != 0;
  ADD_FAILURE() << "unknown name in an expect line: " << name;
  return 0;
}

struct Mode {
  const char* name;
  const char* switches;
  jit::TranslatorOptions::Mmu mmu = jit::TranslatorOptions::Mmu::Tlb;
};
constexpr Mode kModes[] = {
    {"default", ""},
    {"no_chain", "no-chain"},
    {"no_jump_cache", "no-jump-cache"},
    {"no_flag_liveness", "no-flag-liveness"},
    {"callout_form", "no-soft-tlb"},
    {"one_instruction", "no-long-blocks"},
    {"windows", "", jit::TranslatorOptions::Mmu::Windows},
    {"windows_no_chain", "no-chain", jit::TranslatorOptions::Mmu::Windows},
    {"no_inline_system", "no-inline-system"},
    {"nothing", "no-chain,no-jump-cache,no-flag-liveness,no-soft-tlb,no-long-blocks"},
};

Registers start_registers() {
  Registers start;
  for (unsigned i = 0; i < 16; ++i) {
    start.gpr[i] = 0;
    for (unsigned word = 0; word < 4; ++word) start.ymm[i][word] = 0x0101'0101'0101'0101 * (i * 4 + word);
  }
  start.gpr[kRsp] = BareGuest::kStackTop;
  start.rip = BareGuest::kCode;
  return start;
}

class AssemblyTest : public testing::Test {
 public:
  explicit AssemblyTest(std::filesystem::path source) : source_(std::move(source)) {}

  void TestBody() override {
    const Program program = load_program(source_);
    ASSERT_FALSE(program.image.empty());
    ASSERT_FALSE(program.expect.empty()) << "the header has no expect line";
    std::vector<std::byte> native_memory(BareGuest::kBytes);
    BareGuest::Outcome native;
    if (program.native) {
      native = run_natively(program.image, start_registers(), native_memory);
      check(program, native, "native");
    }
    for (const Mode& mode : kModes) {
      jit::TranslatorOptions options;
      options.code_cache_bytes = 4 << 20;
      jit::apply_switches(options, mode.switches);
      options.mmu = mode.mmu;
      BareGuest guest(program.bits, options);
      guest.load(program.image);
      Registers start = start_registers();
      if (program.bits == 64 && program.smap) start.rflags |= flag::kAc;
      const BareGuest::Outcome outcome = guest.run(start);
      ASSERT_NE(outcome.end, BareGuest::End::Timeout) << mode.name;
      check(program, outcome, mode.name);
      if (mode.mmu == jit::TranslatorOptions::Mmu::Windows && program.smap) {
        EXPECT_GT(guest.translator().counters().window_fills, 0u)
            << mode.name << ": no access went through a window";
      }
      if (program.native) compare(guest, outcome, native, native_memory, mode.name);
    }
  }

 private:
  static void check(const Program& program, const BareGuest::Outcome& outcome, const char* mode) {
    const bool exception = program.expect.contains("exception");
    EXPECT_EQ(outcome.end, exception ? BareGuest::End::Exception : BareGuest::End::Halted)
        << mode << ": exception " << int{outcome.vector} << " at rip " << std::hex << outcome.registers.rip;
    for (const auto& [name, expected] : program.expect) {
      EXPECT_EQ(value_of(name, outcome), expected) << mode << ": " << name;
    }
  }

  static void compare(BareGuest& guest, const BareGuest::Outcome& outcome, const BareGuest::Outcome& native,
                      std::span<const std::byte> native_memory, const char* mode) {
    for (unsigned i = 0; i < 16; ++i) {
      EXPECT_EQ(outcome.registers.gpr[i], native.registers.gpr[i]) << mode << ": " << kGprNames[i];
      EXPECT_EQ(outcome.registers.ymm[i], native.registers.ymm[i]) << mode << ": ymm" << i;
    }
    EXPECT_EQ(outcome.registers.rflags & flag::kArithmetic, native.registers.rflags & flag::kArithmetic)
        << mode;
    EXPECT_EQ(outcome.registers.mxcsr, native.registers.mxcsr) << mode;
    const std::span<const std::byte> memory = guest.memory();
    const auto [here, there] = std::ranges::mismatch(memory, native_memory);
    if (here != memory.end()) {
      ADD_FAILURE() << mode << ": memory differs at offset " << std::hex << here - memory.begin() << ": "
                    << static_cast<int>(*here) << ", natively " << static_cast<int>(*there);
    }
  }

  std::filesystem::path source_;
};

const bool registered = [] {
  for (const auto& entry : std::filesystem::directory_iterator(PENUMBRA_ASM_SOURCES)) {
    const std::filesystem::path source = entry.path();
    if (source.extension() != ".asm") continue;
    testing::RegisterTest("Assembly", source.stem().c_str(), nullptr, nullptr, __FILE__, __LINE__,
                          [source]() -> testing::Test* { return new AssemblyTest(source); });
  }
  return true;
}();

}  // namespace
}  // namespace penumbra::test
