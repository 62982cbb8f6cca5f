// String instructions: every size, both directions, overlapping, across pages, with and without a count.
#define _GNU_SOURCE
#include "checksum.h"

#include <stdlib.h>
#include <sys/mman.h>

// 64-bit elements exist in 64-bit code only.
#ifdef __x86_64__
#define QUAD(instruction) instruction
#else
#define QUAD(instruction) "rep movsl; rep stosl"
#endif

static unsigned char *area, *end;

#define RUN(instruction)                                                                                            \
  {                                                                                                                 \
    unsigned char *to = destination, *from = source;                                                                \
    unsigned long left = count, accumulator = value;                                                                \
    unsigned char zero;                                                                                             \
    if (backwards) {                                                                                                \
      __asm__ volatile("std; cmp %%al, %%al; " instruction "; setz %4; cld"                                         \
                       : "+D"(to), "+S"(from), "+c"(left), "+a"(accumulator), "=q"(zero) : : "cc", "memory");       \
    } else {                                                                                                        \
      __asm__ volatile("cld; cmp %%al, %%al; " instruction "; setz %4"                                              \
                       : "+D"(to), "+S"(from), "+c"(left), "+a"(accumulator), "=q"(zero) : : "cc", "memory");       \
    }                                                                                                               \
    add_u64((uint64_t)(to - destination)), add_u64((uint64_t)(from - source)), add_u64(left), add_u64(accumulator);  \
    add_u64(zero);                                                                                                  \
  }

// Where it is, or -1: not an address, which is another one each time.
static uint64_t place(const void* found, const void* in) { return found ? (uint64_t)((const char*)found - (const char*)in) : ~0ull; }

int main(void) {
  const size_t size = 16 * 4096;
  area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  end = area + size;
  for (size_t i = 0; i < size; ++i) area[i] = (unsigned char)(next_random() & 3);
  for (unsigned i = 0; i < 20000; ++i) {
    const uint64_t r = next_random();
    const int backwards = r & 1;
    const unsigned long count = r & 2 ? r >> 8 & 15 : r >> 8 & 1023;
    unsigned char* const destination = area + 9000 + (r >> 20) % (size - 18000);
    // Often a few bytes apart.
    unsigned char* const source = r & 4 ? destination + (r >> 40) % 64 - 32 : area + 9000 + (r >> 40) % (size - 18000);
    const unsigned long value = r >> 33 & 0x03030303;
    switch (r >> 50 & 31) {
      case 0: RUN("rep movsb") break;
      case 1: RUN("rep movsw") break;
      case 2: RUN("rep movsl") break;
      case 3: RUN(QUAD("rep movsq")) break;
      case 4: RUN("rep stosb") break;
      case 5: RUN("rep stosw") break;
      case 6: RUN("rep stosl") break;
      case 7: RUN(QUAD("rep stosq")) break;
      case 8: RUN("repe cmpsb") break;
      case 9: RUN("repne cmpsb") break;
      case 10: RUN("repe cmpsw") break;
      case 11: RUN("repne cmpsl") break;
      case 12: RUN(QUAD("repe cmpsq")) break;
      case 13: RUN("repe scasb") break;
      case 14: RUN("repne scasb") break;
      case 15: RUN("repne scasw") break;
      case 16: RUN("repe scasl") break;
      case 17: RUN(QUAD("repne scasq")) break;
      case 18: RUN("rep lodsb") break;
      case 19: RUN(QUAD("rep lodsq")) break;
      case 20: RUN("movsb") break;
      case 21: RUN(QUAD("movsq")) break;
      case 22: RUN("stosw") break;
      case 23: RUN("cmpsl") break;
      case 24: RUN("scasb") break;
      case 25: RUN("lodsw") break;
      default: RUN("rep movsb; rep stosb") break;
    }
  }
  report("registers");
  add_bytes(area, size);
  report("memory");
  // The C library's own, against what the loop says.
  static char text[4096], other[4096];
  for (unsigned i = 0; i < 5000; ++i) {
    const unsigned at = (unsigned)next_random() % 64, length = (unsigned)next_random() % 3000;
    memset(text + at, 'a' + (int)(i % 26), length);
    text[at + length] = 0;
    memmove(text + at + 7, text + at, length / 2);
    memcpy(other, text, sizeof(other));
    other[(unsigned)next_random() % 4096] ^= 1;
    add_u64(strlen(text + at)), add_u64((uint64_t)(memcmp(text, other, 4096) > 0)), add_u64(place(strchr(text + at, 'q'), text));
    add_u64(place(memchr(other, 'z', 4096), other)), add_u64(place(strstr(text + at, "aab"), text));
    add_u64(strspn(text + at, "abcdefgh")), add_u64((uint64_t)(strncmp(text + at, other + at, 500) > 0));
  }
  report("library");
  return 0;
}
