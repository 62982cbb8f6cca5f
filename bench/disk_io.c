// Reads or writes a disk around the page cache and prints how fast.
//   disk_io DEVICE read|write sequential|random BLOCK_BYTES PROCESSES MILLISECONDS
// So many processes at a time do the same, each with numbers of its own; a write ends with fdatasync(). Prints bytes and
// nanoseconds.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

static void fail(const char* what) {
  perror(what);
  exit(1);
}

int main(int count, char** words) {
  if (count != 7) return 2;
  const int writes = !strcmp(words[2], "write"), random = !strcmp(words[3], "random");
  const size_t block = atol(words[4]);
  const unsigned processes = atoi(words[5]);
  const uint64_t limit = atol(words[6]) * UINT64_C(1000000);
  const int fd = open(words[1], (writes ? O_RDWR : O_RDONLY) | O_DIRECT);
  if (fd < 0) fail(words[1]);
  uint64_t bytes;
  if (ioctl(fd, BLKGETSIZE64, &bytes) != 0) fail("BLKGETSIZE64");
  const uint64_t blocks = bytes / block;
  uint64_t* done = mmap(NULL, processes * sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  char* data = mmap(NULL, block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (done == MAP_FAILED || data == MAP_FAILED) fail("mmap");
  memset(data, 0x5a, block);
  const uint64_t began = now();
  for (unsigned number = 0; number < processes; number++) {
    if (fork() != 0) continue;
    uint64_t state = number * UINT64_C(0x9e3779b97f4a7c15) + 1, next = blocks / processes * number;
    for (uint64_t i = 0; now() - began < limit; i++) {
      state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
      const uint64_t at = random ? (state >> 33) % blocks : next++ % blocks;
      const ssize_t moved = writes ? pwrite(fd, data, block, at * block) : pread(fd, data, block, at * block);
      if (moved != (ssize_t)block) fail("transfer");
      done[number] += block;
    }
    _exit(0);
  }
  int status, failed = 0;
  while (wait(&status) > 0) failed |= status != 0;
  if (writes && fdatasync(fd) != 0) fail("fdatasync");
  const uint64_t time = now() - began;
  uint64_t sum = 0;
  for (unsigned i = 0; i < processes; i++) sum += done[i];
  if (!failed) printf("moved %llu %llu\n", (unsigned long long)sum, (unsigned long long)time);
  return failed;
}
