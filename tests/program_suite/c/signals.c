// Faults as signals: what the handler is told, what it may change, where execution goes on.
#define _GNU_SOURCE
#include "checksum.h"

#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef __x86_64__
#define REG_PC REG_RIP
#define REG_A REG_RAX
#define PUSHF "pushfq"
#define POPF "popfq"
#define SP "%%rsp"
#define A "rax"
#else
#define REG_PC REG_EIP
#define REG_A REG_EAX
#define PUSHF "pushf"
#define POPF "popf"
#define SP "%%esp"
#define A "eax"
#endif

static sigjmp_buf back;
static char* page;
static volatile sig_atomic_t count;
static volatile int told;

static void tell(int number, siginfo_t* info, void* context) {
  // The kernel leaves AC as it was; the C library's accesses are not all aligned.
  __asm__ volatile(PUSHF "; andl $~0x40000, (" SP "); " POPF : : : "cc", "memory");
  const greg_t* regs = ((ucontext_t*)context)->uc_mcontext.gregs;
  const long offset = (char*)info->si_addr - page;
  if (told++ < 40) {
    printf("signal %d code %d trap %ld error %lx address %s%ld flags %lx\n", number, info->si_code, (long)regs[REG_TRAPNO],
           (long)regs[REG_ERR], offset >= 0 && offset < 16384 ? "page+" : "", offset >= 0 && offset < 16384 ? offset : 0L,
           (long)regs[REG_EFL] & 0x400);
  }
  siglongjmp(back, 1);
}

