// qsort of 32-bit numbers through a comparison function.
#include "bench.h"

static int compare(const void* a, const void* b) {
  const uint32_t x = *(const uint32_t*)a, y = *(const uint32_t*)b;
  return x < y ? -1 : x > y;
}

static uint64_t work(long count, long size) {
  (void)size;
  enum { kNumbers = 20000 };
  static uint32_t numbers[kNumbers];
  uint64_t random = 17, sum = 0;
  for (long i = 0; i < count; i++) {
    for (size_t k = 0; k < kNumbers; k++) numbers[k] = (uint32_t)next_random(&random);
    qsort(numbers, kNumbers, sizeof *numbers, compare);
    sum = mix(sum, numbers[(size_t)i * 997 % kNumbers]);
  }
  return sum;
}
