// Makes a page of a small region read-only and writable again, and uses it each time.
#include <sys/mman.h>

#include "bench.h"

static uint64_t work(long count, long size) {
  (void)size;
  enum { kPages = 16 };
  volatile unsigned char* memory =
      mmap(NULL, kPages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  must(memory != MAP_FAILED, "mmap");
  uint64_t sum = 0;
  for (long i = 0; i < count * 100; i++) {
    volatile unsigned char* page = memory + (i % kPages) * 4096;
    must(mprotect((void*)page, 4096, PROT_READ | PROT_WRITE) == 0, "mprotect");
    *page = (unsigned char)(*page + i);
    must(mprotect((void*)page, 4096, PROT_READ) == 0, "mprotect");
    sum = mix(sum, *page);
  }
  return sum;
}
