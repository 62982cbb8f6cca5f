// The sieve of Eratosthenes over 1 MiB of bytes.
#include "bench.h"

static uint64_t work(long count, long size) {
  (void)size;
  enum { kLimit = 1 << 20 };
  static uint8_t composite[kLimit];
  uint64_t sum = 0;
  for (long round = 0; round < count; round++) {
    memset(composite, 0, sizeof composite);
    uint32_t primes = 0;
    for (uint32_t i = 2; i < kLimit; i++) {
      if (composite[i]) continue;
      primes++;
      for (uint64_t k = (uint64_t)i * i; k < kLimit; k += i) composite[k] = 1;
    }
    sum = mix(sum, primes);
  }
  return sum;
}
