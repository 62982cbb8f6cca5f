// The C library's mathematics and the compiler's conversions, over edge values and random bits, in every rounding mode.
#include "checksum.h"

#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

static double bits_to_double(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// The sign of a NaN that an operation makes is not the same for every order of its operands.
__attribute__((noinline)) static void add_double(double value) {
  if (isnan(value)) value = NAN;
  add_bytes(&value, sizeof(value));
}
__attribute__((noinline)) static void add_float(float value) {
  if (isnan(value)) value = NAN;
  add_bytes(&value, sizeof(value));
}
__attribute__((noinline)) static void add_long(long double value) {
  if (isnan(value)) value = NAN;
  add_bytes(&value, 10);
}

static double value_at(unsigned i) {
  static const double edges[] = {0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, DBL_MIN, DBL_MAX, -DBL_MAX, DBL_TRUE_MIN, DBL_EPSILON,
                                 INFINITY, -INFINITY, 1e308, 1e-308, 4503599627370496.5, 9007199254740993.0, 0.1, 1e22,
                                 3.141592653589793, 1.5707963267948966, 2147483648.0, -2147483649.0, 1.8446744073709552e19};
  if (i < LENGTH(edges)) return edges[i];
  const uint64_t bits = next_random();
  switch (i % 3) {
    case 0:
      return bits_to_double(bits);
    case 1:
      return ((double)bits - 9.2e18) / 1e17;
    default:
      return (double)(bits >> 11) / 9007199254740992.0;
  }
}

static void one(const char* name, double (*function)(double), float (*functionf)(float), long double (*functionl)(long double)) {
  random_state = 42;
  for (unsigned i = 0; i < 3000; ++i) {
    const double x = value_at(i);
    add_double(function(x));
    add_float(functionf((float)x));
    add_long(functionl((long double)x));
  }
  report(name);
}
static void two(const char* name, double (*function)(double, double), float (*functionf)(float, float),
                long double (*functionl)(long double, long double)) {
  random_state = 43;
  for (unsigned i = 0; i < 3000; ++i) {
    const double x = value_at(i % 900), y = value_at(i / 30);
    add_double(function(x, y));
    add_float(functionf((float)x, (float)y));
    add_long(functionl((long double)x, (long double)y));
  }
  report(name);
}
#define ONE(function) one(#function, function, function##f, function##l);
#define TWO(function) two(#function, function, function##f, function##l);

static void conversions(void) {
  random_state = 44;
  for (unsigned i = 0; i < 20000; ++i) {
    volatile double x = value_at(i);
    volatile uint64_t n = next_random();
    add_double((double)(int64_t)n);
    add_double((double)n);
    add_float((float)n);
    add_long((long double)n);
    if (x > -9e18 && x < 9e18) add_u64((uint64_t)(int64_t)x), add_u64((uint64_t)llrint(x)), add_u64((uint64_t)lround(x));
    if (x >= 0 && x < 1.8e19) add_u64((uint64_t)x);
    if (x > -2e9 && x < 2e9) add_u64((uint32_t)(int32_t)x), add_u64((uint32_t)(int32_t)(float)x);
  }
}

static void text(void) {
  random_state = 45;
  char line[512];
  for (unsigned i = 0; i < 5000; ++i) {
    const double x = value_at(i);
    const int length = snprintf(line, sizeof(line), "%a %.17g %.3e %La %.20Lg", x, x, x, (long double)x / 3, (long double)x / 7);
    add_bytes(line, (size_t)length);
    add_double(strtod(line, NULL));
    add_long(strtold(strchr(line, 'e') ? strchr(line, ' ') : line, NULL));
    add_float(strtof(line, NULL));
  }
}

static void arithmetic(void) {
  random_state = 46;
  for (unsigned i = 0; i < 20000; ++i) {
    volatile double x = value_at(i), y = value_at(i / 7);
    volatile float a = (float)x, b = (float)y;
    volatile long double p = x, q = y;
    feclearexcept(FE_ALL_EXCEPT);
    add_double(x + y), add_double(x - y), add_double(x * y), add_double(x / y), add_double(sqrt(x)), add_double(fma(x, y, x));
    add_float(a + b), add_float(a - b), add_float(a * b), add_float(a / b), add_float(sqrtf(a)), add_float(fmaf(a, b, a));
    add_long(p + q), add_long(p - q), add_long(p * q), add_long(p / q), add_long(sqrtl(p)), add_long(fmodl(p, q));
    add_double(nearbyint(x)), add_float(nearbyintf(a)), add_long(nearbyintl(p));
    add_u64((uint64_t)(x < y) | (uint64_t)(a >= b) << 1 | (uint64_t)(p == q) << 2 | (uint64_t)isunordered(x, y) << 3);
    add_u64((uint64_t)fetestexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INEXACT));
  }
}

int main(void) {
  ONE(sin) ONE(cos) ONE(tan) ONE(asin) ONE(acos) ONE(atan) ONE(sinh) ONE(cosh) ONE(tanh) ONE(asinh) ONE(acosh) ONE(atanh)
  ONE(exp) ONE(exp2) ONE(expm1) ONE(log) ONE(log2) ONE(log10) ONE(log1p) ONE(cbrt) ONE(erf) ONE(erfc) ONE(tgamma) ONE(lgamma)
  ONE(floor) ONE(ceil) ONE(trunc) ONE(round) ONE(rint) ONE(logb) ONE(fabs)
  TWO(pow) TWO(atan2) TWO(hypot) TWO(fmod) TWO(remainder) TWO(nextafter) TWO(fdim) TWO(copysign)
  static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
  static const char* const names[] = {"nearest", "upward", "downward", "towards zero"};
  for (unsigned i = 0; i < LENGTH(modes); ++i) {
    fesetround(modes[i]);
    printf("rounding %s\n", names[i]);
    conversions();
    report("conversions");
    text();
    report("text");
    arithmetic();
    report("arithmetic");
  }
  return 0;
}
