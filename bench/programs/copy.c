// memcpy and memmove of short, medium and long blocks.
#include "bench.h"

static uint64_t work(long count, long size) {
  (void)size;
  enum { kBytes = 1 << 20 };
  uint8_t* from = malloc(kBytes);
  uint8_t* to = malloc(kBytes);
  must(from && to, "malloc");
  uint64_t random = 5, sum = 0;
  for (size_t i = 0; i < kBytes; i++) from[i] = (uint8_t)next_random(&random);
  memset(to, 0, kBytes);
  start_clock();
  for (long i = 0; i < count; i++) {
    memcpy(to, from + i % 64, kBytes - 64);
    for (size_t k = 0; k < 256; k++) memcpy(to + k * 1500, from + k * 1400 + i % 32, 1400);
    for (size_t k = 0; k < 2048; k++) {
      const size_t length = 8 + (k & 63);
      __asm__ volatile("" ::: "memory");
      memcpy(to + k * 80, from + k * 64, length);
    }
    memmove(to + 16, to, 65536);
    sum = mix(sum, to[i * 4093 % kBytes]);
  }
  return sum;
}
