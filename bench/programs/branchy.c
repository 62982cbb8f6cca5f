// Branches that depend on data: Collatz sequences and binary searches.
#include "bench.h"

static uint64_t work(long count, long size) {
  (void)size;
  static uint32_t sorted[1024];
  for (uint32_t i = 0; i < 1024; i++) sorted[i] = i * 4099;
  uint64_t sum = 0, random = 7;
  for (long i = 0; i < count * 100; i++) {
    uint64_t n = (next_random(&random) & 0xffff) + 1;
    unsigned steps = 0;
    while (n != 1) {
      if (n & 1) {
        n = 3 * n + 1;
        if (n % 3 == 1) steps++;
      } else {
        n >>= 1;
      }
      steps++;
    }
    const uint32_t wanted = (uint32_t)next_random(&random) & 0x3fffff;
    unsigned low = 0, high = 1024;
    while (low < high) {
      const unsigned middle = (low + high) / 2;
      if (sorted[middle] == wanted) {
        low = middle;
        break;
      }
      if (sorted[middle] < wanted) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    sum = mix(sum, steps + low);
  }
  return sum;
}
