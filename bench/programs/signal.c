// A write barrier: stores to read-only pages, a SIGSEGV handler that makes them writable.
#include <signal.h>
#include <sys/mman.h>

#include "bench.h"

enum { kPages = 16 };
static unsigned char* memory;
static volatile uint64_t faults;

static void on_fault(int number, siginfo_t* info, void* context) {
  (void)number, (void)context;
  const uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)4095;
  if (page - (uintptr_t)memory >= kPages * 4096) _exit(1);
  mprotect((void*)page, 4096, PROT_READ | PROT_WRITE);
  faults++;
}

static uint64_t work(long count, long size) {
  (void)size;
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  must(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
  memory = mmap(NULL, kPages * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  must(memory != MAP_FAILED, "mmap");
  uint64_t sum = 0;
  for (long i = 0; i < count * 10; i++) {
    for (size_t page = 0; page < kPages; page++) {
      volatile unsigned char* at = memory + page * 4096 + (size_t)i % 4096;
      *at = (unsigned char)(*at + page);
      sum = mix(sum, *at);
    }
    mprotect(memory, kPages * 4096, PROT_READ);
  }
  return mix(sum, faults);
}
