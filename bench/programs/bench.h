// What every benchmark program shares. `NAME COUNT [SIZE]` does its work COUNT times and prints
// "@@ time SECONDS CHECKSUM"; the checksum must be the same wherever the program runs.
#ifndef BENCH_H
#define BENCH_H

#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef BENCH_OWN_MAIN
// Defined by each program. `size` is 0 when not given.
static uint64_t work(long count, long size);
#endif

static struct timespec began;

// What work() does before it calls this is not timed.
static inline void start_clock(void) {
  clock_gettime(CLOCK_MONOTONIC, &began);
}

static inline double seconds_since_start(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) * 1e-9;
}

// A system call that must work here.
static inline void must(int holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static inline uint64_t mix(uint64_t hash, uint64_t value) {
  return (hash ^ value) * UINT64_C(0x100000001b3);
}

// xorshift64: the same numbers everywhere.
static inline uint64_t next_random(uint64_t* state) {
  uint64_t x = *state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return *state = x;
}

#ifndef BENCH_OWN_MAIN
int main(int argc, char** argv) {
  const long count = argc > 1 ? atol(argv[1]) : 0;
  if (count <= 0) {
    fprintf(stderr, "usage: %s COUNT [SIZE]\n", argv[0]);
    return 2;
  }
  start_clock();
  const uint64_t checksum = work(count, argc > 2 ? atol(argv[2]) : 0);
  const double seconds = seconds_since_start();
  printf("@@ time %.6f %016" PRIx64 "\n", seconds, checksum);
  return 0;
}
#endif

#endif
