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
uint8_t idt[4096];
char vector_stubs[256 * 32];
unsigned long harness_stack;

void native_back(void);
#ifdef __x86_64__
static unsigned long frame[6];
asm(".text\n"
    ".globl enter\nenter:\n"
    "push rbx\n push rbp\n push r12\n push r13\n push r14\n push r15\n"
    "mov [harness_stack], rsp\n"
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

static void take_registers(const greg_t* regs) {
  struct machine_state* const state = &caught.state;
  state->ax = regs[REG_RAX];
  state->cx = regs[REG_RCX];
  state->dx = regs[REG_RDX];
  state->bx = regs[REG_RBX];
  state->bp = regs[REG_RBP];
  state->si = regs[REG_RSI];
  state->di = regs[REG_RDI];
}
#else
asm(".text\n"
    ".globl enter\nenter:\n"
    "push ebx\n push ebp\n push esi\n push edi\n"
    "mov [harness_stack], esp\n"
    "mov eax, [esp + 20]\n"
    "mov esp, [eax + 16]\n"
    "push dword ptr [eax + 36]\n push cs\n push dword ptr [eax + 32]\n push dword ptr [eax]\n"
    "mov ecx, [eax + 4]\n mov edx, [eax + 8]\n mov ebx, [eax + 12]\n mov ebp, [eax + 20]\n"
    "mov esi, [eax + 24]\n mov edi, [eax + 28]\n"
    "pop eax\n"
    "iretd\n"
    "native_back:\n"
    "pop edi\n pop esi\n pop ebp\n pop ebx\n"
    "ret\n");

enum { REG_RIP = REG_EIP, REG_RSP = REG_ESP };
static void take_registers(const greg_t* regs) {
  struct machine_state* const state = &caught.state;
  state->ax = regs[REG_EAX];
  state->cx = regs[REG_ECX];
  state->dx = regs[REG_EDX];
  state->bx = regs[REG_EBX];
  state->bp = regs[REG_EBP];
  state->si = regs[REG_ESI];
  state->di = regs[REG_EDI];
}
#endif

// The x87 and vector state goes on as the check left it: the kernel restores it when the handler returns to native_back.
static void taken(int signal, siginfo_t* info, void* context) {
  (void)signal;
  greg_t* const regs = ((ucontext_t*)context)->uc_mcontext.gregs;
  take_registers(regs);
  caught.vector = (unsigned long)regs[REG_TRAPNO];
  caught.cr2 = (unsigned long)info->si_addr;
  unsigned long ip = (unsigned long)regs[REG_RIP];
  const bool end = caught.vector == GP && regs[REG_ERR] == END * 8 + 2;
  if (end) {
    caught.vector = END;
    ip += 2;
  }
  const unsigned long flags = (unsigned long)regs[REG_EFL] & ~(unsigned long)FL_IF;
#ifdef __x86_64__
  unsigned long* next = frame;
  if (!end && caught.vector < 32 && 0x227d00u >> caught.vector & 1) *next++ = (unsigned long)regs[REG_ERR];
  next[0] = ip;
  next[1] = UCODE;
  next[2] = flags;
  next[3] = (unsigned long)regs[REG_RSP];
  next[4] = UDATA;
  caught.frame = (unsigned long)frame;
#else
  caught.error = (unsigned long)regs[REG_ERR];
  caught.state.ip = ip;
  caught.state.cs = UCODE;
  caught.state.flags = flags;
  caught.state.sp = (unsigned long)regs[REG_RSP];
  caught.state.ss = UDATA;
#endif
  regs[REG_RIP] = (greg_t)native_back;
  regs[REG_RSP] = (greg_t)harness_stack;
  regs[REG_EFL] = 0x202;
}

// Guest memory, where the guest's kernel and where its users see it.
static void map_memory(void) {
  const int fd = memfd_create("guest", 0);
  enum { low = 0x100000 };
  const unsigned long end = 0x4000000;  // Linux keeps the first pages free
  if (fd < 0 || ftruncate(fd, (off_t)end) != 0) exit(1);
  static const struct {
    unsigned long alias, begin;
  } kViews[] = {{0, low}, {USER_ALIAS, 0}};
  for (unsigned i = 0; i < (USER_ALIAS ? 2 : 1); ++i) {
    void* const at = (void*)(kViews[i].begin + kViews[i].alias);
    if (mmap(at, end - kViews[i].begin, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_FIXED_NOREPLACE, fd,
             (off_t)kViews[i].begin) != at) {
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
