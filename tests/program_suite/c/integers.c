// Integer arithmetic of every width and its flags, as the compiler uses them.
#include "checksum.h"

static uint64_t pick(void) {
  static const uint64_t edges[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
                                   0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff};
  const uint64_t bits = next_random();
  return bits & 1 ? edges[(bits >> 8) % 15] : bits;
}

#define WIDTH(name, type, utype, bits)                                                                   \
  static void name(void) {                                                                               \
    for (unsigned i = 0; i < 20000; ++i) {                                                               \
      volatile type a = (type)pick(), b = (type)pick();                                                  \
      type r;                                                                                            \
      const unsigned shift = (unsigned)(pick() % bits);                                                  \
      add_u64((uint64_t)__builtin_add_overflow(a, b, &r)), add_u64((uint64_t)r);                         \
      add_u64((uint64_t)__builtin_sub_overflow(a, b, &r)), add_u64((uint64_t)r);                         \
      add_u64((uint64_t)__builtin_mul_overflow(a, b, &r)), add_u64((uint64_t)r);                         \
      if (b != 0 && !(b == (type)-1)) add_u64((uint64_t)(type)(a / b)), add_u64((uint64_t)(type)(a % b)); \
      add_u64((uint64_t)(type)((utype)a << shift)), add_u64((uint64_t)(type)(a >> shift));               \
      add_u64((uint64_t)(type)((utype)a << shift | (utype)a >> (bits - shift) % bits));                  \
      add_u64((uint64_t)(type)(a & b)), add_u64((uint64_t)(type)(a ^ b)), add_u64((uint64_t)(type)~a);   \
      add_u64((uint64_t)((a < b) | (a <= b) << 1 | (a == b) << 2 | ((utype)a < (utype)b) << 3));         \
    }                                                                                                    \
    report(#name);                                                                                       \
  }
WIDTH(signed8, int8_t, uint8_t, 8)
WIDTH(unsigned8, uint8_t, uint8_t, 8)
WIDTH(signed16, int16_t, uint16_t, 16)
WIDTH(unsigned16, uint16_t, uint16_t, 16)
WIDTH(signed32, int32_t, uint32_t, 32)
WIDTH(unsigned32, uint32_t, uint32_t, 32)
WIDTH(signed64, int64_t, uint64_t, 64)
WIDTH(unsigned64, uint64_t, uint64_t, 64)
#ifdef __x86_64__
WIDTH(signed128, __int128, unsigned __int128, 128)
#endif

static void bits(void) {
  for (unsigned i = 0; i < 50000; ++i) {
    volatile uint64_t a = pick();
    volatile uint32_t b = (uint32_t)pick();
    if (a) add_u64((uint64_t)__builtin_clzll(a) | (uint64_t)__builtin_ctzll(a) << 8);
    if (b) add_u64((uint64_t)__builtin_clz(b) | (uint64_t)__builtin_ctz(b) << 8);
    add_u64((uint64_t)__builtin_popcountll(a) | (uint64_t)__builtin_parityll(a) << 8 | (uint64_t)__builtin_ffsll((long long)a) << 16);
    add_u64(__builtin_bswap64(a)), add_u64(__builtin_bswap32(b)), add_u64(__builtin_bswap16((uint16_t)b));
  }
  report("bits");
}

struct Fields {
  unsigned a : 3, b : 11, c : 1, d : 17;
  long long e : 41;
  signed f : 5;
};

static void fields(void) {
  struct Fields f = {0};
  for (unsigned i = 0; i < 50000; ++i) {
    const uint64_t r = pick();
    f.a += (unsigned)r & 7, f.b ^= (unsigned)(r >> 3) & 0x7ff, f.c = !f.c, f.d -= (unsigned)(r >> 9) & 0x1ffff;
    f.e += (long long)(r >> 20) & 0xffff, f.f = (signed)(r & 31) - 16;
    add_u64(f.a + f.b * 3u + f.c), add_u64(f.d), add_u64((uint64_t)f.e), add_u64((uint64_t)f.f);
  }
  report("fields");
}

static void atomics(void) {
  static _Atomic uint64_t a;
  static _Atomic uint32_t b;
  static _Atomic uint8_t c;
#ifdef __x86_64__
  static _Alignas(16) unsigned __int128 d;
#endif
  for (unsigned i = 0; i < 20000; ++i) {
    const uint64_t r = pick();
    add_u64(a += r), add_u64(b ^= (uint32_t)r), add_u64(c |= (uint8_t)(r & 15)), add_u64(c &= (uint8_t)~(r >> 4 & 15));
    uint64_t expected = r & 1 ? a : r;
    add_u64(__atomic_compare_exchange_n(&a, &expected, r, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)), add_u64(expected);
    add_u64(__atomic_exchange_n(&b, (uint32_t)(r >> 5), __ATOMIC_SEQ_CST));
#ifdef __x86_64__
    // CMPXCHG16B.
    uint64_t low = r & 2 ? (uint64_t)d : r, high = (uint64_t)(d >> 64);
    uint8_t done;
    __asm__ volatile("lock cmpxchg16b %0; setz %1" : "+m"(d), "=q"(done), "+a"(low), "+d"(high) : "b"(r), "c"(~r) : "cc", "memory");
    add_u64(low), add_u64(high), add_u64(done);
#endif
  }
  report("atomics");
}

int main(void) {
  signed8(), unsigned8(), signed16(), unsigned16(), signed32(), unsigned32(), signed64(), unsigned64();
#ifdef __x86_64__
  signed128();
#endif
  bits(), fields(), atomics();
  return 0;
}
