// Runs the checks of a guest at CPL 3 on the bare processor: a Linux program in which the memory that checks use lies at the
// same addresses, and signals say which exception was taken. INT 81h, which Linux does not know, ends a check by #GP.
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "guest.h"


struct catch caught;
uint64_t gdt[64];
uint8_t idt[4096], tss[4096];
char vector_stubs[256 * 32];
static unsigned long frame[6];
unsigned long harness_rsp;

void native_back(void);
asm(".text\n"
    ".globl enter\nenter:\n"
    "push rbx\n push rbp\n push r12\n push r13\n push r14\n push r15\n"
    "mov [harness_rsp], rsp\n"
    "mov eax, ss\n push rax\n push qword ptr [rdi + 4 * 8]\n push qword ptr [rdi + 17 * 8]\n"
    "mov eax, cs\n push rax\n push qword ptr [rdi + 16 * 8]\n"
    "mov rax, [rdi]\n mov rcx, [rdi + 8]\n mov rdx, [rdi + 16]\n mov rbx, [rdi + 24]\n"
    "mov rbp, [rdi + 40]\n mov rsi, [rdi + 48]\n"
    "mov r8, [rdi + 64]\n mov r9, [rdi + 72]\n mov r10, [rdi + 80]\n mov r11, [rdi + 88]\n"
    "mov r12, [rdi + 96]\n mov r13, [rdi + 104]\n mov r14, [rdi + 112]\n mov r15, [rdi + 120]\n"
    "mov rdi, [rdi + 56]\n"
    "iretq\n"
    "native_back:\n"
    "pop r15\n pop r14\n pop r13\n pop r12\n pop rbp\n pop rbx\n"
    "ret\n");

// The x87 and vector state goes on as the check left it: the kernel restores it when the handler returns to native_back.
static void taken(int signal, siginfo_t* info, void* context) {
  (void)signal;
  greg_t* const regs = ((ucontext_t*)context)->uc_mcontext.gregs;
  struct machine_state* const state = &caught.state;
  state->ax = regs[REG_RAX];
  state->cx = regs[REG_RCX];
  state->dx = regs[REG_RDX];
  state->bx = regs[REG_RBX];
  state->bp = regs[REG_RBP];
  state->si = regs[REG_RSI];
  state->di = regs[REG_RDI];
  caught.vector = regs[REG_TRAPNO];
  caught.cr2 = (unsigned long)info->si_addr;
  unsigned long* next = frame;
  unsigned long rip = regs[REG_RIP];
  if (caught.vector == GP && regs[REG_ERR] == END * 8 + 2) {
    caught.vector = END;
    rip += 2;
  } else if (caught.vector < 32 && 0x227d00u >> caught.vector & 1) {
    *next++ = regs[REG_ERR];
  }
  next[0] = rip;
  next[1] = UCODE;
  next[2] = regs[REG_EFL] & ~(greg_t)FL_IF;
  next[3] = regs[REG_RSP];
  next[4] = UDATA;
  caught.frame = (unsigned long)frame;
  regs[REG_RIP] = (greg_t)native_back;
  regs[REG_RSP] = (greg_t)harness_rsp;
  regs[REG_EFL] = 0x202;
}

// Guest memory, where the guest's kernel and where its users see it.
static void map_memory(void) {
  const int fd = memfd_create("guest", 0);
  const unsigned long low = 0x100000, end = 0x4000000;  // Linux keeps the first pages free
  if (fd < 0 || ftruncate(fd, (off_t)end) != 0) exit(1);
  for (unsigned long alias = 0; alias <= USER_ALIAS; alias += USER_ALIAS) {
    const unsigned long begin = alias ? 0 : low;
    if (mmap((void*)(begin + alias), end - begin, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
             (off_t)begin) == MAP_FAILED) {
      exit(1);
    }
  }
}

void put_text(const char* text, size_t size) {
  while (size) {
    const ssize_t written = write(1, text, size);
    if (written <= 0) exit(1);
    text += written;
    size -= (size_t)written;
  }
}

void finish(void) { _exit(0); }

int main(void) {
  map_memory();
  const stack_t stack = {.ss_sp = malloc(1 << 20), .ss_size = 1 << 20};
  sigaltstack(&stack, 0);
  const struct sigaction action = {.sa_sigaction = taken, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  static const int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
  for (unsigned i = 0; i < sizeof kSignals / sizeof *kSignals; ++i) sigaction(kSignals[i], &action, 0);
  guest_main();
  return 0;
}
