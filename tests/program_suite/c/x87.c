// x87 instructions that the C library leaves alone: stack order, tags, precision and rounding control, exceptions, images.
#include "checksum.h"

#include <math.h>

static long double pick(unsigned i) {
  static const long double edges[] = {0.0L, -0.0L, 1.0L, -1.0L, 0.5L, 1e-4940L, 1e4932L, 3.0L, 1e-4950L, 2147483648.5L, 1e18L};
  if (i < 11) return edges[i];
  const uint64_t bits = next_random();
  long double value = (long double)bits;
  const int scale = (int)(next_random() % 200) - 100;
  return scalbnl(bits & 1 ? value : -value, scale - 64);
}

static void add_status(void) {
  unsigned short status;
  __asm__ volatile("fnstsw %0; fnclex" : "=m"(status));
  add_u64(status & 0x7f);
}
static void add_result(long double value) {
  if (isnan(value)) value = NAN;
  add_bytes(&value, 10);
  add_status();
}

#define ONE(name, code)                                                 \
  for (unsigned i = 0; i < 2000; ++i) {                                 \
    long double x = pick(i);                                            \
    __asm__ volatile(code : "+t"(x));                                   \
    add_result(x);                                                      \
  }                                                                     \
  report(name);
#define TWO(name, code, ...)                                            \
  for (unsigned i = 0; i < 2000; ++i) {                                 \
    long double x = pick(i % 400), y = pick(i / 7);                     \
    __asm__ volatile(code : "+t"(x) : "u"(y) __VA_ARGS__);              \
    add_result(x);                                                      \
  }                                                                     \
  report(name);

static void control(unsigned short word) { __asm__ volatile("fldcw %0" : : "m"(word)); }

static void integers(void) {
  for (unsigned i = 0; i < 2000; ++i) {
    const long double x = pick(i);
    int16_t a;
    int32_t b;
    int64_t c, d;
    unsigned char packed[10];
    __asm__ volatile("fldt %1; fistps %0" : "=m"(a) : "m"(x));
    __asm__ volatile("fldt %1; fistpl %0" : "=m"(b) : "m"(x));
    __asm__ volatile("fldt %1; fistpll %0" : "=m"(c) : "m"(x));
    __asm__ volatile("fldt %1; fisttpll %0" : "=m"(d) : "m"(x));
    __asm__ volatile("fldt %1; fbstp %0" : "=m"(packed) : "m"(x));
    add_u64((uint16_t)a), add_u64((uint32_t)b), add_u64((uint64_t)c), add_u64((uint64_t)d), add_bytes(packed, 10), add_status();
  }
  report("integers");
}

static void images(void) {
  static _Alignas(16) unsigned char image[512], environment[28], state[108];
  for (unsigned i = 0; i < 200; ++i) {
    const long double x = pick(i);
    __asm__ volatile("fninit; fldt %1; fld1; fldpi; fldl2e; fxch %%st(2); fnstenv %0; fldenv %0" : "+m"(environment) : "m"(x));
    // Status and tags; not the last instruction's address.
    add_bytes(environment, 2), add_bytes(environment + 4, 2), add_bytes(environment + 8, 2);
    __asm__ volatile("fdecstp; ffree %%st(1); fnsave %0; frstor %0; fxsave %1" : "+m"(state), "+m"(image) : : "memory");
    add_bytes(state + 8, 2), add_bytes(state + 28, 80), add_bytes(image, 5);
    __asm__ volatile("fninit");
  }
  report("images");
}

int main(void) {
  static const unsigned short words[] = {0x37f, 0x27f, 0x07f, 0xf7f, 0x77f, 0xb7f};
  for (unsigned i = 0; i < 6; ++i) {
    __asm__ volatile("fninit");
    control(words[i]);
    printf("control word %03x\n", words[i]);
    ONE("fsqrt", "fsqrt") ONE("frndint", "frndint") ONE("fabs", "fabs") ONE("fchs", "fchs")
    ONE("fsin", "fsin") ONE("fcos", "fcos") ONE("f2xm1", "f2xm1") ONE("fxam", "fxam; fnstsw %%ax; fldz; fstp %%st(0)")
    ONE("fptan", "fptan; fstp %%st(0)") ONE("fsincos", "fsincos; fstp %%st(1)") ONE("fxtract", "fxtract; faddp")
    TWO("fprem", "fprem", ) TWO("fprem1", "fprem1", ) TWO("fscale", "fscale", )
    TWO("fadd", "fadd %%st(1), %%st", ) TWO("fsubr", "fsubr %%st(1), %%st", ) TWO("fmul", "fmul %%st(1), %%st", ) TWO("fdivr", "fdivr %%st(1), %%st", )
    TWO("fcomi", "fcomi %%st(1), %%st; fcmovb %%st(1), %%st; fcmovne %%st(1), %%st", )
    for (unsigned k = 0; k < 500; ++k) {
      long double x = pick(k), y = pick(k / 3);
      __asm__ volatile("fpatan" : "+t"(x) : "u"(y) : "st(1)");
      add_result(x);
      x = fabsl(pick(k)) + 0.5L;
      __asm__ volatile("fyl2x" : "+t"(x) : "u"(y) : "st(1)");
      add_result(x);
    }
    report("fpatan fyl2x");
    integers();
  }
  __asm__ volatile("fninit");
  images();
  return 0;
}
