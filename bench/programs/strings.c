// The C library's string functions, and a word count by hand.
#include <ctype.h>

#include "bench.h"

static uint64_t work(long count, long size) {
  (void)size;
  static const char* const words[] = {"page", "fault", "gate", "descriptor", "task", "ring", "segment", "limit"};
  static char text[8192], copy[8192];
  uint64_t random = 11, sum = 0;
  size_t length = 0;
  while (length < sizeof text - 32) {
    length += (size_t)sprintf(text + length, "%s%c", words[next_random(&random) & 7], length % 7 ? ' ' : '\n');
  }
  start_clock();
  for (long i = 0; i < count; i++) {
    strcpy(copy, text);
    copy[i % (long)length] = 'X';
    size_t found = 0;
    for (const char* at = text; (at = strstr(at, "desc")); at++) found++;
    for (const char* at = text; (at = strchr(at, '\n')); at++) found++;
    for (char* word = strtok(copy, " \n"); word; word = strtok(NULL, " \n")) {
      found += strlen(word) * (size_t)(strcmp(word, "segment") == 0 ? 3 : 1);
    }
    int inside = 0;
    for (const char* at = text; *at; at++) {
      const int space = isspace((unsigned char)*at) != 0;
      found += (size_t)(inside && space);
      inside = !space;
    }
    sum = mix(sum, found + (memcmp(text, copy, length) < 0));
  }
  return sum;
}
