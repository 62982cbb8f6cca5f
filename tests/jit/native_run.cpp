#include "tests/jit/native_run.h"

#include <immintrin.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <csetjmp>
#include <csignal>
#include <cstring>
#include <stdexcept>

namespace penumbra::test {

namespace {

sigjmp_buf back;
BareGuest::Outcome outcome;
uint8_t faulting_opcode;

// gregs order to register numbers.
constexpr int kGregs[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

void on_fault(int, siginfo_t* info, void* context_pointer) {
  const auto* context = static_cast<const ucontext_t*>(context_pointer);
  const greg_t* regs = context->uc_mcontext.gregs;
  for (unsigned i = 0; i < 16; ++i) outcome.registers.gpr[i] = static_cast<uint64_t>(regs[kGregs[i]]);
  outcome.registers.rip = static_cast<uint64_t>(regs[REG_RIP]);
  outcome.registers.rflags = static_cast<uint64_t>(regs[REG_EFL]);
  outcome.vector = static_cast<uint8_t>(regs[REG_TRAPNO]);
  outcome.cr2 = reinterpret_cast<uint64_t>(info->si_addr);
  const fpregset_t fp = context->uc_mcontext.fpregs;
  outcome.registers.mxcsr = fp->mxcsr;
  for (unsigned i = 0; i < 16; ++i) std::memcpy(outcome.registers.ymm[i].data(), &fp->_xmm[i], 16);
  // The frame is an XSAVE image; upper halves of ymm follow the 576 bytes of the legacy area and header.
  const auto* image = reinterpret_cast<const std::byte*>(fp);
  uint64_t in_use = 0;
  std::memcpy(&in_use, image + 512, 8);
  if (in_use & 4) {
    for (unsigned i = 0; i < 16; ++i)
      std::memcpy(outcome.registers.ymm[i].data() + 2, image + 576 + i * 16, 16);
  }
  const uint64_t rip = outcome.registers.rip;
  if (rip - BareGuest::kCode < BareGuest::kBytes)
    std::memcpy(&faulting_opcode, reinterpret_cast<void*>(rip), 1);
  siglongjmp(back, 1);
}

struct LaunchState {
  std::array<uint64_t, 16> gpr;
  uint64_t rflags;
};
uint64_t launch_address;  // read when no register is free any more

// Loads every register and jumps; never returns.
[[noreturn]] __attribute__((noinline)) void launch(const LaunchState& state) {
  asm volatile(
      "mov %0, %%r15\n"
      "push 128(%%r15)\n popfq\n"
      "mov (%%r15), %%rax\n mov 8(%%r15), %%rcx\n mov 16(%%r15), %%rdx\n mov 24(%%r15), %%rbx\n"
      "mov 40(%%r15), %%rbp\n mov 48(%%r15), %%rsi\n mov 56(%%r15), %%rdi\n mov 64(%%r15), %%r8\n"
      "mov 72(%%r15), %%r9\n mov 80(%%r15), %%r10\n mov 88(%%r15), %%r11\n mov 96(%%r15), %%r12\n"
      "mov 104(%%r15), %%r13\n mov 112(%%r15), %%r14\n mov 32(%%r15), %%rsp\n"
      "mov 120(%%r15), %%r15\n jmp *%1\n"
      :
      : "r"(&state), "m"(launch_address)
      : "memory");
  __builtin_unreachable();
}

__attribute__((target("avx"))) void load_ymm(const Registers& start) {
#define PENUMBRA_LOAD(n) \
  asm volatile("vmovdqu %0, %%ymm" #n : : "m"(*reinterpret_cast<const __m256i*>(start.ymm[n].data())))
  PENUMBRA_LOAD(0);
  PENUMBRA_LOAD(1);
  PENUMBRA_LOAD(2);
  PENUMBRA_LOAD(3);
  PENUMBRA_LOAD(4);
  PENUMBRA_LOAD(5);
  PENUMBRA_LOAD(6);
  PENUMBRA_LOAD(7);
  PENUMBRA_LOAD(8);
  PENUMBRA_LOAD(9);
  PENUMBRA_LOAD(10);
  PENUMBRA_LOAD(11);
  PENUMBRA_LOAD(12);
  PENUMBRA_LOAD(13);
  PENUMBRA_LOAD(14);
  PENUMBRA_LOAD(15);
#undef PENUMBRA_LOAD
}

}  // namespace

BareGuest::Outcome run_natively(std::span<const uint8_t> image, const Registers& start,
                                std::span<std::byte> memory) {
  void* area =
      mmap(reinterpret_cast<void*>(BareGuest::kCode), BareGuest::kBytes, PROT_READ | PROT_WRITE | PROT_EXEC,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (area == MAP_FAILED) throw std::runtime_error("native run: mmap failed");
  std::memcpy(area, image.data(), image.size());

  static std::array<std::byte, 65536> stack_memory;
  stack_t stack = {}, previous_stack = {};
  stack.ss_sp = stack_memory.data();
  stack.ss_size = stack_memory.size();
  sigaltstack(&stack, &previous_stack);
  constexpr int kSignals[] = {SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGTRAP};
  struct sigaction action = {}, previous[5];
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (unsigned i = 0; i < 5; ++i) sigaction(kSignals[i], &action, &previous[i]);

  static LaunchState state;
  state = {.gpr = start.gpr, .rflags = start.rflags & ~flag::kIf};
  launch_address = start.rip;
  outcome = {};
  if (sigsetjmp(back, 1) == 0) {
    asm volatile("fninit");
    if (__builtin_cpu_supports("avx")) load_ymm(start);
    asm volatile("ldmxcsr %0" : : "m"(start.mxcsr));
    launch(state);
  }
  asm volatile("fninit; cld");
  constexpr uint32_t kDefaultMxcsr = 0x1f80;
  asm volatile("ldmxcsr %0" : : "m"(kDefaultMxcsr));

  for (unsigned i = 0; i < 5; ++i) sigaction(kSignals[i], &previous[i], nullptr);
  sigaltstack(&previous_stack, nullptr);
  std::memcpy(memory.data(), area, memory.size());
  munmap(area, BareGuest::kBytes);
  constexpr uint8_t kHltOpcode = 0xf4;
  outcome.end = outcome.vector == vector::kGp && faulting_opcode == kHltOpcode ? BareGuest::End::Halted
                                                                               : BareGuest::End::Exception;
  return outcome;
}

}  // namespace penumbra::test
