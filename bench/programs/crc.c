// CRC-32 with a table: dependent loads that hit the first-level cache.
#include "bench.h"

static uint64_t work(long count, long size) {
  (void)size;
  static uint32_t table[256];
  static uint8_t data[65536];
  uint64_t random = 1;
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; bit++) value = value >> 1 ^ (value & 1 ? 0xedb88320 : 0);
    table[i] = value;
  }
  for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)next_random(&random);
  start_clock();
  uint32_t crc = ~0u;
  for (long i = 0; i < count; i++) {
    for (size_t k = 0; k < sizeof data; k++) crc = table[(crc ^ data[k]) & 0xff] ^ crc >> 8;
  }
  return crc;
}
