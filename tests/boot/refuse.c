// Preloaded into the VMM by conditions_test.py: a host that refuses what PENUMBRA_REFUSE names.
//   memfd      memfd_create
//   noreplace  MAP_FIXED_NOREPLACE
//   limit=N    vm.max_map_count is N, to whoever asks
//   left=N     all mappings but so many are used up
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char kLimitFile[] = "/proc/sys/vm/max_map_count";

static const char* refused(const char* what) {
  const char* const words = getenv("PENUMBRA_REFUSE");
  const size_t size = strlen(what);
  return words && strncmp(words, what, size) == 0 ? words + size : NULL;
}

int memfd_create(const char* name, unsigned flags) {
  static int (*next)(const char*, unsigned);
  if (!next) next = (int (*)(const char*, unsigned))dlsym(RTLD_NEXT, "memfd_create");
  if (!refused("memfd")) return next(name, flags);
  errno = ENOSYS;
  return -1;
}

void* mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  static void* (*next)(void*, size_t, int, int, int, off_t);
  if (!next) next = (void* (*)(void*, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
  if ((flags & MAP_FIXED_NOREPLACE) == MAP_FIXED_NOREPLACE && refused("noreplace")) {
    errno = EOPNOTSUPP;
    return MAP_FAILED;
  }
  return next(address, bytes, protection, flags, fd, offset);
}

FILE* fopen64(const char* path, const char* mode) {
  static FILE* (*next)(const char*, const char*);
  if (!next) next = (FILE * (*)(const char*, const char*)) dlsym(RTLD_NEXT, "fopen64");
  const char* const limit = refused("limit=");
  if (!limit || strcmp(path, kLimitFile) != 0) return next(path, mode);
  FILE* const file = tmpfile();
  fprintf(file, "%s\n", limit);
  rewind(file);
  return file;
}

static long lines_of(const char* path) {
  FILE* const file = fopen(path, "r");
  long lines = 0;
  for (int c; (c = getc(file)) != EOF;) lines += c == '\n';
  fclose(file);
  return lines;
}

__attribute__((constructor)) static void use_up(void) {
  const char* const left = refused("left=");
  if (!left) return;
  FILE* const file = fopen(kLimitFile, "r");
  long limit = 0;
  if (fscanf(file, "%ld", &limit) != 1) abort();
  fclose(file);
  const long page = sysconf(_SC_PAGESIZE), count = limit - lines_of("/proc/self/maps") - atol(left);
  if (count <= 0) return;
  char* const memory = mmap(NULL, (size_t)(count * page), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  for (long i = 0; i < count; i += 2) mprotect(memory + i * page, (size_t)page, PROT_READ | PROT_WRITE);
}
