#include "tests/fuzzer/native_machine.h"

#include <asm/ldt.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <stdexcept>

#include "tests/fuzzer/descriptors.h"

namespace penumbra::fuzz {

// Read and written by the assembly below.
struct NativeEntry {
  uint64_t gpr[16];
  uint64_t rip, cs, rflags, rsp, ss;
  uint64_t fs_base, gs_base;
  std::byte* vector_image;
  uint64_t launch_stack;
  uint64_t ds, es, fs, gs;
};

extern "C" {
void fuzz_enter(const NativeEntry* entry);
void fuzz_resume();
void fuzz_signal_entry(int, siginfo_t*, void*);
int fuzz_on_signal(int signal, siginfo_t* info, void* context);

uint32_t fuzz_native = 0;  // the program is running: FS and GS are its own
uint64_t fuzz_stack = 0, fuzz_host_fs = 0;
uint64_t fuzz_program_fs = 0, fuzz_program_gs = 0;
uint16_t fuzz_program_selectors[4] = {};  // DS ES FS GS
}

// SAFETY: fuzz_enter saves what the ABI preserves and leaves through fuzz_resume with the same stack pointer.
// The signal entry puts the thread's FS base back before any C++ runs, and clears AC and NT, which the kernel
// leaves as the program had them. IRET to a 16-bit stack leaves bits 16 to 31 of ESP as they were: the launch
// stack has zeros there.
asm(R"(
.text
.globl fuzz_enter
fuzz_enter:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, fuzz_stack(%rip)
  mov 184(%rdi), %rcx
  mov $-1, %eax
  mov $-1, %edx
  xrstor64 (%rcx)
  rdfsbase %rax
  mov %rax, fuzz_host_fs(%rip)
  movl $1, fuzz_native(%rip)
  mov 192(%rdi), %rsp
  mov 200(%rdi), %rax
  mov %eax, %ds
  mov 208(%rdi), %rax
  mov %eax, %es
  mov 216(%rdi), %rax
  mov %eax, %fs
  mov 224(%rdi), %rax
  mov %eax, %gs
  mov 168(%rdi), %rax
  wrfsbase %rax
  mov 176(%rdi), %rax
  wrgsbase %rax
  pushq 160(%rdi)
  pushq 152(%rdi)
  pushq 144(%rdi)
  pushq 136(%rdi)
  pushq 128(%rdi)
  mov (%rdi), %rax
  mov 8(%rdi), %rcx
  mov 16(%rdi), %rdx
  mov 24(%rdi), %rbx
  mov 40(%rdi), %rbp
  mov 48(%rdi), %rsi
  mov 64(%rdi), %r8
  mov 72(%rdi), %r9
  mov 80(%rdi), %r10
  mov 88(%rdi), %r11
  mov 96(%rdi), %r12
  mov 104(%rdi), %r13
  mov 112(%rdi), %r14
  mov 120(%rdi), %r15
  mov 56(%rdi), %rdi
  iretq

.globl fuzz_resume
fuzz_resume:
  pushq $0x202
  popfq
  fninit
  vzeroupper
  movl $0x1f80, -8(%rsp)
  ldmxcsr -8(%rsp)
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret

.globl fuzz_signal_entry
fuzz_signal_entry:
  pushq $2
  popfq
  cmpl $0, fuzz_native(%rip)
  je 1f
  rdfsbase %rax
  mov %rax, fuzz_program_fs(%rip)
  rdgsbase %rax
  mov %rax, fuzz_program_gs(%rip)
  mov %ds, fuzz_program_selectors(%rip)
  mov %es, 2 + fuzz_program_selectors(%rip)
  mov %fs, 4 + fuzz_program_selectors(%rip)
  mov %gs, 6 + fuzz_program_selectors(%rip)
  xor %eax, %eax
  mov %eax, %fs
  mov fuzz_host_fs(%rip), %rax
  wrfsbase %rax
1:
  sub $8, %rsp
  call fuzz_on_signal
  add $8, %rsp
  test %eax, %eax
  jz 2f
  mov 4 + fuzz_program_selectors(%rip), %fs
  mov fuzz_program_fs(%rip), %rax
  wrfsbase %rax
2:
  ret
)");

namespace {

NativeMachine* machine = nullptr;
Outcome outcome;
uint64_t ticks = 0, started = 0;
bool disturbed = false;                 // a signal has interrupted the program: returning from it loses NT
constexpr uint64_t kPatienceTicks = 2;  // of 10 ms
constexpr int kFaultSignals[] = {SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGTRAP};
struct sigaction translator_action[NSIG];

constexpr uint64_t kLaunchStack = 0x3b57'0000'0000, kLaunchBytes = area::kPage;
constexpr int kGregs[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

int protection(area::Rights rights) {
  return (rights.present ? PROT_READ : PROT_NONE) | (rights.write ? PROT_WRITE : 0) |
         (rights.execute ? PROT_EXEC : 0);
}

alignas(64) std::byte vector_image[8192];
std::byte signal_stack[1 << 17];

}  // namespace

int on_signal(int signal, void* info, void* context) {
  greg_t* regs = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (signal == SIGALRM) {
    ++ticks;
    if (!fuzz_native) {
      if (machine->tick_) machine->tick_();
      return 0;
    }
    disturbed = true;
    if (ticks - started < kPatienceTicks) return 1;
    outcome.timeout = true;
  }
  if (!fuzz_native) {
    const greg_t before = regs[REG_RIP];
    const struct sigaction& action = translator_action[signal];
    if (action.sa_flags & SA_SIGINFO) action.sa_sigaction(signal, static_cast<siginfo_t*>(info), context);
    if (regs[REG_RIP] == before) {
      // Either mapped a page for another try, or gave the signal back to whoever had it before.
      struct sigaction now = {};
      sigaction(signal, nullptr, &now);
      if (now.sa_sigaction == fuzz_signal_entry) return 0;
      if (machine->crash_) machine->crash_();
      _exit(3);
    }
    return 0;
  }
  fuzz_native = 0;
  MachineState& state = outcome.state;
  for (unsigned i = 0; i < 16; ++i) state.gpr[i] = static_cast<uint64_t>(regs[kGregs[i]]);
  state.rip = static_cast<uint64_t>(regs[REG_RIP]);
  state.rflags = static_cast<uint64_t>(regs[REG_EFL]);
  state.fs_base = fuzz_program_fs;
  state.gs_base = fuzz_program_gs;
  uint16_t frame_selectors[4];  // cs, gs, fs, ss
  std::memcpy(frame_selectors, &regs[REG_CSGSFS], sizeof(frame_selectors));
  const uint16_t* const data = fuzz_program_selectors;
  state.selectors = {data[1], frame_selectors[0], frame_selectors[3], data[0], data[2], data[3]};
  state.vector = load_vector_state(
      reinterpret_cast<const std::byte*>(static_cast<ucontext_t*>(context)->uc_mcontext.fpregs));
  outcome.vector = static_cast<uint8_t>(regs[REG_TRAPNO]);
  outcome.error_code = static_cast<uint32_t>(regs[REG_ERR]);
  outcome.cr2 = static_cast<uint64_t>(regs[REG_CR2]);
  regs[REG_RIP] = static_cast<greg_t>(reinterpret_cast<uint64_t>(&fuzz_resume));
  regs[REG_RSP] = static_cast<greg_t>(fuzz_stack);
  regs[REG_EFL] = 0x202;
  const uint16_t segments[4] = {selector::kCode64, 0, 0, selector::kData};  // cs, gs, fs, ss
  std::memcpy(&regs[REG_CSGSFS], segments, sizeof(segments));
  return 0;
}

extern "C" int fuzz_on_signal(int signal, siginfo_t* info, void* context) {
  return on_signal(signal, info, context);
}

NativeMachine::NativeMachine() {
  machine = this;
  const int fd = memfd_create("fuzz", 0);
  if (fd < 0 || ftruncate(fd, area::kBytes) != 0) throw std::runtime_error("memfd_create failed");
  const auto map = [fd](uint64_t address, int flags, int rights, uint64_t offset, uint64_t bytes) {
    void* const at = mmap(reinterpret_cast<void*>(address), bytes, rights, MAP_SHARED | MAP_POPULATE | flags,
                          fd, static_cast<off_t>(offset));
    if (at == MAP_FAILED) throw std::runtime_error("mmap of the program's memory failed");
    return at;
  };
  view_ = static_cast<std::byte*>(map(0, 0, PROT_READ | PROT_WRITE, 0, area::kBytes));
  std::memset(view_, 0xf4, area::kBytes);
  for (const uint64_t base : {area::kLow, area::kHigh}) {
    for (uint64_t page = 0; page < area::kPages; ++page) {
      const area::Rights rights = area::rights(page);
      map(base + page * area::kPage, MAP_FIXED_NOREPLACE, protection(rights), page * area::kPage,
          area::kPage);
      // A page that were paged out would fault as not present instead of not writable.
      if (rights.present) mlock(reinterpret_cast<void*>(base + page * area::kPage), area::kPage);
    }
  }
  close(fd);
  launch_stack_ = static_cast<std::byte*>(mmap(reinterpret_cast<void*>(kLaunchStack), kLaunchBytes,
                                               PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
  if (launch_stack_ == MAP_FAILED) throw std::runtime_error("mmap of the launch stack failed");
  load_ldt();
}

void NativeMachine::load_ldt() {
  for (unsigned i = 0; i < std::size(ldt::kEntries); ++i) {
    const Descriptor descriptor{.raw = ldt::kEntries[i]};
    user_desc entry = {};
    entry.entry_number = i;
    entry.base_addr = static_cast<unsigned>(descriptor.base());
    entry.limit = descriptor.limit();
    entry.seg_32bit = descriptor.big();
    entry.contents = descriptor.type() >> 2;
    entry.read_exec_only = !(descriptor.type() & 2);
    entry.seg_not_present = !descriptor.present();
    constexpr int kWrite = 0x11;
    has_ldt_ = syscall(SYS_modify_ldt, kWrite, &entry, sizeof(entry)) == 0;
    if (!has_ldt_) return;
  }
}

NativeMachine::~NativeMachine() {
  const itimerval off{};
  setitimer(ITIMER_REAL, &off, nullptr);
  machine = nullptr;
}

void NativeMachine::install_handlers() {
  stack_t stack = {};
  stack.ss_sp = signal_stack;
  stack.ss_size = sizeof(signal_stack);
  stack_t current = {};
  sigaltstack(nullptr, &current);
  if (current.ss_flags & SS_DISABLE) sigaltstack(&stack, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = fuzz_signal_entry;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigfillset(&action.sa_mask);
  for (const int signal : kFaultSignals) sigaction(signal, &action, &translator_action[signal]);
  sigaction(SIGALRM, &action, nullptr);
  const itimerval period{.it_interval = {0, 10'000}, .it_value = {0, 10'000}};
  setitimer(ITIMER_REAL, &period, nullptr);
}

Outcome NativeMachine::run(const Program& program) {
  store_vector_state(program.start.vector, vector_image);
  NativeEntry entry = {};
  for (unsigned i = 0; i < 16; ++i) entry.gpr[i] = program.start.gpr[i];
  entry.rsp = entry.gpr[4];
  entry.rip = program.start.rip;
  entry.rflags = program.start.rflags;
  const auto& selectors = program.start.selectors;
  entry.es = selectors[kEs], entry.cs = selectors[kCs], entry.ss = selectors[kSs], entry.ds = selectors[kDs],
  entry.fs = selectors[kFs], entry.gs = selectors[kGs];
  entry.launch_stack = reinterpret_cast<uint64_t>(launch_stack_) + kLaunchBytes;
  entry.fs_base = program.start.fs_base;
  entry.gs_base = program.start.gs_base;
  entry.vector_image = vector_image;
  for (unsigned attempt = 0; attempt < 3; ++attempt) {
    std::memcpy(view_, program.memory.data(), area::kBytes);
    outcome = {};
    disturbed = false;
    started = ticks;
    fuzz_enter(&entry);
    if (!disturbed || outcome.timeout) return outcome;
  }
  outcome.timeout = true;
  return outcome;
}

}  // namespace penumbra::fuzz
