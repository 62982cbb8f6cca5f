// timed [-f FILE] COMMAND...: runs it and prints "@@ time SECONDS CHECKSUM", the checksum of its output, or of FILE,
// which it made. The output is kept in the file "output" of the current folder. Fails when the command does.
#define BENCH_OWN_MAIN
#include <fcntl.h>
#include <sys/wait.h>

#include "bench.h"

int main(int argc, char** argv) {
  const char* made = NULL;
  char** command = argv + 1;
  if (argc > 3 && strcmp(argv[1], "-f") == 0) {
    made = argv[2];
    command += 2;
  }
  if (!*command) {
    fprintf(stderr, "usage: %s [-f FILE] COMMAND...\n", argv[0]);
    return 2;
  }
  const int output = open("output", O_CREAT | O_TRUNC | O_RDWR, 0600);
  must(output >= 0, "output");
  start_clock();
  const pid_t child = fork();
  must(child >= 0, "fork");
  if (child == 0) {
    dup2(output, 1);
    execvp(command[0], command);
    perror(command[0]);
    _exit(127);
  }
  int status;
  must(waitpid(child, &status, 0) == child, "waitpid");
  const double seconds = seconds_since_start();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fprintf(stderr, "%s: status %#x\n", command[0], (unsigned)status);
    return 1;
  }
  static unsigned char block[65536];
  uint64_t sum = 0;
  ssize_t bytes;
  const int result = made ? open(made, O_RDONLY) : output;
  must(result >= 0, made);
  must(lseek(result, 0, SEEK_SET) == 0, "lseek");
  while ((bytes = read(result, block, sizeof block)) > 0) {
    for (ssize_t i = 0; i < bytes; i++) sum = mix(sum, block[i]);
  }
  printf("@@ time %.6f %016" PRIx64 "\n", seconds, sum);
  return 0;
}
