// Recursive Fibonacci numbers: direct calls and returns.
#include "bench.h"

__attribute__((noinline, optimize("no-optimize-sibling-calls"))) static uint32_t fib(uint32_t n) {
  return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t work(long count, long size) {
  uint64_t sum = 0;
  for (long i = 0; i < count; i++) sum = mix(sum, fib(size ? (uint32_t)size : 20));
  return sum;
}
