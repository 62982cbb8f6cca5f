// fork, exit and wait, with SIZE KiB of touched memory to share.
#include <sys/wait.h>

#include "bench.h"

static uint64_t work(long count, long size) {
  const size_t bytes = (size_t)(size ? size : 256) * 1024;
  volatile char* memory = malloc(bytes);
  must(memory != NULL, "malloc");
  for (size_t i = 0; i < bytes; i += 512) memory[i] = 1;
  start_clock();
  uint64_t sum = 0;
  for (long i = 0; i < count; i++) {
    const pid_t child = fork();
    must(child >= 0, "fork");
    if (child == 0) {
      memory[0] = 2;
      _exit((int)(i & 63) + memory[0]);
    }
    int status;
    must(waitpid(child, &status, 0) == child, "waitpid");
    sum = mix(sum, (uint64_t)WEXITSTATUS(status) + (uint64_t)memory[0]);
  }
  return sum;
}
