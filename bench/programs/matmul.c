// Multiplies two matrices of single and of double precision numbers with SSE2 vectors.
#include <emmintrin.h>

#include "bench.h"

enum { kN = 64 };
static float a[kN][kN] __attribute__((aligned(16))), b[kN][kN] __attribute__((aligned(16))),
    c[kN][kN] __attribute__((aligned(16)));
static double d[kN][kN] __attribute__((aligned(16))), e[kN][kN] __attribute__((aligned(16))),
    f[kN][kN] __attribute__((aligned(16)));

static uint64_t work(long count, long size) {
  (void)size;
  for (int i = 0; i < kN; i++) {
    for (int k = 0; k < kN; k++) {
      a[i][k] = (float)((i * 7 + k * 3) % 11) - 5;
      b[i][k] = (float)((i * 5 + k) % 13) / 8;
      d[i][k] = a[i][k];
      e[i][k] = b[i][k];
    }
  }
  for (long round = 0; round < count; round++) {
    for (int i = 0; i < kN; i++) {
      for (int k = 0; k < kN; k += 4) {
        __m128 sum = _mm_setzero_ps();
        for (int j = 0; j < kN; j++) {
          sum = _mm_add_ps(sum, _mm_mul_ps(_mm_set1_ps(a[i][j]), _mm_load_ps(&b[j][k])));
        }
        _mm_store_ps(&c[i][k], sum);
      }
      for (int k = 0; k < kN; k += 2) {
        __m128d sum = _mm_setzero_pd();
        for (int j = 0; j < kN; j++) {
          sum = _mm_add_pd(sum, _mm_mul_pd(_mm_set1_pd(d[i][j]), _mm_load_pd(&e[j][k])));
        }
        _mm_store_pd(&f[i][k], sum);
      }
    }
    a[round % kN][0] = (float)(round % 17);
    d[round % kN][1] = c[3][round % kN] / 16;
  }
  uint64_t sum = 0;
  for (int i = 0; i < kN; i++) {
    for (int k = 0; k < kN; k++) {
      uint32_t single;
      uint64_t twice;
      memcpy(&single, &c[i][k], sizeof single);
      memcpy(&twice, &f[i][k], sizeof twice);
      sum = mix(sum, single ^ twice);
    }
  }
  return sum;
}
