// fork, copy on write, shared memory, pipes, threads, futexes, file mappings, a stack that grows.
#define _GNU_SOURCE
#include "checksum.h"

#include <alloca.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static _Atomic long atomic_count;
static long locked_count, turn;
static __thread long own = 5;

static void* count_thread(void* argument) {
  for (int i = 0; i < 20000; ++i) {
    ++atomic_count, ++own;
    pthread_mutex_lock(&mutex);
    ++locked_count;
    pthread_mutex_unlock(&mutex);
  }
  return (void*)(own + (long)argument);
}

static void* turn_thread(void* argument) {
  const long mine = (long)argument;
  for (int i = 0; i < 500; ++i) {
    pthread_mutex_lock(&mutex);
    while (turn % 4 != mine) pthread_cond_wait(&condition, &mutex);
    add_u64((uint64_t)turn++);
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&mutex);
  }
  return NULL;
}

static unsigned deep(unsigned depth) {
  volatile char room[700];
  room[depth % 700] = (char)depth;
  if (depth == 0) return 0;
  char* more = alloca(16 + depth % 64);
  more[depth % 16] = room[depth % 700];
  return deep(depth - 1) + (unsigned char)more[depth % 16];
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  pthread_t threads[4];
  void* result;
  for (long i = 0; i < 4; ++i) pthread_create(&threads[i], NULL, count_thread, (void*)i);
  long total = 0;
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], &result), total += (long)result;
  printf("counted %ld %ld %ld\n", atomic_count, locked_count, total);
  for (long i = 0; i < 4; ++i) pthread_create(&threads[i], NULL, turn_thread, (void*)i);
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], NULL);
  report("turns");

  // Copy on write: the parent does not see what children write, nor they one another.
  const size_t size = 4 << 20;
  uint32_t* memory = malloc(size);
  for (size_t i = 0; i < size / 4; ++i) memory[i] = (uint32_t)next_random();
  volatile uint32_t* shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  for (int child = 0; child < 20; ++child) {
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
      uint32_t value = 0;
      for (size_t i = (size_t)child; i < size / 4; i += 37) memory[i] += (uint32_t)child, value += memory[i];
      shared[child] = value;
      _exit(child);
    }
    for (size_t i = 0; i < size / 4; i += 1024) memory[i] ^= 1;
    int status = 0;
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != child) puts("a child died");
  }
  add_bytes(memory, size), add_bytes((const void*)shared, 80);
  report("copy on write");

  // A ring of processes.
  int first[2], to[2], from;
  if (pipe(first) != 0) return 1;
  from = first[0];
  for (int i = 0; i < 8; ++i) {
    if (pipe(to) != 0) return 1;
    if (fork() == 0) {
      uint64_t value;
      for (int round = 0; round < 200; ++round) {
        if (read(from, &value, 8) != 8) _exit(1);
        value = value * 31 + (uint64_t)i;
        if (write(to[1], &value, 8) != 8) _exit(1);
      }
      _exit(0);
    }
    from = to[0];
  }
  uint64_t value = 1;
  for (int round = 0; round < 200; ++round) {
    if (write(first[1], &value, 8) != 8 || read(from, &value, 8) != 8) return 1;
  }
  while (wait(NULL) > 0) {
  }
  printf("ring %016llx\n", (unsigned long long)value);

  // exec, many times.
  for (int i = 0; i < 30; ++i) {
    fflush(stdout);
    if (vfork() == 0) {
      execl("/bin/sh", "sh", "-c", "exit $((3 + 4))", NULL);
      _exit(1);
    }
    int status;
    wait(&status);
    add_u64((uint64_t)WEXITSTATUS(status));
  }
  report("exec");

  // A mapped file, its shared and its private view.
  const int fd = open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (ftruncate(fd, 1 << 20) != 0) return 1;
  unsigned char* both = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  unsigned char* mine = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  for (unsigned i = 0; i < 1 << 20; i += 61) both[i] = (unsigned char)next_random();
  for (unsigned i = 0; i < 1 << 20; i += 5000) mine[i] = 0x55;
  for (unsigned i = 0; i < 1 << 20; i += 4099) both[i] ^= 0xff;
  add_bytes(both, 1 << 20);
  report("shared view");
  add_bytes(mine, 1 << 20);
  report("private view");
  unsigned char line[777];
  for (off_t at = 0; pread(fd, line, sizeof(line), at) > 0; at += 777) add_bytes(line, sizeof(line));
  report("read");

  // Pages that come and go.
  for (int i = 0; i < 300; ++i) {
    unsigned char* area = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int j = 0; j < 64; j += 3) area[j * 4096 + i] = (unsigned char)(i + j);
    madvise(area + 16 * 4096, 16 * 4096, MADV_DONTNEED);
    unsigned seen = 0;
    for (int j = 0; j < 64; ++j) seen = seen * 3 + area[j * 4096 + i];
    add_u64(seen);
    area = mremap(area, 64 * 4096, 80 * 4096, MREMAP_MAYMOVE);
    add_u64(area[3 * 4096 + i]);
    munmap(area, 80 * 4096);
  }
  report("pages");
  printf("deep %u\n", deep(8000));
  return 0;
}
