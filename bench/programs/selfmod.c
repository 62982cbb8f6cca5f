// Code that rewrites itself. SIZE 0: one function's immediate operand is patched before each call. SIZE n: new
// functions are written one after the other into n KiB, as a compiler at run time does, and called 20 times each.
#include <sys/mman.h>

#include "bench.h"

static const unsigned char kFunction[] = {0xb8, 0, 0, 0, 0,  // mov eax, imm32
                                          0xc3};             // ret

static uint64_t work(long count, long size) {
  const size_t bytes = size ? (size_t)size * 1024 : 4096;
  unsigned char* code = mmap(NULL, bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  must(code != MAP_FAILED, "mmap");
  memcpy(code, kFunction, sizeof kFunction);
  uint64_t sum = 0;
  size_t at = 0;
  for (long i = 0; i < count * 1000; i++) {
    const uint32_t immediate = (uint32_t)i * 2654435761u;
    if (size) {
      at = at + 64 > bytes ? 0 : at;
      memcpy(code + at, kFunction, sizeof kFunction);
    }
    memcpy(code + at + 1, &immediate, sizeof immediate);
    __asm__ volatile("" ::: "memory");
    uint32_t (*function)(void) = (uint32_t(*)(void))(uintptr_t)(code + at);
    for (int k = 0; k < (size ? 20 : 1); k++) sum = mix(sum, function());
    at += size ? 32 : 0;
  }
  return sum;
}
