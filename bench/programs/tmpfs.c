// Creates, writes, reads, renames and removes a file of SIZE KiB in the current folder, which is on tmpfs.
#include <fcntl.h>
#include <sys/stat.h>

#include "bench.h"

static uint64_t work(long count, long size) {
  const long blocks = size ? size / 4 : 16;
  static unsigned char block[4096];
  uint64_t sum = 0;
  for (long i = 0; i < count; i++) {
    int file = open("tmpfs.new", O_CREAT | O_TRUNC | O_RDWR, 0600);
    must(file >= 0, "open");
    for (long k = 0; k < blocks; k++) {
      memset(block, (int)(i + k), sizeof block);
      must(write(file, block, sizeof block) == sizeof block, "write");
    }
    must(lseek(file, 0, SEEK_SET) == 0, "lseek");
    while (read(file, block, sizeof block) == sizeof block) sum = mix(sum, block[1234]);
    close(file);
    must(rename("tmpfs.new", "tmpfs.file") == 0, "rename");
    struct stat status;
    must(stat("tmpfs.file", &status) == 0, "stat");
    sum = mix(sum, (uint64_t)status.st_size);
    must(unlink("tmpfs.file") == 0, "unlink");
  }
  return sum;
}
