// Deterministic input and a running checksum, for programs whose output is compared between machines.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t random_state = 0x9e3779b97f4a7c15;
static inline uint64_t next_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

static uint64_t sum = 14695981039346656037ull;
// Not inlined: programs that sum each result would take minutes to compile.
__attribute__((noinline)) static void add_bytes(const void* data, size_t size) {
  const unsigned char* bytes = data;
  for (size_t i = 0; i < size; ++i) sum = (sum ^ bytes[i]) * 1099511628211ull;
}
__attribute__((noinline, unused)) static void add_u64(uint64_t value) {
  add_bytes(&value, sizeof(value));
}
static inline void report(const char* name) {
  printf("%-16s %016llx\n", name, (unsigned long long)sum);
  sum = 14695981039346656037ull;
}
