// Multiplications, divisions, shifts and rotates of 32 and 64 bits.
#include "bench.h"

static uint64_t work(long count, long size) {
  (void)size;
  uint64_t a = 0x9e3779b97f4a7c15, sum = 0;
  uint32_t b = 12345;
  for (long i = 0; i < count * 1000; i++) {
    a = a * 6364136223846793005u + 1442695040888963407u;
    b = b * 1664525u + 1013904223u;
    sum += (a >> 33) % ((b >> 16) | 1);
    sum ^= (uint64_t)(b << (a & 15) | b >> (17 + (a & 7))) << 7;
    sum = sum << 5 | sum >> 59;
  }
  return sum;
}
