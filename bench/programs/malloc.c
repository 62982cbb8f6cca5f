// malloc, realloc and free of many sizes.
#include "bench.h"

static uint64_t work(long count, long size) {
  (void)size;
  enum { kSlots = 1024 };
  static unsigned char* slots[kSlots];
  uint64_t random = 13, sum = 0;
  for (long i = 0; i < count * 1000; i++) {
    const uint64_t r = next_random(&random);
    unsigned char** slot = &slots[r % kSlots];
    const size_t bytes = 16 + ((r >> 20) & ((r >> 60) ? 255 : 4095));
    if (*slot && (r >> 10 & 3)) {
      sum = mix(sum, **slot);
      free(*slot);
      *slot = NULL;
    } else {
      *slot = realloc(*slot, bytes);
      must(*slot != NULL, "realloc");
      **slot = (unsigned char)i;
      (*slot)[bytes - 1] = 1;
    }
  }
  return sum;
}
