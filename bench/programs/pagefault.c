// mmap, touch every page, munmap.
#include <sys/mman.h>

#include "bench.h"

static uint64_t work(long count, long size) {
  const size_t pages = size ? (size_t)size : 256;
  uint64_t sum = 0;
  for (long i = 0; i < count; i++) {
    volatile unsigned char* memory =
        mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED, "mmap");
    for (size_t page = 0; page < pages; page++) {
      sum += memory[page * 4096] + 1u;
      memory[page * 4096] = (unsigned char)i;
    }
    munmap((void*)memory, pages * 4096);
  }
  return sum;
}
