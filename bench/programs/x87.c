// x87: polynomials, square roots, comparisons, conversions, FRNDINT and FSCALE. No FSIN: CPUs differ in its last bits.
#include "bench.h"

static uint64_t work(long count, long size) {
  (void)size;
  static const long double terms[] = {1.0L, -0.5L, 0.25L, -0.125L, 0.0625L, -0.03125L, 0.015625L, -0.0078125L};
  long double x = 0.5L, sum = 0;
  int64_t whole = 0;
  for (long i = 0; i < count * 1000; i++) {
    long double y = 0, r;
    for (int k = 7; k >= 0; k--) y = y * x + terms[k];
    __asm__("fsqrt" : "=t"(r) : "0"(y * y + 1));
    if (r > 1.25L) r -= 0.25L;
    sum += r / (y + 3);
    whole += (int64_t)(sum * 16);
    x = x * 3.9L * (1 - x);
    if ((i & 15) == 0) {
      __asm__("fld %%st(0)\n\tfrndint\n\tfxch\n\tfscale\n\tfstp %%st(1)" : "=t"(r) : "0"(x * 3));
      sum += r;
    }
  }
  uint64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  return mix(bits, (uint64_t)whole);
}
