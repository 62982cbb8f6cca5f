// Follows a random cycle of pointers through SIZE KiB.
#include "bench.h"

struct node {
  struct node* next;
  char rest[64 - sizeof(struct node*)];
};

static uint64_t work(long count, long size) {
  const size_t nodes = (size_t)(size ? size : 16) * 1024 / sizeof(struct node);
  struct node* all = malloc(nodes * sizeof *all);
  uint32_t* order = malloc(nodes * sizeof *order);
  must(all && order, "malloc");
  uint64_t random = 3;
  for (size_t i = 0; i < nodes; i++) order[i] = (uint32_t)i;
  for (size_t i = nodes - 1; i > 0; i--) {
    const size_t other = next_random(&random) % (i + 1);
    const uint32_t kept = order[i];
    order[i] = order[other];
    order[other] = kept;
  }
  for (size_t i = 0; i < nodes; i++) all[order[i]].next = &all[order[(i + 1) % nodes]];
  start_clock();
  struct node* at = all;
  for (long i = 0; i < count * 1000 + 7; i++) at = at->next;
  return (uint64_t)(at - all);
}
