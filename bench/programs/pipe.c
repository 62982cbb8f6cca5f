// Two processes send one byte to and fro through two pipes: context switches.
#include <sys/wait.h>

#include "bench.h"

static uint64_t work(long count, long size) {
  (void)size;
  int there[2], back[2];
  must(pipe(there) == 0 && pipe(back) == 0, "pipe");
  const pid_t child = fork();
  must(child >= 0, "fork");
  unsigned char byte = 0;
  if (child == 0) {
    close(there[1]);
    while (read(there[0], &byte, 1) == 1) {
      byte = (unsigned char)(byte * 5 + 1);
      if (write(back[1], &byte, 1) != 1) break;
    }
    _exit(0);
  }
  uint64_t sum = 0;
  for (long i = 0; i < count * 100; i++) {
    must(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1, "pipe");
    sum = mix(sum, byte);
  }
  close(there[1]);
  int status;
  waitpid(child, &status, 0);
  return sum;
}
