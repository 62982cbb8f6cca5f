// Planets: scalar SSE2 with divisions and square roots.
#include <emmintrin.h>

#include "bench.h"

static double root(double x) { return _mm_cvtsd_f64(_mm_sqrt_sd(_mm_set_sd(x), _mm_set_sd(x))); }

static uint64_t work(long count, long size) {
  (void)size;
  enum { kBodies = 5 };
  double p[kBodies][3], v[kBodies][3], m[kBodies];
  for (int i = 0; i < kBodies; i++) {
    m[i] = 1.0 / (i + 1);
    for (int k = 0; k < 3; k++) {
      p[i][k] = i * 3.5 - k * 1.25;
      v[i][k] = (k - 1) * 0.125 * i;
    }
  }
  for (long round = 0; round < count * 1000; round++) {
    for (int i = 0; i < kBodies; i++) {
      for (int j = i + 1; j < kBodies; j++) {
        double d[3], square = 0.01;
        for (int k = 0; k < 3; k++) {
          d[k] = p[i][k] - p[j][k];
          square += d[k] * d[k];
        }
        const double pull = 0.001 / (square * root(square));
        for (int k = 0; k < 3; k++) {
          v[i][k] -= d[k] * m[j] * pull;
          v[j][k] += d[k] * m[i] * pull;
        }
      }
    }
    for (int i = 0; i < kBodies; i++) {
      for (int k = 0; k < 3; k++) p[i][k] += 0.001 * v[i][k];
    }
  }
  uint64_t sum = 0;
  for (int i = 0; i < kBodies; i++) {
    for (int k = 0; k < 3; k++) {
      uint64_t bits;
      memcpy(&bits, &p[i][k], sizeof bits);
      sum = mix(sum, bits);
    }
  }
  return sum;
}