// Makes the page writable and lets the store happen: a write barrier.
static void unprotect(int number, siginfo_t* info, void* context) {
  (void)number, (void)context;
  ++count;
  mprotect((void*)((uintptr_t)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE);
}

// Steps over a two-byte instruction and sets what it would have set.
static void skip(int number, siginfo_t* info, void* context) {
  (void)number, (void)info;
  greg_t* regs = ((ucontext_t*)context)->uc_mcontext.gregs;
  regs[REG_PC] += 2;
  regs[REG_A] = 0x1234;
#ifdef __x86_64__
  // XMM registers are in the frame, too.
  ((ucontext_t*)context)->uc_mcontext.fpregs->_xmm[5].element[0] ^= 0xffff;
#endif
  ++count;
}

static void alarmed(int number) { (void)number, ++count; }

static void handle(int number, void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigaction(number, &action, NULL);
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  const stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
  sigaltstack(&stack, NULL);
  page = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(page + 4096, 4096, PROT_READ);
  mprotect(page + 8192, 4096, PROT_NONE);
  page[0] = (char)0xc3;
  const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
  for (unsigned i = 0; i < 5; ++i) handle(faults[i], tell);

  volatile int zero = 0;
  if (!sigsetjmp(back, 1)) *(volatile char*)(page + 4097) = 1;
  if (!sigsetjmp(back, 1)) zero = *(volatile char*)(page + 8192 + 5);
  if (!sigsetjmp(back, 1)) *(volatile uint64_t*)(page + 4090) = 1;           // across two pages, the second read-only
  if (!sigsetjmp(back, 1)) zero = (int)*(volatile uint64_t*)(page + 8188);
  if (!sigsetjmp(back, 1)) *(volatile int*)0x100 = 1;
#ifdef __x86_64__
  if (!sigsetjmp(back, 1)) *(volatile int*)0x8000000000000000ull = 1;       // not canonical
  if (!sigsetjmp(back, 1)) zero = *(volatile int*)0xffffffff81000000ull;    // the kernel's
  // Not executable. Debian's 686 kernel has no PAE, and so no such pages.
  if (!sigsetjmp(back, 1)) ((void (*)(void))page)();
#endif
  if (!sigsetjmp(back, 1)) zero = 1 / zero;
  zero = 0;
  if (!sigsetjmp(back, 1)) __asm__ volatile("idivl %0" : : "r"(-1), "a"(0x80000000), "d"(-1));
  if (!sigsetjmp(back, 1)) __asm__ volatile("ud2");
  if (!sigsetjmp(back, 1)) __asm__ volatile("int3");
  if (!sigsetjmp(back, 1)) __asm__ volatile("int $0x42");
  if (!sigsetjmp(back, 1)) __asm__ volatile("hlt");
  if (!sigsetjmp(back, 1)) __asm__ volatile("cli");
  if (!sigsetjmp(back, 1)) __asm__ volatile("in $0x80, %%al" : : : "eax");
  if (!sigsetjmp(back, 1)) __asm__ volatile("rdmsr" : : "c"(0x10) : "eax", "edx");
  if (!sigsetjmp(back, 1)) __asm__ volatile("mov %%cr0, %%" A : : : A);
  if (!sigsetjmp(back, 1)) __asm__ volatile("lgdt (%0)" : : "r"(page));
  if (!sigsetjmp(back, 1)) __asm__ volatile("mov %0, %%ds" : : "r"(0x1000));
  if (!sigsetjmp(back, 1)) __asm__ volatile("movaps (%0), %%xmm0" : : "r"(page + 1) : "xmm0");
  if (!sigsetjmp(back, 1)) {
    // Repeated strings stop where the page ends.
    char *to = page + 4096 - 100, *from = page;
    unsigned long left = 200;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(left) : : "memory");
  }
  if (!sigsetjmp(back, 1)) {
    // Single step.
    __asm__ volatile(PUSHF "; orl $0x100, (" SP "); " POPF "; nop; nop" : : : "cc", "memory");
  }
  if (!sigsetjmp(back, 1)) {
    // Unmasked SIMD exception.
    const unsigned control = 0x1f80 & ~0x200u;
    __asm__ volatile("ldmxcsr %0; xorps %%xmm1, %%xmm1; movss %1, %%xmm0; divss %%xmm1, %%xmm0" : : "m"(control), "m"((float){1}) : "xmm0", "xmm1");
  }
  const unsigned control = 0x1f80;
  __asm__ volatile("ldmxcsr %0" : : "m"(control));
  if (!sigsetjmp(back, 1)) {
    // Unmasked x87 exception, told by the next x87 instruction.
    const unsigned short word = 0x37f & ~4;
    __asm__ volatile("fninit; fldcw %0; fld1; fldz; fdivrp; fwait" : : "m"(word));
  }
  __asm__ volatile("fninit");
  if (!sigsetjmp(back, 1)) {
    // Alignment check.
    __asm__ volatile(PUSHF "; orl $0x40000, (" SP "); " POPF "; movl 1(%0), %%eax" : : "r"(page) : "eax", "cc", "memory");
  }
  __asm__ volatile(PUSHF "; andl $~0x40000, (" SP "); " POPF : : : "cc", "memory");
  printf("told %d times\n", told);

  handle(SIGILL, skip);
  count = 0;
  for (int i = 0; i < 1000; ++i) {
    unsigned long result = 0;
    const uint64_t in = (uint64_t)i;
    uint64_t low;
    __asm__ volatile("movq %2, %%xmm5; ud2; movq %%xmm5, %1" : "+a"(result), "=m"(low) : "m"(in) : "xmm5");
    add_u64(result), add_u64(low);
  }
  printf("skipped %d\n", (int)count);
  report("skipped");

  handle(SIGSEGV, unprotect);
  count = 0;
  char* const area = mmap(NULL, 256 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int round = 0; round < 3; ++round) {
    mprotect(area, 256 * 4096, PROT_READ);
    for (int i = 0; i < 256 * 4096; i += 512) area[i + round] = (char)(area[i + round] + i / 512 + 1);
  }
  add_bytes(area, 256 * 4096);
  printf("write barriers %d\n", (int)count);
  report("area");

  signal(SIGUSR1, alarmed);
  count = 0;
  for (int i = 0; i < 2000; ++i) raise(SIGUSR1);
  printf("raised %d\n", (int)count);

  // Timer signals in the middle of arithmetic, vector and string instructions change nothing.
  memset(page, 0x33, 4096);
  signal(SIGALRM, alarmed);
  count = 0;
  const struct itimerval timer = {{0, 500}, {0, 500}};
  setitimer(ITIMER_REAL, &timer, NULL);
  double vector = 1;
  uint64_t integer = 1;
  while (count < 200) {
    for (int i = 0; i < 1000; ++i) integer = integer * 6364136223846793005ull + 1, vector = vector * 0.5 + 0.5;
    memmove(page + 1, page, 4000);
    if (vector != 1 || page[17] != page[16]) puts("changed");
  }
  const struct itimerval none = {{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &none, NULL);
  puts("alarms done");

  // A child that dies of each signal says so.
  for (unsigned i = 0; i < 5; ++i) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      signal(faults[i], SIG_DFL);
      raise(faults[i]);
      _exit(1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("child ended by signal %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  }
  return 0;
}
